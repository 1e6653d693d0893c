// Lean reserves: what backward.cpp and states.cpp have in place of the gates and of c that forward did not keep.
#pragma once

#include "stack.h"

namespace lstm_fast {

// Where the rows of a chunk stand, in processing order: see BackwardChunk.
template <class T>
struct PlacedRows {
  const index* first_row;
  const T* const* x_rows;
  const T* const* h_rows;
  const std::uint8_t* resets;  // null: none
};

// Gates and c of one chunk.
template <class T>
struct RecomputeWorkspace {
  T* gates;
  T* c;                 // after every row, then before the chunk
  index* product_rows;  // [threads][chunk_rows]

  RecomputeWorkspace(Arena& arena, const Geometry<T>& g, int threads, bool lean)
      : gates(arena.take<T>({lean ? g.chunk_rows : 0, g.gate_stride})),
        c(arena.take<T>({lean ? g.chunk_rows + g.B : 0, g.carry_stride})),
        product_rows(arena.take<index>({lean ? threads : 0, g.chunk_rows})) {}

  // By a crew of which every participant has placed its own rows. Afterwards each may read those.
  void fill(const Plan<T>& plan, const Geometry<T>& g, const DirectionReserve<T>& reserve, const Span& span,
            const PlacedRows<T>& rows, const Crew& crew, RowDeal own) const {
    const RecomputeChunk<T> chunk{
        .I = g.I,
        .H = g.H,
        .Ho = g.Ho,
        .steps = span.steps,
        .first_row = rows.first_row,
        .gate_stride = g.gate_stride,
        .unit_stride = g.unit_stride,
        .x_rows = rows.x_rows,
        .h_rows = rows.h_rows,
        .w_ih = reserve.w_ih,
        .w_hh = reserve.w_hh,
        .gates = gates,
        .c = c,
        .activation = plan.shape.activation,
        .resets = rows.resets,
    };
    const bool own_products = plan.own_products(crew);
    if (!own_products) crew.wait();
    index* const products = product_rows + crew.id() * g.chunk_rows;
    plan.kernels.recompute_gates(chunk, products, list_products(own_products, span, rows, crew, own, products));
    copy_rows(reserve.c + span.first_kept * g.carry_stride, c + span.rows * g.carry_stride, g.carry_stride, own,
              span.rows - rows.first_row[span.steps - 1]);
    if (!own_products) crew.wait();
    plan.kernels.recompute_cells(chunk, own);
  }

 private:
  // Returns how many.
  static index list_products(bool own_products, const Span& span, const PlacedRows<T>& rows, const Crew& crew,
                             RowDeal own, index* products) {
    index count = 0;
    if (own_products) {
      for (index s = 0; s < span.steps; ++s) {
        const index active = rows.first_row[s + 1] - rows.first_row[s];
        for (index number = 0; number < own.count(active); ++number) {
          products[count++] = rows.first_row[s] + own.row(number);
        }
      }
      return count;
    }
    const Range share = crew.share(span.rows, max_rows);
    for (index row = share.begin; row < share.end; ++row) products[count++] = row;
    return count;
  }
};

// The weights as backward_steps and input_gradient read them, from those that forward packed.
template <class T>
struct TransposedWeights {
  T* w_ih_t;
  T* w_hh_t;
  T* w;  // one of them in plain layout

  TransposedWeights(Arena& arena, const Geometry<T>& g, bool lean)
      : w_ih_t(arena.take<T>({lean ? g.gates : 0, g.H, g.padded(g.I)})),
        w_hh_t(arena.take<T>({lean ? g.gates : 0, g.H, g.padded(g.Ho)})),
        w(arena.take<T>({lean ? g.gates : 0, g.H, std::max(g.I, g.Ho)})) {}

  void fill(const LayerKernels<T>& kernels, const Geometry<T>& g, const DirectionReserve<T>& reserve) const {
    kernels.unpack_input_weights(reserve.w_ih, g.H, g.I, w, nullptr);
    kernels.transpose_input_weights(w, g.H, g.I, w_ih_t);
    kernels.unpack_recurrent_weights(reserve.w_hh, g.H, g.Ho, w, nullptr);
    kernels.transpose_recurrent_weights(w, g.H, g.Ho, w_hh_t);
  }
};

}  // namespace lstm_fast
