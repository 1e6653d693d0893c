// Weights that outlive a call.
#pragma once

#include <vector>

#include "layout.h"

namespace lstm_fast {

// Of one layer and direction, as forward reads them; null: none.
template <class T>
struct PackedLayer {
  T* w_ih;
  T* w_hh;
  T* w_hr;

  PackedLayer(Arena& arena, const Geometry<T>& g)
      : w_ih(arena.take<T>({g.gates, g.padded_H, g.I + 1})),
        w_hh(arena.take<T>({g.gates, g.padded_H, g.recurrent_rows})),
        w_hr(g.P > 0 ? arena.take<T>({g.padded(g.P), g.H}) : nullptr) {}

  // The tasks of packing it.
  static constexpr int tasks = 3;
  void pack(const LayerKernels<T>& kernels, const Geometry<T>& g, const Weights<T>& w, int task) const {
    if (task == 0) kernels.pack_input_weights(w.w_ih, g.H, g.I, w.b_ih, w.b_hh, w_ih);
    if (task == 1) kernels.pack_recurrent_weights(w.w_hh, g.H, g.Ho, w.b_ih, w.b_hh, w_hh);
    if (task == 2 && w.w_hr) kernels.pack_projection(w.w_hr, g.P, g.H, w_hr);
  }
};

// Of a stack, packed for one instruction set: a copy.
template <class T>
class PackedWeights {
 public:
  // Of the shape, T and B do not matter. Throws std::bad_alloc.
  PackedWeights(const Isa& isa, Shape shape, const Weights<T>* weights) : isa_(isa) {
    shape.T = shape.B = 1;
    const LayerKernels<T>& kernels = isa.kernels<T>().of(shape.cell);
    const Schedule schedule(shape, nullptr);
    Arena measure(nullptr);
    place(measure, kernels, schedule, shape);
    block_ = Block(measure.used());
    Arena arena(block_.data());
    place(arena, kernels, schedule, shape);
    for (std::size_t at = 0; at < layers_.size(); ++at) {
      const Geometry<T> g(kernels, schedule, shape, static_cast<int>(at) / shape.directions);
      for (int task = 0; task < PackedLayer<T>::tasks; ++task) layers_[at].pack(kernels, g, weights[at], task);
    }
  }

  const Isa& isa() const { return isa_; }
  const PackedLayer<T>& of(index state) const { return layers_[static_cast<std::size_t>(state)]; }

 private:
  void place(Arena& arena, const LayerKernels<T>& kernels, const Schedule& schedule, const Shape& shape) {
    layers_.clear();
    for (int layer = 0; layer < shape.layers; ++layer) {
      for (int direction = 0; direction < shape.directions; ++direction) {
        layers_.emplace_back(arena, Geometry<T>(kernels, schedule, shape, layer));
      }
    }
  }

  const Isa& isa_;
  Block block_;
  std::vector<PackedLayer<T>> layers_;
};

}  // namespace lstm_fast
