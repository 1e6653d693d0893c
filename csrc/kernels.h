// What an instruction set offers to forward.cpp and backward.cpp: one layer and one direction over one chunk of time.
//
// Packed layouts (V = one vector of `lanes` elements, unit block jb = `lanes` hidden units, padded with zeros):
//   weights         [jb][k][gate][lane], k = 0..K-1; w_ih has one more row, k = I: the bias; so has w_hh if it has a
//                   bias of its own (`recurrent_bias`)
//   gate rows       [row][jb][slot][lane], rows at `gate_stride`: the order of the accumulators, see cell-inl.h
//   w_t             [nb][kk][vector][lane]: column block nb of up to 4 vectors of outputs; kk over (unit, gate), the
//                   gate inside and valid units only, so that sums run in the same order for every number of lanes
//   c, dc           what a cell carries from step to step beside the product with h, and its gradient: c of an LSTM;
//                   h of a GRU, whose dc is what reaches it past the gates; no memory for an RNN
//   c, dc, u, du    [B] rows at `unit_stride`, units padded
//   h, dh, dp       [B] rows at `h_stride`, units padded; equal to `unit_stride` without a projection
// Outputs are padded, never the summed index: fma(0, 0, -0) is +0, and 0 * Inf is NaN.
#pragma once

#include "lstm_fast.h"

namespace lstm_fast {

inline constexpr int max_vectors = 4;  // of one column block in w_t
inline constexpr int max_rows = 6;     // of one register tile

// The most rows of a single step for which reading the weights in place is faster than packing a block of them: those
// of one tile.
inline constexpr index direct_rows = max_rows;

// What a cell carries from step to step beside the product with h.
enum class Carry { nothing, c, h };

inline index smaller(index a, index b) { return a < b ? a : b; }
inline index ceil_div(index a, index b) { return (a + b - 1) / b; }

// Of so many outputs.
inline index column_blocks(index columns, index lanes) { return ceil_div(ceil_div(columns, lanes), max_vectors); }

// Row r of a chunk is one row of the batch at one step: the rows of a step stand together, active rows only, step after
// step. Rows of the batch are sorted by length, so that the active ones are the first.
template <class T>
struct ForwardChunk {
  index I, H, Ho;  // P in place of H where h is meant: Ho
  index steps;
  const index* first_row;  // [steps+1] of a step
  const index* c_row;      // [steps+1] row of c that holds the state before a step; [s+1] takes the state after it
  index gate_stride, unit_stride, h_stride;
  const T* const* x_rows;
  T* const* y_rows;  // Ho valid units
  const T* w_ih;
  const T* w_hh;
  const T* w_hr;  // packed by pack_projection; null: none
  T* gates;       // in: pre-activations from x; out: the activated gates if `save`
  T* c;
  T* h[2];              // step s reads h[s%2] and writes h[(s+1)%2]
  T* u;                 // [B] rows of o*tanh(c) before the projection
  T* const* h_rows[2];  // the rows of h
  bool save;
  Activation activation;
  const std::uint8_t* resets;  // of every row of the chunk: whether its state before the step is zero; null: none is
};

// Rows run in processing order: the chunk's last step first.
template <class T>
struct BackwardChunk {
  index I, H, Ho;
  index steps;
  const index* first_row;   // [steps+1] of processing step s, which is forward's step steps-1-s
  const index* saved_row;   // [steps] of gates, for processing step s
  const index* c_row;       // [steps] row of c before processing step s
  const index* c_next_row;  // [steps] row of c after it
  index gate_stride, unit_stride, h_stride;
  const T* gates;
  const T* c;
  const T* const* dy_rows;  // null: zero
  const T* const* dc_rows;  // H valid units, what reaches c after a step from outside; null: zero
  T* dh;                    // [B] rows at h_stride; in: gradient of h after the chunk; out: of h before it
  T* dc;
  T* dgates;
  const T* w_ih_t;
  const T* w_hh_t;
  const T* w_hr_t;    // null: no projection
  T* const* dh_rows;  // [B]: the rows of dh
  T* const* dx_rows;
  const T* const* x_rows;
  const T* const* h_rows;  // h before the step
  T* du;                   // [B] rows: gradient of o*tanh(c), with projection
  T* const* du_rows;
  T* dp;  // gradient of the projected h, rows at h_stride, with projection
  const T* const* dp_rows;
  T* u;        // o*tanh(c) again, rows at unit_stride, with projection
  T* dw_ih;    // packed like w_ih, accumulated; its bias row is db
  T* dw_hh;    // packed like w_hh, accumulated
  T* dw_hr;    // [nb][p][vector][lane], accumulated
  T* panel_x;  // [I+1][rows]
  T* panel_h;  // [Ho][rows], or one more with a bias of its own
  T* panel_p;  // [P][rows]
  Activation activation;
  const std::uint8_t* resets;  // of every row: whether what was carried into its step is zero; null: none is
  const std::uint8_t* cuts;    // of every row: whether the gradient of its state before the step is; null: none is
  T grad_clip;                 // of the gradient of h after a step; 0: none
};

// A chunk of which forward kept c before its first step only. Rows run in processing order, as in BackwardChunk.
template <class T>
struct RecomputeChunk {
  index I, H, Ho;
  index steps;
  const index* first_row;  // [steps+1]
  index gate_stride, unit_stride;
  const T* const* x_rows;
  const T* const* h_rows;  // h before the step
  const T* w_ih;           // packed, as in ForwardChunk
  const T* w_hh;
  T* gates;  // out: activated
  T* c;  // row r: out, the state after row r of the chunk; from first_row[steps] on: in, the states before the chunk
  Activation activation;
  const std::uint8_t* resets;  // as in BackwardChunk
};

// A participant's number and how many there are.
struct Deal {
  index id, size;
};

// Rows of a step that belong to one participant: first, first + step, ... below end.
struct RowDeal {
  index first, step, end;

  index row(index number) const { return first + number * step; }
  // How many of them are among the first `active`.
  index count(index active) const {
    const index last = active < end ? active : end;
    return last > first ? (last - first + step - 1) / step : 0;
  }
};

// What a participant computes of every step: its rows, and its blocks of units, either of which may be all.
struct Part {
  RowDeal rows;
  Range blocks;  // forward: unit blocks; backward: column blocks of the units
};

template <class T>
struct LayerKernels {
  int lanes;
  int gates;            // vectors of a unit block in the weights
  int slots;            // in a gate row
  bool recurrent_bias;  // whether b_hh has a gradient of its own, and stands with w_hh for gates that need it there
  Carry carry;
  void (*pack_input_weights)(const T* w_ih, index H, index I, const T* b_ih, const T* b_hh, T* packed);
  void (*pack_recurrent_weights)(const T* w_hh, index H, index Ho, const T* b_ih, const T* b_hh, T* packed);
  void (*unpack_input_weights)(const T* packed, index H, index I, T* w_ih, T* b_ih);
  void (*unpack_recurrent_weights)(const T* packed, index H, index Ho, T* w_hh, T* b_hh);
  void (*transpose_input_weights)(const T* w_ih, index H, index I, T* packed);
  void (*transpose_recurrent_weights)(const T* w_hh, index H, index Ho, T* packed);
  void (*pack_projection)(const T* w_hr, index P, index H, T* packed);
  void (*pack_projection_transposed)(const T* w_hr, index P, index H, T* packed);
  void (*unpack_projection)(const T* packed, index P, index H, T* w_hr);
  void (*input_product)(const ForwardChunk<T>&, const index* rows, index count, Range unit_blocks);
  // Participants that share rows must meet after every step; those with a projection cannot share any.
  void (*forward_steps)(const ForwardChunk<T>&, Range steps, Part part);
  void (*recompute_gates)(const RecomputeChunk<T>&, const index* rows, index count);
  void (*recompute_cells)(const RecomputeChunk<T>&, RowDeal rows);  // after the gates
  void (*backward_steps)(const BackwardChunk<T>&, RowDeal rows);
  // The same without projection in two halves, between which participants that share rows must meet: gradients of the
  // pre-activations and of c, then of h.
  void (*backward_cells)(const BackwardChunk<T>&, index step, Part part);
  void (*backward_product)(const BackwardChunk<T>&, index step, Part part);
  void (*input_gradient)(const BackwardChunk<T>&, Range rows);
  void (*pack_panels)(const BackwardChunk<T>&, Deal tiles);
  void (*weight_gradient)(const BackwardChunk<T>&, Deal tiles);
  // Of a chunk of at most one step, which is the whole sequence, without projection. In place of pack_weights,
  // input_product and forward_steps; of backward_product and input_gradient; of pack_panels, weight_gradient and
  // unpack_weights. `packed` is a participant's own scratch, see direct_panel and direct_gradient_panel.
  void (*direct_step)(const ForwardChunk<T>&, const Weights<T>&, Range unit_blocks, T* packed);
  void (*direct_gradients)(const BackwardChunk<T>&, const Weights<T>&, bool wants_dx, Deal tasks, T* packed);
  void (*direct_weight_gradient)(const BackwardChunk<T>&, const WeightGradients<T>&, Range units, T* packed);
};

template <class T>
struct IsaKernels {
  LayerKernels<T> cells[cell_count];  // in the order of enum Cell
  T (*fma_chains)(index iterations);  // each does fma_chains_flops flops
  index fma_chains_flops;
  T (*read_again)(const T* from, index count, index times);  // count: a multiple of read_step
  index read_step;

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
