"""The defects that mutations.py plants: texts of the kernels and what to put in their place.

Numbers 1 to 38 are those of the design's list, as far as one padded layer of one direction on one thread has them; the
others (x1, x2, ...) came up while the suite was written.
"""

from __future__ import annotations

from typing import NamedTuple

CELL = "csrc/cells/lstm-inl.h"
STACK = "csrc/stack.cpp"
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

PACK_W_HH = "kernels.pack_weights(w.w_hh, g.H, g.H, nullptr, nullptr, false, work.w_hh);"
PACK_W_HH_TRANSPOSED = """
  std::vector<T> turned(static_cast<std::size_t>(g.gates * g.H * g.H));
  for (index row = 0; row < g.gates * g.H; ++row) {
    for (index k = 0; k < g.H; ++k) {
      turned[static_cast<std::size_t>((row / g.H * g.H + k) * g.H + row % g.H)] = w.w_hh[row * g.H + k];
    }
  }
  kernels.pack_weights(turned.data(), g.H, g.H, nullptr, nullptr, false, work.w_hh);
"""

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
    replaced("6", "W_hh transposed", STACK, PACK_W_HH, PACK_W_HH_TRANSPOSED),
    Defect(
        "7",
        "h0 and c0 swapped",
        (
            (STACK, "spread_rows(args.c0, ", "spread_rows(args.h0 , "),
            (STACK, "spread_rows(args.h0, ", "spread_rows(args.c0 , "),
        ),
    ),
    replaced("8", "h0 ignored", STACK, "spread_rows(args.h0, ", f"spread_rows({NO_ROWS}, "),
    replaced("9", "c0 ignored", STACK, "spread_rows(args.c0, ", f"spread_rows({NO_ROWS}, "),
    replaced("10", "b_ih ignored", STACK, "g.H, g.I, w.b_ih, w.b_hh, true", "g.H, g.I, nullptr, w.b_hh, true"),
    replaced("11", "b_hh ignored", STACK, "g.H, g.I, w.b_ih, w.b_hh, true", "g.H, g.I, w.b_ih, nullptr, true"),
    replaced("12", "sigmoid for g", CELL, "const V g = tanh(a.g);", "const V g = sigmoid(a.g);"),
    replaced("13", "tanh(c) missing", CELL, "mul(o, tanh(c))", "mul(o, c)"),
    replaced("14", "f applied to the new c", CELL, "fma(f, c_prev, mul(i, g))", "mul(f, fma(i, g, c_prev))"),
    replaced("24", "dc carry not multiplied by f", CELL, "mul(dc, s.f)}", "dc}"),
    replaced("25", "dhn ignored", STACK, "spread_rows(args.dhn, ", f"spread_rows({NO_ROWS}, "),
    replaced("26", "dcn ignored", STACK, "spread_rows(args.dcn, ", f"spread_rows({NO_ROWS}, "),
    replaced(
        "27",
        "the bias gradient dealt out to two biases",
        BINDING,
        'py::object(db.attr("copy")())',
        'py::object(db.attr("__mul__")(0.5))',
    ),
    replaced(
        "28",
        "dW_hh without the first step (h0)",
        STACK,
        "std::copy_n(args.h0, g.B * g.H, reserve.h0);",
        "std::fill_n(reserve.h0, g.B * g.H, T(0));",
    ),
    replaced(
        "30",
        "dx of the last chunk missing",
        STACK,
        "if (args.dx) kernels",
        "if (args.dx && (number == 0 || number < g.chunk_count() - 1)) kernels",
    ),
    replaced("31", "tail lanes unmasked on store", GEMM, "if (left >= V::lanes) {", "if (left > 0) {"),
    replaced("31b", "tail lanes unmasked on load of dy", BACKWARD, "valid >= V::lanes ? ", "valid > 0 ? "),
    replaced(
        "32",
        "last row block dropped",
        GEMM,
        "for (index tile = 0; tile < tiles; ++tile) {",
        "for (index tile = 0; tile < (tiles > 2 ? tiles - 1 : tiles); ++tile) {",
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
        STACK,
        "if (chunk.steps % 2) std::swap",
        "if (chunk.steps < 0) std::swap",
    ),
    replaced(
        "x4",
        "final c taken one step early",
        STACK,
        "gather_rows(c + g.steps * c_step",
        "gather_rows(c + (g.steps > 0 ? g.steps - 1 : 0) * c_step",
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
        STACK,
        "kernels.pack_transposed(w.w_hh, g.H, g.H, reserve.w_hh_t);",
        "std::fill_n(reserve.w_hh_t, 4 * g.H * g.padded(g.H), T(0));",
    ),
    replaced(
        "x10",
        "strided x read as if it were dense",
        STACK,
        "args.x.data + (t + step) * args.x.t_stride + b * args.x.b_stride;\n      }\n    }\n    chunk.gates = save",
        "args.x.data + ((t + step) * g.B + b) * g.I;\n      }\n    }\n    chunk.gates = save",
    ),
]
