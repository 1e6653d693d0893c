// One step, straight from the weights as the user has them and to their gradients. Packing them for a single step costs
// more than a step of few rows, which reads them in place; many rows use a block that is packed for them, and forget it
// while it is still in the cache. Included inside a target region, once per instruction set.
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
template <template <class> class CellOf, class V>
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
    using Input = InputWindow<CellOf, V>;
    using Recurrent = RecurrentWindow<CellOf, V>;
    T* const gates = chunk.gates + row * chunk.gate_stride + jb * Input::slots * V::lanes;
    for (int gate = 0; gate < Input::gates; ++gate) {
      const index first = gate * chunk.H + unit;
      const V bias = bias_of<Input, V>(weights.b_ih, weights.b_hh, chunk.H, gate, unit, valid);
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
        if (Input::apart > 0 && part == 0 && gate >= Input::gates - Input::apart) {
          const V own = bias_of<Recurrent, V>(weights.b_ih, weights.b_hh, chunk.H, gate, unit, valid);
          T* to = gates + Input::slot(gate) * V::lanes;
          LF_UNROLL for (int m = 0; m < M; ++m) {
            acc[m].store(to + m * chunk.gate_stride);
            acc[m] = own;
          }
        }
        w = weights.w_hh + first * chunk.H;
        K = chunk.H;
        LF_UNROLL for (int m = 0; m < M; ++m) a[m] = chunk.h[0] + (row + m) * chunk.h_stride;
      }
      T* to = gates + Recurrent::slot(gate) * V::lanes;
      LF_UNROLL for (int m = 0; m < M; ++m) acc[m].store(to + m * chunk.gate_stride);
    }
  }
};

// The only step of a chunk for M rows and one unit block, from its packed weights.
template <template <class> class CellOf, class V>
struct WholeStepJob {
  using T = typename V::scalar;
  const ForwardChunk<T>& chunk;
  index jb;
  const T* w_ih;  // [k][gate][lane], the last k being the bias
  const T* w_hh;

  template <int M>
  LF_NOINLINE void run(index row) const {
    constexpr int N = CellOf<V>::gates;
    const T* a[M];
    T* gates[M];
    V acc[M][N];
    LF_UNROLL for (int m = 0; m < M; ++m) {
      a[m] = chunk.x_rows[row + m];
      gates[m] = chunk.gates + (row + m) * chunk.gate_stride + jb * InputWindow<CellOf, V>::slots * V::lanes;
    }
    input_sums<1>(acc, a, w_ih, 0, chunk.I);
    turn_to_h<CellOf>(acc, gates, w_hh, chunk.Ho);
    LF_UNROLL for (int m = 0; m < M; ++m) a[m] = chunk.h[0] + (row + m) * chunk.h_stride;
    accumulate(acc, a, 0, 1, w_hh, N * V::lanes, 0, chunk.Ho);
    finish_tile<CellOf, 1>(chunk, 0, jb, row, 1, acc);
  }
};

template <template <class> class CellOf, class V>
LF_INLINE void direct_unit_block(const ForwardChunk<typename V::scalar>& chunk,
                                 const Weights<typename V::scalar>& weights, index jb, typename V::scalar* packed) {
  constexpr int gates = CellOf<V>::gates;
  const index rows = chunk.first_row[1];
  if (rows <= direct_rows) {
    for_all_tiles<tile_rows<V>(1)>(rows, DirectSumsJob<CellOf, V>{chunk, weights, jb});
    finish_rows<CellOf, V>(chunk, 0, {jb, jb + 1}, 0, 1, rows);
    return;
  }
  const index unit = jb * V::lanes;
  typename V::scalar* const w_hh = packed + (chunk.I + 1) * gates * V::lanes;
  pack_unit_block<InputWindow<CellOf, V>, V>(weights.w_ih, chunk.H, chunk.I, weights.b_ih, weights.b_hh, unit, packed);
  pack_unit_block<RecurrentWindow<CellOf, V>, V>(weights.w_hh, chunk.H, chunk.Ho, weights.b_ih, weights.b_hh, unit,
                                                 w_hh);
  for_all_tiles<tile_rows<V>(gates)>(rows, WholeStepJob<CellOf, V>{chunk, jb, packed, w_hh});
}

template <template <class> class CellOf, class V>
void direct_step(const ForwardChunk<typename V::scalar>& chunk, const Weights<typename V::scalar>& weights,
                 Range unit_blocks, typename V::scalar* packed) {
  for (index jb = unit_blocks.begin; jb < unit_blocks.end; ++jb) {
    direct_unit_block<CellOf, V>(chunk, weights, jb, packed);
  }
}
