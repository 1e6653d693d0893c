// The gates and the cell states in a reserve, for those who want to look inside.
#include "stack.h"

namespace lstm_fast {

template <class T>
void states(const Isa& isa, Cell cell, const StatesArgs<T>& args) {
  const Plan<T> plan(isa, cell, args.shape, args.lengths, Pass::forward, {});
  Arena arena(const_cast<std::byte*>(args.reserve));  // read only
  const StackReserve<T> stack(arena, plan, args.dropout);
  const DirectionReserve<T>& reserve = stack.of(args.shape, args.layer, args.direction);
  const Geometry<T> g = plan.geometry(args.layer);
  const index size = args.shape.T * args.shape.B * g.H;
  if (plan.schedule.padded()) {
    std::fill_n(args.gates, g.gates * size, T(0));
    std::fill_n(args.c, size, T(0));
  }
  index row = 0;
  for (index step = 0; row < g.rows; ++step) {
    for (index b = 0; b < plan.schedule.active(step); ++b, ++row) {
      const index t = plan.time(args.direction, step, b);
      const index to = (t * g.B + plan.schedule.original(b)) * g.H;
      for (index unit = 0; unit < g.H; ++unit) {
        const T* gate = reserve.gates + row * g.gate_stride + unit / g.lanes * g.gates * g.lanes + unit % g.lanes;
        for (index k = 0; k < g.gates; ++k) args.gates[k * size + to + unit] = gate[k * g.lanes];
      }
      std::copy_n(reserve.c + (g.B + row) * g.unit_stride, g.H, args.c + to);
    }
  }
}

template void states<float>(const Isa&, Cell, const StatesArgs<float>&);
template void states<double>(const Isa&, Cell, const StatesArgs<double>&);

}  // namespace lstm_fast
