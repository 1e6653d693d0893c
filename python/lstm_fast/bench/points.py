"""The points: of the sweep of ``lstm-fast bench``, of ``benches/``, of ``verify`` and of the certificate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from .problems import Kernel, Problem

Options = dict[str, Any]  # fields of a Problem beyond its shape


class Grid(NamedTuple):
    """Points of a sweep: every T with every (B, H)."""

    steps: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]


def grid_problems(kernel: Kernel, grid: Grid, *, ragged: bool = False, **options: Any) -> list[Problem]:
    """The grid's problems for one kernel, with I = H; T runs fastest. ragged: lengths in 10..T, 1..T below T = 10."""
    return [
        Problem(*kernel, t, b, h, shortest=(10 if t >= 10 else 1) if ragged else None, **options)
        for b, h in grid.sizes
        for t in grid.steps
    ]


FULL = Grid((16, 64, 256, 1024, 4096), ((1, 64), (1, 128), (16, 128), (16, 256)))
QUICK = Grid((16, 128, 1024), ((1, 64), (1, 128), (16, 128)))
# Batches only, and no longer ones: the reference takes every row alone.
RAGGED_FULL = Grid((16, 64, 256, 1024), ((16, 128), (32, 128)))
RAGGED_QUICK = Grid((16, 64, 256), ((8, 64), (32, 128)))
# Of `benches/`: fewer points, since each is a row for every dtype, instruction set and peer.
BENCHES = Grid((16, 256, 2048), ((1, 64), (1, 128), (16, 128)))
STEP_SIZES = ((1, 64), (1, 128), (16, 128), (32, 256))


def problems_of_benches(kernel: Kernel) -> Iterator[Problem]:
    """Of `benches/`, forward and forward+backward: the grid, and a point for everything else a layer can be."""
    yield from grid_problems(kernel, BENCHES)
    yield from grid_problems(kernel, Grid((256,), ((32, 128),)), ragged=True)
    yield from grid_problems(kernel, Grid((256,), ((1, 128),)), layers=4)
    yield from grid_problems(kernel, Grid((256,), ((1, 128), (16, 128))), directions=2)
    if kernel.cell == "lstm":
        yield from grid_problems(kernel, Grid((256,), ((16, 128),)), projection=64)


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
# Of everything beyond one layer in one direction: fewer, with the same edges; H is above the projection's P.
VERIFY_MORE_SHAPES = ((1, 1, 1, 4), (5, 3, 4, 9), (9, 8, 5, 17), (21, 7, 18, 33), (2, 205, 3, 5), (60, 6, 7, 12))

# Name -> shapes, options: what verify checks. Lengths of 0 are among the ragged ones.
VERIFY: dict[str, tuple[tuple[tuple[int, int, int, int], ...], Options]] = {
    "one layer": (VERIFY_SHAPES, {}),
    "ragged": (VERIFY_MORE_SHAPES, {"shortest": 0}),
    "projected": (VERIFY_MORE_SHAPES, {"projection": 3}),
    "bidirectional": (VERIFY_MORE_SHAPES, {"directions": 2}),
    "stacked": (VERIFY_MORE_SHAPES, {"layers": 3}),
    "dropout": (VERIFY_MORE_SHAPES, {"layers": 2, "dropout": 0.3}),
    "all together": (
        VERIFY_MORE_SHAPES,
        {"layers": 2, "directions": 2, "projection": 3, "shortest": 0, "dropout": 0.3},
    ),
}
VERIFY_THREADS = (1, 2, 3, 7)

# (T, B, I, H) whose bits the certificate hashes, alone and with every set of options of VERIFY. Changing one changes
# the certificate.
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
CERTIFICATE_MORE_SHAPES = ((7, 3, 5, 9), (33, 5, 20, 33), (90, 7, 11, 18))


def problems(kernel: Kernel, shapes: tuple[tuple[int, int, int, int], ...], options: Options) -> list[Problem]:
    """The kernel's problems of the given (T, B, I, H)."""
    return [Problem(*kernel, steps=t, batch=b, inputs=i, hidden=h, **options) for t, b, i, h in shapes]


def verify_options(kernel: Kernel, name: str) -> Options | None:
    """The options that VERIFY has under a name; a cell without projection takes the others, None if there are none."""
    options = VERIFY[name][1]
    if kernel.cell == "lstm" or "projection" not in options:
        return options
    return {option: value for option, value in options.items() if option != "projection"} or None


def verify_problems(kernel: Kernel, name: str) -> list[Problem]:
    """What verify checks under this name."""
    options = verify_options(kernel, name)
    return [] if options is None else problems(kernel, VERIFY[name][0], options)


def certificate_problems(kernel: Kernel) -> Iterator[Problem]:
    """What the certificate hashes, in order."""
    for name in VERIFY:
        options = verify_options(kernel, name)
        if options is not None:
            yield from problems(kernel, CERTIFICATE_MORE_SHAPES if options else CERTIFICATE_SHAPES, options)
