// One step of few rows, straight from the weights as the user has them and to their gradients: packing would cost more
// than the step. Included inside a target region, once per instruction set.
//
// Every sum runs over the same k in the same order as in a tile of packed weights, so the bits are the same.

// Rows of a tile: room in the registers for the columns of one gate as they are transposed.
template <class V>
constexpr int direct_tile_rows = V::registers >= 32 ? 4 : 2;

template <class V>
constexpr int line_of = 64 / sizeof(typename V::scalar);  // elements of a cache line

template <class V>
LF_INLINE V load_valid(const typename V::scalar* from, index valid) {
  return valid >= V::lanes ? V::load(from) : V::load_first(from, valid);
}

// The first `valid` rows of each gate's `lanes`, one cache line of each.
template <int gates, class V>
LF_NOINLINE void copy_edge(const typename V::scalar* w, index gate_step, index stride, index valid,
                           typename V::scalar* edge) {
  for (int gate = 0; gate < gates; ++gate) {
    for (index lane = 0; lane < V::lanes; ++lane) {
      for (index k = 0; k < line_of<V>; ++k) {
        *edge++ = lane < valid ? w[gate * gate_step + lane * stride + k] : 0;
      }
    }
  }
}

// acc[m][gate] += a[m][k] * (column k of w [lanes, K at `stride`]), for all k of a cache line.
template <int gate, class V, int M, int N>
LF_INLINE void accumulate_line(V (&acc)[M][N], const typename V::scalar* const (&a)[M], const typename V::scalar* w,
                               index stride) {
  LF_UNROLL for (int k = 0; k < line_of<V>; k += V::columns) {
    V columns[V::columns];
    load_columns(w + k, stride, columns);
    LF_UNROLL for (int j = 0; j < V::columns; ++j) {
      LF_UNROLL for (int m = 0; m < M; ++m) acc[m][gate] = fma(V::set(a[m][k + j]), columns[j], acc[m][gate]);
    }
  }
}

// acc[m][gate] += a[m] times rows (gate, unit .. unit + lanes) of w [gates*H, K].
template <int gates, class V, int M>
LF_INLINE void accumulate_direct(V (&acc)[M][gates], const typename V::scalar* (&a)[M], const typename V::scalar* w,
                                 index H, index K, index unit) {
  using T = typename V::scalar;
  constexpr index line = line_of<V>;
  const index valid = smaller(V::lanes, H - unit);
  const T* rows = w + unit * K;
  index k = 0;
  for (; k + line <= K; k += line, rows += line) {
    const T* from = rows;
    index gate_step = H * K;
    index stride = K;
    T edge[gates * V::lanes * line];
    if (valid < V::lanes) {  // a copy, so that nothing beyond w is read
      copy_edge<gates, V>(rows, H * K, K, valid, edge);
      from = edge;
      gate_step = V::lanes * line;
      stride = line;
    }
    accumulate_line<0>(acc, a, from, stride);
    accumulate_line<1>(acc, a, from + gate_step, stride);
    accumulate_line<2>(acc, a, from + 2 * gate_step, stride);
    accumulate_line<3>(acc, a, from + 3 * gate_step, stride);
    LF_UNROLL for (int m = 0; m < M; ++m) a[m] += line;
  }
  for (; k < K; ++k, ++rows) {
    LF_UNROLL for (int gate = 0; gate < gates; ++gate) {
      T column[V::lanes] = {};
      for (index lane = 0; lane < valid; ++lane) column[lane] = rows[(gate * H + lane) * K];
      const V weight = V::load(column);
      LF_UNROLL for (int m = 0; m < M; ++m) acc[m][gate] = fma(V::set(*a[m]), weight, acc[m][gate]);
    }
    LF_UNROLL for (int m = 0; m < M; ++m) ++a[m];
  }
}

// The only step of a chunk, for M rows and one unit block.
template <template <class> class CellOf, class V, bool save>
struct DirectStepJob {
  using T = typename V::scalar;
  const ForwardChunk<T>& chunk;
  const Weights<T>& weights;
  index jb;

  template <int M>
  LF_NOINLINE void run(index row) const {
    constexpr int gates = CellOf<V>::gates;
    const index unit = jb * V::lanes;
    const index valid = smaller(V::lanes, chunk.H - unit);
    V acc[M][gates];
    LF_UNROLL for (int gate = 0; gate < gates; ++gate) {
      V bias = V::set(0);
      const index at = gate * chunk.H + unit;
      if (weights.b_ih) bias = add(bias, load_valid<V>(weights.b_ih + at, valid));
      if (weights.b_hh) bias = add(bias, load_valid<V>(weights.b_hh + at, valid));
      LF_UNROLL for (int m = 0; m < M; ++m) acc[m][gate] = bias;
    }
    const T* w = weights.w_ih;
    index K = chunk.I;
    const T* a[M];
    LF_UNROLL for (int m = 0; m < M; ++m) a[m] = chunk.x_rows[row + m];
    for (int part = 0; part < 2; ++part) {
      accumulate_direct<gates>(acc, a, w, chunk.H, K, unit);
      w = weights.w_hh;
      K = chunk.H;
      LF_UNROLL for (int m = 0; m < M; ++m) a[m] = chunk.h[0] + (row + m) * chunk.h_stride;
    }
    finish_step<CellOf, save, 1>(chunk, 0, jb, row, 1, acc);
  }
};

template <template <class> class CellOf, class V>
void direct_step(const ForwardChunk<typename V::scalar>& chunk, const Weights<typename V::scalar>& weights,
                 Range unit_blocks) {
  for (index jb = unit_blocks.begin; jb < unit_blocks.end; ++jb) {
    if (chunk.save) {
      for_all_tiles<direct_tile_rows<V>>(chunk.first_row[1], DirectStepJob<CellOf, V, true>{chunk, weights, jb});
    } else {
      for_all_tiles<direct_tile_rows<V>>(chunk.first_row[1], DirectStepJob<CellOf, V, false>{chunk, weights, jb});
    }
  }
}

// Row `from` of dw [., K] = sum over the chunk's rows, in their order, of a gate's gradient times a row of `inputs`.
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
