// Packing and the register tile. Included inside a target region, once per instruction set.
//
// A tile holds M rows x N vectors of sums in registers. Every sum runs over k = 0, 1, 2, ... in one accumulator with
// fused multiply-add; lanes, vectors and rows are independent outputs. That is the whole reproducibility promise.

// Rows of a tile of N vectors: three quarters of the registers hold sums.
template <class V>
constexpr int tile_rows(int vectors) {
  const int rows = V::registers * 3 / 4 / vectors;
  return rows < 1 ? 1 : rows < max_rows ? rows : max_rows;
}

// acc[m][n] += a[m][first + k*a_step] * w[k][n], k ascending. Vector n stands in panel n / (N/P): P panels lie `panel`
// apart.
template <int P = 1, class V, int M, int N>
LF_INLINE void accumulate(V (&acc)[M][N], const typename V::scalar* const (&a)[M], index first, index a_step,
                          const typename V::scalar* w, index w_step, index panel, index K) {
  constexpr int per_panel = N / P;
  for (index k = 0; k < K; ++k) {
    const index at = first + k * a_step;
    // With 16 registers: the fewer of M values and N weights first, then the others one at a time: 12 + 3 + 1.
    if constexpr (V::registers >= 32 || N < M) {
      V weights[N];
      LF_UNROLL for (int n = 0; n < N; ++n) {
        weights[n] = V::load(w + n / per_panel * panel + n % per_panel * V::lanes);
        if constexpr (V::registers >= 32 && M > 1) keep_in_register(weights[n]);
      }
      LF_UNROLL for (int m = 0; m < M; ++m) {
        const V value = V::set(a[m][at]);
        LF_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = fma(value, weights[n], acc[m][n]);
      }
    } else {
      V values[M];
      LF_UNROLL for (int m = 0; m < M; ++m) values[m] = V::set(a[m][at]);
      LF_UNROLL for (int n = 0; n < N; ++n) {
        const V weight = V::load(w + n / per_panel * panel + n % per_panel * V::lanes);
        LF_UNROLL for (int m = 0; m < M; ++m) acc[m][n] = fma(values[m], weight, acc[m][n]);
      }
    }
    w += w_step;
  }
}

// The same with k over (unit, gate) of the slots of gate rows, valid units only: the order of w_t.
template <class Slots, class V, int M, int N>
LF_INLINE void accumulate_units(V (&acc)[M][N], const typename V::scalar* const (&a)[M], const typename V::scalar* w,
                                index H) {
  constexpr index block = Slots::slots * V::lanes;
  constexpr index w_step = N * V::lanes;
  for (index unit = 0, first = Slots::first * V::lanes; unit < H; unit += V::lanes, first += block) {
    const index valid = smaller(V::lanes, H - unit);
    for (index lane = 0; lane < valid; ++lane) {
      accumulate(acc, a, first + lane, V::lanes, w, w_step, 0, Slots::gates);
      w += Slots::gates * w_step;
    }
  }
}

// `count` rows in tiles of at most `limit` and nearly equal height: 8 rows are 4 + 4, not 6 + 2. Runs job.run<M>(first
// row) for the tiles in `own`.
template <int limit, class Job>
LF_INLINE void for_tiles(index count, Range own, const Job& job) {
  const index tiles = ceil_div(count, limit);
  for (index tile = own.begin; tile < own.end; ++tile) {
    const index low = count / tiles;
    const index higher = count % tiles;  // that many tiles have one row more
    const index row = tile * low + smaller(tile, higher);
    switch (low + (tile < higher ? 1 : 0)) {
      case 1:
        job.template run<1>(row);
        break;
      case 2:
        if constexpr (limit >= 2) job.template run<2>(row);
        break;
      case 3:
        if constexpr (limit >= 3) job.template run<3>(row);
        break;
      case 4:
        if constexpr (limit >= 4) job.template run<4>(row);
        break;
      case 5:
        if constexpr (limit >= 5) job.template run<5>(row);
        break;
      default:
        if constexpr (limit >= 6) job.template run<6>(row);
        break;
    }
  }
}

// The same for all tiles.
template <int limit, class Job>
LF_INLINE void for_all_tiles(index count, const Job& job) {
  for_tiles<limit>(count, {0, ceil_div(count, limit)}, job);
}

// Unit blocks that a tile takes at once, so that it has enough independent sums.
template <int gates>
constexpr int most_panels = max_vectors / gates;

// How many groups.
template <int gates>
constexpr index groups_of(index blocks) {
  static_assert(most_panels<gates> == 4 || most_panels<gates> == 1);
  return most_panels<gates> == 4 ? blocks / 4 + blocks % 4 / 2 + blocks % 2 : blocks;
}

// Column blocks of w_t: `columns` outputs in vectors, those in blocks of at most max_vectors and nearly equal width.
struct ColumnBlock {
  index first;  // column
  int vectors;
};

template <class V>
LF_INLINE ColumnBlock column_block(index columns, index block) {
  const index vectors = ceil_div(columns, V::lanes);
  const index blocks = ceil_div(vectors, max_vectors);
  const index narrow = vectors / blocks;
  const index wide = vectors % blocks;  // that many blocks have one vector more
  const index first = block * narrow + (block < wide ? block : wide);
  return {first * V::lanes, static_cast<int>(narrow + (block < wide ? 1 : 0))};
}

// Whether a step takes its blocks of weights, so many elements in all, from the last to the first. Steps go to and fro,
// so that each begins with what the one before has left in the nearest cache; if all fit there, forward is better: the
// first units of h, with which every sum begins, are then the first to be ready.
template <class V>
LF_INLINE bool goes_back(index step, index elements) {
  constexpr auto nearest_cache = static_cast<index>((32 << 10) / sizeof(typename V::scalar));
  return step % 2 == 1 && elements > nearest_cache;
}

LF_INLINE index nth_of(Range range, index n, bool back) { return back ? range.end - 1 - n : range.begin + n; }

// Runs job.run<P>(jb) for groups of P unit blocks from jb on, from the last to the first if `back`.
template <int gates, class Job>
LF_INLINE void for_groups(Range blocks, const Job& job, bool back = false) {
  if constexpr (most_panels<gates> == 4) {
    const Range fours{0, (blocks.end - blocks.begin) / 4};
    const index rest = blocks.begin + 4 * fours.end;
    for (int turn = 0; turn < 2; ++turn) {
      if ((turn == 0) == back) {
        if (rest + 2 <= blocks.end) job.template run<2>(rest);
        if ((blocks.end - rest) % 2 == 1) job.template run<1>(blocks.end - 1);
      } else {
        for (index n = 0; n < fours.end; ++n) job.template run<4>(blocks.begin + 4 * nth_of(fours, n, back));
      }
    }
  } else {
    for (index n = 0; n < blocks.end - blocks.begin; ++n) job.template run<1>(nth_of(blocks, n, back));
  }
}

// job.run<N>() for the N vectors of a column block.
template <class Job>
LF_INLINE void for_vectors(int vectors, const Job& job) {
  static_assert(max_vectors == 4);
  switch (vectors) {
    case 1:
      job.template run<1>();
      break;
    case 2:
      job.template run<2>();
      break;
    case 3:
      job.template run<3>();
      break;
    default:
      job.template run<4>();
      break;
  }
}

// A vector of which `valid` lanes may be read; zeros in the others.
template <class V>
LF_INLINE V load_valid(const typename V::scalar* from, index valid) {
  return valid >= V::lanes ? V::load(from) : V::load_first(from, valid);
}

// Stores the first `valid` lanes of each of N vectors.
template <class V, int N>
LF_INLINE void store_columns(const V (&vectors)[N], typename V::scalar* to, index valid) {
  LF_UNROLL for (int n = 0; n < N; ++n) {
    const index left = valid - n * V::lanes;
    if (left >= V::lanes) {
      vectors[n].store(to + n * V::lanes);
    } else if (left > 0) {
      vectors[n].store_first(to + n * V::lanes, left);
    }
  }
}

// Transposes a square of vectors: log2(lanes) perfect shuffles.
template <class V>
LF_INLINE void transpose_square(V (&rows)[V::lanes]) {
  for (int stage = 1; stage < V::lanes; stage *= 2) {
    V shuffled[V::lanes];
    for (int row = 0; row < V::lanes / 2; ++row) {
      interleave(rows[row], rows[row + V::lanes / 2], shuffled[2 * row], shuffled[2 * row + 1]);
    }
    for (int row = 0; row < V::lanes; ++row) rows[row] = shuffled[row];
  }
}

// to[c*to_step + r] = from[r*from_step + c] for r < rows, c < columns; rows and columns at most lanes. With `pad`,
// whole vectors are stored: r from `rows` on is zero.
template <bool pad, class V>
LF_INLINE void transpose_block(const typename V::scalar* from, index from_step, index rows, index columns,
                               typename V::scalar* to, index to_step) {
  V square[V::lanes];
  for (int r = 0; r < V::lanes; ++r) {
    square[r] = r >= rows             ? V::set(0)
                : columns >= V::lanes ? V::load(from + r * from_step)
                                      : V::load_first(from + r * from_step, columns);
  }
  transpose_square(square);
  for (int c = 0; c < V::lanes; ++c) {
    if (c >= columns) break;
    if (pad || rows >= V::lanes) {
      square[c].store(to + c * to_step);
    } else {
      square[c].store_first(to + c * to_step, rows);
    }
  }
}

// The biases of `lanes` units of a gate, of which `valid` are there, as the sums of that window start with them: over x
// with both, but for a gate that stands apart, whose sum over h starts with its own. Null: zero.
template <class Window, class V>
LF_INLINE V bias_of(const typename V::scalar* b_ih, const typename V::scalar* b_hh, index H, int gate, index unit,
                    index valid) {
  const index row = gate * H + unit;
  const bool stands_apart = gate >= Window::gates - Window::apart;
  V bias = V::set(0);
  if (Window::over_x && b_ih) bias = add(bias, load_valid<V>(b_ih + row, valid));
  if (Window::over_x != stands_apart && b_hh) bias = add(bias, load_valid<V>(b_hh + row, valid));
  return bias;
}

// The unit block of w [gates*H, K] that starts at `unit` to [k][gate][lane], the gates in the window's order. If the
// window says so, one more row of biases.
template <class Window, class V>
void pack_unit_block(const typename V::scalar* w, index H, index K, const typename V::scalar* b_ih,
                     const typename V::scalar* b_hh, index unit, typename V::scalar* packed) {
  constexpr index step = Window::gates * V::lanes;
  const index valid = smaller(V::lanes, H - unit);
  for (int position = 0; position < Window::gates; ++position) {
    const int gate = Window::gate(position);
    const index row = gate * H + unit;
    typename V::scalar* to = packed + position * V::lanes;
    for (index k = 0; k < K; k += V::lanes) {
      transpose_block<true, V>(w + row * K + k, K, valid, smaller(V::lanes, K - k), to + k * step, step);
    }
    if constexpr (Window::bias_row) bias_of<Window, V>(b_ih, b_hh, H, gate, unit, valid).store(to + K * step);
  }
}

// All unit blocks: w to [jb][k][gate][lane].
template <class Window, class V>
void pack_weights(const typename V::scalar* w, index H, index K, const typename V::scalar* b_ih,
                  const typename V::scalar* b_hh, typename V::scalar* packed) {
  for (index unit = 0; unit < H; unit += V::lanes, packed += (K + Window::bias_row) * Window::gates * V::lanes) {
    pack_unit_block<Window, V>(w, H, K, b_ih, b_hh, unit, packed);
  }
}

// The inverse of pack_weights for sums: w and b may be null.
template <class Window, class V>
void unpack_weights(const typename V::scalar* packed, index H, index K, typename V::scalar* w, typename V::scalar* b) {
  constexpr index step = Window::gates * V::lanes;
  for (index unit = 0; unit < H; unit += V::lanes, packed += (K + Window::bias_row) * step) {
    const index valid = smaller(V::lanes, H - unit);
    for (int position = 0; position < Window::gates; ++position) {
      const index row = Window::gate(position) * H + unit;
      const typename V::scalar* from = packed + position * V::lanes;
      for (index k = 0; w && k < K; k += V::lanes) {
        transpose_block<false, V>(from + k * step, step, smaller(V::lanes, K - k), valid, w + row * K + k, K);
      }
      for (index lane = 0; Window::bias_row && b && lane < valid; ++lane) b[row + lane] = from[K * step + lane];
    }
  }
}

// One column block of w [gates*H, K] to [(unit, gate)][vector][lane], the gates in the order of the slots, padded
// with zeros.
template <class Slots, class V>
void pack_column_block(const typename V::scalar* w, index H, index K, ColumnBlock block, typename V::scalar* packed) {
  const index width = block.vectors * V::lanes;
  const index valid = smaller(width, K - block.first);
  for (index unit = 0; unit < H; ++unit) {
    for (int position = 0; position < Slots::gates; ++position, packed += width) {
      const typename V::scalar* from = w + (Slots::gate(position) * H + unit) * K + block.first;
      for (index k = 0; k < valid; ++k) packed[k] = from[k];
      for (index k = valid; k < width; ++k) packed[k] = 0;
    }
  }
}

// w [gates*H, K] to w_t [nb][(unit, gate)][vector][lane] with K outputs, padded with zeros.
template <class Slots, class V>
void pack_transposed(const typename V::scalar* w, index H, index K, typename V::scalar* packed) {
  for (index nb = 0; nb < column_blocks(K, V::lanes); ++nb) {
    const ColumnBlock block = column_block<V>(K, nb);
    pack_column_block<Slots, V>(w, H, K, block, packed);
    packed += H * Slots::gates * block.vectors * V::lanes;
  }
}

// w_hr [P, H] for a product with plain rows: P outputs, the sum over H units.
template <class V>
void pack_projection(const typename V::scalar* w_hr, index P, index H, typename V::scalar* packed) {
  for (index nb = 0; nb < column_blocks(P, V::lanes); ++nb) {
    const ColumnBlock block = column_block<V>(P, nb);
    const index width = block.vectors * V::lanes;
    for (index first = block.first; first < block.first + width; first += V::lanes) {
      const index valid = smaller(V::lanes, P - first);
      for (index k = 0; k < H; k += V::lanes) {
        transpose_block<true, V>(w_hr + first * H + k, H, valid, smaller(V::lanes, H - k),
                                 packed + k * width + (first - block.first), width);
      }
    }
    packed += H * width;
  }
}

// dw_hr as weight_gradient leaves it, [nb][p][vector][lane], to [P, H].
template <class V>
void unpack_projection(const typename V::scalar* packed, index P, index H, typename V::scalar* w_hr) {
  for (index nb = 0; nb < column_blocks(H, V::lanes); ++nb) {
    const ColumnBlock block = column_block<V>(H, nb);
    const index width = block.vectors * V::lanes;
    for (index p = 0; p < P; ++p, packed += width) {
      for (index k = 0; k < smaller(width, H - block.first); ++k) w_hr[p * H + block.first + k] = packed[k];
    }
  }
}
