// Gates and c of one chunk of time again, from what a lean reserve keeps. Included inside a target region, once per
// instruction set.
//
// h before every step is known, so nothing but c is sequential. Every sum runs over the same k in the same order as in
// forward, x before h, so the bits are the same.

// The activated gates of M of the listed rows and one unit block.
template <template <class> class CellOf, class V>
struct RecomputeGatesJob {
  using T = typename V::scalar;
  const RecomputeChunk<T>& chunk;
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
    LF_UNROLL for (int m = 0; m < M; ++m) a[m] = chunk.h_rows[rows[number + m]];
    accumulate(acc, a, 0, 1, chunk.w_hh + jb * chunk.Ho * width, width, 0, chunk.Ho);
    LF_UNROLL for (int m = 0; m < M; ++m) {
      // c before the step is not known yet. Of the whole cell only the gates are wanted, and computed.
      const auto next = CellOf<V>::forward({acc[m][0], acc[m][1], acc[m][2], acc[m][3]}, V::set(0));
      store_gates(next.gates, chunk.gates + rows[number + m] * chunk.gate_stride + jb * width);
    }
  }
};

template <template <class> class CellOf, class V>
void recompute_gates(const RecomputeChunk<typename V::scalar>& chunk, const index* rows, index count) {
  for (index jb = 0; jb < ceil_div(chunk.H, V::lanes); ++jb) {
    for_all_tiles<tile_rows<V>(CellOf<V>::gates)>(count, RecomputeGatesJob<CellOf, V>{chunk, jb, rows});
  }
}

template <template <class> class CellOf, class V>
void recompute_cells(const RecomputeChunk<typename V::scalar>& chunk, RowDeal deal) {
  using T = typename V::scalar;
  for (index step = chunk.steps; step-- > 0;) {
    const index count = deal.count(chunk.first_row[step + 1] - chunk.first_row[step]);
    for (index number = 0; number < count; ++number) {
      const index row = deal.row(number);
      const T* gates = chunk.gates + (chunk.first_row[step] + row) * chunk.gate_stride;
      const T* c_prev = chunk.c + (chunk.first_row[step + 1] + row) * chunk.unit_stride;
      T* c = chunk.c + (chunk.first_row[step] + row) * chunk.unit_stride;
      for (index unit = 0; unit < chunk.H; unit += V::lanes, gates += CellOf<V>::gates * V::lanes) {
        CellOf<V>::next_c(V::load(gates), V::load(gates + V::lanes), V::load(gates + 2 * V::lanes),
                          V::load(c_prev + unit))
            .store(c + unit);
      }
    }
  }
}
