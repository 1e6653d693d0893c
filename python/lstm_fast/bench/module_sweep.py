"""Checks the cases of modules.py against ``torch.nn`` in float64, then times them in turn."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from .. import __version__
from .. import _lstm_fast_core as core
from . import tolerance
from .engines import PASSES, TRAIN, LstmFast, named_results, timed_call
from .modules import PURPOSE, Case, Layer, grad_mode
from .packages import require
from .problems import Arrays, Problem
from .sweep import OURS, Measurement, Row, Sweep, advance, worst_error
from .timing import FmaPeak

NUMPY = f"{OURS}, NumPy"  # the same call without PyTorch


class TorchNn:
    """The modules of ``torch.nn``, for the report."""

    name = "torch"
    requires = ("torch",)
    settings = "torch.nn.LSTM, GRU, RNN and their cells; forward in eval() and under no_grad()"


class LstmFastTorch:
    """The same modules after ``accelerate``, for the report."""

    name = OURS
    version = __version__
    settings = "lstm_fast.torch.LSTM, GRU, RNN and their cells: accelerate() on equal modules; threads of torch"


def expected(case: Case, arrays: Arrays) -> dict[str, Arrays]:
    """What the case's modules of ``torch.nn`` give in float64: pass -> name -> array."""
    problem = dataclasses.replace(case.problem, dtype="float64")
    wide = {name: array if name == "lengths" else array.astype(np.float64) for name, array in arrays.items()}
    reference = case.kind(problem, wide)
    return {which: reference.results(which) for which in PASSES}


def _native_results(ours: Layer, which: str) -> tuple[Arrays, str]:
    """The results of our module, and why they do not count, if the kernels did not compute all of them."""
    stats = require("lstm_fast.torch", PURPOSE).stats
    stats(reset=True)
    found = ours.results(which)
    counted = stats()
    native = counted["native"] and not counted["formula"] and not counted["fallback"]
    return found, "" if native else f"not computed by the kernels alone: {counted}"


def _numpy_results(engine: LstmFast, problem: Problem, which: str, wanted: Arrays) -> Arrays:
    """Results of the NumPy call under the names and in the shapes of a module's."""
    found = named_results(engine, problem, which).values()
    return {name: array.reshape(wanted[name].shape) for name, array in zip(wanted, found, strict=True)}


def _compare(
    case: Case, threads: int, budget: float, begun: int, on_progress: Callable[[str, float], object]
) -> Iterator[Row]:
    """The case's rows, one for each pass; progress goes from ``begun`` to the next integer."""
    problem = case.problem
    on_progress(f"{case}: reference", begun)
    arrays = problem.arrays()
    wanted = expected(case, arrays)
    theirs, ours = case.kind(problem, arrays), case.kind(problem, arrays)
    require("lstm_fast.torch", PURPOSE).accelerate(ours.model)
    share = 1 / (len(PASSES) + 1)
    for number, which in enumerate(PASSES, 1):
        line, done = f"{case}: {which}", begun + number * share
        on_progress(line, done)
        # Linears around a layer: sums of I and Ho terms, no longer than those that the bound allows for.
        bound = tolerance.bound(problem, backward=which == TRAIN)
        row = Row(problem, which, {}, case=case.name)
        row.engines[TorchNn.name] = Measurement(worst_error(theirs.results(which), wanted[which]), bound)
        found, refused = _native_results(ours, which)
        row.threads_used = core.threads_used()
        row.engines[OURS] = Measurement(worst_error(found, wanted[which]), bound, refused=refused)
        calls = {TorchNn.name: theirs.pass_call(which), OURS: ours.pass_call(which)}
        if case.overhead and which in case.kind.numpy_passes:
            same, numpy_call = case.kind.numpy_passes[which], LstmFast(problem, arrays, threads)
            found = _numpy_results(numpy_call, problem, same, wanted[which])
            row.engines[NUMPY] = Measurement(worst_error(found, wanted[which]), bound)
            calls[NUMPY] = timed_call(numpy_call, same)
        with grad_mode(which):
            row.time(calls, row.engines, threads, budget, functools.partial(advance, on_progress, line, done, share))
        yield row


def run(cases: Sequence[Case], threads: int, budget: float, on_progress: Callable[[str, float], object]) -> Sweep:
    """Check and time every case, as :func:`lstm_fast.bench.sweep.run` does problems; progress goes to their number."""
    sweep = Sweep([], FmaPeak("float32"), {})
    for begun, case in enumerate(cases):
        sweep.peak.read()
        sweep.rows += _compare(case, threads, budget, begun, on_progress)
    sweep.peak.read()
    return sweep
