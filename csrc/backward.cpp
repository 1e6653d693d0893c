// Backward through layers, directions and chunks of time, from the last.
#include "dropout.h"
#include "recompute.h"

namespace lstm_fast {
namespace {

template <class T>
class BackwardPass {
 public:
  BackwardPass(const Plan<T>& plan, const BackwardArgs<T>& args)
      : plan_(plan),
        args_(args),
        dropout_(args.dropout.p > 0),
        reserve_arena_(const_cast<std::byte*>(args.reserve)),  // read only
        reserve_(reserve_arena_, plan, dropout_) {
    const Shape& s = plan.shape;
    std::size_t bytes = 0;
    for (int layer = 0; layer < s.layers; ++layer) {
      Arena measure(nullptr);
      BackwardWorkspace<T>(measure, plan.geometry(layer), plan.threads, plan.direct());
      RecomputeWorkspace<T>(measure, plan.geometry(layer), plan.threads, plan.lean());
      TransposedWeights<T>(measure, plan.geometry(layer), plan.lean());
      bytes = std::max(bytes, measure.used());
    }
    for (int crew = 0; crew < plan.crews(); ++crew) workspaces_[crew] = Block(bytes);
    // Gradients between the layers, in turns, and the part of the reverse direction.
    Arena measure(nullptr);
    place_gradients(measure);
    gradients_ = Block(measure.used());
    Arena arena(gradients_.data());
    place_gradients(arena);
  }

  // Runs in every participant.
  void operator()(Company& company, Crew& everybody) {
    for (int layer = plan_.shape.layers - 1; layer >= 0; --layer) {
      const bool done = company.for_directions(everybody, plan_.shape.directions, plan_.split_directions,
                                               [&](Crew& crew, int direction, int workspace) {
                                                 run_direction(company, everybody, crew, layer, direction, workspace);
                                               });
      if (!done) return;
      T* const dx = dx_of(layer, 0);
      if (dx && (plan_.shape.directions == 2 || (dropout_ && layer > 0))) {
        const index width = plan_.geometry(layer).I;
        const T* other = plan_.shape.directions == 2 ? dx_of(layer, 1) : nullptr;
        for_valid_rows(plan_.schedule, everybody, [&](index t, index row) {
          const index offset = plan_.schedule.sequence_row(t, row) * width;
          for (index k = 0; other && k < width; ++k) dx[offset + k] += other[offset + k];
          if (dropout_ && layer > 0) drop_row(args_.dropout, layer - 1, t, row, dx + offset, width, dx + offset);
        });
        everybody.wait();
      }
    }
    if (args_.dx) clear_padding(plan_.schedule, everybody, args_.dx, plan_.shape.I);
  }

 private:
  void place_gradients(Arena& arena) {
    const Shape& s = plan_.shape;
    const index rows = plan_.schedule.sequence_rows();
    for (T*& buffer : between_) buffer = s.layers > 1 ? arena.take<T>({rows, plan_.width}) : nullptr;
    const bool two = s.directions == 2;
    reverse_dx_ = two ? arena.take<T>({rows, s.layers > 1 ? std::max(plan_.width, s.I) : s.I}) : nullptr;
  }

  // Where a direction writes the gradient of the layer's input; null: not wanted.
  T* dx_of(int layer, int direction) const {
    if (layer == 0 && !args_.dx) return nullptr;
    if (direction == 1) return reverse_dx_;
    return layer == 0 ? args_.dx : between_[layer % 2];
  }

  Sequence<T> output_gradient(int layer) const {
    if (layer == plan_.shape.layers - 1) return args_.dy;
    return plan_.sequence(between_[(layer + 1) % 2]);
  }

  Sequence<T> cells_gradient(int layer) const {
    return layer == plan_.shape.layers - 1 ? args_.dcells : Sequence<T>{nullptr, 0, 0};
  }

  void run_direction(Company& company, Crew& everybody, Crew& crew, int layer, int direction, int workspace) const {
    const LayerKernels<T>& kernels = plan_.kernels;
    const Schedule& schedule = plan_.schedule;
    const Geometry<T> g = plan_.geometry(layer);
    Arena arena(workspaces_[workspace].data());
    const bool direct = plan_.direct();
    const BackwardWorkspace<T> work(arena, g, plan_.threads, direct);
    const RecomputeWorkspace<T> again(arena, g, plan_.threads, plan_.lean());
    const TransposedWeights<T> transposed(arena, g, plan_.lean());
    const DirectionReserve<T>& reserve = reserve_.of(plan_.shape, layer, direction);
    const index state = layer * plan_.shape.directions + direction;
    const WeightGradients<T>& dw = args_.weights[state];
    const bool wants_weights = dw.w_ih || dw.w_hh || dw.b || dw.b_hh || dw.w_hr;
    const bool projected = g.P > 0;

    Turns turn(crew);
    if (plan_.lean() && turn.mine()) transposed.fill(kernels, g, reserve);
    if (!direct && turn.mine()) std::fill_n(work.dw_ih, g.gates * g.padded_H * (g.I + 1), T(0));
    if (!direct && turn.mine()) std::fill_n(work.dw_hh, g.gates * g.padded_H * g.recurrent_rows, T(0));
    if (turn.mine()) std::fill_n(work.dw_hr, g.P * g.padded_H, T(0));
    if (turn.mine()) std::fill_n(work.zeros, g.h_stride, T(0));
    if (turn.mine()) {
      const T* dhn = args_.dhn ? args_.dhn + state * g.B * g.Ho : nullptr;
      const T* dcn = args_.dcn ? args_.dcn + state * g.B * g.H : nullptr;
      sort_rows(schedule, dhn, g.Ho, work.dh, g.h_stride);
      if (g.carry_stride > 0) sort_rows(schedule, dcn, g.H, work.dc, g.carry_stride);
      for (index row = 0; row < g.B; ++row) work.dh_rows[row] = work.dh + row * g.h_stride;
      if (projected) {
        std::fill_n(work.du, g.B * g.unit_stride, T(0));
        for (index row = 0; row < g.B; ++row) work.du_rows[row] = work.du + row * g.unit_stride;
        for (index row = 0; row < g.chunk_rows; ++row) work.dp_rows[row] = work.dp + row * g.h_stride;
      }
    }

    index* const first_row = work.first_row + crew.id() * 4 * (g.chunk_steps + 1);
    index* const saved_row = first_row + (g.chunk_steps + 1);
    index* const c_row = saved_row + (g.chunk_steps + 1);
    index* const c_next_row = c_row + (g.chunk_steps + 1);
    T* const direct_panel = work.direct_panel + crew.id() * g.direct_gradient_panel();
    const RowDeal own = plan_.rows_of(crew);
    const Part part = plan_.part_of(crew);
    const Place place{
        .direction = direction,
        .own = own,
        .x = reserve_.input(plan_, args_.x, layer),
        .y = reserve_.output(args_.y, layer) + direction * g.Ho,
        .h0 = reserve.h0,
        .dy = output_gradient(layer),
        .dcells = cells_gradient(layer),
        .dx = dx_of(layer, direction),
        .inputs = g.I,
        .first_row = first_row,
        .saved_row = saved_row,
        .c_row = c_row,
        .c_next_row = c_next_row,
    };
    const bool lean = plan_.lean();
    BackwardChunk<T> chunk{
        .I = g.I,
        .H = g.H,
        .Ho = g.Ho,
        .steps = 0,
        .first_row = first_row,
        .saved_row = lean ? first_row : saved_row,
        .c_row = lean ? first_row + 1 : c_row,
        .c_next_row = lean ? first_row : c_next_row,
        .gate_stride = g.gate_stride,
        .unit_stride = g.unit_stride,
        .h_stride = g.h_stride,
        .gates = lean ? again.gates : reserve.gates,
        .c = lean ? again.c : reserve.c,
        .dy_rows = place.dy.data ? work.dy_rows : nullptr,
        .dc_rows = place.dcells.data ? work.dc_rows : nullptr,
        .dh = work.dh,
        .dc = work.dc,
        .dgates = work.dgates,
        .w_ih_t = lean ? transposed.w_ih_t : reserve.w_ih_t,
        .w_hh_t = lean ? transposed.w_hh_t : reserve.w_hh_t,
        .w_hr_t = projected ? reserve.w_hr_t : nullptr,
        .dh_rows = work.dh_rows,
        .dx_rows = work.dx_rows,
        .x_rows = work.x_rows,
        .h_rows = work.h_rows,
        .du = work.du,
        .du_rows = work.du_rows,
        .dp = work.dp,
        .dp_rows = work.dp_rows,
        .u = work.u,
        .dw_ih = work.dw_ih,
        .dw_hh = work.dw_hh,
        .dw_hr = work.dw_hr,
        .panel_x = work.panel_x,
        .panel_h = work.panel_h,
        .panel_p = work.panel_p,
        .activation = plan_.shape.activation,
        .resets = args_.aids.resets ? work.resets : nullptr,
        .cuts = cuts() ? work.cuts : nullptr,
        .grad_clip = static_cast<T>(args_.aids.grad_clip),
    };
    first_row[0] = 0;
    for (auto span = schedule.spans().rbegin(); span != schedule.spans().rend(); ++span) {
      if (company.halted(everybody, crew)) return;
      place_rows(place, work, *span);
      chunk.steps = span->steps;
      if (lean) again.fill(plan_, g, reserve, *span, {first_row, work.x_rows, work.h_rows, chunk.resets}, crew, own);
      const Deal deal{crew.id(), crew.size()};
      if (plan_.copies_weights()) {
        run_steps(chunk, crew, own, part);
        crew.wait();
        if (place.dx) kernels.input_gradient(chunk, crew.share(span->rows, max_rows));
      } else {
        kernels.backward_cells(chunk, 0, part);
        crew.wait();
        kernels.direct_gradients(chunk, args_.weights_again[state], place.dx != nullptr, deal, direct_panel);
      }
      if (wants_weights && !direct) {
        kernels.pack_panels(chunk, deal);
        crew.wait();
        kernels.weight_gradient(chunk, deal);
      }
    }
    crew.wait();
    if (direct) kernels.direct_weight_gradient(chunk, dw, crew.share(g.H), direct_panel);
    if (!direct && turn.mine()) kernels.unpack_input_weights(work.dw_ih, g.H, g.I, dw.w_ih, dw.b);
    if (!direct && turn.mine()) kernels.unpack_recurrent_weights(work.dw_hh, g.H, g.Ho, dw.w_hh, dw.b_hh);
    if (dw.w_hr && turn.mine()) kernels.unpack_projection(work.dw_hr, g.P, g.H, dw.w_hr);
    for (index number = 0; number < own.count(g.B); ++number) {
      const index b = own.row(number);
      const index out = state * g.B + schedule.original(b);
      T* const dh = work.dh + b * g.h_stride;
      if (kernels.carry == Carry::h) {
        for (index unit = 0; unit < g.H; ++unit) dh[unit] += work.dc[b * g.carry_stride + unit];
      }
      if (args_.dh0) std::copy_n(dh, g.Ho, args_.dh0 + out * g.Ho);
      if (args_.dc0) std::copy_n(work.dc + b * g.unit_stride, g.H, args_.dc0 + out * g.H);
    }
  }

  bool cuts() const { return args_.aids.truncate > 0 || args_.aids.resets; }

  void run_steps(const BackwardChunk<T>& chunk, const Crew& crew, RowDeal own, Part part) const {
    if (!plan_.split_units) {
      plan_.kernels.backward_steps(chunk, own);
      return;
    }
    for (index s = 0; s < chunk.steps; ++s) {
      crew.wait();
      if (s > 0) plan_.kernels.backward_product(chunk, s - 1, part);
      plan_.kernels.backward_cells(chunk, s, part);
    }
    crew.wait();
    plan_.kernels.backward_product(chunk, chunk.steps - 1, part);
  }

  // Where the rows that a participant prepares in a layer and direction come from and go to.
  struct Place {
    int direction;
    RowDeal own;
    Sequence<T> x;
    const T* y;
    const T* h0;
    Sequence<T> dy, dcells;
    T* dx;
    index inputs;  // width of x
    index* first_row;
    index* saved_row;
    index* c_row;
    index* c_next_row;
  };

  // Where the participant's rows of a chunk stand, in processing order.
  void place_rows(const Place& place, const BackwardWorkspace<T>& work, const Span& span) const {
    const Schedule& schedule = plan_.schedule;
    const Shape& shape = plan_.shape;
    index row = 0;
    index saved = span.first_row + span.rows;
    for (index s = 0; s < span.steps; ++s) {
      const index step = span.step + span.steps - 1 - s;
      const index active = schedule.active(step);
      saved -= active;
      place.first_row[s] = row;
      place.saved_row[s] = saved;
      place.c_row[s] = step == 0 ? 0 : shape.B + saved - schedule.active(step - 1);
      place.c_next_row[s] = shape.B + saved;
      const index count = place.own.count(active);
      for (index number = 0; number < count; ++number) {
        const index b = place.own.row(number);
        const index t = plan_.time(place.direction, step, b);
        const index original = schedule.original(b);
        work.x_rows[row + b] = schedule.find(place.x, t, original);
        const bool reset = args_.aids.resets && args_.aids.resets[t * shape.B + original];
        const bool truncated = args_.aids.truncate > 0 && step > 0 && step % args_.aids.truncate == 0;
        work.resets[row + b] = reset;
        work.cuts[row + b] = reset || truncated;
        work.h_rows[row + b] = reset ? work.zeros : plan_.h_before(place.h0, place.y, place.direction, step, b);
        work.dy_rows[row + b] =
            place.dy.data ? schedule.find(place.dy, t, original) + place.direction * plan_.Ho : nullptr;
        if (place.dcells.data) {
          work.dc_rows[row + b] = schedule.find(place.dcells, t, original) + place.direction * shape.H;
        }
        work.dx_rows[row + b] = place.dx ? place.dx + schedule.sequence_row(t, original) * place.inputs : nullptr;
      }
      row += active;
    }
    place.first_row[span.steps] = row;
  }

  const Plan<T>& plan_;
  const BackwardArgs<T>& args_;
  const bool dropout_;
  Arena reserve_arena_;
  const StackReserve<T> reserve_;
  Block workspaces_[2];
  Block gradients_;
  T* between_[2] = {};
  T* reverse_dx_ = nullptr;
};

}  // namespace

template <class T>
bool backward(const Isa& isa, const BackwardArgs<T>& args) {
  const Plan<T> plan(isa, args.shape, args.lengths, Pass::backward, args.threads, args.aids.resets != nullptr);
  BackwardPass<T> pass(plan, args);
  Company company(plan.threads, args.threads, args.poll);
  company.run(pass, plan.split_units);
  return !company.stopped();
}

template bool backward<float>(const Isa&, const BackwardArgs<float>&);
template bool backward<double>(const Isa&, const BackwardArgs<double>&);

}  // namespace lstm_fast
