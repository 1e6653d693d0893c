// What a call needs to know before it starts: who is active when, how large everything is, and where it stands in
// memory.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <new>
#include <numeric>
#include <utility>

#include "kernels.h"
#include "memory.h"

namespace lstm_fast {

inline std::size_t product_of(std::initializer_list<index> factors) {
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
    if (__builtin_mul_overflow(product_of(shape), sizeof(T), &bytes) || bytes > static_cast<std::size_t>(PTRDIFF_MAX) ||
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

// Rows of gates worked on at once: enough for the deferred products to run at full speed, few enough for them to stay
// in the cache. Never depends on the threads.
inline constexpr index chunk_rows = 192;

// A lean reserve keeps c at the boundaries of chunks, so chunks of few steps are longer there: an eighth of all c
// stays, at no cost up to so many rows. With 16 times as many a training step took 3-5 % longer at B 256.
inline constexpr index lean_steps = 8;
inline constexpr index lean_rows = 4 * chunk_rows;

// A stretch of steps. Rows are (step, row of the sorted batch), active ones only, in this order.
struct Span {
  index step, steps;
  index first_row, rows;
  index first_kept;  // of the rows of c before the span in a lean reserve
};

// Rows of the batch sorted by length, longest first, equal ones in their order; step s of a row is its s-th from its
// own start in the direction of the layer.
class Schedule {
 public:
  Schedule(const Shape& shape, const index* lengths) : T_(shape.T), B_(shape.B), packed_(shape.packed) {
    if (lengths) {
      order_.resize(static_cast<std::size_t>(B_));
      std::iota(order_.begin(), order_.end(), index{0});
      std::stable_sort(order_.begin(), order_.end(), [=](index a, index b) { return lengths[a] > lengths[b]; });
      for (const index row : order_) lengths_.push_back(lengths[row]);
    }
    const index longest = B_ == 0 ? 0 : length(0);
    for (index step = 0; step < longest;) {
      Span span{step, 0, rows_, 0, kept_rows_};
      kept_rows_ += active(step);
      while (step < longest && (span.steps == 0 || span.rows + active(step) <= limit(shape.save, span.steps))) {
        span.rows += active(step);
        ++span.steps;
        ++step;
      }
      rows_ += span.rows;
      most_rows_ = std::max(most_rows_, span.rows);
      most_steps_ = std::max(most_steps_, span.steps);
      spans_.push_back(span);
    }
    for (index step = 0, row = 0; packed_ && step < longest; row += active(step), ++step) packed_steps_.push_back(row);
  }

  index original(index row) const { return order_.empty() ? row : order_[static_cast<std::size_t>(row)]; }
  index length(index row) const { return lengths_.empty() ? T_ : lengths_[static_cast<std::size_t>(row)]; }
  index active(index step) const {
    if (lengths_.empty()) return B_;
    return std::partition_point(lengths_.begin(), lengths_.end(), [=](index length) { return length > step; }) -
           lengths_.begin();
  }
  bool padded() const { return !lengths_.empty() && !packed_; }  // whether there may be padding
  // Where row b, as the user counts, stands at time t in an array of the whole sequence, and how many rows that has.
  index sequence_row(index t, index b) const { return packed_ ? packed_step(t) + b : t * B_ + b; }
  index sequence_rows() const { return packed_ ? rows_ : T_ * B_; }
  template <class T>
  const T* find(const Sequence<T>& sequence, index t, index b) const {
    return sequence.data + (packed_ ? packed_step(t) * sequence.b_stride : t * sequence.t_stride) +
           b * sequence.b_stride;
  }
  bool even() const { return rows_ == T_ * B_; }  // whether all rows are active at every step
  const std::vector<Span>& spans() const { return spans_; }
  index rows() const { return rows_; }
  index kept_rows() const { return kept_rows_; }
  index most_rows() const { return most_rows_; }
  index most_steps() const { return most_steps_; }
  index B() const { return B_; }
  index T() const { return T_; }

 private:
  // Rows of a span that has so many steps already.
  static index limit(Save save, index steps) {
    return save == Save::lean && steps < lean_steps ? lean_rows : chunk_rows;
  }
  index packed_step(index t) const { return packed_steps_[static_cast<std::size_t>(t)]; }

  index T_, B_;
  bool packed_;
  std::vector<index> order_, lengths_;
  std::vector<index> packed_steps_;  // first row of every step
  std::vector<Span> spans_;
  index rows_ = 0, kept_rows_ = 0, most_rows_ = 0, most_steps_ = 0;
};

// The derived sizes of one layer and direction.
template <class T>
struct Geometry {
  index B, I, H, P, Ho;
  index rows;        // of the whole sequence
  index kept_rows;   // of c in a lean reserve
  index chunk_rows;  // of its largest chunk
  index chunk_steps;
  index unit_stride;   // of rows of c, dc, u, du; whole cache lines, or two threads would write to one
  index h_stride;      // of rows of h, dh, dp
  index gate_stride;   // of gate rows; 64 bytes more than they need, or rows fall on the same cache sets
  index carry_stride;  // of rows of c and dc: that of units, or 0 if the cell carries nothing
  index lanes, gates, slots;
  index recurrent_rows;  // of packed w_hh: Ho, and one of biases if it has them
  index padded_H;        // to whole vectors

  Geometry(const LayerKernels<T>& kernels, const Schedule& schedule, const Shape& shape, int layer)
      : B(shape.B),
        H(shape.H),
        P(shape.P),
        Ho(P > 0 ? P : H),
        rows(schedule.rows()),
        kept_rows(schedule.kept_rows()),
        chunk_rows(schedule.most_rows()),
        chunk_steps(schedule.most_steps()),
        lanes(kernels.lanes),
        gates(kernels.gates),
        slots(kernels.slots) {
    constexpr auto line = static_cast<index>(64 / sizeof(T));
    product_of({H + line, slots, 2, std::max<index>(B, 1)});  // or the strides themselves would overflow
    I = layer == 0 ? shape.I : shape.directions * Ho;
    padded_H = padded(H);
    unit_stride = (H + line - 1) / line * line;
    h_stride = (Ho + line - 1) / line * line;
    carry_stride = kernels.carry == Carry::nothing ? 0 : unit_stride;
    recurrent_rows = Ho + (kernels.recurrent_bias ? 1 : 0);
    gate_stride = (padded_H * slots + line - 1) / line * line + line;
  }

  index padded(index width) const { return (width + lanes - 1) / lanes * lanes; }

  // Elements of the scratch of one participant in a direct step: a unit block of all weights.
  index direct_panel() const { return B > direct_rows ? gates * lanes * (I + 1 + recurrent_rows) : 0; }
  // And of its gradients: a column block of the weights, then all rows of x or h.
  index direct_gradient_panel() const {
    const index weights = B > direct_rows ? gates * H * max_vectors * lanes : 0;
    return std::max(weights, B * padded(std::max(I, Ho)));
  }
};

// What forward keeps of one layer and direction.
template <class T>
struct DirectionReserve {
  T* gates;  // not if lean
  T* c;      // c0 [B], then the state after every row; if lean, before every chunk, active rows only
  T* h0;     // [B,Ho], sorted
  T* w_ih;   // as forward packs them, if lean: what backward needs can be had from them, not the other way round
  T* w_hh;
  T* w_ih_t;  // not if lean
  T* w_hh_t;
  T* w_hr_t;

  DirectionReserve(Arena& arena, const Geometry<T>& g, bool copies_weights, bool lean)
      : gates(arena.take<T>({lean ? 0 : g.rows, g.gate_stride})),
        c(arena.take<T>({lean ? g.kept_rows : g.B + g.rows, g.carry_stride})),
        h0(arena.take<T>({g.B, g.Ho})),
        w_ih(arena.take<T>({lean ? g.gates : 0, g.padded_H, g.I + 1})),
        w_hh(arena.take<T>({lean ? g.gates : 0, g.padded_H, g.recurrent_rows})),
        w_ih_t(arena.take<T>({copies_weights && !lean ? g.gates : 0, g.H, g.padded(g.I)})),
        w_hh_t(arena.take<T>({copies_weights && !lean ? g.gates : 0, g.H, g.padded(g.Ho)})),
        w_hr_t(arena.take<T>({g.P, g.padded_H})) {}
};

template <class T>
struct ForwardWorkspace {
  T* w_ih;
  T* w_hh;
  T* w_hr;
  T* h[2];
  T** h_rows[2];
  T* u;
  const T** x_rows;
  T** y_rows[2];     // of chunks in turn: a slower thread may still write through those of the chunk before
  index* first_row;  // [threads][steps+1]
  index* c_row;
  index* product_rows;      // [threads][chunk_rows]
  std::uint8_t* resets[2];  // as y_rows
  T* gates;                 // of one chunk; unused in training, where the reserve has all
  T* c;
  T* direct_panel;  // [threads]

  // `packs`: with packed weights. `direct`: for a direct step.
  ForwardWorkspace(Arena& arena, const Geometry<T>& g, int threads, bool save, bool packs, bool direct)
      : w_ih(arena.take<T>({packs ? g.gates : 0, g.padded_H, g.I + 1})),
        w_hh(arena.take<T>({packs ? g.gates : 0, g.padded_H, g.recurrent_rows})),
        w_hr(arena.take<T>({g.padded(g.P), g.H})),
        h{arena.take<T>({g.B, g.h_stride}), arena.take<T>({g.B, g.h_stride})},
        h_rows{arena.take<T*>({g.B}), arena.take<T*>({g.B})},
        u(arena.take<T>({g.P > 0 ? g.B : 0, g.unit_stride})),
        x_rows(arena.take<const T*>({g.chunk_rows})),
        y_rows{arena.take<T*>({g.chunk_rows}), arena.take<T*>({g.chunk_rows})},
        first_row(arena.take<index>({threads, g.chunk_steps + 1})),
        c_row(arena.take<index>({threads, g.chunk_steps + 1})),
        product_rows(arena.take<index>({threads, g.chunk_rows})),
        resets{arena.take<std::uint8_t>({g.chunk_rows}), arena.take<std::uint8_t>({g.chunk_rows})},
        gates(arena.take<T>({save ? 0 : g.chunk_rows, g.gate_stride})),
        c(arena.take<T>({save ? 0 : g.B, g.carry_stride})),
        direct_panel(arena.take<T>({direct ? threads : 0, g.direct_panel()})) {}
};

template <class T>
struct BackwardWorkspace {
  T* dh;
  T* dc;
  T* du;
  T* dgates;
  T* dp;
  T* u;
  T** dh_rows;
  T** du_rows;
  T** dx_rows;
  const T** dp_rows;
  const T** dy_rows;
  const T** dc_rows;
  const T** x_rows;
  const T** h_rows;
  std::uint8_t* resets;
  std::uint8_t* cuts;
  T* zeros;          // a row of h
  index* first_row;  // [threads][4][steps+1]: first_row, saved_row, c_row, c_next_row
  T* dw_ih;
  T* dw_hh;
  T* dw_hr;
  T* panel_x;
  T* panel_h;
  T* panel_p;
  T* direct_panel;  // [threads]

  // `direct`: without packed gradients.
  BackwardWorkspace(Arena& arena, const Geometry<T>& g, int threads, bool direct)
      : dh(arena.take<T>({g.B, g.h_stride})),
        dc(arena.take<T>({g.B, g.carry_stride})),
        du(arena.take<T>({g.P > 0 ? g.B : 0, g.unit_stride})),
        dgates(arena.take<T>({g.chunk_rows, g.gate_stride})),
        dp(arena.take<T>({g.P > 0 ? g.chunk_rows : 0, g.h_stride})),
        u(arena.take<T>({g.P > 0 ? g.chunk_rows : 0, g.unit_stride})),
        dh_rows(arena.take<T*>({g.B})),
        du_rows(arena.take<T*>({g.B})),
        dx_rows(arena.take<T*>({g.chunk_rows})),
        dp_rows(arena.take<const T*>({g.chunk_rows})),
        dy_rows(arena.take<const T*>({g.chunk_rows})),
        dc_rows(arena.take<const T*>({g.chunk_rows})),
        x_rows(arena.take<const T*>({g.chunk_rows})),
        h_rows(arena.take<const T*>({g.chunk_rows})),
        resets(arena.take<std::uint8_t>({g.chunk_rows})),
        cuts(arena.take<std::uint8_t>({g.chunk_rows})),
        zeros(arena.take<T>({g.h_stride})),
        first_row(arena.take<index>({threads, 4, g.chunk_steps + 1})),
        dw_ih(arena.take<T>({direct ? 0 : g.gates, g.padded_H, g.I + 1})),
        dw_hh(arena.take<T>({direct ? 0 : g.gates, g.padded_H, g.recurrent_rows})),
        dw_hr(arena.take<T>({g.P, g.padded_H})),
        panel_x(arena.take<T>({g.I + 1, g.chunk_rows})),
        panel_h(arena.take<T>({g.recurrent_rows, g.chunk_rows})),
        panel_p(arena.take<T>({g.P, g.chunk_rows})),
        direct_panel(arena.take<T>({direct ? threads : 0, g.direct_gradient_panel()})) {}
};

}  // namespace lstm_fast
