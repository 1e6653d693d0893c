"""Engines timed in turn, so that a drift of the machine's clock meets all of them alike; the FMA peak, the caches."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping

from .. import _lstm_fast_core as core

SAMPLE_SECONDS = 2e-3  # shorter calls are repeated to this length: far above the clock's resolution and one interrupt
MIN_ROUNDS, MAX_ROUNDS = 5, 31
SETTLE_SECONDS = 5e-3  # other libraries' threads spin for up to 3 ms after a call
PEAK_SECONDS = READ_SECONDS = 0.05

Call = Callable[[], object]


def _seconds(call: Call, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def alternate(
    calls: Mapping[str, Call], budget: float, on_round: Callable[[float], object], *, settle: bool = False
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds per call of each engine, one sample a round; at least five rounds, more while the budget (s) lasts.

    Every call runs once, untimed, before the first round. Each round starts with another engine, so that none always
    follows the same one. ``on_round`` gets the share of the work that is done, 0..1. With ``settle``, for engines with
    threads of their own, every sample waits until those of the engine before sleep, and one untimed call wakes its own.
    Also returns, by engine, the share of a CPU that this thread had meanwhile: low on a busy machine, or for an engine
    that computes in other threads.
    """
    if not calls:
        return {}, {}
    repeats = {}
    for name, call in calls.items():
        call()
        repeats[name] = max(1, math.ceil(SAMPLE_SECONDS / max(_seconds(call, 1), 1e-9)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    start = time.perf_counter()
    cpu, wall = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for done in range(MAX_ROUNDS):
            first = done % len(names)
            for name in names[first:] + names[:first]:
                if settle:
                    time.sleep(SETTLE_SECONDS)
                    calls[name]()
                before = time.thread_time()
                samples[name].append(_seconds(calls[name], repeats[name]))
                cpu[name] += time.thread_time() - before
                wall[name] += samples[name][-1] * repeats[name]
            spent = (time.perf_counter() - start) / budget if budget > 0 else math.inf
            on_round(max((done + 1) / MAX_ROUNDS, min(1.0, spent, (done + 1) / MIN_ROUNDS)))
            if done + 1 >= MIN_ROUNDS and spent >= 1:
                break
    finally:
        if collecting:
            gc.enable()
    return samples, {name: cpu[name] / wall[name] for name in names}


def median(samples: list[float]) -> float:
    """Median of the samples, in seconds."""
    return statistics.median(samples)


class FmaPeak:
    """The FMA peak of one core in GFLOP/s, the highest of all readings of this run.

    The highest, because an interrupted reading is too low and would flatter every share of the peak.
    """

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.gflops = 0.0

    def read(self) -> None:
        """Measure once more; takes ``PEAK_SECONDS``."""
        self.gflops = max(self.gflops, core.fma_peak(self.dtype, PEAK_SECONDS))


def read_rate(dtype: str, nbytes: int) -> float:
    """Bytes per nanosecond at which one core reads an array of that size again and again; takes ``READ_SECONDS``.

    That is the rate of the cache that holds it.
    """
    return core.read_rate(dtype, nbytes, READ_SECONDS)
