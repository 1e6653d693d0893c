// Backward over one chunk of time, then its deferred products. Included inside a target region, once per instruction
// set.

// out[row .. row+M) of one column block = dgates W, the sum over (unit, gate).
template <int gates, class V, int N>
struct OutputGradientJob {
  using T = typename V::scalar;
  const T* dgates;
  index gate_stride;
  const T* w_t;
  index H;
  T* const* out_rows;
  index column, valid;

  template <int M>
  LF_NOINLINE void run(index row) const {
    const T* a[M];
    for (int m = 0; m < M; ++m) a[m] = dgates + (row + m) * gate_stride;
    V acc[M][N];
    for (int m = 0; m < M; ++m) {
      for (int n = 0; n < N; ++n) acc[m][n] = V::set(0);
    }
    accumulate_units<gates>(acc, a, w_t, H);
    for (int m = 0; m < M; ++m) store_columns(acc[m], out_rows[row + m] + column, valid);
  }
};

// out rows [rows) of width `columns` = dgates W; w_t packed by pack_transposed.
template <int gates, class V>
void output_gradient(const typename V::scalar* dgates, index gate_stride, const typename V::scalar* w_t, index H,
                     index columns, typename V::scalar* const* out_rows, Range rows) {
  for (index nb = 0; nb < column_blocks<V>(columns); ++nb) {
    const ColumnBlock block = column_block<V>(columns, nb);
    const index valid = columns - block.first;
    switch (block.vectors) {
      case 1:
        for_row_tiles<tile_rows<V>(1)>(
            rows, OutputGradientJob<gates, V, 1>{dgates, gate_stride, w_t, H, out_rows, block.first, valid});
        break;
      case 2:
        for_row_tiles<tile_rows<V>(2)>(
            rows, OutputGradientJob<gates, V, 2>{dgates, gate_stride, w_t, H, out_rows, block.first, valid});
        break;
      case 3:
        for_row_tiles<tile_rows<V>(3)>(
            rows, OutputGradientJob<gates, V, 3>{dgates, gate_stride, w_t, H, out_rows, block.first, valid});
        break;
      default:
        for_row_tiles<tile_rows<V>(4)>(
            rows, OutputGradientJob<gates, V, 4>{dgates, gate_stride, w_t, H, out_rows, block.first, valid});
        break;
    }
    w_t += H * gates * block.vectors * V::lanes;
  }
}

// dgates of one step of rows [rows), and dc before it.
template <template <class> class CellOf, class V>
LF_INLINE void cell_gradient(const BackwardChunk<typename V::scalar>& chunk, index step, Range rows) {
  using T = typename V::scalar;
  constexpr index width = CellOf<V>::gates * V::lanes;
  for (index row = rows.begin; row < rows.end; ++row) {
    const T* gates = chunk.gates + (step * chunk.B + row) * chunk.gate_stride;
    T* dgates = chunk.dgates + ((chunk.steps - 1 - step) * chunk.B + row) * chunk.gate_stride;
    const T* c_prev = chunk.c + step * chunk.c_step + row * chunk.unit_stride;
    const T* c = c_prev + chunk.c_step;
    const T* dy = chunk.dy ? chunk.dy + step * chunk.dy_step + row * chunk.dy_row : nullptr;
    const T* dh_carry = chunk.dh + row * chunk.unit_stride;
    T* dc = chunk.dc + row * chunk.unit_stride;
    for (index unit = 0; unit < chunk.H; unit += V::lanes, gates += width, dgates += width) {
      V dh = V::load(dh_carry + unit);
      if (dy) {
        const index valid = chunk.H - unit;
        dh = add(dh, valid >= V::lanes ? V::load(dy + unit) : V::load_first(dy + unit, valid));
      }
      const auto gradient = CellOf<V>::backward(
          {V::load(gates), V::load(gates + V::lanes), V::load(gates + 2 * V::lanes), V::load(gates + 3 * V::lanes)},
          V::load(c_prev + unit), V::load(c + unit), dh, V::load(dc + unit));
      gradient.dc_prev.store(dc + unit);
      gradient.dgates.i.store(dgates);
      gradient.dgates.f.store(dgates + V::lanes);
      gradient.dgates.g.store(dgates + 2 * V::lanes);
      gradient.dgates.o.store(dgates + 3 * V::lanes);
    }
  }
}

template <template <class> class CellOf, class V>
void backward_steps(const BackwardChunk<typename V::scalar>& chunk, Range rows) {
  for (index step = chunk.steps - 1; step >= 0; --step) {
    cell_gradient<CellOf, V>(chunk, step, rows);
    output_gradient<CellOf<V>::gates, V>(chunk.dgates + (chunk.steps - 1 - step) * chunk.B * chunk.gate_stride,
                                         chunk.gate_stride, chunk.w_hh_t, chunk.H, chunk.H, chunk.dh_rows, rows);
  }
}

template <template <class> class CellOf, class V>
void input_gradient(const BackwardChunk<typename V::scalar>& chunk, Range rows) {
  output_gradient<CellOf<V>::gates, V>(chunk.dgates, chunk.gate_stride, chunk.w_ih_t, chunk.H, chunk.I, chunk.dx_rows,
                                       rows);
}

// Rows [row .. row+M) of unit block jb of a packed weight gradient += sum over the chunk's rows of a * dgates.
template <int N, class V>
struct WeightGradientJob {
  using T = typename V::scalar;
  const T* panel;  // [tile][s][M] in tiles of rows: element (row, s) of a tile from `row` on stands at row*count + s*M
  const T* dgates;
  index gate_stride, count;
  T* dw;

  template <int M>
  LF_NOINLINE void run(index row) const {
    constexpr index width = N * V::lanes;
    const T* a[M];
    for (int m = 0; m < M; ++m) a[m] = panel + row * count + m;
    T* to = dw + row * width;
    V acc[M][N];
    for (int m = 0; m < M; ++m) {
      for (int n = 0; n < N; ++n) acc[m][n] = V::load(to + m * width + n * V::lanes);
    }
    accumulate(acc, a, 0, M, dgates, gate_stride, 0, count);
    for (int m = 0; m < M; ++m) {
      for (int n = 0; n < N; ++n) acc[m][n].store(to + m * width + n * V::lanes);
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
        for (int m = 0; m < M; ++m) to[m] = rows[s][column + m];
      }
    } else {
      for (index s = 0; s < count; ++s, to += M) {
        for (int m = 0; m < M; ++m) to[m] = m < valid ? rows[s][column + m] : T(1);
      }
    }
  }
};

template <int gates, class V>
void accumulate_weight_gradient(const BackwardChunk<typename V::scalar>& chunk, const typename V::scalar* const* rows,
                                index columns, bool bias_row, typename V::scalar* dw, Range blocks) {
  constexpr index width = gates * V::lanes;
  constexpr int limit = tile_rows<V>(gates);
  const index count = chunk.steps * chunk.B;
  const Range outputs{0, columns + (bias_row ? 1 : 0)};
  for_row_tiles<limit>(outputs, PackPanelJob<V>{rows, count, columns, chunk.panel});
  for (index jb = blocks.begin; jb < blocks.end; ++jb) {
    for_row_tiles<limit>(outputs, WeightGradientJob<gates, V>{chunk.panel, chunk.dgates + jb * width, chunk.gate_stride,
                                                              count, dw + jb * outputs.end * width});
  }
}

// dw_ih with db as its last row, and dw_hh: sums in processing order, t strictly descending, b ascending.
template <template <class> class CellOf, class V>
void weight_gradient(const BackwardChunk<typename V::scalar>& chunk, Range blocks) {
  accumulate_weight_gradient<CellOf<V>::gates, V>(chunk, chunk.x_rows, chunk.I, true, chunk.dw_ih, blocks);
  accumulate_weight_gradient<CellOf<V>::gates, V>(chunk, chunk.h_rows, chunk.H, false, chunk.dw_hh, blocks);
}
