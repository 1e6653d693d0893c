"""Checks an installation: every kernel and instruction set against the reference, and the certificate of its bits."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .. import _lstm_fast_core as core
from .. import isa, ops, reference, set_isa
from . import tolerance
from .problems import (
    CERTIFICATE_SHAPES,
    KERNELS,
    STATES,
    VERIFY_SHAPES,
    Arrays,
    Kernel,
    Problem,
    input_names,
    output_names,
    state_gradient_names,
)


class Verdict(NamedTuple):
    """One kernel on one instruction set. Errors are shares of the allowed one, the worst of all shapes; 1 passes."""

    kernel: Kernel
    isa: str
    values: float
    gradients: float
    inference_differs: int  # shapes whose inference has other bits than the training forward

    @property
    def ok(self) -> bool:
        return self.values <= 1 and self.gradients <= 1 and not self.inference_differs


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


def problems(kernel: Kernel, shapes: tuple[tuple[int, int, int, int], ...]) -> list[Problem]:
    """The kernel's problems of the given (T, B, I, H)."""
    return [Problem(*kernel, steps=t, batch=b, inputs=i, hidden=h) for t, b, i, h in shapes]


def outputs(module: object, problem: Problem, arrays: Arrays) -> tuple[Arrays, Arrays]:
    """Outputs by name (those of ``lstm_cell`` at step 0 among them) and gradients for all of dy, dhn, dcn.

    ``module`` is ``lstm_fast.ops`` or ``lstm_fast.reference``.
    """
    arguments = [arrays[n] for n in input_names(problem.cell)]
    *results, reserve = getattr(module, f"{problem.cell}_forward")(*arguments)
    seeds = [arrays[n] for n in ("dy", *state_gradient_names(problem.cell))]
    grads = getattr(module, f"{problem.cell}_backward")(reserve, *seeds)
    states = getattr(module, f"{problem.cell}_cell")(arguments[0][0], *arguments[1:])
    values = dict(zip(output_names(problem.cell), results, strict=True))
    return values | {f"{s}1": a for s, a in zip(STATES[problem.cell], states, strict=True)}, dict(grads)


def _share(results: Arrays, wanted: Arrays, problem: Problem, *, backward: bool) -> float:
    if results.keys() != wanted.keys():
        return math.inf
    bound = tolerance.bound(problem, backward=backward)
    return max(tolerance.error(results[name], wanted[name]) for name in wanted) / bound


def _same_bits(problem: Problem, arrays: Arrays, training: Arrays) -> bool:
    arguments = [arrays[n] for n in input_names(problem.cell)]
    results = getattr(ops, f"{problem.cell}_forward")(*arguments, save=None)[:-1]
    pairs = zip(results, output_names(problem.cell), strict=True)
    return all(np.asarray(result).tobytes() == np.asarray(training[name]).tobytes() for result, name in pairs)


def verify(kernel: Kernel) -> list[Verdict]:
    """Check one kernel on every usable instruction set, best first, over ``VERIFY_SHAPES``."""
    cases = [(p, p.arrays()) for p in problems(kernel, VERIFY_SHAPES)]
    truths = [outputs(reference, problem, arrays) for problem, arrays in cases]
    verdicts = []
    for name in core.isas_usable():
        worst_values = worst_gradients = 0.0
        differs = 0
        with forced_isa(name):
            for (problem, arrays), (true_values, true_grads) in zip(cases, truths, strict=True):
                values, grads = outputs(ops, problem, arrays)
                worst_values = max(worst_values, _share(values, true_values, problem, backward=False))
                worst_gradients = max(worst_gradients, _share(grads, true_grads, problem, backward=True))
                differs += not _same_bits(problem, arrays, values)
        verdicts.append(Verdict(kernel, name, worst_values, worst_gradients, differs))
    return verdicts


def certificate(isa_name: str) -> str:
    """SHA-256 over the bits of all outputs and gradients of ``CERTIFICATE_SHAPES`` for every kernel.

    The inputs are the same bits everywhere (see :meth:`Problem.arrays`) and so, by the reproducibility promise, are the
    results: the hash is a function of the version of lstm_fast alone, whatever the machine and instruction set.
    """
    digest = hashlib.sha256()
    with forced_isa(isa_name):
        for kernel in KERNELS:
            for problem in problems(kernel, CERTIFICATE_SHAPES):
                values, grads = outputs(ops, problem, problem.arrays())
                for name, array in (values | {f"d{n}": g for n, g in grads.items()}).items():
                    if not np.isfinite(array).all():
                        raise ArithmeticError(f"{problem}: {name} has numbers that are not finite; no certificate")
                    digest.update(f"{problem} {name} {array.shape};".encode())
                    digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def certificates() -> dict[str, str]:
    """The certificate of every usable instruction set, best first; all have to be equal."""
    return {name: certificate(name) for name in core.isas_usable()}
