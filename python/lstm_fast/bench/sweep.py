"""The main job: at every point check each engine against the reference, then time all of them in turn."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import tolerance
from .engines import (
    PASSES,
    TRAIN,
    Engine,
    EngineClass,
    UnsupportedError,
    can_run,
    expected,
    named_results,
    timed_call,
)
from .problems import Array, Arrays, Problem
from .timing import FmaPeak, alternate, median

OURS = "lstm_fast"


@dataclass
class Measurement:
    """One engine at one point: its error against the reference and its samples, in seconds per call."""

    error: float
    bound: float
    samples: list[float] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.error <= self.bound

    @property
    def seconds(self) -> float:
        return median(self.samples)


@dataclass
class Row:
    """One problem and pass; ``engines`` holds those that ran, by name."""

    problem: Problem
    which: str
    engines: dict[str, Measurement]
    cpu_share: float = 1.0  # CPU time over wall time while timing

    @property
    def ns_per_step(self) -> float | None:
        """Our nanoseconds per time step of the whole batch; None if our result was wrong."""
        return self._ours(lambda s: s / self.problem.steps * 1e9)

    @property
    def gflops(self) -> float | None:
        """Our GFLOP/s; None if our result was wrong."""
        return self._ours(lambda s: self.problem.flops(backward=self.which == TRAIN) / s * 1e-9)

    def ratio(self, engine: str) -> float | None:
        """The engine's time over ours: above 1, lstm_fast is faster. None where either has no time."""
        other = self.engines.get(engine)
        return self._ours(lambda s: other.seconds / s) if other is not None and other.samples else None

    def _ours(self, of_seconds: Callable[[float], float]) -> float | None:
        ours = self.engines.get(OURS)
        return of_seconds(ours.seconds) if ours is not None and ours.samples else None


@dataclass
class Sweep:
    """Everything that one run measured. ``unsupported``: engine -> why it sat problems out."""

    rows: list[Row]
    peak: FmaPeak
    unsupported: dict[str, str]

    @property
    def cpu_share(self) -> float:
        """The lowest share of a CPU that a row's timing had; well below 1 on a busy machine."""
        return min((row.cpu_share for row in self.rows), default=1.0)

    @property
    def failures(self) -> list[str]:
        """One line for every wrong result."""
        return [
            f"{name}: {row.problem} {row.which}: error {m.error:.3g} above {m.bound:.3g}"
            for row in self.rows
            for name, m in row.engines.items()
            if not m.ok
        ]


def worst_error(results: Arrays, wanted: Arrays) -> float:
    """Largest error of the arrays against the reference's of the same names."""
    return max(tolerance.error(results[name], reference) for name, reference in wanted.items())


def checked(engine: Engine, problem: Problem, which: str, wanted: Arrays) -> Measurement:
    """Run the pass once and compare; nothing is timed."""
    error = worst_error(named_results(engine, problem, which), wanted)
    return Measurement(error, tolerance.bound(problem, backward=which == TRAIN))


def build(
    classes: Iterable[EngineClass], problem: Problem, arrays: dict[str, Array], threads: int
) -> tuple[dict[str, Engine], dict[str, str]]:
    """The engines that support the problem, by name; and why the others do not."""
    engines: dict[str, Engine] = {}
    unsupported: dict[str, str] = {}
    for made in classes:
        try:
            engines[made.name] = made(problem, arrays, threads)
        except UnsupportedError as reason:
            unsupported[made.name] = str(reason)
    return engines, unsupported


def cost(problem: Problem) -> float:
    """Rough share of a run's time, for the progress bar: the arithmetic plus what interpreters need for every step."""
    return problem.flops(backward=True) * 1e-9 + problem.steps * 2e-3 + 0.5


def _advance(on_progress: Callable[[str, float], Any], line: str, before: float, share: float, part: float) -> None:
    on_progress(line, before + part * share)


def run(
    problems: Sequence[Problem],
    classes: Sequence[EngineClass],
    threads: int,
    budget: float,
    on_progress: Callable[[str, float], Any],
) -> Sweep:
    """Check and time every problem; ``budget`` is the seconds for a point and pass beyond the least number of rounds.

    A wrong result is recorded and its engine not timed there. ``on_progress`` gets a line and how much of the total
    :func:`cost` is done. All problems have one dtype.
    """
    sweep = Sweep([], FmaPeak(problems[0].dtype), {})
    done = 0.0
    for problem in problems:
        share = cost(problem) / (len(PASSES) + 1)
        on_progress(f"{problem}: reference", done)
        sweep.peak.read()
        arrays = problem.arrays()
        wanted = expected(problem, arrays)
        engines, unsupported = build(classes, problem, arrays, threads)
        sweep.unsupported |= unsupported
        done += share
        for which in PASSES:
            on_progress(f"{problem}: {which}", done)
            able = {name: e for name, e in engines.items() if can_run(e, which)}
            row = Row(problem, which, {n: checked(e, problem, which, wanted[which]) for n, e in able.items()})
            calls = {name: timed_call(able[name], which) for name, m in row.engines.items() if m.ok}
            on_round = functools.partial(_advance, on_progress, f"{problem}: {which}", done, share)
            cpu, wall = time.process_time(), time.perf_counter()
            for name, samples in alternate(calls, budget, on_round).items():
                row.engines[name].samples = samples
            row.cpu_share = (time.process_time() - cpu) / (time.perf_counter() - wall)
            done += share
            sweep.rows.append(row)
    sweep.peak.read()
    return sweep
