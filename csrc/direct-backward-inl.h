// Gradients of one step, straight from the weights as the user has them and to their gradients: see
// direct-forward-inl.h. Included inside a target region, once per instruction set.

// Columns [column .. column + N vectors) of M rows of dgates times w [gates*H, K], the sum over (unit, gate).
template <class Slots, int N, class V>
struct DirectProductJob {
  using T = typename V::scalar;
  const BackwardChunk<T>& chunk;
  const T* w;
  index K, column;
  T* const* out_rows;

  template <int M>
  LF_NOINLINE void run(index row) const {
    const index valid = K - column;
    const T* a[M];
    LF_UNROLL for (int m = 0; m < M; ++m) a[m] = chunk.dgates + (row + m) * chunk.gate_stride;
    V acc[M][N];
    LF_UNROLL for (int m = 0; m < M; ++m) { LF_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = V::set(0); }
    for (index unit = 0; unit < chunk.H; ++unit) {
      const index first = (unit / V::lanes * Slots::slots + Slots::first) * V::lanes + unit % V::lanes;
      const T* from = w + unit * K + column;
      LF_UNROLL for (int position = 0; position < Slots::gates; ++position) {
        const index at = first + position * V::lanes;
        const T* row_of_w = from + Slots::gate(position) * chunk.H * K;
        if constexpr (N > 1) {
          accumulate(acc, a, at, 0, row_of_w, 0, 0, 1);
        } else {
          const V weight = load_valid<V>(row_of_w, valid);
          LF_UNROLL for (int m = 0; m < M; ++m) acc[m][0] = fma(V::set(a[m][at]), weight, acc[m][0]);
        }
      }
    }
    LF_UNROLL for (int m = 0; m < M; ++m) store_columns(acc[m], out_rows[row + m] + column, valid);
  }
};

// The product of all rows in tasks that may run at once: column blocks.
template <class Slots, class V>
struct DirectProduct {
  using T = typename V::scalar;
  static constexpr int wide = max_vectors;
  const BackwardChunk<T>& chunk;
  const T* w;
  index K;
  T* const* out_rows;
  T* packed;  // for a block

  LF_INLINE bool packs() const { return chunk.first_row[1] > direct_rows; }
  LF_INLINE index wide_blocks() const { return K / (wide * V::lanes); }
  LF_INLINE index tasks() const {
    if (packs()) return column_blocks(K, V::lanes);
    return wide_blocks() + ceil_div(K - wide_blocks() * wide * V::lanes, V::lanes);
  }

  LF_INLINE void run(Range own) const {
    const index rows = chunk.first_row[1];
    for (index task = own.begin; task < own.end; ++task) {
      if (packs()) {
        const ColumnBlock block = column_block<V>(K, task);
        pack_column_block<Slots, V>(w, chunk.H, K, block, packed);
        for_vectors(block.vectors,
                    ProductBlock<Slots, V>{
                        chunk.dgates, chunk.gate_stride, packed, chunk.H, K, block, out_rows, {0, 1, rows}, rows});
      } else if (task < wide_blocks()) {
        const index column = task * wide * V::lanes;
        for_all_tiles<tile_rows<V>(wide)>(rows, DirectProductJob<Slots, wide, V>{chunk, w, K, column, out_rows});
      } else {
        const index column = (task + wide_blocks() * (wide - 1)) * V::lanes;
        for_all_tiles<tile_rows<V>(1)>(rows, DirectProductJob<Slots, 1, V>{chunk, w, K, column, out_rows});
      }
    }
  }
};

// dh before the step, and dx.
template <template <class> class CellOf, class V>
void direct_gradients(const BackwardChunk<typename V::scalar>& chunk, const Weights<typename V::scalar>& weights,
                      bool wants_dx, Deal deal, typename V::scalar* packed) {
  const DirectProduct<typename RecurrentWindow<CellOf, V>::Own, V> dh{chunk, weights.w_hh, chunk.H, chunk.dh_rows,
                                                                      packed};
  const DirectProduct<typename InputWindow<CellOf, V>::Own, V> dx{chunk, weights.w_ih, chunk.I, chunk.dx_rows, packed};
  const index dx_tasks = wants_dx ? dx.tasks() : 0;
  TaskList tasks = own_tasks(dh.tasks() + dx_tasks, deal);
  dh.run(tasks.take(dh.tasks()));
  dx.run(tasks.take(dx_tasks));
}

// Rows [., K] in column blocks: [nb][row][vector][lane], padded with zeros.
template <class V>
void pack_rows(const typename V::scalar* const* rows, index count, index K, typename V::scalar* packed) {
  for (index nb = 0; nb < column_blocks(K, V::lanes); ++nb) {
    const ColumnBlock block = column_block<V>(K, nb);
    const index width = block.vectors * V::lanes;
    const index valid = smaller(width, K - block.first);
    for (index row = 0; row < count; ++row, packed += width) {
      for (index k = 0; k < valid; ++k) packed[k] = rows[row][block.first + k];
      for (index k = valid; k < width; ++k) packed[k] = 0;
    }
  }
}

// M rows of a weight gradient, and one column block: sums over the chunk's rows, in their order, of the gradients of M
// units of one gate times the rows that pack_rows has packed.
template <int M, class V>
struct OuterTileJob {
  using T = typename V::scalar;
  const T* const (&gradients)[M];
  index stride, count;
  const T* packed;
  index K;
  ColumnBlock block;
  T* dw;

  template <int N>
  LF_NOINLINE void run() const {
    V acc[M][N];
    LF_UNROLL for (int m = 0; m < M; ++m) { LF_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = V::set(0); }
    accumulate(acc, gradients, 0, stride, packed, N * V::lanes, 0, count);
    LF_UNROLL for (int m = 0; m < M; ++m) store_columns(acc[m], dw + m * K + block.first, K - block.first);
  }
};

template <class Slots, class V>
struct OuterProductJob {
  using T = typename V::scalar;
  const BackwardChunk<T>& chunk;
  int gate;
  index first_unit, count;
  const T* packed;
  index K;
  T* dw;

  template <int M>
  LF_INLINE void run(index number) const {
    const index unit = first_unit + number;
    const T* gradients[M];
    LF_UNROLL for (int m = 0; m < M; ++m) {
      const index block = (unit + m) / V::lanes;
      gradients[m] = chunk.dgates + (block * Slots::slots + Slots::slot(gate)) * V::lanes + (unit + m) % V::lanes;
    }
    const T* from = packed;
    for (index nb = 0; nb < column_blocks(K, V::lanes); ++nb) {
      const ColumnBlock block = column_block<V>(K, nb);
      for_vectors(block.vectors, OuterTileJob<M, V>{gradients, chunk.gate_stride, count, from, K, block,
                                                    dw + (gate * chunk.H + unit) * K});
      from += count * block.vectors * V::lanes;
    }
  }
};

// The gradient of a bias, for the given units.
template <class Slots, class V>
void direct_bias_gradient(const BackwardChunk<typename V::scalar>& chunk, Range units, typename V::scalar* db) {
  using T = typename V::scalar;
  const index count = chunk.first_row[chunk.steps];
  for (int gate = 0; gate < Slots::gates; ++gate) {
    for (index unit = units.begin; unit < units.end; ++unit) {
      const T* gradients =
          chunk.dgates + (unit / V::lanes * Slots::slots + Slots::slot(gate)) * V::lanes + unit % V::lanes;
      T sum = 0;
      for (index row = 0; row < count; ++row) sum += gradients[row * chunk.gate_stride];
      db[gate * chunk.H + unit] = sum;
    }
  }
}

// dW [., K] = the sum over the chunk's rows, which pack_rows packs, for the given units.
template <class Slots, class V>
void direct_outer_product(const BackwardChunk<typename V::scalar>& chunk, const typename V::scalar* const* rows,
                          index K, Range units, typename V::scalar* packed, typename V::scalar* dw) {
  const index count = chunk.first_row[chunk.steps];
  pack_rows<V>(rows, count, K, packed);
  for (int gate = 0; gate < Slots::gates; ++gate) {
    for_all_tiles<tile_rows<V>(max_vectors)>(units.end - units.begin,
                                             OuterProductJob<Slots, V>{chunk, gate, units.begin, count, packed, K, dw});
  }
}

// dW_ih, dW_hh and db of one chunk that is the whole sequence, for the given units.
template <template <class> class CellOf, class V>
void direct_weight_gradient(const BackwardChunk<typename V::scalar>& chunk,
                            const WeightGradients<typename V::scalar>& dw, Range units, typename V::scalar* packed) {
  using Input = InputWindow<CellOf, V>;
  using Recurrent = RecurrentWindow<CellOf, V>;
  if (dw.w_ih) direct_outer_product<typename Input::Own, V>(chunk, chunk.x_rows, chunk.I, units, packed, dw.w_ih);
  if (dw.w_hh) direct_outer_product<typename Recurrent::Own, V>(chunk, chunk.h_rows, chunk.Ho, units, packed, dw.w_hh);
  if (dw.b) direct_bias_gradient<typename Input::Own, V>(chunk, units, dw.b);
  if (dw.b_hh) direct_bias_gradient<typename Recurrent::Own, V>(chunk, units, dw.b_hh);
}
