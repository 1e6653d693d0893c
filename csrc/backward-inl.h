// Backward over one chunk of time, then its deferred products. Included inside a target region, once per instruction
// set.

// dgates of one step of the dealt rows and the given units, and the gradient of what was carried into it.
template <template <class> class CellOf, class V>
LF_INLINE void cell_gradient(const BackwardChunk<typename V::scalar>& chunk, index step, RowDeal deal, index count,
                             Range units) {
  using T = typename V::scalar;
  using Cell = CellOf<V>;
  constexpr int slots = Cell::gates + Cell::apart;
  constexpr bool carries = Cell::carry != Carry::nothing;
  constexpr index width = slots * V::lanes;
  const bool projected = chunk.w_hr_t != nullptr;
  for (index number = 0; number < count; ++number) {
    const index row = deal.row(number);
    const index chunk_row = chunk.first_row[step] + row;
    const index first = units.begin * slots;
    const T* gates = chunk.gates + (chunk.saved_row[step] + row) * chunk.gate_stride + first;
    T* dgates = chunk.dgates + chunk_row * chunk.gate_stride + first;
    const T* c_prev = carries ? chunk.c + (chunk.c_row[step] + row) * chunk.unit_stride : nullptr;
    const T* c = carries ? chunk.c + (chunk.c_next_row[step] + row) * chunk.unit_stride : nullptr;
    const T* dy = chunk.dy_rows && !projected ? chunk.dy_rows[chunk_row] : nullptr;
    const T* dh_carry = projected ? chunk.du + row * chunk.unit_stride : chunk.dh + row * chunk.h_stride;
    T* dc = carries ? chunk.dc + row * chunk.unit_stride : nullptr;
    T* u = projected ? chunk.u + chunk_row * chunk.unit_stride : nullptr;
    const bool reset = chunk.resets && chunk.resets[chunk_row];
    const bool cut = chunk.cuts && chunk.cuts[chunk_row];
    for (index unit = units.begin; unit < units.end; unit += V::lanes, gates += width, dgates += width) {
      V dh = V::load(dh_carry + unit);
      // Before dy, as in dh0, so that a sequence in pieces has the same sums.
      if constexpr (Cell::carry == Carry::h) dh = add(dh, V::load(dc + unit));
      if (dy) dh = add(dh, load_valid<V>(dy + unit, chunk.H - unit));
      V activated[slots];
      LF_UNROLL for (int n = 0; n < slots; ++n) activated[n] = V::load(gates + n * V::lanes);
      V before = V::set(0), after = V::set(0), dcarry = V::set(0);
      if constexpr (carries) {
        if (!reset) before = V::load(c_prev + unit);
        after = V::load(c + unit);
        if constexpr (Cell::carry == Carry::c) dcarry = V::load(dc + unit);
      }
      if (!projected && chunk.grad_clip > 0) dh = clipped(dh, chunk.grad_clip);
      const auto gradient = Cell::backward(activated, before, after, dh, dcarry, chunk.activation);
      if constexpr (carries) (cut ? V::set(0) : gradient.dcarry).store(dc + unit);
      store_gates(gradient.dgates, dgates);
      if constexpr (Cell::carry == Carry::c) {
        if (u) Cell::output(activated, after).store(u + unit);
      }
    }
  }
}

// The bound stands first: a NaN stays one.
template <class V>
LF_INLINE V clipped(V gradient, typename V::scalar bound) {
  return min(V::set(bound), max(V::set(-bound), gradient));
}

// What reaches c after a step from outside joins what comes from the step after.
template <class V>
LF_INLINE void add_cells_gradient(const BackwardChunk<typename V::scalar>& chunk, index step, RowDeal deal, index count,
                                  Range units) {
  for (index number = 0; number < count; ++number) {
    const index row = deal.row(number);
    const typename V::scalar* from = chunk.dc_rows[chunk.first_row[step] + row];
    typename V::scalar* dc = chunk.dc + row * chunk.unit_stride;
    for (index unit = units.begin; unit < units.end; ++unit) dc[unit] += from[unit];
  }
}

// The gradient of the projected h: kept for dw_hr, and sent through the projection.
template <class V>
LF_INLINE void projection_gradient(const BackwardChunk<typename V::scalar>& chunk, index step, RowDeal deal,
                                   index count) {
  using T = typename V::scalar;
  for (index number = 0; number < count; ++number) {
    const index row = deal.row(number);
    const T* dy = chunk.dy_rows ? chunk.dy_rows[chunk.first_row[step] + row] : nullptr;
    const T* dh = chunk.dh + row * chunk.h_stride;
    T* dp = chunk.dp + (chunk.first_row[step] + row) * chunk.h_stride;
    for (index k = 0; k < chunk.Ho; k += V::lanes) {
      V sum = V::load(dh + k);
      if (dy) sum = add(sum, load_valid<V>(dy + k, chunk.Ho - k));
      if (chunk.grad_clip > 0) sum = clipped(sum, chunk.grad_clip);
      const V gradient[1] = {sum};
      store_columns(gradient, dp + k, chunk.Ho - k);
    }
  }
  product<PlainSlots, V>(chunk.dp + chunk.first_row[step] * chunk.h_stride, chunk.h_stride, chunk.w_hr_t, chunk.Ho,
                         chunk.H, chunk.du_rows, deal, count, {0, column_blocks(chunk.H, V::lanes)});
}

template <template <class> class CellOf, class V>
void backward_cells(const BackwardChunk<typename V::scalar>& chunk, index step, Part part) {
  const index count = part.rows.count(chunk.first_row[step + 1] - chunk.first_row[step]);
  const Range units{column_block<V>(chunk.H, part.blocks.begin).first,
                    smaller(chunk.H, column_block<V>(chunk.H, part.blocks.end).first)};
  if (chunk.dc_rows) add_cells_gradient<V>(chunk, step, part.rows, count, units);
  cell_gradient<CellOf, V>(chunk, step, part.rows, count, units);
}

template <template <class> class CellOf, class V>
void backward_product(const BackwardChunk<typename V::scalar>& chunk, index step, Part part) {
  const index count = part.rows.count(chunk.first_row[step + 1] - chunk.first_row[step]);
  const index blocks = part.blocks.end - part.blocks.begin;
  const bool back = goes_back<V>(step, blocks * max_vectors * V::lanes * CellOf<V>::gates * chunk.H);
  for (index n = 0; n < blocks; ++n) {
    const index block = nth_of(part.blocks, n, back);
    product<typename RecurrentWindow<CellOf, V>::Own, V>(chunk.dgates + chunk.first_row[step] * chunk.gate_stride,
                                                         chunk.gate_stride, chunk.w_hh_t, chunk.H, chunk.Ho,
                                                         chunk.dh_rows, part.rows, count, {block, block + 1});
  }
  if (!chunk.cuts) return;
  const index first = column_block<V>(chunk.Ho, part.blocks.begin).first;
  const index end = smaller(chunk.Ho, column_block<V>(chunk.Ho, part.blocks.end).first);
  for (index number = 0; number < count; ++number) {
    const index row = part.rows.row(number);
    if (!chunk.cuts[chunk.first_row[step] + row]) continue;
    for (index k = first; k < end; ++k) chunk.dh_rows[row][k] = 0;
  }
}

template <template <class> class CellOf, class V>
void backward_steps(const BackwardChunk<typename V::scalar>& chunk, RowDeal deal) {
  const Part cells{deal, {0, column_blocks(chunk.H, V::lanes)}};
  const Part outputs{deal, {0, column_blocks(chunk.Ho, V::lanes)}};
  for (index step = 0; step < chunk.steps; ++step) {
    if (chunk.w_hr_t) {
      projection_gradient<V>(chunk, step, deal, deal.count(chunk.first_row[step + 1] - chunk.first_row[step]));
    }
    backward_cells<CellOf, V>(chunk, step, cells);
    backward_product<CellOf, V>(chunk, step, outputs);
  }
}

template <template <class> class CellOf, class V>
void input_gradient(const BackwardChunk<typename V::scalar>& chunk, Range rows) {
  product<typename InputWindow<CellOf, V>::Own, V>(chunk.dgates + rows.begin * chunk.gate_stride, chunk.gate_stride,
                                                   chunk.w_ih_t, chunk.H, chunk.I, chunk.dx_rows + rows.begin,
                                                   {0, 1, rows.end - rows.begin}, rows.end - rows.begin,
                                                   {0, column_blocks(chunk.I, V::lanes)});
}

// out [rows of M] of P panels of a packed weight gradient, `dw_panel` apart, += sum over the chunk's rows of
// panel * vectors.
template <int N, int P, class V>
struct WeightGradientJob {
  using T = typename V::scalar;
  const T* panel;  // in tiles of rows: element (row, s) of a tile of M from `row` on stands at row*count + s*M
  const T* vectors;
  index stride, count;
  T* dw;
  index dw_panel;

  template <int M>
  LF_NOINLINE void run(index row) const {
    constexpr index width = N * V::lanes;
    const T* a[M];
    LF_UNROLL for (int m = 0; m < M; ++m) a[m] = panel + row * count + m;
    T* to = dw + row * width;
    V acc[M][P * N];
    LF_UNROLL for (int m = 0; m < M; ++m) {
      LF_UNROLL for (int n = 0; n < P * N; ++n) {
        acc[m][n] = V::load(to + n / N * dw_panel + m * width + n % N * V::lanes);
      }
    }
    accumulate(acc, a, 0, M, vectors, stride, 0, count);
    LF_UNROLL for (int m = 0; m < M; ++m) {
      LF_UNROLL for (int n = 0; n < P * N; ++n) {
        acc[m][n].store(to + n / N * dw_panel + m * width + n % N * V::lanes);
      }
    }
  }
};

// Columns [column .. column+M) of the rows as the panel that WeightGradientJob reads; a column past `columns` is all
// ones.
template <class V>
struct PackPanelJob {
  using T = typename V::scalar;
  const T* const* rows;
  index count, columns;
  T* panel;

  template <int M>
  LF_NOINLINE void run(index column) const {
    T* to = panel + column * count;
    const index valid = columns - column;
    if (valid >= M) {
      for (index s = 0; s < count; ++s, to += M) {
        LF_UNROLL for (int m = 0; m < M; ++m) to[m] = rows[s][column + m];
      }
    } else {
      for (index s = 0; s < count; ++s, to += M) {
        LF_UNROLL for (int m = 0; m < M; ++m) to[m] = m < valid ? rows[s][column + m] : T(1);
      }
    }
  }
};

// A participant's part of a list of tasks that stand one after the other in groups: takes `group` tasks, says which are
// its own.
struct TaskList {
  Range own;  // of all tasks
  index seen = 0;

  LF_INLINE Range take(index group) {
    const index begin = own.begin < seen ? 0 : own.begin - seen;
    const index end = own.end < seen ? 0 : own.end - seen;
    seen += group;
    return {smaller(begin, group), smaller(end, group)};
  }
};

LF_INLINE TaskList own_tasks(index count, Deal deal) {
  return {{count * deal.id / deal.size, count * (deal.id + 1) / deal.size}};
}

// The three products with the chunk's rows: dw_ih with db as its last row, dw_hh, with a row for the bias if it has one
// of its own, dw_hr.
template <template <class> class CellOf, class V>
struct WeightTiles {
  static constexpr int limit = tile_rows<V>(most_panels<CellOf<V>::gates> * CellOf<V>::gates);
  index x, h, p;  // rows of the outputs
  index x_tiles, h_tiles, p_tiles;

  LF_INLINE explicit WeightTiles(const BackwardChunk<typename V::scalar>& chunk)
      : x(chunk.I + 1),
        h(recurrent_rows<CellOf, V>(chunk.Ho)),
        p(chunk.w_hr_t ? chunk.Ho : 0),
        x_tiles(ceil_div(x, limit)),
        h_tiles(ceil_div(h, limit)),
        p_tiles(ceil_div(p, limit)) {}
};

template <template <class> class CellOf, class V>
void pack_panels(const BackwardChunk<typename V::scalar>& chunk, Deal deal) {
  using Tiles = WeightTiles<CellOf, V>;
  const Tiles tiles(chunk);
  const index count = chunk.first_row[chunk.steps];
  TaskList tasks = own_tasks(tiles.x_tiles + tiles.h_tiles + tiles.p_tiles, deal);
  for_tiles<Tiles::limit>(tiles.x, tasks.take(tiles.x_tiles),
                          PackPanelJob<V>{chunk.x_rows, count, chunk.I, chunk.panel_x});
  for_tiles<Tiles::limit>(tiles.h, tasks.take(tiles.h_tiles),
                          PackPanelJob<V>{chunk.h_rows, count, chunk.Ho, chunk.panel_h});
  for_tiles<Tiles::limit>(tiles.p, tasks.take(tiles.p_tiles),
                          PackPanelJob<V>{chunk.dp_rows, count, chunk.Ho, chunk.panel_p});
}

// One column block of dw_hr.
template <int limit, class V>
struct ProjectionWeightBlock {
  using T = typename V::scalar;
  const BackwardChunk<T>& chunk;
  index column, rows;
  Range own;
  index count;
  T* dw;

  template <int N>
  LF_INLINE void run() const {
    for_tiles<limit>(rows, own,
                     WeightGradientJob<N, 1, V>{chunk.panel_p, chunk.u + column, chunk.unit_stride, count, dw, 0});
  }
};

// P unit blocks of dw_ih and dw_hh, from jb on.
template <template <class> class CellOf, class V>
struct WeightGradientGroup {
  using Tiles = WeightTiles<CellOf, V>;
  const BackwardChunk<typename V::scalar>& chunk;
  const Tiles& tiles;
  TaskList& tasks;

  template <int P>
  LF_INLINE void run(index jb) const {
    using Input = InputWindow<CellOf, V>;
    using Recurrent = RecurrentWindow<CellOf, V>;
    static_assert(P == 1 || Input::slots == Input::gates);  // the vectors of all blocks stand together
    constexpr int G = Input::gates;
    const index count = chunk.first_row[chunk.steps];
    const index x_panel = tiles.x * G * V::lanes;
    const index h_panel = tiles.h * G * V::lanes;
    const typename V::scalar* vectors = chunk.dgates + jb * Input::slots * V::lanes;
    for_tiles<Tiles::limit>(tiles.x, tasks.take(tiles.x_tiles),
                            WeightGradientJob<G, P, V>{chunk.panel_x, vectors + Input::first * V::lanes,
                                                       chunk.gate_stride, count, chunk.dw_ih + jb * x_panel, x_panel});
    for_tiles<Tiles::limit>(tiles.h, tasks.take(tiles.h_tiles),
                            WeightGradientJob<G, P, V>{chunk.panel_h, vectors + Recurrent::first * V::lanes,
                                                       chunk.gate_stride, count, chunk.dw_hh + jb * h_panel, h_panel});
  }
};

// Sums in processing order: steps strictly descending, rows of the sorted batch ascending.
template <template <class> class CellOf, class V>
void weight_gradient(const BackwardChunk<typename V::scalar>& chunk, Deal deal) {
  constexpr int gates = CellOf<V>::gates;
  using Tiles = WeightTiles<CellOf, V>;
  const Tiles tiles(chunk);
  const index count = chunk.first_row[chunk.steps];
  const index blocks = ceil_div(chunk.H, V::lanes);
  const index projection_blocks = tiles.p ? column_blocks(chunk.H, V::lanes) : 0;
  const index groups = groups_of<gates>(blocks);
  TaskList tasks = own_tasks(groups * (tiles.x_tiles + tiles.h_tiles) + projection_blocks * tiles.p_tiles, deal);
  for_groups<gates>({0, blocks}, WeightGradientGroup<CellOf, V>{chunk, tiles, tasks});
  if constexpr (CellOf<V>::carry == Carry::c) {
    typename V::scalar* dw_hr = chunk.dw_hr;
    for (index nb = 0; nb < projection_blocks; ++nb) {
      const ColumnBlock block = column_block<V>(chunk.H, nb);
      const Range own = tasks.take(tiles.p_tiles);
      for_vectors(block.vectors,
                  ProjectionWeightBlock<Tiles::limit, V>{chunk, block.first, tiles.p, own, count, dw_hr});
      dw_hr += tiles.p * block.vectors * V::lanes;
    }
  }
}
