// One step of few rows, straight from the weights as the user has them and to their gradients: packing would cost more
// than the step. Included inside a target region, once per instruction set.
//
// Every sum runs over the same k in the same order as in a tile of packed weights, so the bits are the same.

template <class V>
constexpr int line_of = 64 / sizeof(typename V::scalar);  // elements of a cache line

// `count` columns of the `valid` rows of w [., K] that are there, as `lanes` rows of a cache line each, else zeros.
template <class V>
LF_NOINLINE void copy_edge(const typename V::scalar* w, index K, index valid, index count, typename V::scalar* edge) {
  for (index lane = 0; lane < V::lanes; ++lane) {
    for (index k = 0; k < line_of<V>; ++k) *edge++ = lane < valid && k < count ? w[lane * K + k] : 0;
  }
}

// acc[m] += a[m] times the first `valid` of `lanes` rows of w [., K].
template <class V, int M>
LF_INLINE void accumulate_direct(V (&acc)[M], const typename V::scalar* (&a)[M], const typename V::scalar* w, index K,
                                 index valid) {
  constexpr index line = line_of<V>;
  const index whole = valid == V::lanes ? K / line * line : 0;
  for (index k = 0; k < whole; k += line) {
    LF_UNROLL for (int at = 0; at < line; at += V::columns) {
      V columns[V::columns];
      load_columns(w + k + at, K, columns);
      LF_UNROLL for (int j = 0; j < V::columns; ++j) {
        LF_UNROLL for (int m = 0; m < M; ++m) acc[m] = fma(V::set(a[m][k + at + j]), columns[j], acc[m]);
      }
    }
  }
  // The edges from a copy, since nothing beyond w may be read.
  for (index k = whole; k < K; k += line) {
    const index count = smaller(line, K - k);
    typename V::scalar edge[V::lanes * line];
    copy_edge<V>(w + k, K, valid, count, edge);
    for (index at = 0; at < count; at += V::columns) {
      V columns[V::columns];
      load_columns(edge + at, line, columns);
      LF_UNROLL for (int j = 0; j < V::columns; ++j) {
        if (at + j >= count) break;
        LF_UNROLL for (int m = 0; m < M; ++m) acc[m] = fma(V::set(a[m][k + at + j]), columns[j], acc[m]);
      }
    }
  }
}

// All pre-activations of the only step of a chunk, for M rows and one unit block.
template <int gates, class V>
struct DirectSumsJob {
  using T = typename V::scalar;
  const ForwardChunk<T>& chunk;
  const Weights<T>& weights;
  index jb;

  template <int M>
  LF_NOINLINE void run(index row) const {
    const index unit = jb * V::lanes;
    const index valid = smaller(V::lanes, chunk.H - unit);
    // One gate after the other: the rows of all of them would crowd each other out of the cache.
    for (index gate = 0; gate < gates; ++gate) {
      const index first = gate * chunk.H + unit;
      V bias = V::set(0);
      if (weights.b_ih) bias = add(bias, load_valid<V>(weights.b_ih + first, valid));
      if (weights.b_hh) bias = add(bias, load_valid<V>(weights.b_hh + first, valid));
      V acc[M];
      const T* a[M];
      LF_UNROLL for (int m = 0; m < M; ++m) {
        acc[m] = bias;
        a[m] = chunk.x_rows[row + m];
      }
      const T* w = weights.w_ih + first * chunk.I;
      index K = chunk.I;
      for (int part = 0; part < 2; ++part) {
        accumulate_direct(acc, a, w, K, valid);
        w = weights.w_hh + first * chunk.H;
        K = chunk.H;
        LF_UNROLL for (int m = 0; m < M; ++m) a[m] = chunk.h[0] + (row + m) * chunk.h_stride;
      }
      T* to = chunk.gates + row * chunk.gate_stride + (jb * gates + gate) * V::lanes;
      LF_UNROLL for (int m = 0; m < M; ++m) acc[m].store(to + m * chunk.gate_stride);
    }
  }
};

template <template <class> class CellOf, class V, bool save>
LF_NOINLINE void finish_rows(const ForwardChunk<typename V::scalar>& chunk, index jb) {
  constexpr int gates = CellOf<V>::gates;
  for (index row = 0; row < chunk.first_row[1]; ++row) {
    const typename V::scalar* from = chunk.gates + row * chunk.gate_stride + jb * gates * V::lanes;
    V acc[1][gates];
    LF_UNROLL for (int gate = 0; gate < gates; ++gate) acc[0][gate] = V::load(from + gate * V::lanes);
    finish_step<CellOf, save, 1>(chunk, 0, jb, row, 1, acc);
  }
}

template <template <class> class CellOf, class V>
void direct_step(const ForwardChunk<typename V::scalar>& chunk, const Weights<typename V::scalar>& weights,
                 Range unit_blocks) {
  for (index jb = unit_blocks.begin; jb < unit_blocks.end; ++jb) {
    for_all_tiles<max_rows>(chunk.first_row[1], DirectSumsJob<CellOf<V>::gates, V>{chunk, weights, jb});
    if (chunk.save) {
      finish_rows<CellOf, V, true>(chunk, jb);
    } else {
      finish_rows<CellOf, V, false>(chunk, jb);
    }
  }
}

// Columns [column .. column + N vectors) of M dealt rows of dgates times w [gates*H, K], the sum over (unit, gate).
template <int gates, int N, class V>
struct DirectProductJob {
  using T = typename V::scalar;
  const BackwardChunk<T>& chunk;
  const T* w;
  index K, column;
  T* const* out_rows;
  RowDeal deal;

  template <int M>
  LF_NOINLINE void run(index number) const {
    const index valid = K - column;
    const T* a[M];
    LF_UNROLL for (int m = 0; m < M; ++m) a[m] = chunk.dgates + deal.row(number + m) * chunk.gate_stride;
    V acc[M][N];
    LF_UNROLL for (int m = 0; m < M; ++m) { LF_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = V::set(0); }
    for (index unit = 0; unit < chunk.H; ++unit) {
      const index first = unit / V::lanes * gates * V::lanes + unit % V::lanes;
      const T* from = w + unit * K + column;
      if constexpr (N > 1) {
        accumulate(acc, a, first, V::lanes, from, chunk.H * K, 0, gates);
      } else {
        for (index gate = 0; gate < gates; ++gate) {
          const V weight = load_valid<V>(from + gate * chunk.H * K, valid);
          LF_UNROLL for (int m = 0; m < M; ++m) acc[m][0] =
              fma(V::set(a[m][first + gate * V::lanes]), weight, acc[m][0]);
        }
      }
    }
    LF_UNROLL for (int m = 0; m < M; ++m) store_columns(acc[m], out_rows[deal.row(number + m)] + column, valid);
  }
};

template <int gates, class V>
void direct_product(const BackwardChunk<typename V::scalar>& chunk, const typename V::scalar* w, index K,
                    typename V::scalar* const* out_rows, RowDeal deal, index count) {
  constexpr int wide = 4;
  index column = 0;
  for (; column + wide * V::lanes <= K; column += wide * V::lanes) {
    for_all_tiles<tile_rows<V>(wide)>(count, DirectProductJob<gates, wide, V>{chunk, w, K, column, out_rows, deal});
  }
  for (; column < K; column += V::lanes) {
    for_all_tiles<max_rows>(count, DirectProductJob<gates, 1, V>{chunk, w, K, column, out_rows, deal});
  }
}

// dgates of the only step of a chunk, dh and dc before it, and dx.
template <template <class> class CellOf, class V>
void direct_gradients(const BackwardChunk<typename V::scalar>& chunk, const Weights<typename V::scalar>& weights,
                      bool wants_dx, RowDeal deal) {
  constexpr int gates = CellOf<V>::gates;
  const index count = deal.count(chunk.first_row[1]);
  if (chunk.dc_rows) add_cells_gradient<V>(chunk, 0, deal, count);
  cell_gradient<CellOf, V>(chunk, 0, deal, count);
  direct_product<gates, V>(chunk, weights.w_hh, chunk.H, chunk.dh_rows, deal, count);
  if (wants_dx) direct_product<gates, V>(chunk, weights.w_ih, chunk.I, chunk.dx_rows, deal, count);
}

// One row of a weight gradient: the sum over the chunk's rows, in their order, of a gate's gradient times a row of
// `inputs`.
template <class V>
LF_INLINE void outer_product(const typename V::scalar* gradients, index stride, index count,
                             const typename V::scalar* const* inputs, index K, typename V::scalar* dw) {
  for (index k = 0; k < K; k += V::lanes) {
    const index valid = smaller(V::lanes, K - k);
    V sum = V::set(0);
    for (index row = 0; row < count; ++row) {
      sum = fma(V::set(gradients[row * stride]), load_valid<V>(inputs[row] + k, valid), sum);
    }
    const V sums[1] = {sum};
    store_columns(sums, dw + k, valid);
  }
}

// dW_ih, dW_hh and db of one chunk that is the whole sequence, for the given units.
template <template <class> class CellOf, class V>
void direct_weight_gradient(const BackwardChunk<typename V::scalar>& chunk,
                            const WeightGradients<typename V::scalar>& dw, Range units) {
  using T = typename V::scalar;
  constexpr int gates = CellOf<V>::gates;
  const index count = chunk.first_row[chunk.steps];
  for (int gate = 0; gate < gates; ++gate) {
    for (index unit = units.begin; unit < units.end; ++unit) {
      const T* gradients = chunk.dgates + unit / V::lanes * gates * V::lanes + gate * V::lanes + unit % V::lanes;
      const index at = gate * chunk.H + unit;
      if (dw.w_ih) {
        outer_product<V>(gradients, chunk.gate_stride, count, chunk.x_rows, chunk.I, dw.w_ih + at * chunk.I);
      }
      if (dw.w_hh) {
        outer_product<V>(gradients, chunk.gate_stride, count, chunk.h_rows, chunk.Ho, dw.w_hh + at * chunk.Ho);
      }
      if (dw.b) {
        T sum = 0;
        for (index row = 0; row < count; ++row) sum += gradients[row * chunk.gate_stride];
        dw.b[at] = sum;
      }
    }
  }
}
