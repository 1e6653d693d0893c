// Forward over one chunk of time. Included inside a target region, once per instruction set.

// Pre-activations from x: gate rows [row .. row+M) of unit block jb = bias + x W_ih^T.
template <template <class> class CellOf, class V>
struct InputProductJob {
  using T = typename V::scalar;
  const ForwardChunk<T>& chunk;
  index jb;

  template <int M>
  LF_NOINLINE void run(index row) const {
    constexpr int N = CellOf<V>::gates;
    constexpr index width = N * V::lanes;
    const T* w = chunk.w_ih + jb * (chunk.I + 1) * width;
    const T* a[M];
    for (int m = 0; m < M; ++m) a[m] = chunk.x_rows[row + m];
    V acc[M][N];
    for (int n = 0; n < N; ++n) {
      const V bias = V::load(w + chunk.I * width + n * V::lanes);
      for (int m = 0; m < M; ++m) acc[m][n] = bias;
    }
    accumulate(acc, a, 0, 1, w, width, 0, chunk.I);
    for (int m = 0; m < M; ++m) {
      for (int n = 0; n < N; ++n)
        acc[m][n].store(chunk.gates + (row + m) * chunk.gate_stride + jb * width + n * V::lanes);
    }
  }
};

template <template <class> class CellOf, class V>
void input_product(const ForwardChunk<typename V::scalar>& chunk, Range rows, Range blocks) {
  for (index jb = blocks.begin; jb < blocks.end; ++jb) {
    for_row_tiles<tile_rows<V>(CellOf<V>::gates)>(rows, InputProductJob<CellOf, V>{chunk, jb});
  }
}

// One step of rows [row .. row+M) and P unit blocks from jb on: the recurrent product, then the cell on the sums in
// registers.
template <template <class> class CellOf, class V, bool save>
struct ForwardStepJob {
  using T = typename V::scalar;
  const ForwardChunk<T>& chunk;
  index step, jb;

  template <int M>
  LF_INLINE void run(index row) const {
    run_panels<M, 1>(row);
  }

  template <int M, int P>
  LF_NOINLINE void run_panels(index row) const {
    constexpr int G = CellOf<V>::gates;
    constexpr index width = G * V::lanes;
    const index panel = chunk.H * width;
    const T* h_prev = chunk.h[step % 2];
    const T* a[M];
    for (int m = 0; m < M; ++m) a[m] = h_prev + (row + m) * chunk.unit_stride;
    T* gates = chunk.gates + (step * chunk.B + row) * chunk.gate_stride + jb * width;
    V acc[M][P * G];
    for (int m = 0; m < M; ++m) {
      for (int n = 0; n < P * G; ++n) acc[m][n] = V::load(gates + m * chunk.gate_stride + n * V::lanes);
    }
    accumulate<P>(acc, a, 0, 1, chunk.w_hh + jb * panel, width, panel, chunk.H);

    const index unit = jb * V::lanes;
    const T* c_prev = chunk.c + step * chunk.c_step + row * chunk.unit_stride + unit;
    T* c = chunk.c + (step + 1) * chunk.c_step + row * chunk.unit_stride + unit;
    T* h = chunk.h[(step + 1) % 2] + row * chunk.unit_stride + unit;
    T* y = chunk.y + step * chunk.y_step + row * chunk.y_row + unit;
    for (int m = 0; m < M; ++m) {
      for (int p = 0; p < P; ++p) {
        const index at = m * chunk.unit_stride + p * V::lanes;
        const auto next = CellOf<V>::forward({acc[m][p * G], acc[m][p * G + 1], acc[m][p * G + 2], acc[m][p * G + 3]},
                                             V::load(c_prev + at));
        next.c.store(c + at);
        next.h.store(h + at);
        const V outputs[1] = {next.h};
        store_columns(outputs, y + m * chunk.y_row + p * V::lanes, chunk.H - unit - p * V::lanes);
        if constexpr (save) {
          T* saved = gates + m * chunk.gate_stride + p * width;
          next.gates.i.store(saved);
          next.gates.f.store(saved + V::lanes);
          next.gates.g.store(saved + 2 * V::lanes);
          next.gates.o.store(saved + 3 * V::lanes);
        }
      }
    }
  }
};

// With 16 registers a tile of one row has too few chains of sums to hide the latency of fma: two unit blocks at once.
template <class V>
constexpr bool single_rows_in_pairs = V::registers == 16 && V::lanes > 1;

template <template <class> class CellOf, class V, bool save>
LF_INLINE void forward_step(const ForwardChunk<typename V::scalar>& chunk, index step, Range rows) {
  const index blocks = ceil_div(chunk.H, V::lanes);
  index jb = 0;
  if constexpr (single_rows_in_pairs<V>) {
    if (rows.end - rows.begin == 1) {
      for (; jb + 2 <= blocks; jb += 2)
        ForwardStepJob<CellOf, V, save>{chunk, step, jb}.template run_panels<1, 2>(rows.begin);
    }
  }
  for (; jb < blocks; ++jb) {
    for_row_tiles<tile_rows<V>(CellOf<V>::gates)>(rows, ForwardStepJob<CellOf, V, save>{chunk, step, jb});
  }
}

template <template <class> class CellOf, class V>
void forward_steps(const ForwardChunk<typename V::scalar>& chunk, Range rows) {
  for (index step = 0; step < chunk.steps; ++step) {
    if (chunk.save) {
      forward_step<CellOf, V, true>(chunk, step, rows);
    } else {
      forward_step<CellOf, V, false>(chunk, step, rows);
    }
  }
}
