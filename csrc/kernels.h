// What an instruction set offers to stack.cpp: one layer and one direction over one chunk of time.
//
// Packed layouts (V = one vector of `lanes` elements, unit block jb = `lanes` hidden units, padded with zeros):
//   weights         [jb][k][gate][lane], k = 0..K-1; w_ih has one more row, k = I: the bias
//   gate rows       [row][jb][gate][lane], rows at `gate_stride`: the order of the accumulators
//   w_t             [nb][kk][vector][lane]: column block nb of up to 4 vectors of outputs; kk over (unit, gate) with
//   the
//                   gate inside and valid units only, so that sums run in the same order for every number of lanes
//   h, c, dh, dc    [B] rows at `unit_stride`, units padded
// Outputs are padded, never the summed index: fma(0, 0, -0) is +0, and 0 * Inf is NaN.
#pragma once

#include "lstm_fast.h"

namespace lstm_fast {

inline constexpr int max_vectors = 4;  // of one column block in w_t
inline constexpr int max_rows = 6;     // of one register tile

template <class T>
struct ForwardChunk {
  index B, I, H;
  index steps;
  index gate_stride, unit_stride;
  const T* const* x_rows;  // [steps*B]
  const T* w_ih;
  const T* w_hh;
  T* gates;      // [steps*B] rows; in: anything; out: the activated gates if `save`
  T* c;          // state before the chunk; step s reads c + s*c_step and writes c + (s+1)*c_step
  index c_step;  // 0: in place
  T* h[2];       // h[0]: state before the chunk; step s reads h[s%2] and writes h[(s+1)%2]
  T* y;          // y + s*y_step + b*y_row: H valid units
  index y_step, y_row;
  bool save;
};

template <class T>
struct BackwardChunk {
  index B, I, H;
  index steps;  // rows of dgates, x_rows, dx_rows, h_rows run in processing order: last step first, b ascending
  index gate_stride, unit_stride;
  const T* gates;  // the chunk's first step, as saved
  const T* c;      // state before the chunk's first step; rows of one step after the other at c_step
  index c_step;
  const T* dy;  // the chunk's first step; null: zero
  index dy_step, dy_row;
  T* dh;      // in: gradient of h after the chunk; out: of h before it
  T* dc;      // the same for c
  T* dgates;  // [steps*B] rows
  const T* w_ih_t;
  const T* w_hh_t;
  T* const* dh_rows;  // [B]: the rows of dh
  T* const* dx_rows;  // [steps*B]
  const T* const* x_rows;
  const T* const* h_rows;  // h before the step
  T* dw_ih;                // packed like w_ih, accumulated; its bias row is db
  T* dw_hh;                // packed like w_hh, accumulated
  T* panel;                // [max(I+1, H)][steps*B]
};

// Rows and columns of the deferred products, and the units and rows of a step, are given as ranges: outputs can be
// split among threads, sums cannot.
struct Range {
  index begin, end;
};

template <class T>
struct LayerKernels {
  int lanes;
  int gates;  // vectors of a unit block
  void (*pack_weights)(const T* w, index H, index K, const T* b_ih, const T* b_hh, bool bias_row, T* packed);
  void (*unpack_weights)(const T* packed, index H, index K, bool bias_row, T* w, T* b);
  void (*pack_transposed)(const T* w, index H, index K, T* packed);
  void (*input_product)(const ForwardChunk<T>&, Range rows, Range blocks);
  void (*forward_steps)(const ForwardChunk<T>&, Range rows);
  void (*backward_steps)(const BackwardChunk<T>&, Range rows);
  void (*input_gradient)(const BackwardChunk<T>&, Range rows);
  void (*weight_gradient)(const BackwardChunk<T>&, Range blocks);
};

template <class T>
struct IsaKernels {
  LayerKernels<T> cells[cell_count];  // in the order of enum Cell
  T (*fma_chains)(index iterations);  // each does fma_chains_flops flops
  index fma_chains_flops;

  const LayerKernels<T>& of(Cell cell) const { return cells[static_cast<int>(cell)]; }
};

struct Isa {
  const char* name;
  bool (*usable)();
  IsaKernels<float> f32;
  IsaKernels<double> f64;

  template <class T>
  const IsaKernels<T>& kernels() const {
    if constexpr (sizeof(T) == sizeof(float)) {
      return f32;
    } else {
      return f64;
    }
  }
};

extern const Isa isa_scalar;
#if defined(__x86_64__)
extern const Isa isa_scalar_fma;
extern const Isa isa_avx2;
extern const Isa isa_avx512;
#endif

}  // namespace lstm_fast
