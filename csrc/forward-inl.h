// Forward over one chunk of time. Included inside a target region, once per instruction set.

// acc = bias + x W_ih^T for M rows of x and the unit block whose panel is w.
template <class V, int M, int N>
LF_INLINE void input_sums(V (&acc)[M][N], const typename V::scalar* const (&x)[M], const typename V::scalar* w,
                          index I) {
  constexpr index width = N * V::lanes;
  LF_UNROLL for (int n = 0; n < N; ++n) {
    const V bias = V::load(w + I * width + n * V::lanes);
    LF_UNROLL for (int m = 0; m < M; ++m) acc[m][n] = bias;
  }
  accumulate(acc, x, 0, 1, w, width, 0, I);
}

// Activated gates of one row and unit block in a gate row.
template <class V, template <class> class Gates>
LF_INLINE void store_gates(Gates<V> gates, typename V::scalar* to) {
  gates.i.store(to);
  gates.f.store(to + V::lanes);
  gates.g.store(to + 2 * V::lanes);
  gates.o.store(to + 3 * V::lanes);
}

// Pre-activations from x: unit block jb of M of the listed rows = bias + x W_ih^T.
template <template <class> class CellOf, class V>
struct InputProductJob {
  using T = typename V::scalar;
  const ForwardChunk<T>& chunk;
  index jb;
  const index* rows;

  template <int M>
  LF_NOINLINE void run(index number) const {
    constexpr int N = CellOf<V>::gates;
    constexpr index width = N * V::lanes;
    const T* a[M];
    LF_UNROLL for (int m = 0; m < M; ++m) a[m] = chunk.x_rows[rows[number + m]];
    V acc[M][N];
    input_sums(acc, a, chunk.w_ih + jb * (chunk.I + 1) * width, chunk.I);
    LF_UNROLL for (int m = 0; m < M; ++m) {
      T* gates = chunk.gates + rows[number + m] * chunk.gate_stride + jb * width;
      LF_UNROLL for (int n = 0; n < N; ++n) acc[m][n].store(gates + n * V::lanes);
    }
  }
};

template <template <class> class CellOf, class V>
void input_product(const ForwardChunk<typename V::scalar>& chunk, const index* rows, index count, Range unit_blocks) {
  for (index jb = unit_blocks.begin; jb < unit_blocks.end; ++jb) {
    for_all_tiles<tile_rows<V>(CellOf<V>::gates)>(count, InputProductJob<CellOf, V>{chunk, jb, rows});
  }
}

// out[row] = the row of a times w_t, for one column block: M rows from `row` on of those dealt.
template <int gates, class V, int N>
struct ProductJob {
  using T = typename V::scalar;
  const T* rows;
  index stride;
  const T* w_t;
  index H;  // units that the sum runs over
  T* const* out_rows;
  index column, valid;
  RowDeal deal;

  template <int M>
  LF_NOINLINE void run(index number) const {
    const T* a[M];
    LF_UNROLL for (int m = 0; m < M; ++m) a[m] = rows + deal.row(number + m) * stride;
    V acc[M][N];
    LF_UNROLL for (int m = 0; m < M; ++m) { LF_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = V::set(0); }
    accumulate_units<gates>(acc, a, w_t, H);
    LF_UNROLL for (int m = 0; m < M; ++m) { store_columns(acc[m], out_rows[deal.row(number + m)] + column, valid); }
  }
};

// One column block of `count` dealt rows of width `columns`.
template <int gates, class V>
struct ProductBlock {
  using T = typename V::scalar;
  const T* rows;
  index stride;
  const T* w_t;
  index H, columns;
  ColumnBlock block;
  T* const* out_rows;
  RowDeal deal;
  index count;

  template <int N>
  LF_INLINE void run() const {
    const index valid = columns - block.first;
    for_all_tiles<tile_rows<V>(N)>(count,
                                   ProductJob<gates, V, N>{rows, stride, w_t, H, out_rows, block.first, valid, deal});
  }
};

// Column blocks of `count` dealt rows of width `columns` = rows times w_t, the sum over (unit, gate); w_t as packed by
// pack_transposed.
template <int gates, class V>
void product(const typename V::scalar* rows, index stride, const typename V::scalar* w_t, index H, index columns,
             typename V::scalar* const* out_rows, RowDeal deal, index count, Range blocks) {
  for (index nb = blocks.begin; nb < blocks.end; ++nb) {
    const ColumnBlock block = column_block<V>(columns, nb);
    const typename V::scalar* panel = w_t + H * gates * block.first;
    for_vectors(block.vectors, ProductBlock<gates, V>{rows, stride, panel, H, columns, block, out_rows, deal, count});
  }
}

// The cell on the pre-activations of M rows, `row_step` apart from `row` on, and P unit blocks from jb on.
template <template <class> class CellOf, bool save, int P, class V, int M, int N>
LF_INLINE void finish_step(const ForwardChunk<typename V::scalar>& chunk, index step, index jb, index row,
                           index row_step, const V (&acc)[M][N]) {
  using T = typename V::scalar;
  constexpr int G = CellOf<V>::gates;
  constexpr index width = G * V::lanes;
  const index unit = jb * V::lanes;
  const index gate_step = row_step * chunk.gate_stride;
  const index unit_step = row_step * chunk.unit_stride;
  T* gates = chunk.gates + (chunk.first_row[step] + row) * chunk.gate_stride + jb * width;
  const T* c_prev = chunk.c + (chunk.c_row[step] + row) * chunk.unit_stride + unit;
  T* c = chunk.c + (chunk.c_row[step + 1] + row) * chunk.unit_stride + unit;
  T* h = (chunk.w_hr ? chunk.u : chunk.h[(step + 1) % 2]) + row * chunk.unit_stride + unit;
  T* const* y_rows = chunk.w_hr ? nullptr : chunk.y_rows + chunk.first_row[step] + row;
  const index H = chunk.H;
  LF_UNROLL for (int m = 0; m < M; ++m) {
    LF_UNROLL for (int p = 0; p < P; ++p) {
      const index at = m * unit_step + p * V::lanes;
      const auto next = CellOf<V>::forward({acc[m][p * G], acc[m][p * G + 1], acc[m][p * G + 2], acc[m][p * G + 3]},
                                           V::load(c_prev + at));
      next.c.store(c + at);
      next.h.store(h + at);
      if (y_rows) {
        const V outputs[1] = {next.h};
        const index first = unit + p * V::lanes;
        store_columns(outputs, y_rows[m * row_step] + first, H - first);
      }
      if constexpr (save) store_gates(next.gates, gates + m * gate_step + p * width);
    }
  }
}

// One step of M dealt rows and P unit blocks from jb on: the recurrent product, then the cell on the sums in registers.
template <template <class> class CellOf, class V, bool save>
struct ForwardStepJob {
  using T = typename V::scalar;
  const ForwardChunk<T>& chunk;
  index step, jb;
  RowDeal deal;

  template <int M>
  LF_INLINE void run(index number) const {
    run_panels<M, 1>(number);
  }

  template <int M, int P>
  LF_NOINLINE void run_panels(index number) const {
    constexpr int G = CellOf<V>::gates;
    constexpr index width = G * V::lanes;
    const index row = deal.row(number);
    const index panel = chunk.Ho * width;
    const T* h_prev = chunk.h[step % 2];
    const T* a[M];
    LF_UNROLL for (int m = 0; m < M; ++m) a[m] = h_prev + (row + m * deal.step) * chunk.h_stride;
    const index gate_step = deal.step * chunk.gate_stride;
    const T* gates = chunk.gates + (chunk.first_row[step] + row) * chunk.gate_stride + jb * width;
    V acc[M][P * G];
    LF_UNROLL for (int m = 0; m < M; ++m) {
      LF_UNROLL for (int n = 0; n < P * G; ++n) acc[m][n] = V::load(gates + m * gate_step + n * V::lanes);
    }
    accumulate<P>(acc, a, 0, 1, chunk.w_hh + jb * panel, width, panel, chunk.Ho);
    finish_step<CellOf, save, P>(chunk, step, jb, row, deal.step, acc);
  }
};

// With 16 registers a tile of one row has too few chains of sums to hide the latency of fma: two unit blocks at once.
template <class V>
constexpr bool single_rows_in_pairs = V::registers == 16 && V::lanes > 1;

template <template <class> class CellOf, class V, bool save>
LF_INLINE void forward_step(const ForwardChunk<typename V::scalar>& chunk, index step, Part part) {
  using Job = ForwardStepJob<CellOf, V, save>;
  const RowDeal deal = part.rows;
  const index active = chunk.first_row[step + 1] - chunk.first_row[step];
  const index count = deal.count(active);
  index jb = part.blocks.begin;
  if constexpr (single_rows_in_pairs<V>) {
    if (count == 1) {
      for (; jb + 2 <= part.blocks.end; jb += 2) Job{chunk, step, jb, deal}.template run_panels<1, 2>(0);
    }
  }
  for (; jb < part.blocks.end; ++jb) for_all_tiles<tile_rows<V>(CellOf<V>::gates)>(count, Job{chunk, step, jb, deal});
  if (chunk.w_hr) {
    typename V::scalar* const* h_rows = chunk.h_rows[(step + 1) % 2];
    product<1, V>(chunk.u, chunk.unit_stride, chunk.w_hr, chunk.H, chunk.Ho, h_rows, deal, count,
                  {0, column_blocks(chunk.Ho, V::lanes)});
    for (index number = 0; number < count; ++number) {
      const index row = deal.row(number);
      for (index k = 0; k < chunk.Ho; ++k) chunk.y_rows[chunk.first_row[step] + row][k] = h_rows[row][k];
    }
  }
}

template <template <class> class CellOf, class V>
void forward_steps(const ForwardChunk<typename V::scalar>& chunk, Range steps, Part part) {
  for (index step = steps.begin; step < steps.end; ++step) {
    if (chunk.save) {
      forward_step<CellOf, V, true>(chunk, step, part);
    } else {
      forward_step<CellOf, V, false>(chunk, step, part);
    }
  }
}
