// Forward through layers, directions and chunks of time: who does what when. One dispatch lookup per call.
#include "dropout.h"
#include "packed.h"
#include "stack.h"

namespace lstm_fast {
namespace {

template <class T>
class ForwardPass {
 public:
  ForwardPass(const Plan<T>& plan, const ForwardArgs<T>& args)
      : plan_(plan),
        args_(args),
        dropout_(args.dropout.p > 0),
        reserve_arena_(args.reserve),
        reserve_(reserve_arena_, plan, dropout_) {
    std::size_t bytes = 0;
    for (int layer = 0; layer < plan.shape.layers; ++layer) {
      Arena measure(nullptr);
      ForwardWorkspace<T>(measure, plan.geometry(layer), plan.threads, keeps_gates(), packs(), plan.direct());
      bytes = std::max(bytes, measure.used());
    }
    for (int crew = 0; crew < plan.crews(); ++crew) workspaces_[crew] = Block(bytes);
    if (saves()) {
      y_ = reserve_.y;
    } else {
      // Layers below the last take turns at two buffers.
      const int buffers = std::min(plan.shape.layers - 1, 2);
      Arena measure(nullptr);
      for (int buffer = 0; buffer < buffers; ++buffer) measure.take<T>({plan.schedule.sequence_rows(), plan.width});
      if (buffers > 0) between_ = Block(measure.used());
      Arena arena(between_.data());
      T* turns[2] = {};
      for (int buffer = 0; buffer < buffers; ++buffer) {
        turns[buffer] = arena.take<T>({plan.schedule.sequence_rows(), plan.width});
      }
      for (int layer = 0; layer < plan.shape.layers; ++layer) y_.push_back(turns[layer % 2]);
    }
    y_.back() = args.y;
  }

  // Runs in every participant.
  void operator()(Company& company, Crew& everybody) {
    for (int layer = 0; layer < plan_.shape.layers; ++layer) {
      const bool done = company.for_directions(everybody, plan_.shape.directions, plan_.split_directions,
                                               [&](Crew& crew, int direction, int workspace) {
                                                 run_direction(company, everybody, crew, layer, direction, workspace);
                                               });
      if (!done) return;
      const auto at = static_cast<std::size_t>(layer);
      if (dropout_ && layer < plan_.shape.layers - 1) {
        for_valid_rows(plan_.schedule, everybody, [&](index t, index row) {
          const index offset = plan_.schedule.sequence_row(t, row) * plan_.width;
          drop_row(args_.dropout, layer, t, row, y_[at] + offset, plan_.width, reserve_.dropped[at] + offset);
        });
        everybody.wait();
      }
    }
    clear_padding(plan_.schedule, everybody, args_.y, plan_.width);
    if (args_.cells) clear_padding(plan_.schedule, everybody, args_.cells, plan_.shape.directions * plan_.shape.H);
  }

 private:
  bool saves() const { return args_.reserve != nullptr; }
  bool lean() const { return saves() && plan_.lean(); }
  // The lean reserve needs packed weights of its own.
  bool uses_packed() const { return plan_.packed && !lean(); }
  // Whether the workspace has packed weights.
  bool packs() const { return !plan_.direct() && !uses_packed() && !lean(); }
  bool keeps_gates() const { return saves() && !plan_.lean(); }

  Sequence<T> input(int layer) const {
    if (layer == 0) return args_.x;
    const auto below = static_cast<std::size_t>(layer - 1);
    return plan_.sequence(saves() ? reserve_.dropped[below] : y_[below]);
  }

  void run_direction(Company& company, Crew& everybody, Crew& crew, int layer, int direction, int workspace) const {
    const LayerKernels<T>& kernels = plan_.kernels;
    const Schedule& schedule = plan_.schedule;
    const Geometry<T> g = plan_.geometry(layer);
    Arena arena(workspaces_[workspace].data());
    const bool direct = plan_.direct();
    ForwardWorkspace<T> work(arena, g, plan_.threads, keeps_gates(), packs(), direct);
    const DirectionReserve<T>& reserve = reserve_.of(plan_.shape, layer, direction);
    if (lean()) {
      work.w_ih = reserve.w_ih;
      work.w_hh = reserve.w_hh;
    }
    const index state = layer * plan_.shape.directions + direction;
    if (uses_packed()) {
      work.w_ih = args_.packed->of(state).w_ih;
      work.w_hh = args_.packed->of(state).w_hh;
      work.w_hr = args_.packed->of(state).w_hr;
    }
    const bool to_pack = !direct && !uses_packed();
    const Weights<T>& w = args_.weights[state];
    const T* const h0 = args_.h0 ? args_.h0 + state * g.B * g.Ho : nullptr;
    const T* const c0 = args_.c0 ? args_.c0 + state * g.B * g.H : nullptr;
    T* const c = keeps_gates() ? reserve.c : work.c;

    Turns turn(crew);
    if (to_pack && turn.mine()) kernels.pack_input_weights(w.w_ih, g.H, g.I, w.b_ih, w.b_hh, work.w_ih);
    if (to_pack && turn.mine()) kernels.pack_recurrent_weights(w.w_hh, g.H, g.Ho, w.b_ih, w.b_hh, work.w_hh);
    const bool copies = keeps_gates() && plan_.copies_weights();
    if (copies && turn.mine()) kernels.transpose_input_weights(w.w_ih, g.H, g.I, reserve.w_ih_t);
    if (copies && turn.mine()) kernels.transpose_recurrent_weights(w.w_hh, g.H, g.Ho, reserve.w_hh_t);
    if (to_pack && w.w_hr && turn.mine()) kernels.pack_projection(w.w_hr, g.P, g.H, work.w_hr);
    if (w.w_hr && saves() && turn.mine()) kernels.pack_projection_transposed(w.w_hr, g.P, g.H, reserve.w_hr_t);
    if (saves() && turn.mine()) sort_rows(schedule, h0, g.Ho, reserve.h0, g.Ho);
    if (turn.mine()) {
      if (g.carry_stride > 0) sort_rows(schedule, kernels.carry == Carry::c ? c0 : h0, g.H, c, g.carry_stride);
      sort_rows(schedule, h0, g.Ho, work.h[0], g.h_stride);
      for (index row = 0; row < g.B; ++row) {
        for (int parity = 0; parity < 2; ++parity) work.h_rows[parity][row] = work.h[parity] + row * g.h_stride;
      }
    }

    const RowDeal own = plan_.rows_of(crew);
    const Part part = plan_.part_of(crew);
    const bool units = plan_.split_units;
    const Place place{
        .direction = direction,
        .own = own,
        .own_product = !units && plan_.own_products(crew),
        .x = input(layer),
        .y = y_[static_cast<std::size_t>(layer)] + direction * g.Ho,
        .first_row = work.first_row + crew.id() * (g.chunk_steps + 1),
        .c_row = work.c_row + crew.id() * (g.chunk_steps + 1),
        .product_rows = work.product_rows + crew.id() * g.chunk_rows,
        .x_rows = work.x_rows,
    };
    const bool cells = args_.cells && layer == plan_.shape.layers - 1;
    ForwardChunk<T> chunk{
        .I = g.I,
        .H = g.H,
        .Ho = g.Ho,
        .steps = 0,
        .first_row = place.first_row,
        .c_row = place.c_row,
        .gate_stride = g.gate_stride,
        .unit_stride = g.unit_stride,
        .h_stride = g.h_stride,
        .x_rows = work.x_rows,
        .y_rows = nullptr,
        .w_ih = work.w_ih,
        .w_hh = work.w_hh,
        .w_hr = w.w_hr ? work.w_hr : nullptr,
        .gates = nullptr,
        .c = c,
        .h = {nullptr, nullptr},
        .u = work.u,
        .h_rows = {nullptr, nullptr},
        .save = keeps_gates(),
        .activation = plan_.shape.activation,
        .resets = nullptr,
    };
    for (const Span& span : schedule.spans()) {
      const auto turns = (&span - schedule.spans().data()) % 2;
      T** const y_rows = work.y_rows[turns];
      std::uint8_t* const resets = args_.resets ? work.resets[turns] : nullptr;
      index products = place_rows(place, span, y_rows, resets);
      chunk.steps = span.steps;
      chunk.y_rows = y_rows;
      chunk.resets = resets;
      chunk.gates = keeps_gates() ? reserve.gates + span.first_row * g.gate_stride : work.gates;
      for (int parity = 0; parity < 2; ++parity) {
        chunk.h[parity] = work.h[(span.step + parity) % 2];
        chunk.h_rows[parity] = work.h_rows[(span.step + parity) % 2];
      }
      if (company.halted(everybody, crew)) return;
      if (lean()) {
        copy_rows(c, reserve.c + span.first_kept * g.carry_stride, g.carry_stride, own, place.first_row[1]);
        if (units) crew.wait();
      }
      if (direct) {
        kernels.direct_step(chunk, w, crew.share((g.H + g.lanes - 1) / g.lanes),
                            work.direct_panel + crew.id() * g.direct_panel());
        crew.wait();
      } else {
        if (!place.own_product) {
          const Range share = units ? Range{0, span.rows} : crew.share(span.rows, max_rows);
          for (index shared = share.begin; shared < share.end; ++shared) place.product_rows[products++] = shared;
        }
        kernels.input_product(chunk, place.product_rows, products, part.blocks);
        if (!units && !place.own_product) crew.wait();
        if (cells && lean()) {
          run_with_cells(chunk, span.step, direction, crew, own, part);
        } else {
          run_steps(chunk, crew, part);
        }
      }
      if (cells && !lean()) copy_cells(chunk, span.step, direction, own);
    }
    if (schedule.spans().empty()) crew.wait();  // for the states
    for (index number = 0; number < own.count(g.B); ++number) {
      const index b = own.row(number);
      const index length = schedule.length(b);
      const index out = state * g.B + schedule.original(b);
      std::copy_n(work.h[length % 2] + b * g.h_stride, g.Ho, args_.hn + out * g.Ho);
      if (args_.cn) std::copy_n(c + last_c_row(g, b) * g.unit_stride, g.H, args_.cn + out * g.H);
    }
  }

  // Where the rows that a participant prepares in a layer and direction come from and go to.
  struct Place {
    int direction;
    RowDeal own;
    bool own_product;
    Sequence<T> x;
    T* y;
    index* first_row;
    index* c_row;
    index* product_rows;
    const T** x_rows;
  };

  // Where the participant's rows of a chunk stand. Returns how many of them it is already known to take the input
  // product of.
  index place_rows(const Place& place, const Span& span, T** y_rows, std::uint8_t* resets) const {
    const Schedule& schedule = plan_.schedule;
    const index after_c0 = plan_.shape.B + span.first_row;
    index row = 0;
    index products = 0;
    for (index s = 0; s < span.steps; ++s) {
      const index step = span.step + s;
      const index active = schedule.active(step);
      place.first_row[s] = row;
      if (s == 0) place.c_row[0] = keeps_gates() && step > 0 ? after_c0 - schedule.active(step - 1) : 0;
      place.c_row[s + 1] = keeps_gates() ? after_c0 + row : 0;
      const index count = place.own.count(active);
      for (index number = 0; number < count; ++number) {
        const index b = place.own.row(number);
        const index t = plan_.time(place.direction, step, b);
        const index original = schedule.original(b);
        place.x_rows[row + b] = schedule.find(place.x, t, original);
        if (place.own_product) place.product_rows[products++] = row + b;
        y_rows[row + b] = place.y + schedule.sequence_row(t, original) * plan_.width;
        if (resets) resets[row + b] = args_.resets[t * plan_.shape.B + original];
      }
      row += active;
    }
    place.first_row[span.steps] = row;
    return products;
  }

  void run_steps(const ForwardChunk<T>& chunk, const Crew& crew, Part part) const {
    const index together = plan_.split_units ? 1 : chunk.steps;
    for (index s = 0; s < chunk.steps; s += together) {
      plan_.kernels.forward_steps(chunk, {s, s + together}, part);
      if (plan_.split_units) crew.wait();
    }
  }

  // The steps of a chunk one by one, since c does not stay: after each it goes to the caller's cells.
  void run_with_cells(const ForwardChunk<T>& chunk, index first, int direction, const Crew& crew, RowDeal own,
                      Part part) const {
    ForwardChunk<T> step = chunk;
    step.steps = 1;
    for (index s = 0; s < chunk.steps; ++s, ++step.first_row, ++step.c_row) {
      run_steps(step, crew, part);
      copy_cells(step, first + s, direction, own);
      if (plan_.split_units) crew.wait();
      std::swap(step.h[0], step.h[1]);
      std::swap(step.h_rows[0], step.h_rows[1]);
    }
  }

  // The states after the steps of a chunk that starts at `first`, of the dealt rows.
  void copy_cells(const ForwardChunk<T>& chunk, index first, int direction, RowDeal own) const {
    const Schedule& schedule = plan_.schedule;
    for (index s = 0; s < chunk.steps; ++s) {
      const index count = own.count(chunk.first_row[s + 1] - chunk.first_row[s]);
      for (index number = 0; number < count; ++number) {
        const index b = own.row(number);
        const index to = schedule.sequence_row(plan_.time(direction, first + s, b), schedule.original(b));
        std::copy_n(chunk.c + (chunk.c_row[s + 1] + b) * chunk.unit_stride, chunk.H,
                    args_.cells + (to * plan_.shape.directions + direction) * chunk.H);
      }
    }
  }

  // The row of c that holds the state of sorted row b after its last step.
  index last_c_row(const Geometry<T>& g, index b) const {
    const index length = plan_.schedule.length(b);
    if (!keeps_gates() || length == 0) return b;
    const Span& span = *std::prev(std::partition_point(plan_.schedule.spans().begin(), plan_.schedule.spans().end(),
                                                       [=](const Span& s) { return s.step < length; }));
    index row = g.B + span.first_row + b;
    for (index step = span.step; step < length - 1; ++step) row += plan_.schedule.active(step);
    return row;
  }

  const Plan<T>& plan_;
  const ForwardArgs<T>& args_;
  const bool dropout_;
  Arena reserve_arena_;
  const StackReserve<T> reserve_;
  Block workspaces_[2];
  Block between_;
  std::vector<T*> y_;  // [layer]
};

}  // namespace

template <class T>
std::size_t reserve_bytes(const Isa& isa, const Shape& shape, const index* lengths, bool dropout) {
  Arena arena(nullptr);
  StackReserve<T>(arena, Plan<T>(isa, shape, lengths, Pass::forward, {}), dropout);
  return arena.used();
}

template <class T>
bool forward(const Isa& isa, const ForwardArgs<T>& args) {
  const Plan<T> plan(isa, args.shape, args.lengths, Pass::forward, args.threads, args.resets != nullptr,
                     args.packed != nullptr);
  ForwardPass<T> pass(plan, args);
  Company company(plan.threads, args.threads, args.poll);
  company.run(pass, plan.split_units);
  return !company.stopped();
}

template std::size_t reserve_bytes<float>(const Isa&, const Shape&, const index*, bool);
template std::size_t reserve_bytes<double>(const Isa&, const Shape&, const index*, bool);
template bool forward<float>(const Isa&, const ForwardArgs<float>&);
template bool forward<double>(const Isa&, const ForwardArgs<double>&);

}  // namespace lstm_fast
