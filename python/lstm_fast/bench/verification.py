"""Checks an installation: every kernel and instruction set against the reference, and the certificate of its bits."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .. import _lstm_fast_core as core
from .. import isa, ops, reference, set_isa, threads
from . import tolerance
from .engines import LstmFast, cell_step
from .points import VERIFY_THREADS, certificate_problems, verify_problems
from .problems import KERNELS, Arrays, Kernel, Problem
from .truth import Truth


class Verdict(NamedTuple):
    """One kernel on one instruction set. Errors are shares of the allowed one, the worst of all shapes; 1 passes."""

    kernel: Kernel
    isa: str
    values: float
    gradients: float
    inference_differs: int  # shapes whose inference has other bits than the training forward
    lean_differs: int  # shapes for which save="lean" gives other bits than save="gates"

    @property
    def ok(self) -> bool:
        return self.values <= 1 and self.gradients <= 1 and not self.inference_differs and not self.lean_differs


@contextlib.contextmanager
def forced_isa(name: str) -> Iterator[None]:
    """Run on this instruction set and no other; the earlier choice comes back at the end."""
    before = isa()
    set_isa(name)
    try:
        if isa() != name:
            raise RuntimeError(f"set_isa({name!r}) left {isa()!r} in charge")
        yield
    finally:
        set_isa(before)


@contextlib.contextmanager
def forced_threads(number: int) -> Iterator[None]:
    """Run every call on so many threads, however small it is; the earlier choice comes back at the end."""
    with threads(number):
        core.use_team_always(True)
        try:
            yield
            if core.threads_used() != number:
                raise RuntimeError(f"{number} threads were asked for and {core.threads_used()} ran")
        finally:
            core.use_team_always(False)


def _seeds(problem: Problem, arrays: Arrays) -> list[np.ndarray]:
    return [arrays[n] for n in ("dy", *problem.state_gradient_names)]


def outputs(problem: Problem, arrays: Arrays, save: str = "gates") -> tuple[Arrays, Arrays]:
    """What lstm_fast gives: outputs of the training forward, and gradients for all of dy, dhn, dcn, by name.

    Among the outputs of a problem with a step of its own are the states after step 0 by the cell function.
    """
    engine = LstmFast(problem, arrays, 1)
    *results, reserve = engine.saving_forward(save)
    values = dict(zip(problem.output_names, results, strict=True))
    if not problem.variant:
        values |= {f"{state}1": array for state, array in cell_step(ops, problem, arrays).items()}
    return values, dict(engine.gradients(reserve, *_seeds(problem, arrays)))


def true_outputs(problem: Problem, arrays: Arrays) -> tuple[Arrays, Arrays]:
    """The same from the float64 reference."""
    truth = Truth(problem, arrays)
    values = dict(truth.values)
    if not problem.variant:
        values |= {f"{state}1": array for state, array in cell_step(reference, problem, arrays).items()}
    return values, truth.gradients(*_seeds(problem, arrays))


def _share(results: Arrays, wanted: Arrays, problem: Problem, *, backward: bool) -> float:
    if results.keys() != wanted.keys():
        return math.inf
    bound = tolerance.bound(problem, backward=backward)
    return max(tolerance.error(results[name], wanted[name]) for name in wanted) / bound


def _same_bits(problem: Problem, arrays: Arrays, training: Arrays) -> bool:
    """Whether inference gives the training forward's bits; dropout, which is off in inference, forbids to ask."""
    if problem.dropout:
        return True
    pairs = zip(LstmFast(problem, arrays, 1).forward(), problem.output_names, strict=True)
    return all(np.asarray(result).tobytes() == np.asarray(training[name]).tobytes() for result, name in pairs)


def _lean_same_bits(problem: Problem, arrays: Arrays, saved: tuple[Arrays, Arrays]) -> bool:
    """Whether a lean reserve gives the outputs and gradients of one that has the gates, bit by bit."""
    pairs = zip(outputs(problem, arrays, "lean"), saved, strict=True)
    return all(lean[name].tobytes() == array.tobytes() for lean, full in pairs for name, array in full.items())


def verify(kernel: Kernel, name: str) -> list[Verdict]:
    """Check one kernel on every usable instruction set, best first, over what ``VERIFY`` has under a name."""
    cases = [(p, p.arrays()) for p in verify_problems(kernel, name)]
    truths = [true_outputs(problem, arrays) for problem, arrays in cases]
    verdicts = []
    for isa_name in core.isas_usable():
        worst_values = worst_gradients = 0.0
        inference_differs = lean_differs = 0
        with forced_isa(isa_name):
            for (problem, arrays), (true_values, true_grads) in zip(cases, truths, strict=True):
                values, grads = outputs(problem, arrays)
                worst_values = max(worst_values, _share(values, true_values, problem, backward=False))
                worst_gradients = max(worst_gradients, _share(grads, true_grads, problem, backward=True))
                inference_differs += not _same_bits(problem, arrays, values)
                lean_differs += not _lean_same_bits(problem, arrays, (values, grads))
        verdicts.append(Verdict(kernel, isa_name, worst_values, worst_gradients, inference_differs, lean_differs))
    return verdicts


def certificate(isa_name: str, number_of_threads: int = 1) -> str:
    """SHA-256 over the bits of all outputs and gradients of the certificate's problems for every kernel.

    The inputs are the same bits everywhere (see :meth:`Problem.arrays`) and so, by the reproducibility promise, are the
    results: the hash is a function of the version of lstm_fast alone, whatever the machine, instruction set and number
    of threads.
    """
    digest = hashlib.sha256()
    with forced_isa(isa_name), forced_threads(number_of_threads):
        for kernel in KERNELS:
            for problem in certificate_problems(kernel):
                values, grads = outputs(problem, problem.arrays())
                for name, array in (values | {f"d{n}": g for n, g in grads.items()}).items():
                    if not np.isfinite(array).all():
                        raise ArithmeticError(f"{problem}: {name} has numbers that are not finite; no certificate")
                    digest.update(f"{problem} {name} {array.shape};".encode())
                    digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def certificates() -> dict[str, str]:
    """The certificate of every usable instruction set, best first, then of the best on several threads: all equal."""
    found = {name: certificate(name) for name in core.isas_usable()}
    best = next(iter(found))
    return found | {f"{n} threads": certificate(best, n) for n in VERIFY_THREADS if n > 1}
