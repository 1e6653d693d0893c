// What forward.cpp and backward.cpp share: the plan of one call.
#pragma once

#include <atomic>

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
  index Ho, width;           // of h, of y

  Plan(const Isa& isa, Cell cell, const Shape& s, const index* lengths, Pass of, const Threads& wanted,
       bool are_packed = false)
      : kernels(isa.kernels<T>().of(cell)),
        shape(s),
        schedule(s, lengths),
        pass(of),
        packed(are_packed),
        Ho(s.P > 0 ? s.P : s.H),
        width(s.directions * Ho) {
    product_of({s.layers, s.directions, 2, std::max<index>(width, 1), std::max<index>(s.B, 1)});
    product_of({s.T, s.B});
    threads = useful_threads(wanted);
    split_directions = s.directions == 2 && threads > 1;
  }

  bool single_step() const { return shape.T == 1 && shape.P == 0; }
  // Whether it packs no weights as a whole: see direct-inl.h.
  bool direct() const { return single_step() && !packed; }

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
    if (shape.P > 0 || direct() || crew < 2 || schedule.rows() == 0) return false;
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
    return 8 * H * static_cast<double>(Ho + inputs) + 2 * H * static_cast<double>(shape.P);
  }
};

// The participants of one call: all of them, and the crews that the directions are given to.
class Company {
 public:
  Company(int threads, const Threads& whose, const Poll& poll)
      : threads_(threads),
        whose_(whose),
        poll_(poll),
        all_(threads),
        halves_{Crew::Shared(threads), Crew::Shared(threads)} {}

  bool stopped() const { return stop_.load(std::memory_order_relaxed); }

  // Runs work(company, crew) in every participant, and says how, if somebody wants to know.
  template <class Work>
  void run(Work& work, bool split_units) {
    struct Call {
      Company* company;
      Work* work;
    } call{this, &work};
    const int participants = run_team(
        threads_,
        [](void* context, int id, int size) {
          auto& c = *static_cast<Call*>(context);
          Crew everybody(id, size, &c.company->all_);
          (*c.work)(*c.company, everybody);
        },
        &call, whose_);
    if (whose_.used) *whose_.used = {participants, split_units && participants > 1};
  }

  // run(crew, direction, workspace) for every direction: two at once, each by its own crew, if `split`, else one after
  // the other. All have finished when it returns. False if the call is to stop.
  template <class Run>
  bool for_directions(Crew& everybody, int directions, bool split, const Run& run) {
    if (split && everybody.size() > 1) {
      const int first = (everybody.size() + 1) / 2;
      const int direction = everybody.id() < first ? 0 : 1;
      Crew crew = direction == 0 ? Crew(everybody.id(), first, &halves_[0])
                                 : Crew(everybody.id() - first, everybody.size() - first, &halves_[1]);
      run(crew, direction, direction);
      return !halted(everybody, everybody);
    }
    for (int direction = 0; direction < directions; ++direction) {
      run(everybody, direction, 0);
      if (halted(everybody, everybody)) return false;
    }
    return true;
  }

  // Barrier of a crew, at which all of it learn whether the call is to stop. Only the calling thread asks.
  bool halted(const Crew& everybody, Crew& crew) {
    if (everybody.leads() && !stopped() && poll_.stop && poll_.stop(poll_.context))
      stop_.store(true, std::memory_order_relaxed);
    return crew.agree(stopped());
  }

 private:
  int threads_;
  const Threads& whose_;
  Poll poll_;
  std::atomic<bool> stop_{false};
  Crew::Shared all_;
  Crew::Shared halves_[2];
};

// Takes turns with the others at a list of small tasks.
class Turns {
 public:
  explicit Turns(const Crew& crew) : crew_(crew) {}
  bool mine() { return next_++ % crew_.size() == crew_.id(); }

 private:
  const Crew& crew_;
  int next_ = 0;
};

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
