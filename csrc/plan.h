// How one call is computed: what it is, in which order, by how many.
#pragma once

#include "layout.h"
#include "threads.h"

namespace lstm_fast {

enum class Pass { forward, backward };

// Layers, directions and how many threads for them. Everything is sized and allocated before the team starts.
template <class T>
struct Plan {
  const LayerKernels<T>& kernels;
  Shape shape;
  Schedule schedule;
  Pass pass;
  int threads;
  bool split_directions;     // one crew for each
  bool split_units = false;  // among the participants of a crew, in place of rows
  bool packed;               // whether the weights are, before the call
  bool resets;               // whether states may be zeroed between steps
  index Ho, width;           // of h, of y

  Plan(const Isa& isa, const Shape& s, const index* lengths, Pass of, const Threads& wanted, bool has_resets = false,
       bool are_packed = false)
      : kernels(isa.kernels<T>().of(s.cell)),
        shape(s),
        schedule(s, lengths),
        pass(of),
        packed(are_packed),
        resets(has_resets),
        Ho(s.P > 0 ? s.P : s.H),
        width(s.directions * Ho) {
    product_of({s.layers, s.directions, 2, std::max<index>(width, 1), std::max<index>(s.B, 1)});
    product_of({s.T, s.B});
    threads = useful_threads(wanted);
    split_directions = s.directions == 2 && threads > 1;
  }

  bool single_step() const { return shape.T == 1 && shape.P == 0; }
  // Whether it packs no weights as a whole: see direct-forward-inl.h.
  bool direct() const { return single_step() && !packed && !resets; }

  // Whether backward computes the gates again.
  bool lean() const { return shape.save == Save::lean && !single_step(); }

  // Whether the reserve has the weights that backward needs.
  bool copies_weights() const { return !(shape.weights_again && single_step()); }

  Geometry<T> geometry(int layer) const { return Geometry<T>(kernels, schedule, shape, layer); }
  int crews() const { return split_directions ? 2 : 1; }

  // Rows of [T,B,width] in their order.
  Sequence<T> sequence(const T* data) const { return {data, shape.B * width, width}; }

  // The time of processing step s of sorted row b.
  index time(int direction, index step, index row) const {
    return reversed(direction) ? schedule.length(row) - 1 - step : step;
  }
  // h before step `step` of sorted row b: in h0 [B,Ho], sorted too, or in the columns of y that are the direction's.
  const T* h_before(const T* h0, const T* y, int direction, index step, index b) const {
    if (step == 0) return h0 + b * Ho;
    return y + schedule.sequence_row(time(direction, step - 1, b), schedule.original(b)) * width;
  }

  // The sorted rows that a participant prepares and finishes, and works on if rows are split. In blocks when all are
  // active to the end; in turn when they are not, so that every participant has as many as the others at every step.
  RowDeal rows_of(const Crew& crew) const {
    if (schedule.even()) {
      const Range own = crew.share(shape.B);
      return {own.begin, 1, own.end};
    }
    return {crew.id(), crew.size(), shape.B};
  }

  // What a participant computes of every step.
  Part part_of(const Crew& crew) const { return split_units ? units_of(crew) : Part{rows_of(crew), {0, blocks()}}; }
  Part units_of(const Crew& crew) const {
    return {{0, 1, shape.B}, crew.share(blocks(), pass == Pass::forward ? line_blocks() : 1)};
  }

  // For one step whose units are shared out; 1 if the team would have to be woken.
  int step_threads(const Threads& wanted) const {
    if (!wanted.awake || shape.P > 0) return 1;
    const auto unit_blocks = static_cast<double>(ceil_div(shape.H, kernels.lanes) * shape.directions);
    return at_most(wanted, std::min(unit_blocks, flops_a_row(shape.I) * shape.directions / wanted.least_step_flops));
  }

  // Whether each takes the products of the rows of its own steps, since all have as many: no row of gates then moves
  // from one core to another, and nobody waits between the two. Else the products are shared out evenly.
  bool own_products(const Crew& crew) const { return schedule.even() && shape.B % crew.size() == 0; }

  bool reversed(int direction) const { return direction == 1 || shape.reverse; }

 private:
  // Of the units, as the pass takes them.
  index blocks() const {
    return pass == Pass::forward ? ceil_div(shape.H, kernels.lanes) : column_blocks(shape.H, kernels.lanes);
  }
  // Unit blocks of a cache line.
  index line_blocks() const { return std::max<index>(1, 64 / (kernels.lanes * static_cast<index>(sizeof(T)))); }

  // A participant must have several barriers' worth of work in every chunk, and waking the team must pay.
  int useful_threads(const Threads& wanted) {
    const double first = flops_a_row(shape.I);
    const double above = flops_a_row(width);
    const double all = (first + above * (shape.layers - 1)) * static_cast<double>(schedule.rows() * shape.directions);
    if (direct() && shape.layers == 1 && wanted.awake) return step_threads(wanted);
    if (all < wanted.least_flops) return 1;
    const double least = shape.layers > 1 ? std::min(first, above) : first;
    const double chunk = least * static_cast<double>(schedule.most_rows() * shape.directions);
    const double pays = wanted.least_chunk_flops > 0 ? chunk / wanted.least_chunk_flops : wanted.most;
    const int most = at_most(wanted, pays);
    split_units = units_pay(most, wanted);
    if (split_units || wanted.least_chunk_flops <= 0) return most;
    // Beyond the rows more threads only speed up the products of whole chunks.
    const auto rows = static_cast<double>(shape.directions * std::max<index>(shape.B, 2));
    return at_most(wanted, std::min(rows, pays));
  }

  static int at_most(const Threads& wanted, double pays) {
    return std::max(1, static_cast<int>(std::min<double>(wanted.most, pays)));
  }

  // Whether so many threads are faster when they share out units, and wait for each other at every step.
  bool units_pay(int count, const Threads& wanted) const {
    const int crew = shape.directions == 2 ? count / 2 : count;
    if (shape.P > 0 || resets || direct() || crew < 2 || schedule.rows() == 0) return false;
    if (wanted.split != Split::faster) return wanted.split == Split::units;
    const index shares = pass == Pass::forward ? ceil_div(blocks(), line_blocks()) : blocks();
    const double part = static_cast<double>(ceil_div(shares, crew)) / static_cast<double>(shares);
    const index rows = ceil_div(schedule.rows(), schedule.length(0));  // of a step, on average
    const double by_rows = step_ns(ceil_div(rows, crew), 1);
    const double by_units = step_ns(rows, part);
    return by_units + barrier_at_best_ns < by_rows && by_units + recent_barrier_ns(crew, wanted) < by_rows;
  }

  static constexpr double barrier_at_best_ns = 30;

  // Roughly what a step takes for so many rows and that part of the units. A vector of weights from the second cache
  // takes two cycles, each row's fused multiply-add with it another, 64 bytes of units in one row some sixty.
  double step_ns(index rows, double part) const {
    const double lines = part * static_cast<double>(shape.H) * static_cast<double>(sizeof(T)) / 64;
    const double vectors = lines * kernels.gates * static_cast<double>(Ho);
    constexpr double cycles_a_ns = 3.5;
    return (vectors * static_cast<double>(std::max<index>(rows, 2)) + lines * 60 * static_cast<double>(rows)) /
           cycles_a_ns;
  }

  double flops_a_row(index inputs) const {
    const auto H = static_cast<double>(shape.H);
    return 2 * kernels.gates * H * static_cast<double>(Ho + inputs) + 2 * H * static_cast<double>(shape.P);
  }
};

}  // namespace lstm_fast
