// The gates and the cell states of a forward, for those who want to look inside.
#include "recompute.h"

namespace lstm_fast {
namespace {

// One layer and direction, chunk by chunk, by the calling thread alone.
template <class T>
class StatesPass {
 public:
  StatesPass(const Plan<T>& plan, const StatesArgs<T>& args)
      : plan_(plan),
        args_(args),
        g_(plan.geometry(args.layer)),
        arena_(const_cast<std::byte*>(args.reserve)),  // read only
        stack_(arena_, plan, args.dropout),
        reserve_(stack_.of(args.shape, args.layer, args.direction)) {}

  // False if the call is to stop.
  bool run() const {
    const index size = plan_.shape.T * g_.B * g_.H;
    if (plan_.schedule.padded()) {
      std::fill_n(args_.gates, g_.slots * size, T(0));
      if (args_.c) std::fill_n(args_.c, size, T(0));
    }
    return plan_.lean() ? run_lean() : run_saved();
  }

 private:
  bool stopped() const { return args_.poll.stop && args_.poll.stop(args_.poll.context); }

  bool run_saved() const {
    for (const Span& span : plan_.schedule.spans()) {
      if (stopped()) return false;
      index row = span.first_row;
      for (index step = span.step; step < span.step + span.steps; ++step) {
        row += copy_step(step, reserve_.gates + row * g_.gate_stride, reserve_.c + (g_.B + row) * g_.carry_stride);
      }
    }
    return true;
  }

  bool run_lean() const {
    Arena measure(nullptr);
    RecomputeWorkspace<T>(measure, g_, 1, true);
    const Block block(measure.used());
    Arena arena(block.data());
    const RecomputeWorkspace<T> work(arena, g_, 1, true);
    std::vector<index> first_row(static_cast<std::size_t>(g_.chunk_steps + 1));
    std::vector<const T*> x_rows(static_cast<std::size_t>(g_.chunk_rows));
    std::vector<const T*> h_rows(static_cast<std::size_t>(g_.chunk_rows));
    std::vector<std::uint8_t> resets(static_cast<std::size_t>(g_.chunk_rows));
    const std::vector<T> zeros(static_cast<std::size_t>(g_.h_stride));
    const Crew alone(0, 1, nullptr);
    for (const Span& span : plan_.schedule.spans()) {
      if (stopped()) return false;
      place_rows(span, first_row.data(), x_rows.data(), h_rows.data(), resets.data(), zeros.data());
      work.fill(plan_, g_, reserve_, span, {first_row.data(), x_rows.data(), h_rows.data(), resets.data()}, alone,
                plan_.rows_of(alone));
      for (index s = 0; s < span.steps; ++s) {
        const index row = first_row[static_cast<std::size_t>(s)];
        copy_step(span.step + span.steps - 1 - s, work.gates + row * g_.gate_stride, work.c + row * g_.carry_stride);
      }
    }
    return true;
  }

  void place_rows(const Span& span, index* first_row, const T** x_rows, const T** h_rows, std::uint8_t* resets,
                  const T* zeros) const {
    const Sequence<T> x = stack_.input(plan_, args_.x, args_.layer);
    const T* const y = stack_.output(args_.y, args_.layer) + args_.direction * g_.Ho;
    index row = 0;
    for (index s = 0; s < span.steps; ++s) {
      const index step = span.step + span.steps - 1 - s;
      first_row[s] = row;
      for (index b = 0; b < plan_.schedule.active(step); ++b, ++row) {
        const index t = plan_.time(args_.direction, step, b);
        const index original = plan_.schedule.original(b);
        x_rows[row] = plan_.schedule.find(x, t, original);
        resets[row] = args_.resets && args_.resets[t * plan_.shape.B + original];
        h_rows[row] = resets[row] ? zeros : plan_.h_before(reserve_.h0, y, args_.direction, step, b);
      }
    }
    first_row[span.steps] = row;
  }

  // Returns how many rows the step has.
  index copy_step(index step, const T* gates, const T* c) const {
    const index size = plan_.shape.T * g_.B * g_.H;
    const index active = plan_.schedule.active(step);
    for (index b = 0; b < active; ++b, gates += g_.gate_stride, c += g_.carry_stride) {
      const index to = (plan_.time(args_.direction, step, b) * g_.B + plan_.schedule.original(b)) * g_.H;
      for (index unit = 0; unit < g_.H; ++unit) {
        const T* gate = gates + unit / g_.lanes * g_.slots * g_.lanes + unit % g_.lanes;
        for (index k = 0; k < g_.slots; ++k) args_.gates[k * size + to + unit] = gate[k * g_.lanes];
      }
      if (args_.c) std::copy_n(c, g_.H, args_.c + to);
    }
    return active;
  }

  const Plan<T>& plan_;
  const StatesArgs<T>& args_;
  const Geometry<T> g_;
  Arena arena_;
  const StackReserve<T> stack_;
  const DirectionReserve<T>& reserve_;
};

}  // namespace

template <class T>
bool states(const Isa& isa, const StatesArgs<T>& args) {
  const Plan<T> plan(isa, args.shape, args.lengths, Pass::forward, {}, args.resets != nullptr);
  return StatesPass<T>(plan, args).run();
}

template bool states<float>(const Isa&, const StatesArgs<float>&);
template bool states<double>(const Isa&, const StatesArgs<double>&);

}  // namespace lstm_fast
