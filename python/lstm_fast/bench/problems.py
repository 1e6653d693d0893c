"""What is checked and timed: the kernels, a problem's shape and arrays, the points of a sweep.

T steps, B rows, I inputs, H hidden units. Arrays have the names and shapes of ``lstm_fast.ops``:
x [T,B,I], h0 and c0 [B,H], w_ih [4H,I], w_hh [4H,H], b_ih and b_hh [4H], and the gradients of the loss
dy [T,B,H], dhn and dcn [B,H].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = dict[str, Array]


class Kernel(NamedTuple):
    """One compiled kernel; each exists for every instruction set."""

    cell: str
    dtype: str


# The one list of kernels in Python: verify, the benches and the tests run over it.
KERNELS = (Kernel("lstm", "float32"), Kernel("lstm", "float64"))
CELLS = tuple(dict.fromkeys(k.cell for k in KERNELS))
DTYPES = tuple(dict.fromkeys(k.dtype for k in KERNELS))

GATES = {"lstm": 4}
STATES = {"lstm": ("h", "c")}


@dataclass(frozen=True)
class Problem:
    """One shape of one kernel. ``inputs`` is I and defaults to H."""

    cell: str
    dtype: str
    steps: int
    batch: int
    hidden: int
    inputs: int = -1

    def __post_init__(self) -> None:
        if Kernel(self.cell, self.dtype) not in KERNELS:
            raise ValueError(f"no kernel for cell {self.cell!r} in {self.dtype!r}; there are {KERNELS}")
        if self.inputs == -1:
            object.__setattr__(self, "inputs", self.hidden)
        for name in ("steps", "batch", "hidden", "inputs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}")

    def __str__(self) -> str:
        size = f"H {self.hidden}" if self.inputs == self.hidden else f"I {self.inputs} H {self.hidden}"
        return f"{self.cell} {self.dtype} T {self.steps} B {self.batch} {size}"

    def flops(self, *, backward: bool) -> float:
        """Multiplications and additions of the matrix products, forward only or forward + backward."""
        forward = 2.0 * GATES[self.cell] * self.steps * self.batch * self.hidden * (self.inputs + self.hidden)
        return 3.0 * forward if backward else forward

    def arrays(self) -> Arrays:
        """All arrays of the problem, the same bits on every machine and in every version of NumPy.

        NumPy promises the raw 64-bit stream of a seeded PCG64 (NEP 19), not the stream of ``Generator.uniform``.
        53 raw bits become an integer that float64 holds exactly; the scaling, sqrt and the conversion to the
        problem's dtype are single operations that IEEE 754 rounds correctly, so no platform can differ.
        """
        raw = np.random.PCG64([self.steps, self.batch, self.inputs, self.hidden])

        def uniform(half_range: float, *shape: int) -> Array:
            integers = (raw.random_raw(math.prod(shape)) >> np.uint64(11)).astype(np.int64) - 2**52
            return (integers * (half_range * 2.0**-52)).reshape(shape).astype(self.dtype)

        rows = GATES[self.cell] * self.hidden
        state = (self.batch, self.hidden)
        scale = 1.0 / math.sqrt(self.hidden)  # PyTorch's law for weights; a larger one makes the recurrence chaotic
        made = {"x": uniform(1.0, self.steps, self.batch, self.inputs)}
        made |= {f"{s}0": uniform(1.0, *state) for s in STATES[self.cell]}
        made |= {"w_ih": uniform(scale, rows, self.inputs), "w_hh": uniform(scale, rows, self.hidden)}
        made |= {"b_ih": uniform(scale, rows), "b_hh": uniform(scale, rows)}
        made |= {"dy": uniform(1.0, self.steps, *state)}
        made |= {f"d{s}n": uniform(1.0, *state) for s in STATES[self.cell]}
        return made


def input_names(cell: str) -> tuple[str, ...]:
    """Names of the forward arguments, in the order of ``lstm_fast.ops``."""
    return ("x", *(f"{s}0" for s in STATES[cell]), "w_ih", "w_hh", "b_ih", "b_hh")


def output_names(cell: str) -> tuple[str, ...]:
    """Names of the results of forward: the output, then the final states."""
    return ("y", *(f"{s}n" for s in STATES[cell]))


def state_gradient_names(cell: str) -> tuple[str, ...]:
    """Names of the gradients of the final states, arguments of backward."""
    return tuple(f"d{s}n" for s in STATES[cell])


class Grid(NamedTuple):
    """Points of a sweep: every T with every (B, H)."""

    steps: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]


def grid_problems(kernel: Kernel, grid: Grid) -> list[Problem]:
    """The grid's problems for one kernel, with I = H; T runs fastest."""
    return [Problem(*kernel, steps=t, batch=b, hidden=h) for b, h in grid.sizes for t in grid.steps]


FULL = Grid((16, 64, 256, 1024, 4096), ((1, 64), (1, 128), (16, 128), (16, 256)))
QUICK = Grid((16, 128, 1024), ((1, 64), (1, 128), (16, 128)))
# Of `benches/`: fewer points, since each is a row for every dtype, instruction set and peer.
BENCHES = Grid((16, 256, 2048), ((1, 64), (1, 128), (16, 128)))
STEP_SIZES = ((1, 64), (1, 128), (16, 128), (32, 256))

# (T, B, I, H) of verify: from 1, odd and even, one less and one more than the lanes (4, 8, 16) and the tile's rows
# (3, 6); the last ones longer than a chunk of time, in steps, in rows and in both. Small enough that a CPU without
# fused multiply-add, which has to emulate it, ends within a minute.
VERIFY_SHAPES = (
    (1, 1, 1, 1),
    (2, 1, 3, 2),
    (5, 2, 1, 3),
    (3, 3, 2, 7),
    (4, 5, 7, 8),
    (7, 4, 9, 9),
    (6, 6, 8, 15),
    (8, 7, 15, 16),
    (5, 1, 16, 17),
    (2, 8, 17, 24),
    (9, 3, 33, 31),
    (3, 13, 5, 32),
    (16, 2, 32, 33),
    (129, 1, 7, 20),
    (33, 6, 12, 64),
    (12, 17, 65, 63),
    (40, 5, 100, 65),
    (10, 12, 64, 100),
    (6, 2, 129, 129),
    (400, 1, 3, 10),
    (2, 205, 6, 5),
    (90, 7, 11, 18),
)

# (T, B, I, H) whose bits the certificate hashes. Changing one changes the certificate.
CERTIFICATE_SHAPES = (
    (1, 1, 1, 1),
    (7, 3, 5, 9),
    (20, 6, 16, 16),
    (33, 5, 20, 33),
    (64, 1, 31, 48),
    (9, 13, 40, 65),
    (300, 1, 5, 8),
    (90, 7, 11, 18),
)
