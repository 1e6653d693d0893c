"""Run by test_guard_pages.py in a process of its own: kernels on arrays that stand against pages nobody may touch.

A stray load or store ends the process with SIGSEGV; the last line printed names the problem. Arguments: the instruction
set, where the arrays stand (end or start: the edge that touches the page), and the library of guard_malloc.c or "".
"""

from __future__ import annotations

import ctypes
import ctypes.util
import mmap
import sys

import lstm_fast as lf
import numpy as np
from judge import Array, assert_all_same_bits, assert_same_bits
from lstm_fast import _lstm_fast_core as core
from problems import Problem, draw, solve

PAGE = mmap.PAGESIZE
PROT_NONE, PROT_READ, PROT_WRITE = 0, 1, 2
MAP_PRIVATE, MAP_ANONYMOUS = 0x02, 0x20

libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

# Rows, units and inputs off the tiles and vectors; sizes in bytes that are multiples of 16 too, so that outputs, which
# malloc aligns to 16, touch the page's edge exactly.
SHAPES = [
    (1, 1, 1, 1),
    (1, 3, 17, 33),
    (1, 6, 40, 7),
    (4, 1, 3, 7),
    (4, 1, 1, 9),
    (3, 1, 5, 33),
    (4, 4, 2, 7),
    (5, 4, 7, 9),
    (3, 12, 17, 33),
    (2, 7, 5, 17),
    (4, 8, 3, 15),
    (40, 5, 9, 12),
    (8, 6, 31, 16),
    (300, 3, 2, 5),
    (3, 2, 0, 7),
]


def guarded(value: Array, at: str) -> Array:
    """A copy that ends (or starts) where a closed page starts (or ends), on pages that can only be read."""
    body = -(-value.nbytes // PAGE) * PAGE
    if not body:
        return value
    base = libc.mmap(None, body + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    assert base != ctypes.c_void_p(-1).value
    assert libc.mprotect(base + PAGE, body, PROT_READ | PROT_WRITE) == 0
    start = base + PAGE + (body - value.nbytes if at == "end" else 0)
    copy = np.frombuffer((ctypes.c_char * value.nbytes).from_address(start), value.dtype).reshape(value.shape)
    copy[...] = value
    copy.setflags(write=False)
    assert libc.mprotect(base + PAGE, body, PROT_READ) == 0
    return copy


def batch_major(value: Array, at: str) -> Array:
    """The same in [B,T,.] order: rows of a step stand apart, the last one at the edge."""
    return guarded(np.ascontiguousarray(value.swapaxes(0, 1)), at).swapaxes(0, 1)


class GuardMalloc:
    """Turns guard_malloc.c on inside a with block."""

    def __init__(self, library: str, at: str):
        self.library = ctypes.CDLL(library) if library else None
        self.mode = {"end": 1, "start": 2}[at]

    def __enter__(self) -> None:
        if self.library:
            self.held = [np.empty(size, np.uint8) for size in range(1, 1024) for _ in range(8)]  # empties NumPy's cache
            self.before = self.library.guard_malloc_count()
            assert self.library.guard_malloc_mode(self.mode) == 0

    def __exit__(self, *_: object) -> None:
        if self.library:
            self.library.guard_malloc_mode(0)
            assert self.library.guard_malloc_count() > self.before, "no allocation was guarded"


def step_of_stream(
    x: Array, h: Array, c: Array, w_ih: Array, w_hh: Array, b_ih: Array | None = None, b_hh: Array | None = None
) -> tuple[Array, Array]:
    """As lstm_cell, from weights that stay packed."""
    stream = core.open_stream("lstm", [(w_ih, w_hh, b_ih, b_hh, None)], len(x), 1)
    stream.set_state(h[None], c[None])
    return stream.step(x), stream.state()[1][0]


def check(problem: Problem, at: str, library: str) -> None:
    expected = solve(problem)
    inferred = lf.ops.lstm_forward(**problem.forward, save=None)
    h, c = lf.ops.lstm_cell(**problem.cell) if problem.x.size else (None, None)
    fenced = problem.replace(**{name: guarded(value, at) for name, value in problem.arrays.items()})
    turned = fenced.replace(x=batch_major(problem.x, at), dy=batch_major(problem.dy, at))
    with GuardMalloc(library, at):
        results = [solve(fenced), solve(turned), solve(turned, save="lean")]
        again = lf.ops.lstm_forward(**fenced.forward, save=None)
        cell = lf.ops.lstm_cell(**fenced.cell) if h is not None else None
        streamed = step_of_stream(**fenced.cell) if h is not None else None
    for result in results:
        assert_all_same_bits(result, expected, "against guard pages")
    for name, one, other in zip(("y", "hn", "cn"), again[:3], inferred[:3], strict=True):
        assert_same_bits(one, other, f"{name} of inference against guard pages")
    if cell:
        assert_same_bits(cell[0], h)
        assert_same_bits(cell[1], c)
    if streamed:
        assert_same_bits(streamed[0], h)
        assert_same_bits(streamed[1], c)


def main() -> None:
    isa, at, library = sys.argv[1:]
    lf.set_isa(isa)
    lf.set_spare_memory(0)  # every block is an allocation of its own, and guarded
    for shape in SHAPES:
        for dtype in ("float32", "float64"):
            for bias in ("both", "none"):
                print(f"(T, B, I, H) = {shape}, {dtype}, bias {bias}", flush=True)
                check(draw(*shape, dtype, bias=bias), at, library)
    print("survived")


if __name__ == "__main__":
    main()
