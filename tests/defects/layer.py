"""Defects of one layer and direction, of the instruction sets and of the bindings."""

from __future__ import annotations

from .parts import (
    AVX2,
    AVX512,
    BACKWARD,
    BINDING,
    CELL,
    GEMM,
    KERNELS,
    LAYERS,
    LAYERS_BACKWARD,
    LAYERS_FORWARD,
    LAYOUT,
    MATH,
    MODULE,
    OPS,
    Defect,
    replaced,
    swapped,
)

NO_ROWS = "static_cast<const T*>(nullptr)"
SORT_H0 = "sort_rows(schedule, h0, g.Ho, work.h[0], g.h_stride);"
SORT_C0 = "sort_rows(schedule, kernels.carry == Carry::c ? c0 : h0, g.H, c, g.carry_stride);"

PACK_W_HH = "kernels.pack_recurrent_weights(w.w_hh, g.H, g.Ho, w.b_ih, w.b_hh, work.w_hh);"

PACK_W_HH_TRANSPOSED = """{
      std::vector<T> turned(static_cast<std::size_t>(g.gates * g.H * g.Ho));
      for (index row = 0; row < g.gates * g.H; ++row) {
        for (index k = 0; k < g.Ho; ++k) {
          const index from = g.Ho == g.H ? (row / g.H * g.H + k) * g.Ho + row % g.H : row * g.Ho + k;
          turned[static_cast<std::size_t>(row * g.Ho + k)] = w.w_hh[from];
        }
      }
      kernels.pack_recurrent_weights(turned.data(), g.H, g.Ho, w.b_ih, w.b_hh, work.w_hh);
    }"""

# The state after the last step of the batch, not of the row.
LAST_C_ROW = """    const index length = plan_.schedule.length(b);
    if (!keeps_gates() || length == 0) return b;
"""

UNIT_MAJOR = """
      accumulate(acc, a, first + lane, V::lanes, w, w_step, 0, Slots::gates);
      w += Slots::gates * w_step;
"""
# The gate row's own order: all units of one gate, then the next gate.
GATE_MAJOR = """
      if (lane > 0) continue;
      for (index gate = 0; gate < Slots::gates; ++gate) {
        accumulate(acc, a, first + gate * V::lanes, 1, w + gate * w_step, Slots::gates * w_step, 0, valid);
      }
      w += Slots::gates * valid * w_step;
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
            (LAYERS_FORWARD, SORT_H0, SORT_H0.replace("h0", "(g.P > 0 ? h0 : c0)")),
            (
                LAYERS_FORWARD,
                SORT_C0,
                SORT_C0.replace("c0 : h0", "(g.P > 0 ? c0 : h0 ) : h0"),
            ),
        ),
    ),
    replaced("8", "h0 ignored", LAYERS_FORWARD, SORT_H0, SORT_H0.replace("h0", NO_ROWS)),
    replaced("9", "c0 ignored", LAYERS_FORWARD, SORT_C0, SORT_C0.replace("c0 : h0", f"{NO_ROWS} : h0")),
    replaced("10", "b_ih ignored", LAYERS_FORWARD, "g.H, g.I, w.b_ih, w.b_hh, work", "g.H, g.I, nullptr, w.b_hh, work"),
    replaced("11", "b_hh ignored", LAYERS_FORWARD, "g.H, g.I, w.b_ih, w.b_hh, work", "g.H, g.I, w.b_ih, nullptr, work"),
    replaced("12", "sigmoid for g", CELL, "const V g = tanh(a_g);", "const V g = sigmoid(a_g);"),
    replaced("13", "tanh(c) missing", CELL, "c, mul(o, tanh(c))}", "c, mul(o, c)}"),
    replaced("14", "f applied to the new c", CELL, "fma(f, c_prev, mul(i, g))", "mul(f, fma(i, g, c_prev))"),
    replaced("24", "dc carry not multiplied by f", CELL, "mul(dc, f)}", "dc}"),
    replaced("25", "dhn ignored", LAYERS_BACKWARD, "sort_rows(schedule, dhn, ", f"sort_rows(schedule, {NO_ROWS}, "),
    replaced("26", "dcn ignored", LAYERS_BACKWARD, "sort_rows(schedule, dcn, ", f"sort_rows(schedule, {NO_ROWS}, "),
    replaced(
        "27",
        "the bias gradient dealt out to two biases",
        OPS,
        "b_hh = b_ih.copy()",
        "b_hh = b_ih * 0.5",
    ),
    replaced(
        "27b",
        "the bias gradient of a layer dealt out to two biases",
        LAYERS,
        "db_hh = db_ih.copy()",
        "db_hh = db_ih * 0",
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
        "if (place.dx) kernels.input_gradient",
        "if (place.dx && (span != schedule.spans().rbegin() || schedule.spans().size() == 1)) kernels.input_gradient",
    ),
    replaced("31", "tail lanes unmasked on store", GEMM, "if (left >= V::lanes) {", "if (left > 0) {"),
    replaced("31b", "tail lanes unmasked on load", GEMM, "return valid >= V::lanes ? ", "return valid > 0 ? "),
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
        "store_gates(gradient.dgates, dgates);",
        "store_gates(gradient.dgates, dgates);\n      store_gates(gradient.dgates, const_cast<T*>(gates));",
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
        "kernels.transpose_recurrent_weights(w.w_hh, g.H, g.Ho, reserve.w_hh_t);",
        "std::fill_n(reserve.w_hh_t, 4 * g.H * g.padded(g.Ho), T(0));",
    ),
    replaced(
        "x10",
        "strided x read as if it were dense",
        LAYERS_FORWARD,
        "place.x_rows[row + b] = schedule.find(place.x, t, original);",
        "place.x_rows[row + b] = place.x.data + (t * plan_.shape.B + original) * plan_.shape.I;",
    ),
]
