// Forward over one chunk of time. Included inside a target region, once per instruction set.

// acc = bias + x W_ih^T for M rows of x and P unit blocks, whose panels lie `panel` apart from w on.
template <int P, class V, int M, int N>
LF_INLINE void input_sums(V (&acc)[M][N], const typename V::scalar* const (&x)[M], const typename V::scalar* w,
                          index panel, index I) {
  constexpr int gates = N / P;
  constexpr index width = gates * V::lanes;
  LF_UNROLL for (int n = 0; n < N; ++n) {
    const V bias = V::load(w + n / gates * panel + I * width + n % gates * V::lanes);
    LF_UNROLL for (int m = 0; m < M; ++m) acc[m][n] = bias;
  }
  accumulate<P>(acc, x, 0, 1, w, width, panel, I);
}

// The activated gates of one row and unit block.
template <class V, int N>
LF_INLINE void store_gates(const V (&gates)[N], typename V::scalar* to) {
  LF_UNROLL for (int n = 0; n < N; ++n) gates[n].store(to + n * V::lanes);
}

// Pre-activations from x: P unit blocks from jb on of M of the listed rows = bias + x W_ih^T.
template <template <class> class CellOf, class V, int P>
struct InputProductJob {
  using T = typename V::scalar;
  const ForwardChunk<T>& chunk;
  index jb;
  const index* rows;

  template <int M>
  LF_NOINLINE void run(index number) const {
    constexpr int G = CellOf<V>::gates;
    constexpr index slots = InputWindow<CellOf, V>::slots;
    const index panel = (chunk.I + 1) * G * V::lanes;
    const T* a[M];
    LF_UNROLL for (int m = 0; m < M; ++m) a[m] = chunk.x_rows[rows[number + m]];
    V acc[M][P * G];
    input_sums<P>(acc, a, chunk.w_ih + jb * panel, panel, chunk.I);
    LF_UNROLL for (int m = 0; m < M; ++m) {
      T* gates = chunk.gates + rows[number + m] * chunk.gate_stride + jb * slots * V::lanes;
      LF_UNROLL for (int n = 0; n < P * G; ++n) acc[m][n].store(gates + (n / G * slots + n % G) * V::lanes);
    }
  }
};

template <template <class> class CellOf, class V>
struct InputProductGroup {
  const ForwardChunk<typename V::scalar>& chunk;
  const index* rows;
  index count;

  template <int P>
  LF_INLINE void run(index jb) const {
    for_all_tiles<tile_rows<V>(P * CellOf<V>::gates)>(count, InputProductJob<CellOf, V, P>{chunk, jb, rows});
  }
};

template <template <class> class CellOf, class V>
void input_product(const ForwardChunk<typename V::scalar>& chunk, const index* rows, index count, Range unit_blocks) {
  for_groups<CellOf<V>::gates>(unit_blocks, InputProductGroup<CellOf, V>{chunk, rows, count});
}

// out[row] = the row of a times w_t, for one column block: M rows from `row` on of those dealt.
template <class Slots, class V, int N>
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
    accumulate_units<Slots>(acc, a, w_t, H);
    LF_UNROLL for (int m = 0; m < M; ++m) { store_columns(acc[m], out_rows[deal.row(number + m)] + column, valid); }
  }
};

// One column block of `count` dealt rows of width `columns`.
template <class Slots, class V>
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
                                   ProductJob<Slots, V, N>{rows, stride, w_t, H, out_rows, block.first, valid, deal});
  }
};

// Column blocks of `count` dealt rows of width `columns` = rows times w_t, the sum over (unit, gate) of the window; w_t
// as packed by pack_transposed.
template <class Slots, class V>
void product(const typename V::scalar* rows, index stride, const typename V::scalar* w_t, index H, index columns,
             typename V::scalar* const* out_rows, RowDeal deal, index count, Range blocks) {
  for (index nb = blocks.begin; nb < blocks.end; ++nb) {
    const ColumnBlock block = column_block<V>(columns, nb);
    const typename V::scalar* panel = w_t + H * Slots::gates * block.first;
    for_vectors(block.vectors, ProductBlock<Slots, V>{rows, stride, panel, H, columns, block, out_rows, deal, count});
  }
}

// The cell on M rows, `row_step` apart from `row` on, and P unit blocks from jb on. acc: their pre-activations; parts
// from x that stand apart are in the gate rows.
template <template <class> class CellOf, int P, class V, int M, int N>
LF_INLINE void finish_step(const ForwardChunk<typename V::scalar>& chunk, index step, index jb, index row,
                           index row_step, const V (&acc)[M][N]) {
  using T = typename V::scalar;
  using Cell = CellOf<V>;
  constexpr int G = Cell::gates;
  constexpr int slots = G + Cell::apart;
  constexpr index width = slots * V::lanes;
  constexpr bool carries = Cell::carry != Carry::nothing;
  const index unit = jb * V::lanes;
  const index gate_step = row_step * chunk.gate_stride;
  const index unit_step = row_step * chunk.unit_stride;
  T* gates = chunk.gates + (chunk.first_row[step] + row) * chunk.gate_stride + jb * width;
  const T* c_prev = carries ? chunk.c + (chunk.c_row[step] + row) * chunk.unit_stride + unit : nullptr;
  T* c = carries ? chunk.c + (chunk.c_row[step + 1] + row) * chunk.unit_stride + unit : nullptr;
  T* h = (chunk.w_hr ? chunk.u : chunk.h[(step + 1) % 2]) + row * chunk.unit_stride + unit;
  T* const* y_rows = chunk.w_hr ? nullptr : chunk.y_rows + chunk.first_row[step] + row;
  const index H = chunk.H;
  const bool save = chunk.save;
  const std::uint8_t* resets = chunk.resets ? chunk.resets + chunk.first_row[step] + row : nullptr;
  LF_UNROLL for (int m = 0; m < M; ++m) {
    LF_UNROLL for (int p = 0; p < P; ++p) {
      const index at = m * unit_step + p * V::lanes;
      T* own_gates = gates + m * gate_step + p * width;
      V sums[slots];
      LF_UNROLL for (int n = 0; n < Cell::apart; ++n) sums[n] = V::load(own_gates + n * V::lanes);
      LF_UNROLL for (int n = 0; n < G; ++n) sums[Cell::apart + n] = acc[m][p * G + n];
      V carried = V::set(0);
      if constexpr (carries) {
        if (!resets || !resets[m * row_step]) carried = V::load(c_prev + at);
      }
      const auto next = Cell::forward(sums, carried, chunk.activation);
      if constexpr (carries) next.carry.store(c + at);
      next.h.store(h + at);
      if (y_rows) {
        const V outputs[1] = {next.h};
        const index first = unit + p * V::lanes;
        store_columns(outputs, y_rows[m * row_step] + first, H - first);
      }
      if (save) store_gates(next.gates, own_gates);
    }
  }
}

// The same on what stands in the gate rows, for rows one by one.
template <template <class> class CellOf, class V>
LF_NOINLINE void finish_rows(const ForwardChunk<typename V::scalar>& chunk, index step, Range unit_blocks, index row,
                             index row_step, index rows) {
  using Sums = RecurrentWindow<CellOf, V>;
  for (index number = 0; number < rows; ++number, row += row_step) {
    const typename V::scalar* from = chunk.gates + (chunk.first_row[step] + row) * chunk.gate_stride;
    for (index jb = unit_blocks.begin; jb < unit_blocks.end; ++jb) {
      V acc[1][Sums::gates];
      LF_UNROLL for (int n = 0; n < Sums::gates; ++n) {
        acc[0][n] = V::load(from + (jb * Sums::slots + Sums::first + n) * V::lanes);
      }
      finish_step<CellOf, 1>(chunk, step, jb, row, row_step, acc);
    }
  }
}

// The cell on a tile, from its registers or from where it leaves its sums.
template <template <class> class CellOf, int P, class V, int M, int N>
LF_INLINE void finish_tile(const ForwardChunk<typename V::scalar>& chunk, index step, index jb, index row,
                           index row_step, const V (&acc)[M][N]) {
  if constexpr (CellOf<V>::from_registers) {
    finish_step<CellOf, P>(chunk, step, jb, row, row_step, acc);
  } else {
    using Sums = RecurrentWindow<CellOf, V>;
    typename V::scalar* gates =
        chunk.gates + (chunk.first_row[step] + row) * chunk.gate_stride + (jb * Sums::slots + Sums::first) * V::lanes;
    LF_UNROLL for (int m = 0; m < M; ++m) {
      LF_UNROLL for (int n = 0; n < N; ++n) {
        const int slot = n / Sums::gates * Sums::slots + n % Sums::gates;
        acc[m][n].store(gates + m * row_step * chunk.gate_stride + slot * V::lanes);
      }
    }
    finish_rows<CellOf, V>(chunk, step, {jb, jb + P}, row, row_step, M);
  }
}

// Rows of a panel of W_hh.
template <template <class> class CellOf, class V>
LF_INLINE index recurrent_rows(index Ho) {
  return Ho + (RecurrentWindow<CellOf, V>::bias_row ? 1 : 0);
}

// What the sums over h start with, for one row and unit block: the parts from x, or the bias of a gate that stands
// apart. w: the panel of W_hh.
template <template <class> class CellOf, class V, int N>
LF_INLINE void start_sums(V (&acc)[N], int first, const typename V::scalar* gates, const typename V::scalar* w,
                          index Ho) {
  using Sums = RecurrentWindow<CellOf, V>;
  LF_UNROLL for (int n = 0; n < Sums::gates; ++n) {
    acc[first + n] = n < Sums::gates - Sums::apart ? V::load(gates + (Sums::first + n) * V::lanes)
                                                   : V::load(w + (Ho * Sums::gates + n) * V::lanes);
  }
}

// Turns sums over x of M rows and one unit block into what their sums over h start with; a part from x that stands
// apart goes to the gate row.
template <template <class> class CellOf, class V, int M, int N>
LF_INLINE void turn_to_h(V (&acc)[M][N], typename V::scalar* const (&gates)[M], const typename V::scalar* w_hh,
                         index Ho) {
  constexpr int apart = CellOf<V>::apart;
  if constexpr (apart > 0) {
    LF_UNROLL for (int m = 0; m < M; ++m) {
      LF_UNROLL for (int n = 0; n < N; ++n) {
        if (n < apart) acc[m][n].store(gates[m] + n * V::lanes);
        acc[m][n] = n + apart < N ? acc[m][n + apart] : V::load(w_hh + (Ho * N + n) * V::lanes);
      }
    }
  }
}

// One step of M dealt rows and P unit blocks from jb on: the recurrent product, then the cell on the sums in registers.
template <template <class> class CellOf, class V>
struct ForwardStepJob {
  using T = typename V::scalar;
  const ForwardChunk<T>& chunk;
  index step, jb;
  RowDeal deal;

  template <int M, int P>
  LF_NOINLINE void run_panels(index number) const {
    using Sums = RecurrentWindow<CellOf, V>;
    constexpr int G = Sums::gates;
    constexpr index width = Sums::slots * V::lanes;
    const index row = deal.row(number);
    const index panel = recurrent_rows<CellOf, V>(chunk.Ho) * G * V::lanes;
    const T* h_prev = chunk.h[step % 2];
    const T* a[M];
    LF_UNROLL for (int m = 0; m < M; ++m) a[m] = h_prev + (row + m * deal.step) * chunk.h_stride;
    const index gate_step = deal.step * chunk.gate_stride;
    T* gates = chunk.gates + (chunk.first_row[step] + row) * chunk.gate_stride + jb * width;
    const T* w = chunk.w_hh + jb * panel;
    V acc[M][P * G];
    LF_UNROLL for (int m = 0; m < M; ++m) {
      LF_UNROLL for (int p = 0; p < P; ++p) {
        start_sums<CellOf>(acc[m], p * G, gates + m * gate_step + p * width, w + p * panel, chunk.Ho);
      }
    }
    accumulate<P>(acc, a, 0, 1, w, G * V::lanes, panel, chunk.Ho);
    finish_tile<CellOf, P>(chunk, step, jb, row, deal.step, acc);
  }
};

// The same for P unit blocks and all tiles of rows.
template <template <class> class CellOf, class V, int P>
struct ForwardStepPanels {
  ForwardStepJob<CellOf, V> job;

  template <int M>
  LF_INLINE void run(index number) const {
    job.template run_panels<M, P>(number);
  }
};

template <template <class> class CellOf, class V>
struct ForwardStepGroup {
  const ForwardChunk<typename V::scalar>& chunk;
  index step;
  RowDeal deal;
  index count;

  template <int P>
  LF_INLINE void run(index jb) const {
    for_all_tiles<tile_rows<V>(P * CellOf<V>::gates)>(count, ForwardStepPanels<CellOf, V, P>{{chunk, step, jb, deal}});
  }
};

// A tile of one row has too few chains of sums to hide the latency of fma: then two unit blocks at once.
template <class V, int gates>
constexpr bool single_rows_in_pairs = V::lanes > 1 && most_panels<gates> == 1 && (V::registers == 16 || gates < 4);

template <template <class> class CellOf, class V>
LF_INLINE void forward_step(const ForwardChunk<typename V::scalar>& chunk, index step, Part part) {
  const RowDeal deal = part.rows;
  const index active = chunk.first_row[step + 1] - chunk.first_row[step];
  const index count = deal.count(active);
  if (chunk.resets) {
    for (index number = 0; number < count; ++number) {
      const index row = deal.row(number);
      typename V::scalar* h = chunk.h[step % 2] + row * chunk.h_stride;
      if (chunk.resets[chunk.first_row[step] + row]) {
        for (index k = 0; k < chunk.Ho; ++k) h[k] = 0;
      }
    }
  }
  Range blocks = part.blocks;
  const bool back = goes_back<V>(step, (blocks.end - blocks.begin) * chunk.Ho * CellOf<V>::gates * V::lanes);
  if constexpr (single_rows_in_pairs<V, CellOf<V>::gates>) {
    if (count == 1) {
      const Range pairs{0, (blocks.end - blocks.begin) / 2};
      for (index n = 0; n < pairs.end; ++n) {
        const index jb = blocks.begin + 2 * nth_of(pairs, n, back);
        ForwardStepJob<CellOf, V>{chunk, step, jb, deal}.template run_panels<1, 2>(0);
      }
      blocks.begin += 2 * pairs.end;
    }
  }
  for_groups<CellOf<V>::gates>(blocks, ForwardStepGroup<CellOf, V>{chunk, step, deal, count}, back);
  if (chunk.w_hr) {
    typename V::scalar* const* h_rows = chunk.h_rows[(step + 1) % 2];
    product<PlainSlots, V>(chunk.u, chunk.unit_stride, chunk.w_hr, chunk.H, chunk.Ho, h_rows, deal, count,
                           {0, column_blocks(chunk.Ho, V::lanes)});
    for (index number = 0; number < count; ++number) {
      const index row = deal.row(number);
      for (index k = 0; k < chunk.Ho; ++k) chunk.y_rows[chunk.first_row[step] + row][k] = h_rows[row][k];
    }
  }
}

template <template <class> class CellOf, class V>
void forward_steps(const ForwardChunk<typename V::scalar>& chunk, Range steps, Part part) {
  for (index step = steps.begin; step < steps.end; ++step) forward_step<CellOf, V>(chunk, step, part);
}
