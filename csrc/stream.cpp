#include "stream.h"

namespace lstm_fast {

template <class T>
Stream<T>::Stream(const Isa& isa, Shape shape, const Weights<T>* weights)
    : plan_(isa, (shape.T = 1, shape), nullptr, Pass::forward, {}),
      weights_(isa, shape, weights),
      shared_(Barrier::max_size) {
  Arena measure(nullptr);
  place(measure);
  block_ = Block(measure.used());
  std::fill_n(block_.data(), block_.size(), std::byte{0});
  Arena arena(block_.data());
  place(arena);
  for (index row = 0; row < plan_.shape.B; ++row) all_rows_[row] = row;
  first_row_[1] = plan_.shape.B;
}

template <class T>
void Stream<T>::place(Arena& arena) {
  const index B = plan_.shape.B;
  layers_.clear();
  y_rows_.clear();
  x_rows_ = arena.take<const T*>({B});
  all_rows_ = arena.take<index>({B});
  first_row_ = arena.take<index>({2});
  index* const c_row = arena.take<index>({2});  // zeros: the state stays in its place
  const T* const* inputs = x_rows_;
  for (int layer = 0; layer < plan_.shape.layers; ++layer) {
    const Geometry<T> g = plan_.geometry(layer);
    const PackedLayer<T>& weights = weights_.of(layer);
    T* const h[2] = {arena.take<T>({B, g.h_stride}), arena.take<T>({B, g.h_stride})};
    T** const h_rows[2] = {arena.take<T*>({B}), arena.take<T*>({B})};
    T** const y_rows = arena.take<T*>({B});
    T* const y = arena.take<T>({layer < plan_.shape.layers - 1 ? B : 0, g.Ho});
    for (index row = 0; y_rows && row < B; ++row) {
      for (int parity = 0; parity < 2; ++parity) h_rows[parity][row] = h[parity] + row * g.h_stride;
      y_rows[row] = y + row * g.Ho;
    }
    layers_.push_back({
        .I = g.I,
        .H = g.H,
        .Ho = g.Ho,
        .steps = 1,
        .first_row = first_row_,
        .c_row = c_row,
        .gate_stride = g.gate_stride,
        .unit_stride = g.unit_stride,
        .h_stride = g.h_stride,
        .x_rows = inputs,
        .y_rows = y_rows,
        .w_ih = weights.w_ih,
        .w_hh = weights.w_hh,
        .w_hr = weights.w_hr,
        .gates = arena.take<T>({B, g.gate_stride}),
        .c = arena.take<T>({B, g.carry_stride}),
        .h = {h[0], h[1]},
        .u = arena.take<T>({g.P > 0 ? B : 0, g.unit_stride}),
        .h_rows = {h_rows[0], h_rows[1]},
        .save = false,
        .activation = plan_.shape.activation,
        .resets = nullptr,
    });
    y_rows_.push_back(y_rows);
    inputs = y_rows;
  }
}

template <class T>
void Stream<T>::get_state(T* h, T* c) const {
  for (const ForwardChunk<T>& chunk : layers_) {
    for (index row = 0; row < plan_.shape.B; ++row) {
      h = std::copy_n(chunk.h[0] + row * chunk.h_stride, chunk.Ho, h);
      if (c) c = std::copy_n(chunk.c + row * chunk.unit_stride, chunk.H, c);
    }
  }
}

template <class T>
void Stream<T>::set_state(const T* h, const T* c) {
  for (ForwardChunk<T>& chunk : layers_) {
    const Carry carry = plan_.kernels.carry;
    for (index row = 0; row < plan_.shape.B; ++row, h += chunk.Ho, c += carry == Carry::c ? chunk.H : 0) {
      std::copy_n(h, chunk.Ho, chunk.h[0] + row * chunk.h_stride);
      if (carry != Carry::nothing) {
        std::copy_n(carry == Carry::c ? c : h, chunk.H, chunk.c + row * chunk.unit_stride);
      }
    }
  }
}

template <class T>
void Stream<T>::run(Crew& crew) const {
  const Part part = plan_.units_of(crew);
  crew.start(met_);  // a step may have more participants than those before
  for (const ForwardChunk<T>& chunk : layers_) {
    if (&chunk != layers_.data()) crew.wait();
    plan_.kernels.input_product(chunk, all_rows_, plan_.shape.B, part.blocks);
    plan_.kernels.forward_steps(chunk, {0, 1}, part);
  }
}

template <class T>
void Stream<T>::step(const T* x, index x_stride, T* y, const Threads& threads) {
  for (index row = 0; row < plan_.shape.B; ++row) {
    x_rows_[row] = x + row * x_stride;
    y_rows_.back()[row] = y + row * plan_.Ho;
  }
  const int size = run_team(
      plan_.step_threads(threads),
      [](void* stream, int id, int participants) {
        auto& own = *static_cast<Stream*>(stream);
        Crew crew(id, participants, &own.shared_);
        own.run(crew);
      },
      this, threads);
  if (threads.used) *threads.used = {size, size > 1};
  met_ += layers_.size() - 1;
  for (ForwardChunk<T>& chunk : layers_) {
    std::swap(chunk.h[0], chunk.h[1]);
    std::swap(chunk.h_rows[0], chunk.h_rows[1]);
  }
}

template class Stream<float>;
template class Stream<double>;

}  // namespace lstm_fast
