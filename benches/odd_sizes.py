"""What an odd size costs: time over that of the size rounded up to the tile's rows and to the lanes.

    python benches/odd_sizes.py                        # 60 drawn points, the worst ratios first; about a minute
    python benches/odd_sizes.py --seed 1 --threads 2
    python benches/odd_sizes.py --points 7x17 25x136   # B x H, these alone

Points are drawn from B 1..66 and H 16..300, with I = H and a T for which a call takes some milliseconds. A size and its
rounded one take turns; the ratio is that of the medians. Rounding up is work that nobody asked for, so a ratio above 1
is a loss. Points that are round already are not drawn.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Iterator
from typing import NamedTuple

from lstm_fast import _lstm_fast_core as core
from lstm_fast import isa
from lstm_fast.bench import machine
from lstm_fast.bench.engines import PASSES, TRAIN, LstmFast, timed_call
from lstm_fast.bench.problems import DTYPES, Problem
from lstm_fast.bench.timing import alternate, median

BATCHES, UNITS = (1, 66), (16, 300)
FLOPS = 2e8  # of a call, for each thread: well above those below which one computes alone
MOST_STEPS, LEAST_STEPS = 2000, 4  # a single step takes another path
TARGET = 1.1
LANES = {"avx512": 16, "avx2": 8}  # in float32, half as many in float64
ROWS = {"avx512": 6, "avx2": 3}  # of a tile of four gates


class Point(NamedTuple):
    """A size, and the one with which it is compared."""

    batch: int
    hidden: int
    whole: tuple[int, int]  # batch, hidden


def rounded(batch: int, hidden: int, dtype: str) -> Point:
    def up(value: int, step: int) -> int:
        return -(-value // step) * step

    lanes = LANES[isa()] // (2 if dtype == "float64" else 1)
    return Point(batch, hidden, (up(batch, ROWS[isa()]), up(hidden, lanes)))


def drawn(count: int, seed: int, dtype: str) -> Iterator[Point]:
    draw = random.Random(seed)
    while count:
        point = rounded(draw.randint(*BATCHES), draw.randint(*UNITS), dtype)
        if point[:2] != point.whole:
            count -= 1
            yield point


def ratio(point: Point, dtype: str, which: str, threads: int, budget: float) -> tuple[float, float, int]:
    """Time over the rounded size's, milliseconds, T."""
    per_step = Problem("lstm", dtype, 1, *point.whole).flops(backward=which == TRAIN)
    steps = round(min(max(threads * FLOPS / per_step, LEAST_STEPS), MOST_STEPS))
    calls = {}
    for name, size in (("odd", point[:2]), ("whole", point.whole)):
        problem = Problem("lstm", dtype, steps, *size)
        calls[name] = timed_call(LstmFast(problem, problem.arrays(), threads), which)
    samples, _ = alternate(calls, budget, lambda share: None)
    odd, whole = median(samples["odd"]), median(samples["whole"])
    return odd / whole, odd * 1e3, steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60, metavar="N", help="points to draw (default 60)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw (default 0)")
    parser.add_argument("--points", nargs="+", metavar="BxH", help="these points instead of drawn ones")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default 1")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--budget", type=float, default=0.3, metavar="S", help="of a point and pass, default 0.3")
    parser.add_argument("--worst", type=int, default=12, metavar="N", help="rows to print (default 12)")
    options = parser.parse_args()
    if isa() not in LANES:
        parser.error(f"--isa: expected one of {', '.join(LANES)} in use, got {isa()}")

    if options.points:
        points = [rounded(*map(int, text.split("x")), options.dtype) for text in options.points]
    else:
        points = list(drawn(options.count, options.seed, options.dtype))
    with machine.engine_threads(options.threads):
        if options.threads > 1:
            print(f"barrier {core.barrier_ns(options.threads):.0f} ns")
        for which in PASSES:
            found = [(*ratio(p, options.dtype, which, options.threads, options.budget), p) for p in points]
            found.sort(reverse=True)
            ratios = [row[0] for row in found]
            above = sum(r > TARGET for r in ratios)
            print(
                f"{which}, {options.dtype}, {isa()}: {len(found)} points, ratio median "
                f"{statistics.median(ratios):.3f}, worst {ratios[0]:.3f}, {above} above {TARGET}"
            )
            for value, ms, steps, point in found[: options.worst]:
                size = f"T {steps} B {point.batch} H {point.hidden}"
                print(f"  {value:.3f}  {size}: {ms:.3f} ms; over B, H {point.whole}")


if __name__ == "__main__":
    main()
