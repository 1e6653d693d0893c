// Everything that an instruction set compiles, in order, and its row of the kernel table. The including file has
// defined the vector types F32 and F64, and their operations.

#include "math-inl.h"

#include "cell-inl.h"

#include "cells/gru-inl.h"

#include "cells/lstm-inl.h"

#include "cells/rnn-inl.h"

#include "gemm-inl.h"

#include "forward-inl.h"

#include "recompute-inl.h"

#include "backward-inl.h"

#include "direct-forward-inl.h"

#include "direct-backward-inl.h"

// Independent chains of fma: enough to hide its latency, few enough for 16 registers.
template <class V>
LF_NOINLINE typename V::scalar fma_chains(index iterations) {
  constexpr int chains = 12;
  V sums[chains];
  for (int chain = 0; chain < chains; ++chain) sums[chain] = V::set(static_cast<typename V::scalar>(chain + 1));
  const V factor = V::set(static_cast<typename V::scalar>(0.999));
  const V term = V::set(static_cast<typename V::scalar>(0.001));
  for (index iteration = 0; iteration < iterations; ++iteration) {
    for (int chain = 0; chain < chains; ++chain) sums[chain] = fma(sums[chain], factor, term);
  }
  V total = sums[0];
  for (int chain = 1; chain < chains; ++chain) total = add(total, sums[chain]);
  return total.first();
}

// Reads `count` elements, a multiple of read_step<V>, over and over, with eight loads in flight.
template <class V>
constexpr index read_step = 8 * V::lanes;

template <class V>
LF_NOINLINE typename V::scalar read_again(const typename V::scalar* from, index count, index times) {
  constexpr int vectors = read_step<V> / V::lanes;
  V sums[vectors];
  for (int n = 0; n < vectors; ++n) sums[n] = V::set(0);
  for (index time = 0; time < times; ++time) {
    for (index at = 0; at < count; at += read_step<V>) {
      LF_UNROLL for (int n = 0; n < vectors; ++n) sums[n] = add(sums[n], V::load(from + at + n * V::lanes));
    }
  }
  V total = sums[0];
  for (int n = 1; n < vectors; ++n) total = add(total, sums[n]);
  return total.first();
}

template <template <class> class CellOf, class V>
constexpr LayerKernels<typename V::scalar> layer_kernels() {
  using Input = InputWindow<CellOf, V>;
  using Recurrent = RecurrentWindow<CellOf, V>;
  return {V::lanes,
          Input::gates,
          Input::slots,
          Recurrent::bias_row,
          CellOf<V>::carry,
          pack_weights<Input, V>,
          pack_weights<Recurrent, V>,
          unpack_weights<Input, V>,
          unpack_weights<Recurrent, V>,
          pack_transposed<typename Input::Own, V>,
          pack_transposed<typename Recurrent::Own, V>,
          pack_projection<V>,
          pack_transposed<PlainSlots, V>,
          unpack_projection<V>,
          input_product<CellOf, V>,
          forward_steps<CellOf, V>,
          recompute_gates<CellOf, V>,
          recompute_cells<CellOf, V>,
          backward_steps<CellOf, V>,
          backward_cells<CellOf, V>,
          backward_product<CellOf, V>,
          input_gradient<CellOf, V>,
          pack_panels<CellOf, V>,
          weight_gradient<CellOf, V>,
          direct_step<CellOf, V>,
          direct_gradients<CellOf, V>,
          direct_weight_gradient<CellOf, V>};
}

// In the order of enum Cell.
template <class V>
constexpr IsaKernels<typename V::scalar> isa_kernels() {
  return {{layer_kernels<LstmCell, V>(), layer_kernels<GruCell, V>(), layer_kernels<RnnCell, V>()},
          fma_chains<V>,
          12 * 2 * V::lanes,
          read_again<V>,
          read_step<V>};
}
