"""The main job: at every point check each engine against the reference, then time all of them in turn."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import _lstm_fast_core as core
from . import tolerance
from .engines import (
    PASSES,
    TRAIN,
    Engine,
    EngineClass,
    LstmFast,
    UnsupportedError,
    can_run,
    expected,
    named_results,
    path_of,
    timed_call,
)
from .memory import own_bytes
from .problems import Array, Arrays, Problem
from .roofline import bound, recurrent_bytes
from .timing import Call, FmaPeak, alternate, median, read_rate

OURS = "lstm_fast"
PADDED = f"{OURS}, padded"


@dataclass
class Measurement:
    """One engine at one point: its error against the reference and its samples, in seconds per call."""

    error: float
    bound: float
    samples: list[float] = field(default_factory=list)
    refused: str = ""  # why it does not count although its numbers may be right
    path: str | None = None  # what computed it, if the engine says so

    @property
    def ok(self) -> bool:
        return self.error <= self.bound and not self.refused

    @property
    def fault(self) -> str:
        """What is wrong with one that is not :attr:`ok`."""
        return self.refused or f"error {self.error:.3g} above {self.bound:.3g}"

    @property
    def seconds(self) -> float:
        return median(self.samples)


@dataclass
class Row:
    """One problem and pass; ``engines`` holds those that ran, by name. ``case``: of modules, what was called."""

    problem: Problem
    which: str
    engines: dict[str, Measurement]
    cpu_share: float = 1.0  # CPU time over wall time of the measuring thread while it ran ours
    threads_used: int = 1  # by our call; small problems run on fewer than asked for
    barrier_ns: float = 0.0  # of the team, just before and after timing; 0 with one thread
    padded: Measurement | None = None  # of a ragged problem: ours with every row of full length
    case: str = ""
    own_bytes: int | None = None  # of our call, see memory.py; None: not asked

    def __str__(self) -> str:
        return " ".join(filter(None, (self.case, str(self.problem), self.which)))

    def time(
        self,
        calls: Mapping[str, Call],
        measured: Mapping[str, Measurement],
        threads: int,
        budget: float,
        on_round: Callable[[float], object],
    ) -> None:
        """Time, in turn, the calls whose results were right: fill in their samples and what the timing was like."""
        right = {name: call for name, call in calls.items() if measured[name].ok}
        barriers = [core.barrier_ns(threads)]
        samples, shares = alternate(right, budget, on_round, settle=threads > 1)
        self.cpu_share = shares.get(OURS, 1.0)
        for name, found in samples.items():
            measured[name].samples = found
        barriers.append(core.barrier_ns(threads))
        self.barrier_ns = statistics.mean(barriers)

    @property
    def ns_per_step(self) -> float | None:
        """Our nanoseconds per time step of the whole batch; None if our result was wrong."""
        return self._ours(lambda s: s / self.problem.steps * 1e9)

    @property
    def gflops(self) -> float | None:
        """Our GFLOP/s; None if our result was wrong."""
        return self._ours(lambda s: self.problem.flops(backward=self.which == TRAIN) / s * 1e-9)

    @property
    def ragged_overhead(self) -> float | None:
        """Our time over (valid share x our time padded): 1 if the padding costs nothing. None for a padded problem."""
        padded = self.padded
        if padded is None or not padded.samples:
            return None
        return self._ours(lambda s: s / (self.problem.valid_share * padded.seconds))

    def ratio(self, engine: str) -> float | None:
        """The engine's time over ours: above 1, lstm_fast is faster. None where either has no time."""
        other = self.engines.get(engine)
        return self._ours(lambda s: other.seconds / s) if other is not None and other.samples else None

    def _ours(self, of_seconds: Callable[[float], float]) -> float | None:
        ours = self.engines.get(OURS)
        return of_seconds(ours.seconds) if ours is not None and ours.samples else None


@dataclass
class Sweep:
    """Everything that one run measured. ``unsupported``: engine -> why it sat problems out.

    ``rates``: size of W_hh in bytes -> bytes/ns at which one core reads so many, the highest of all readings.
    """

    rows: list[Row]
    peak: FmaPeak
    unsupported: dict[str, str]
    rates: dict[int, float] = field(default_factory=dict)

    def bound(self, row: Row) -> float | None:
        """GFLOP/s that our threads could reach at best, see roofline.py; None if that was not measured."""
        rate = self.rates.get(recurrent_bytes(row.problem))
        return rate and row.threads_used * bound(row.problem, row.which, self.peak.gflops, rate)

    def peak_share(self, row: Row) -> float | None:
        """Our share, 0..1, of the FMA peak of as many cores as our threads; None if our result was wrong."""
        return row.gflops and row.gflops / (self.peak.gflops * row.threads_used)

    @property
    def cpu_share(self) -> float:
        """The lowest share of a CPU that a row's timing had; well below 1 on a busy machine."""
        return min((row.cpu_share for row in self.rows), default=1.0)

    @property
    def failures(self) -> list[str]:
        """One line for every wrong result."""
        return [
            f"{name}: {row}: {m.fault}"
            for row in self.rows
            for name, m in (row.engines | ({PADDED: row.padded} if row.padded else {})).items()
            if not m.ok
        ]


def worst_error(results: Arrays, wanted: Arrays) -> float:
    """Largest error of the arrays against the reference's of the same names."""
    return max(tolerance.error(results[name], reference) for name, reference in wanted.items())


def checked(engine: Engine, problem: Problem, which: str, wanted: Arrays) -> Measurement:
    """Run the pass once and compare; nothing is timed."""
    error = worst_error(named_results(engine, problem, which), wanted)
    return Measurement(error, tolerance.bound(problem, backward=which == TRAIN), path=path_of(engine, which))


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


class Padded:
    """The same problem with every row of full length, on lstm_fast: what a ragged one's time is held against."""

    def __init__(self, ragged: Problem, arrays: Arrays, threads: int) -> None:
        self._problem = ragged.padded()
        own = {name: array for name, array in arrays.items() if name != "lengths"}
        self.engine = LstmFast(self._problem, own, threads)
        self._wanted = expected(self._problem, own)

    def checked(self, which: str) -> Measurement:
        return checked(self.engine, self._problem, which, self._wanted[which])


def cost(problem: Problem) -> float:
    """Rough share of a run's time, for the progress bar: the arithmetic plus what interpreters need for every step."""
    steps = problem.steps if problem.shortest is None else problem.valid  # the reference takes ragged rows one by one
    return problem.flops(backward=True) * 1e-9 + problem.layers * problem.directions * steps * 2e-3 + 0.5


def advance(on_progress: Callable[[str, float], Any], line: str, before: float, share: float, part: float) -> None:
    """Progress within a step that began at ``before`` and is ``share`` of the whole."""
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
    :func:`cost` is done. All problems have one dtype. Every engine is given ``threads``; lstm_fast has to be set to
    them already.
    """
    sweep = Sweep([], FmaPeak(problems[0].dtype), {})
    done = 0.0
    for problem in problems:
        share = cost(problem) / (len(PASSES) + 1)
        on_progress(f"{problem}: reference", done)
        sweep.peak.read()
        size = recurrent_bytes(problem)
        sweep.rates[size] = max(sweep.rates.get(size, 0.0), read_rate(problem.dtype, size))
        arrays = problem.arrays()
        wanted = expected(problem, arrays)
        engines, unsupported = build(classes, problem, arrays, threads)
        sweep.unsupported |= unsupported
        padded = Padded(problem, arrays, threads) if problem.shortest is not None else None
        taken = own_bytes(LstmFast(problem, arrays, threads), arrays["dy"])
        done += share
        for which in PASSES:
            on_progress(f"{problem}: {which}", done)
            able = {name: e for name, e in engines.items() if can_run(e, which)}
            row = Row(problem, which, {n: checked(e, problem, which, wanted[which]) for n, e in able.items()})
            row.threads_used, row.own_bytes = core.threads_used(), taken[which]
            measured, calls = dict(row.engines), {n: timed_call(e, which) for n, e in able.items()}
            if padded is not None:
                row.padded = measured[PADDED] = padded.checked(which)
                calls[PADDED] = timed_call(padded.engine, which)
            on_round = functools.partial(advance, on_progress, f"{problem}: {which}", done, share)
            row.time(calls, measured, threads, budget, on_round)
            done += share
            sweep.rows.append(row)
    sweep.peak.read()
    return sweep
