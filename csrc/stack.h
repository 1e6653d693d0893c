// What forward.cpp and backward.cpp share: rows in and out, and the reserve of a stack.
#pragma once

#include "company.h"
#include "plan.h"

namespace lstm_fast {

// Rows [B, width] in the order of the user to sorted rows at `stride`, padded with zeros; a null source is all zeros.
template <class T>
void sort_rows(const Schedule& schedule, const T* from, index width, T* to, index stride) {
  for (index row = 0; row < schedule.B(); ++row, to += stride) {
    T* end = from ? std::copy_n(from + schedule.original(row) * width, width, to) : to;
    std::fill(end, to + stride, T(0));
  }
}

// The dealt ones of the first `active` rows at `stride`.
template <class T>
void copy_rows(const T* from, T* to, index stride, RowDeal own, index active) {
  for (index number = 0; number < own.count(active); ++number) {
    const index row = own.row(number);
    std::copy_n(from + row * stride, stride, to + row * stride);
  }
}

// Zeros in what stands beyond each row's length of a [T,B,width] array.
template <class T>
void clear_padding(const Schedule& schedule, const Crew& crew, T* array, index width) {
  if (!schedule.padded()) return;
  const Range own = crew.share(schedule.B());
  for (index row = own.begin; row < own.end; ++row) {
    for (index t = schedule.length(row); t < schedule.T(); ++t) {
      std::fill_n(array + (t * schedule.B() + schedule.original(row)) * width, width, T(0));
    }
  }
}

// f(t, original row) for this participant's share of all valid (t, row).
template <class F>
void for_valid_rows(const Schedule& schedule, const Crew& crew, F f) {
  for (index row = crew.id(); row < schedule.B(); row += crew.size()) {
    for (index t = 0; t < schedule.length(row); ++t) f(t, schedule.original(row));
  }
}

// The reserve of a whole stack: outputs between the layers, with and without dropout, and every direction's own.
template <class T>
struct StackReserve {
  std::vector<T*> y;        // [layer]; the last is the user's and null here
  std::vector<T*> dropped;  // [layer]: y with dropout, the input of the layer above; y itself without dropout
  std::vector<DirectionReserve<T>> directions;

  StackReserve(Arena& arena, const Plan<T>& plan, bool dropout) {
    const Shape& s = plan.shape;
    for (int layer = 0; layer < s.layers; ++layer) {
      const bool last = layer == s.layers - 1;
      y.push_back(last ? nullptr : arena.take<T>({plan.schedule.sequence_rows(), plan.width}));
      dropped.push_back(last || !dropout ? y.back() : arena.take<T>({plan.schedule.sequence_rows(), plan.width}));
      for (int direction = 0; direction < s.directions; ++direction)
        directions.emplace_back(arena, plan.geometry(layer), plan.copies_weights(), plan.lean());
    }
  }

  // What a layer read and wrote, given the user's x and y.
  Sequence<T> input(const Plan<T>& plan, const Sequence<T>& x, int layer) const {
    return layer == 0 ? x : plan.sequence(dropped[static_cast<std::size_t>(layer - 1)]);
  }
  const T* output(const T* last, int layer) const {
    const auto at = static_cast<std::size_t>(layer);
    return at + 1 == y.size() ? last : y[at];
  }

  const DirectionReserve<T>& of(const Shape& shape, int layer, int direction) const {
    return directions[static_cast<std::size_t>(layer * shape.directions + direction)];
  }
};

}  // namespace lstm_fast
