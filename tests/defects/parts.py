"""What a planted defect is, and the files it may stand in."""

from __future__ import annotations

from typing import NamedTuple

CELL = "csrc/cells/lstm-inl.h"
LAYERS_FORWARD = "csrc/forward.cpp"
LAYERS_BACKWARD = "csrc/backward.cpp"
STACK = "csrc/stack.h"
PLAN = "csrc/plan.h"
COMPANY = "csrc/company.h"
LAYOUT = "csrc/layout.h"
DROPOUT = "csrc/dropout.h"
THREADS = "csrc/threads.cpp"
TEAM = "csrc/threads.h"
GEMM = "csrc/gemm-inl.h"
FORWARD = "csrc/forward-inl.h"
BACKWARD = "csrc/backward-inl.h"
DIRECT = "csrc/direct-forward-inl.h"
DIRECT_BACKWARD = "csrc/direct-backward-inl.h"
RECOMPUTE = "csrc/recompute-inl.h"
RECOMPUTE_CALLS = "csrc/recompute.h"
DLPACK = "src/dlpack.cpp"
INFER = "src/bind_dlpack.cpp"
SERIES = "src/series.h"
STREAM = "csrc/stream.cpp"
MATH = "csrc/math-inl.h"
KERNELS = "csrc/kernels.h"
DISPATCH = "csrc/dispatch.cpp"
AVX2 = "csrc/isa/avx2.cpp"
AVX512 = "csrc/isa/avx512.cpp"
MEMORY = "csrc/memory.cpp"
BINDING = "src/bind_backward.cpp"
GIL = "src/without_gil.cpp"
MODULE = "src/module.cpp"
OPS = "python/lstm_fast/ops.py"
LAYERS = "python/lstm_fast/_recurrent.py"


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
        edits.append((CELL, f"const V {gate} = {name}(a_{gate});", f"const V {gate} = {name}(a_{source} );"))
    return Defect(number, f"gates {one} and {other} swapped", tuple(edits))


def replaced(number: str, what: str, file: str, old: str, new: str) -> Defect:
    return Defect(number, what, ((file, old, new),))
