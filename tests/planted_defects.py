"""The defects that mutations.py plants: texts of the kernels and what to put in their place.

Numbers 1 to 38 are those of the design's list; the others (x1, x2, ...) came up while the suite was written, those of
the thread team have names of their own (t1, t2, ...).
"""

from __future__ import annotations

from typing import NamedTuple

CELL = "csrc/cells/lstm-inl.h"
LAYERS_FORWARD = "csrc/forward.cpp"
LAYERS_BACKWARD = "csrc/backward.cpp"
STACK = "csrc/stack.h"
LAYOUT = "csrc/layout.h"
DROPOUT = "csrc/dropout.h"
THREADS = "csrc/threads.cpp"
TEAM = "csrc/threads.h"
GEMM = "csrc/gemm-inl.h"
FORWARD = "csrc/forward-inl.h"
BACKWARD = "csrc/backward-inl.h"
MATH = "csrc/math-inl.h"
KERNELS = "csrc/kernels.h"
DISPATCH = "csrc/dispatch.cpp"
AVX2 = "csrc/isa/avx2.cpp"
AVX512 = "csrc/isa/avx512.cpp"
BINDING = "src/bind_lstm.cpp"
MODULE = "src/module.cpp"
OPS = "python/lstm_fast/ops.py"
LAYERS = "python/lstm_fast/layers.py"


class Defect(NamedTuple):
    number: str
    what: str
    edits: tuple[tuple[str, str, str], ...]  # file, old text, new text


def swapped(number: str, one: str, other: str) -> Defect:
    """Two gates take each other's pre-activations."""
    activation = {"i": "sigmoid", "f": "sigmoid", "g": "tanh", "o": "sigmoid"}
    edits = []
    for gate, source in ((one, other), (other, one)):
        name = activation[gate]
        edits.append((CELL, f"const V {gate} = {name}(a.{gate});", f"const V {gate} = {name}(a.{source} );"))
    return Defect(number, f"gates {one} and {other} swapped", tuple(edits))


def replaced(number: str, what: str, file: str, old: str, new: str) -> Defect:
    return Defect(number, what, ((file, old, new),))


NO_ROWS = "static_cast<const T*>(nullptr)"
SORT_H0 = "sort_rows(schedule, h0, g.Ho, work.h[0], g.h_stride);"
SORT_C0 = "sort_rows(schedule, args_.c0 + state * g.B * g.H, g.H, c, g.unit_stride);"

PACK_W_HH = "kernels.pack_weights(w.w_hh, g.H, g.Ho, nullptr, nullptr, false, work.w_hh);"
PACK_W_HH_TRANSPOSED = """{
      std::vector<T> turned(static_cast<std::size_t>(g.gates * g.H * g.Ho));
      for (index row = 0; row < g.gates * g.H; ++row) {
        for (index k = 0; k < g.Ho; ++k) {
          const index from = g.Ho == g.H ? (row / g.H * g.H + k) * g.Ho + row % g.H : row * g.Ho + k;
          turned[static_cast<std::size_t>(row * g.Ho + k)] = w.w_hh[from];
        }
      }
      kernels.pack_weights(turned.data(), g.H, g.Ho, nullptr, nullptr, false, work.w_hh);
    }"""

# The state after the last step of the batch, not of the row.
LAST_C_ROW = """    const index length = plan_.schedule.length(b);
    if (!saves() || length == 0) return b;
"""
LAST_OF_ALL = """    const index length = plan_.schedule.length(0);
    if (!saves() || length == 0) return b;
"""
COPY_HN = "std::copy_n(work.h[length % 2] + b * g.h_stride, g.Ho, args_.hn + out * g.Ho);"
COPY_HN_OF_ALL = COPY_HN.replace("length % 2", "schedule.length(0) % 2")

UNIT_MAJOR = """
      accumulate(acc, a, first + lane, V::lanes, w, w_step, 0, gates);
      w += gates * w_step;
"""
# The gate row's own order: all units of one gate, then the next gate.
GATE_MAJOR = """
      if (lane > 0) continue;
      for (index gate = 0; gate < gates; ++gate) {
        accumulate(acc, a, first + gate * V::lanes, 1, w + gate * w_step, gates * w_step, 0, valid);
      }
      w += gates * valid * w_step;
"""

STATIC_INITIALISER = """
#include "../kernels-inl.h"
volatile float seed = 1.5f;
float initialised = seed * seed;
"""

DEFECTS = [
    swapped("1", "i", "f"),
    swapped("2", "f", "g"),
    swapped("3", "g", "o"),
    swapped("4", "i", "g"),
    swapped("5", "i", "o"),
    replaced("6", "W_hh transposed", LAYERS_FORWARD, PACK_W_HH, PACK_W_HH_TRANSPOSED),
    Defect(
        "7",
        "h0 and c0 swapped",
        (
            (LAYERS_FORWARD, SORT_H0, SORT_H0.replace("h0", "(g.P > 0 ? h0 : args_.c0 + state * g.B * g.H)")),
            (
                LAYERS_FORWARD,
                SORT_C0,
                SORT_C0.replace("args_.c0 + state", "(g.P > 0 ? args_.c0 : args_.h0 ) + state"),
            ),
        ),
    ),
    replaced("8", "h0 ignored", LAYERS_FORWARD, SORT_H0, SORT_H0.replace("h0", NO_ROWS)),
    replaced("9", "c0 ignored", LAYERS_FORWARD, SORT_C0, SORT_C0.replace("args_.c0 + state * g.B * g.H", NO_ROWS)),
    replaced("10", "b_ih ignored", LAYERS_FORWARD, "g.H, g.I, w.b_ih, w.b_hh, true", "g.H, g.I, nullptr, w.b_hh, true"),
    replaced("11", "b_hh ignored", LAYERS_FORWARD, "g.H, g.I, w.b_ih, w.b_hh, true", "g.H, g.I, w.b_ih, nullptr, true"),
    replaced("12", "sigmoid for g", CELL, "const V g = tanh(a.g);", "const V g = sigmoid(a.g);"),
    replaced("13", "tanh(c) missing", CELL, "mul(o, tanh(c))", "mul(o, c)"),
    replaced("14", "f applied to the new c", CELL, "fma(f, c_prev, mul(i, g))", "mul(f, fma(i, g, c_prev))"),
    replaced("24", "dc carry not multiplied by f", CELL, "mul(dc, s.f)}", "dc}"),
    replaced("25", "dhn ignored", LAYERS_BACKWARD, "sort_rows(schedule, dhn, ", f"sort_rows(schedule, {NO_ROWS}, "),
    replaced("26", "dcn ignored", LAYERS_BACKWARD, "sort_rows(schedule, dcn, ", f"sort_rows(schedule, {NO_ROWS}, "),
    replaced(
        "27",
        "the bias gradient dealt out to two biases",
        OPS,
        "grads |= {name: b.copy() for",
        "grads |= {name: b * 0.5 for",
    ),
    replaced(
        "27b",
        "the bias gradient of a layer dealt out to two biases",
        LAYERS,
        "own = (dw_ih, dw_hh, db, None if db is None else db.copy(), dw_hr)",
        "own = (dw_ih, dw_hh, db, None if db is None else db * 0, dw_hr)",
    ),
    replaced(
        "28",
        "dW_hh without the first step (h0)",
        LAYERS_FORWARD,
        "sort_rows(schedule, h0, g.Ho, reserve.h0, g.Ho);",
        f"sort_rows(schedule, {NO_ROWS}, g.Ho, reserve.h0, g.Ho);",
    ),
    replaced(
        "29",
        "dW over rows of the padding",
        LAYOUT,
        "[=](index length) { return length > step; })",
        "[=](index length) { return length + (length > 0) > step; })",
    ),
    replaced(
        "30",
        "dx of the last chunk missing",
        LAYERS_BACKWARD,
        "if (dx) kernels.input_gradient",
        "if (dx && (span != schedule.spans().rbegin() || schedule.spans().size() == 1)) kernels.input_gradient",
    ),
    replaced("31", "tail lanes unmasked on store", GEMM, "if (left >= V::lanes) {", "if (left > 0) {"),
    replaced("31b", "tail lanes unmasked on load of dy", BACKWARD, "valid >= V::lanes ? ", "valid > 0 ? "),
    replaced(
        "32",
        "last row block dropped",
        GEMM,
        "for_tiles<limit>(count, {0, ceil_div(count, limit)}, job);",
        "for_tiles<limit>(count, {0, ceil_div(count, limit) - (count > 2 * limit)}, job);",
    ),
    Defect(
        "35",
        "another instruction set run silently",
        (
            (KERNELS, "struct Isa {\n", "extern const Isa isa_avx2;\nstruct Isa {\n"),
            (KERNELS, "return f32;", "return isa_avx2.f32;"),
            (KERNELS, "return f64;", "return isa_avx2.f64;"),
        ),
    ),
    replaced(
        "37",
        "NaN swallowed by the clamp of sigmoid",
        MATH,
        "max(V::set(C::sigmoid_low), neg(x))",
        "max(neg(x), V::set(C::sigmoid_low))",
    ),
    replaced(
        "37b",
        "NaN swallowed by the clamp of tanh",
        MATH,
        "min(V::set(C::tanh_high), abs(x))",
        "min(abs(x), V::set(C::tanh_high))",
    ),
    replaced(
        "38",
        "reserve overwritten by backward",
        BACKWARD,
        "gradient.dgates.i.store(dgates);",
        "gradient.dgates.i.store(dgates);\n      gradient.dgates.i.store(const_cast<T*>(gates));",
    ),
    replaced("x1", "backward on the set now in use", BINDING, "backward(*reserve.isa, ", "backward(active_isa(), "),
    replaced("x2", "sums of backward in the order of the gate rows", GEMM, UNIT_MAJOR, GATE_MAJOR),
    replaced(
        "x3",
        "h of the wrong parity after a chunk of odd length",
        LAYERS_FORWARD,
        "chunk.h[parity] = work.h[(span.step + parity) % 2];",
        "chunk.h[parity] = work.h[parity];",
    ),
    replaced(
        "x4",
        "final c taken one step early",
        LAYERS_FORWARD,
        "step < length - 1; ++step) row += plan_.schedule.active(step);",
        "step < length - 2; ++step) row += plan_.schedule.active(step);",
    ),
    replaced(
        "x5",
        "flush-to-zero at import",
        MODULE,
        "  module.doc() =",
        "  __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040);\n  module.doc() =",
    ),
    replaced(
        "x6",
        "a static initialiser compiled for AVX-512",
        AVX512,
        '\n#include "../kernels-inl.h"\n',
        STATIC_INITIALISER,
    ),
    replaced(
        "x7",
        "AVX-512 used whatever the CPU says",
        AVX512,
        'return __builtin_cpu_supports("avx512f")',
        'return true || __builtin_cpu_supports("avx512f")',
    ),
    replaced(
        "x8",
        "two roundings instead of one on AVX2",
        AVX2,
        "{_mm256_fmadd_ps(a.raw, b.raw, c.raw)}",
        "{_mm256_add_ps(_mm256_mul_ps(a.raw, b.raw), c.raw)}",
    ),
    replaced(
        "x9",
        "W_hh of forward not kept for backward",
        LAYERS_FORWARD,
        "kernels.pack_transposed(w.w_hh, g.H, g.Ho, reserve.w_hh_t);",
        "std::fill_n(reserve.w_hh_t, 4 * g.H * g.padded(g.Ho), T(0));",
    ),
    replaced(
        "x10",
        "strided x read as if it were dense",
        LAYERS_FORWARD,
        "work.x_rows[row + b] = x.data + t * x.t_stride + original * x.b_stride;",
        "work.x_rows[row + b] = x.data + (t * g.B + original) * g.I;",
    ),
    # --- stacks, directions, ragged batches, projection, dropout ---
    replaced(
        "15",
        "reverse direction not reversed",
        STACK,
        "return direction == 1 || shape.reverse;",
        "return direction > 1 || (shape.reverse && shape.T < 0);",
    ),
    replaced(
        "16",
        "reverse starts at T, not at the row's length",
        STACK,
        "reversed(direction) ? schedule.length(row) - 1 - step",
        "reversed(direction) ? schedule.T() - 1 - step + 0 * row",
    ),
    replaced(
        "17",
        "length off by one",
        LAYOUT,
        "lengths_.push_back(lengths[row]);",
        "lengths_.push_back(lengths[row] > 1 ? lengths[row] - 1 : lengths[row]);",
    ),
    Defect(
        "18",
        "final state taken at T",
        (
            (LAYERS_FORWARD, COPY_HN, COPY_HN_OF_ALL),
            (LAYERS_FORWARD, LAST_C_ROW, LAST_OF_ALL),
        ),
    ),
    replaced("18b", "final h of the last step's parity", LAYERS_FORWARD, COPY_HN, COPY_HN_OF_ALL),
    replaced(
        "19",
        "output beyond the length not cleared",
        LAYERS_FORWARD,
        "    clear_padding(plan_.schedule, everybody, args_.y, plan_.width);",
        "    if (plan_.shape.T < 0) clear_padding(plan_.schedule, everybody, args_.y, plan_.width);",
    ),
    replaced(
        "19b",
        "dx beyond the length not cleared",
        LAYERS_BACKWARD,
        "if (args_.dx) clear_padding",
        "if (args_.dx && plan_.shape.T < 0) clear_padding",
    ),
    replaced(
        "20",
        "layer 2 fed by one direction only",
        LAYERS_FORWARD,
        "return {data, plan_.shape.B * plan_.width, plan_.width};",
        "const index Ho = plan_.Ho;\n    if (plan_.shape.directions == 2)\n"
        "      for (index row = 0; row < plan_.shape.T * plan_.shape.B; ++row)\n"
        "        std::copy_n(data + row * plan_.width, Ho, const_cast<T*>(data + row * plan_.width) + Ho);\n"
        "    return {data, plan_.shape.B * plan_.width, plan_.width};",
    ),
    Defect(
        "21",
        "directions concatenated in the wrong order",
        (
            (LAYERS_FORWARD, "] + direction * g.Ho;", "] + (plan_.shape.directions - 1 - direction) * g.Ho;"),
            (
                LAYERS_BACKWARD,
                "= output(layer) + direction * g.Ho;",
                "= output(layer) + (plan_.shape.directions - 1 - direction) * g.Ho;",
            ),
            (
                LAYERS_BACKWARD,
                "original * dy.b_stride + direction * g.Ho",
                "original * dy.b_stride + (plan_.shape.directions - 1 - direction) * g.Ho",
            ),
        ),
    ),
    replaced("22", "dropout mask not rescaled", DROPOUT, "static_cast<T>(1 / (1 - dropout.p))", "T(1)"),
    replaced(
        "23",
        "dropout applied after the last layer",
        LAYERS_FORWARD,
        "    clear_padding(plan_.schedule, everybody, args_.y, plan_.width);",
        "    if (dropout_) for_valid_rows(plan_.schedule, everybody, [&](index t, index row) {\n"
        "      T* const own = args_.y + (t * plan_.shape.B + row) * plan_.width;\n"
        "      drop_row(args_.dropout, plan_.shape.layers - 1, t, row, own, plan_.width, own);\n"
        "    });\n"
        "    clear_padding(plan_.schedule, everybody, args_.y, plan_.width);",
    ),
    replaced(
        "23b",
        "dropout masks by the sorted row",
        STACK,
        "t < schedule.length(row); ++t) f(t, schedule.original(row));",
        "t < schedule.length(row); ++t) f(t, row);",
    ),
    replaced(
        "23c",
        "gradient of dropout without the mask",
        LAYERS_BACKWARD,
        "if (dropout_ && layer > 0) drop_row",
        "if (dropout_ && layer > 1) drop_row",
    ),
    replaced("23d", "nine rounds of Philox", DROPOUT, "round < 10", "round < 9"),
    replaced(
        "33",
        "lengths permuted but not restored in hn",
        LAYERS_FORWARD,
        "const index out = state * g.B + schedule.original(b);",
        "const index out = state * g.B + b;",
    ),
    replaced(
        "33b",
        "lengths permuted but not restored in dh0",
        LAYERS_BACKWARD,
        "const index out = state * g.B + schedule.original(b);",
        "const index out = state * g.B + b;",
    ),
    replaced(
        "34",
        "projection gradient taken before the gradient of y",
        BACKWARD,
        "dp[k] = dy ? dh[k] + dy[k] : dh[k];",
        "dp[k] = dy ? dy[k] : dh[k];",
    ),
    replaced(
        "34b",
        "gradient of w_hr from the h that left the projection",
        BACKWARD,
        "if (u) mul(o, tanh(c_now)).store(u + unit);",
        "if (u) tanh(c_now).store(u + unit);",
    ),
    # --- threads ---
    replaced(
        "36",
        "one thread's share skipped",
        TEAM,
        "const index end = granules * (id_ + 1) / size_ * granule;",
        "const index end = granules * (id_ + (size_ > 2 && leads() ? 0 : 1)) / size_ * granule;",
    ),
    replaced(
        "36b",
        "one thread's rows of a step skipped",
        FORWARD,
        "return active > deal.id ? ceil_div(active - deal.id, deal.size) : 0;",
        "return active > deal.id && deal.id < 2 ? ceil_div(active - deal.id, deal.size) : 0;",
    ),
    replaced(
        "t1",
        "no barrier between the input product and the steps",
        LAYERS_FORWARD,
        "      crew.wait();\n      kernels.forward_steps",
        "      kernels.forward_steps",
    ),
    replaced(
        "t2",
        "no barrier between the steps and the deferred products",
        LAYERS_BACKWARD,
        "      crew.wait();\n      if (dx)",
        "      if (dx)",
    ),
    replaced(
        "t3",
        "no barrier between packing panels and the weight gradients",
        LAYERS_BACKWARD,
        "        crew.wait();\n        kernels.weight_gradient",
        "        kernels.weight_gradient",
    ),
    replaced(
        "t4",
        "y_rows of one buffer only",
        LAYERS_FORWARD,
        "work.y_rows[(&span - schedule.spans().data()) % 2]",
        "work.y_rows[0]",
    ),
    replaced(
        "t5",
        "a barrier that waits for the others but the last",
        THREADS,
        "for (int other = 0; other < size; ++other) {",
        "for (int other = 0; other < size - (size > 2); ++other) {",
    ),
    replaced("t6", "workers in the default rounding mode", THREADS, "std::fesetenv(&environment_);", ""),
    replaced(
        "t7",
        "a child goes on with the team of its parent",
        THREADS,
        "pthread_atfork(nullptr, nullptr, abandon_team_in_child)",
        "pthread_atfork(nullptr, nullptr, nullptr)",
    ),
    replaced(
        "t8",
        "two callers in one team",
        THREADS,
        "if (crew.busy.test_and_set(std::memory_order_acquire)) return alone();",
        "crew.busy.test_and_set(std::memory_order_acquire);",
    ),
    replaced(
        "t9",
        "all threads asked for, one used",
        THREADS,
        "if (wanted <= 1) return alone();",
        "if (wanted >= 1) return alone();",
    ),
    replaced(
        "t10",
        "signals may reach the workers",
        THREADS,
        "pthread_sigmask(SIG_SETMASK, &all, &before);",
        "pthread_sigmask(SIG_SETMASK, nullptr, &before);",
    ),
    replaced(
        "t11",
        "a daemon thread unwound at shutdown",
        BINDING,
        "while (true) std::this_thread::sleep_for(std::chrono::hours(1));",
        "throw;",
    ),
    replaced(
        "t12",
        "layers not separated by a barrier",
        LAYERS_FORWARD,
        "      if (company.halted(everybody, everybody)) return;\n      const auto at",
        "      const auto at",
    ),
]
