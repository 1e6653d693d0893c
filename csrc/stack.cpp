// Layers, directions, chunks of time: who does what when. One dispatch lookup per call.
#include <algorithm>
#include <initializer_list>
#include <memory>
#include <new>
#include <stdexcept>

#include "kernels.h"

namespace lstm_fast {
namespace {

// Rows of gates worked on at once: enough for the deferred products to run at full speed, few enough for them to stay
// in the cache. Depends on the batch alone, never on the threads.
constexpr index chunk_rows = 192;

std::size_t product(std::initializer_list<index> factors) {
  std::size_t result = 1;
  for (const index factor : factors) {
    if (__builtin_mul_overflow(result, static_cast<std::size_t>(factor), &result)) throw std::bad_alloc();
  }
  return result;
}

// Hands out aligned pieces of one block; with a null base it only adds up their sizes.
class Arena {
 public:
  explicit Arena(std::byte* base) : base_(base) {}

  template <class T>
  T* take(std::initializer_list<index> shape) {
    const std::size_t offset = used_;
    std::size_t bytes = 0;
    if (__builtin_mul_overflow(product(shape), sizeof(T), &bytes) ||
        __builtin_add_overflow(used_, (bytes + reserve_alignment - 1) / reserve_alignment * reserve_alignment,
                               &used_) ||
        used_ > static_cast<std::size_t>(PTRDIFF_MAX)) {
      throw std::bad_alloc();
    }
    return base_ ? reinterpret_cast<T*>(base_ + offset) : nullptr;
  }

  std::size_t used() const { return used_; }

 private:
  std::byte* base_;
  std::size_t used_ = 0;
};

// The derived sizes of one layer and direction.
template <class T>
struct Geometry {
  index B, I, H;
  index steps;
  index blocks;       // unit blocks
  index unit_stride;  // of rows of h, c, dh, dc
  index gate_stride;  // of gate rows; 64 bytes more than they need, or rows fall on the same cache sets
  index chunk_steps;
  index lanes, gates;

  Geometry(const LayerKernels<T>& kernels, const Shape& shape)
      : B(shape.B), I(shape.I), H(shape.H), steps(shape.T), lanes(kernels.lanes), gates(kernels.gates) {
    blocks = (H + lanes - 1) / lanes;
    unit_stride = blocks * lanes;
    product(
        {unit_stride, gates, std::max<index>(B, 1), std::max<index>(steps, 1)});  // or the strides themselves overflow
    gate_stride = unit_stride * gates + static_cast<index>(64 / sizeof(T));
    chunk_steps = std::max<index>(1, std::min(steps, chunk_rows / std::max<index>(B, 1)));
  }

  index chunk_count() const { return (steps + chunk_steps - 1) / chunk_steps; }
  index padded(index width) const { return (width + lanes - 1) / lanes * lanes; }
};

template <class T>
struct ReserveParts {
  T* gates;
  T* c;   // [T+1][B] rows, c0 first
  T* h0;  // [B,H]
  T* w_ih_t;
  T* w_hh_t;

  ReserveParts(Arena& arena, const Geometry<T>& g)
      : gates(arena.take<T>({g.steps, g.B, g.gate_stride})),
        c(arena.take<T>({g.steps + 1, g.B, g.unit_stride})),
        h0(arena.take<T>({g.B, g.H})),
        w_ih_t(arena.take<T>({g.gates, g.H, g.padded(g.I)})),
        w_hh_t(arena.take<T>({g.gates, g.H, g.padded(g.H)})) {}
};

template <class T>
struct ForwardWorkspace {
  T* w_ih;
  T* w_hh;
  T* h[2];
  const T** x_rows;
  T* gates;  // of one chunk; unused in training, where the reserve has all
  T* c;

  ForwardWorkspace(Arena& arena, const Geometry<T>& g, bool save)
      : w_ih(arena.take<T>({g.gates, g.unit_stride, g.I + 1})),
        w_hh(arena.take<T>({g.gates, g.unit_stride, g.H})),
        h{arena.take<T>({g.B, g.unit_stride}), arena.take<T>({g.B, g.unit_stride})},
        x_rows(arena.take<const T*>({g.chunk_steps, g.B})),
        gates(save ? nullptr : arena.take<T>({g.chunk_steps, g.B, g.gate_stride})),
        c(save ? nullptr : arena.take<T>({g.B, g.unit_stride})) {}
};

template <class T>
struct BackwardWorkspace {
  T* dh;
  T* dc;
  T* dgates;
  T** dh_rows;
  T** dx_rows;
  const T** x_rows;
  const T** h_rows;
  T* dw_ih;
  T* dw_hh;
  T* panel;

  BackwardWorkspace(Arena& arena, const Geometry<T>& g)
      : dh(arena.take<T>({g.B, g.unit_stride})),
        dc(arena.take<T>({g.B, g.unit_stride})),
        dgates(arena.take<T>({g.chunk_steps, g.B, g.gate_stride})),
        dh_rows(arena.take<T*>({g.B})),
        dx_rows(arena.take<T*>({g.chunk_steps, g.B})),
        x_rows(arena.take<const T*>({g.chunk_steps, g.B})),
        h_rows(arena.take<const T*>({g.chunk_steps, g.B})),
        dw_ih(arena.take<T>({g.gates, g.unit_stride, g.I + 1})),
        dw_hh(arena.take<T>({g.gates, g.unit_stride, g.H})),
        panel(arena.take<T>({std::max(g.I + 1, g.H), g.chunk_steps, g.B})) {}
};

struct FreeAligned {
  void operator()(std::byte* block) const { ::operator delete(block, std::align_val_t{reserve_alignment}); }
};
using Block = std::unique_ptr<std::byte, FreeAligned>;

// A Parts in a block of its own.
template <class Parts, class... Options>
std::pair<Block, Parts> allocate(const Options&... options) {
  Arena measure(nullptr);
  Parts{measure, options...};
  Block block(static_cast<std::byte*>(::operator new(measure.used(), std::align_val_t{reserve_alignment})));
  Arena arena(block.get());
  Parts parts{arena, options...};
  return {std::move(block), parts};
}

// Dense rows [count, width] to rows at `stride`, padded with zeros; a null source is all zeros.
template <class T>
void spread_rows(const T* from, index count, index width, T* to, index stride) {
  for (index row = 0; row < count; ++row, to += stride) {
    T* end = from ? std::copy_n(from + row * width, width, to) : to;
    std::fill(end, to + stride, T(0));
  }
}

template <class T>
void gather_rows(const T* from, index stride, index count, index width, T* to) {
  for (index row = 0; row < count; ++row) std::copy_n(from + row * stride, width, to + row * width);
}

bool asks_to_stop(const Poll& poll) { return poll.stop && poll.stop(poll.context); }

// Later versions: several layers and directions, ragged batches, projection, a team. The structs have their places.
void require_in_scope(const Shape& shape, const index* lengths, const Team* team) {
  if (shape.layers != 1 || shape.directions != 1 || shape.P != 0 || lengths || team) {
    throw std::invalid_argument("lstm_fast: this version runs one layer, one direction, padded, without a team");
  }
}

}  // namespace

template <class T>
std::size_t reserve_bytes(const Isa& isa, Cell cell, const Shape& shape) {
  Arena arena(nullptr);
  ReserveParts<T>(arena, Geometry<T>(isa.kernels<T>().of(cell), shape));
  return arena.used();
}

template <class T>
bool forward(const Isa& isa, Cell cell, const ForwardArgs<T>& args) {
  require_in_scope(args.shape, args.lengths, args.team);
  const LayerKernels<T>& kernels = isa.kernels<T>().of(cell);
  const Geometry<T> g(kernels, args.shape);
  const Weights<T>& w = args.weights[0];
  const bool save = args.reserve != nullptr;
  const auto [block, work] = allocate<ForwardWorkspace<T>>(g, save);
  Arena reserve_arena(args.reserve);
  const ReserveParts<T> reserve(reserve_arena, g);

  kernels.pack_weights(w.w_ih, g.H, g.I, w.b_ih, w.b_hh, true, work.w_ih);
  kernels.pack_weights(w.w_hh, g.H, g.H, nullptr, nullptr, false, work.w_hh);
  if (save) {
    kernels.pack_transposed(w.w_ih, g.H, g.I, reserve.w_ih_t);
    kernels.pack_transposed(w.w_hh, g.H, g.H, reserve.w_hh_t);
    std::copy_n(args.h0, g.B * g.H, reserve.h0);
  }
  T* const c = save ? reserve.c : work.c;
  const index c_step = save ? g.B * g.unit_stride : 0;
  spread_rows(args.c0, g.B, g.H, c, g.unit_stride);
  spread_rows(args.h0, g.B, g.H, work.h[0], g.unit_stride);

  ForwardChunk<T> chunk{
      .B = g.B,
      .I = g.I,
      .H = g.H,
      .steps = 0,
      .gate_stride = g.gate_stride,
      .unit_stride = g.unit_stride,
      .x_rows = work.x_rows,
      .w_ih = work.w_ih,
      .w_hh = work.w_hh,
      .gates = nullptr,
      .c = nullptr,
      .c_step = c_step,
      .h = {work.h[0], work.h[1]},
      .y = nullptr,
      .y_step = g.B * g.H,
      .y_row = g.H,
      .save = save,
  };
  for (index t = 0; t < g.steps; t += chunk.steps) {
    if (asks_to_stop(args.poll)) return false;
    chunk.steps = std::min(g.chunk_steps, g.steps - t);
    for (index step = 0; step < chunk.steps; ++step) {
      for (index b = 0; b < g.B; ++b) {
        work.x_rows[step * g.B + b] = args.x.data + (t + step) * args.x.t_stride + b * args.x.b_stride;
      }
    }
    chunk.gates = save ? reserve.gates + t * g.B * g.gate_stride : work.gates;
    chunk.c = c + t * c_step;
    chunk.y = args.y + t * g.B * g.H;
    kernels.input_product(chunk, {0, chunk.steps * g.B}, {0, g.blocks});
    kernels.forward_steps(chunk, {0, g.B});
    if (chunk.steps % 2) std::swap(chunk.h[0], chunk.h[1]);
  }
  gather_rows(chunk.h[0], g.unit_stride, g.B, g.H, args.hn);
  gather_rows(c + g.steps * c_step, g.unit_stride, g.B, g.H, args.cn);
  return true;
}

template <class T>
bool backward(const Isa& isa, Cell cell, const BackwardArgs<T>& args) {
  require_in_scope(args.shape, args.lengths, args.team);
  const LayerKernels<T>& kernels = isa.kernels<T>().of(cell);
  const Geometry<T> g(kernels, args.shape);
  const WeightGradients<T>& dw = args.weights[0];
  const bool wants_weights = dw.w_ih || dw.w_hh || dw.b;
  const auto [block, work] = allocate<BackwardWorkspace<T>>(g);
  Arena reserve_arena(const_cast<std::byte*>(args.reserve));  // read only
  const ReserveParts<T> reserve(reserve_arena, g);

  std::fill_n(work.dw_ih, g.gates * g.unit_stride * (g.I + 1), T(0));
  std::fill_n(work.dw_hh, g.gates * g.unit_stride * g.H, T(0));
  spread_rows(args.dhn, g.B, g.H, work.dh, g.unit_stride);
  spread_rows(args.dcn, g.B, g.H, work.dc, g.unit_stride);
  for (index b = 0; b < g.B; ++b) work.dh_rows[b] = work.dh + b * g.unit_stride;

  const index c_step = g.B * g.unit_stride;
  BackwardChunk<T> chunk{
      .B = g.B,
      .I = g.I,
      .H = g.H,
      .steps = 0,
      .gate_stride = g.gate_stride,
      .unit_stride = g.unit_stride,
      .gates = nullptr,
      .c = nullptr,
      .c_step = c_step,
      .dy = nullptr,
      .dy_step = args.dy.t_stride,
      .dy_row = args.dy.b_stride,
      .dh = work.dh,
      .dc = work.dc,
      .dgates = work.dgates,
      .w_ih_t = reserve.w_ih_t,
      .w_hh_t = reserve.w_hh_t,
      .dh_rows = work.dh_rows,
      .dx_rows = work.dx_rows,
      .x_rows = work.x_rows,
      .h_rows = work.h_rows,
      .dw_ih = work.dw_ih,
      .dw_hh = work.dw_hh,
      .panel = work.panel,
  };
  for (index number = g.chunk_count() - 1; number >= 0; --number) {
    if (asks_to_stop(args.poll)) return false;
    const index t = number * g.chunk_steps;
    chunk.steps = std::min(g.chunk_steps, g.steps - t);
    for (index step = 0; step < chunk.steps; ++step) {
      const index first = (chunk.steps - 1 - step) * g.B;
      const T* h_prev = t + step > 0 ? args.y + (t + step - 1) * g.B * g.H : reserve.h0;
      for (index b = 0; b < g.B; ++b) {
        work.x_rows[first + b] = args.x.data + (t + step) * args.x.t_stride + b * args.x.b_stride;
        work.h_rows[first + b] = h_prev + b * g.H;
        work.dx_rows[first + b] = args.dx ? args.dx + ((t + step) * g.B + b) * g.I : nullptr;
      }
    }
    chunk.gates = reserve.gates + t * g.B * g.gate_stride;
    chunk.c = reserve.c + t * c_step;
    chunk.dy = args.dy.data ? args.dy.data + t * args.dy.t_stride : nullptr;
    kernels.backward_steps(chunk, {0, g.B});
    if (args.dx) kernels.input_gradient(chunk, {0, chunk.steps * g.B});
    if (wants_weights) kernels.weight_gradient(chunk, {0, g.blocks});
  }
  kernels.unpack_weights(work.dw_ih, g.H, g.I, true, dw.w_ih, dw.b);
  kernels.unpack_weights(work.dw_hh, g.H, g.H, false, dw.w_hh, nullptr);
  if (args.dh0) gather_rows(work.dh, g.unit_stride, g.B, g.H, args.dh0);
  if (args.dc0) gather_rows(work.dc, g.unit_stride, g.B, g.H, args.dc0);
  return true;
}

template <class T>
void states(const Isa& isa, Cell cell, const StatesArgs<T>& args) {
  require_in_scope(args.shape, nullptr, nullptr);
  const Geometry<T> g(isa.kernels<T>().of(cell), args.shape);
  Arena arena(const_cast<std::byte*>(args.reserve));  // read only
  const ReserveParts<T> reserve(arena, g);
  const index rows = g.steps * g.B;
  for (index row = 0; row < rows; ++row) {
    for (index unit = 0; unit < g.H; ++unit) {
      const T* gate = reserve.gates + row * g.gate_stride + unit / g.lanes * g.gates * g.lanes + unit % g.lanes;
      for (index k = 0; k < g.gates; ++k) args.gates[(k * rows + row) * g.H + unit] = gate[k * g.lanes];
    }
  }
  gather_rows(reserve.c + g.B * g.unit_stride, g.unit_stride, rows, g.H, args.c);
}

template std::size_t reserve_bytes<float>(const Isa&, Cell, const Shape&);
template std::size_t reserve_bytes<double>(const Isa&, Cell, const Shape&);
template bool forward<float>(const Isa&, Cell, const ForwardArgs<float>&);
template bool forward<double>(const Isa&, Cell, const ForwardArgs<double>&);
template bool backward<float>(const Isa&, Cell, const BackwardArgs<float>&);
template bool backward<double>(const Isa&, Cell, const BackwardArgs<double>&);
template void states<float>(const Isa&, Cell, const StatesArgs<float>&);
template void states<double>(const Isa&, Cell, const StatesArgs<double>&);

}  // namespace lstm_fast
