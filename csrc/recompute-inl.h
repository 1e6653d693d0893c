// Gates and what is carried (c of an LSTM, h of a GRU) of one chunk of time again, from what a lean reserve keeps.
// Included inside a target region, once per instruction set.
//
// h before every step is known, so nothing else is sequential. Every sum runs over the same k in the same order as in
// forward, x before h, so the bits are the same.

// The activated gates of one row and unit block, from sums over h and the parts from x that are in the gate row.
template <template <class> class CellOf, class V, int N>
LF_INLINE void activate(const V (&acc)[N], typename V::scalar* gates, Activation activation) {
  using Sums = RecurrentWindow<CellOf, V>;
  V sums[Sums::slots];
  LF_UNROLL for (int n = 0; n < Sums::first; ++n) sums[n] = V::load(gates + n * V::lanes);
  LF_UNROLL for (int n = 0; n < N; ++n) sums[Sums::first + n] = acc[n];
  // What is carried into the step is not known yet. Of the whole cell only the gates are wanted, and computed.
  store_gates(CellOf<V>::forward(sums, V::set(0), activation).gates, gates);
}

// The same on what stands in the gate rows, for rows one by one.
template <template <class> class CellOf, class V>
LF_NOINLINE void activate_rows(typename V::scalar* const* gates, index rows, Activation activation) {
  using Sums = RecurrentWindow<CellOf, V>;
  for (index row = 0; row < rows; ++row) {
    V acc[Sums::gates];
    LF_UNROLL for (int n = 0; n < Sums::gates; ++n) acc[n] = V::load(gates[row] + (Sums::first + n) * V::lanes);
    activate<CellOf>(acc, gates[row], activation);
  }
}

// The activated gates of M of the listed rows and one unit block.
template <template <class> class CellOf, class V>
struct RecomputeGatesJob {
  using T = typename V::scalar;
  const RecomputeChunk<T>& chunk;
  index jb;
  const index* rows;

  template <int M>
  LF_NOINLINE void run(index number) const {
    using Sums = RecurrentWindow<CellOf, V>;
    constexpr int G = Sums::gates;
    constexpr index width = G * V::lanes;
    const T* a[M];
    LF_UNROLL for (int m = 0; m < M; ++m) a[m] = chunk.x_rows[rows[number + m]];
    const T* w_hh = chunk.w_hh + jb * recurrent_rows<CellOf, V>(chunk.Ho) * width;
    T* gates[M];
    LF_UNROLL for (int m = 0; m < M; ++m) {
      gates[m] = chunk.gates + rows[number + m] * chunk.gate_stride + jb * Sums::slots * V::lanes;
    }
    V acc[M][G];
    input_sums<1>(acc, a, chunk.w_ih + jb * (chunk.I + 1) * width, 0, chunk.I);
    turn_to_h<CellOf>(acc, gates, w_hh, chunk.Ho);
    LF_UNROLL for (int m = 0; m < M; ++m) a[m] = chunk.h_rows[rows[number + m]];
    accumulate(acc, a, 0, 1, w_hh, width, 0, chunk.Ho);
    if constexpr (CellOf<V>::from_registers) {
      LF_UNROLL for (int m = 0; m < M; ++m) activate<CellOf>(acc[m], gates[m], chunk.activation);
    } else {
      LF_UNROLL for (int m = 0; m < M; ++m) store_gates(acc[m], gates[m] + Sums::first * V::lanes);
      activate_rows<CellOf, V>(gates, M, chunk.activation);
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
  requires(CellOf<V>::carry != Carry::nothing)
void recompute_cells(const RecomputeChunk<typename V::scalar>& chunk, RowDeal deal) {
  using T = typename V::scalar;
  constexpr int slots = RecurrentWindow<CellOf, V>::slots;
  for (index step = chunk.steps; step-- > 0;) {
    const index count = deal.count(chunk.first_row[step + 1] - chunk.first_row[step]);
    for (index number = 0; number < count; ++number) {
      const index row = deal.row(number);
      const T* gates = chunk.gates + (chunk.first_row[step] + row) * chunk.gate_stride;
      const T* c_prev = chunk.c + (chunk.first_row[step + 1] + row) * chunk.unit_stride;
      T* c = chunk.c + (chunk.first_row[step] + row) * chunk.unit_stride;
      const bool reset = chunk.resets && chunk.resets[chunk.first_row[step] + row];
      for (index unit = 0; unit < chunk.H; unit += V::lanes, gates += slots * V::lanes) {
        V activated[slots];
        LF_UNROLL for (int n = 0; n < slots; ++n) activated[n] = V::load(gates + n * V::lanes);
        CellOf<V>::next_carry(activated, reset ? V::set(0) : V::load(c_prev + unit)).store(c + unit);
      }
    }
  }
}

template <template <class> class CellOf, class V>
  requires(CellOf<V>::carry == Carry::nothing)
void recompute_cells(const RecomputeChunk<typename V::scalar>&, RowDeal) {}
