"""What was computed where: nothing falls back in silence."""

from __future__ import annotations

import logging
import os
from collections import Counter
from typing import Any

import torch

_log = logging.getLogger("lstm_fast.torch")

native: Counter[str] = Counter()  # calls of the kernels, by module class
formula: Counter[str] = Counter()  # calls of the differentiable formula, by reason
fallback: Counter[str] = Counter()  # calls left to torch.nn, by reason


_BEYOND = {
    "formula": (formula, "computed by the differentiable formula"),
    "fallback": (fallback, "left to torch.nn"),
}


def note(where: str, reason: str) -> None:
    """Count a call that the kernels did not do, or under torch.compile the graph that does not call them."""
    if torch.compiler.is_compiling():
        from . import _traced

        _traced.note(where, reason)
    else:
        count(where, reason)


def count(where: str, reason: str) -> None:
    """Add one; log the first of each reason if LSTM_FAST_VERBOSE=1."""
    counter, done = _BEYOND[where]
    counter[reason] += 1
    if counter[reason] == 1 and os.environ.get("LSTM_FAST_VERBOSE") == "1":
        _log.warning("a call was %s: %s", done, reason)


def stats(reset: bool = False) -> dict[str, dict[str, int]]:
    """Calls since import, or since ``stats(reset=True)``, which answers and starts anew.

    ``native``: done by the kernels, by class ("LSTM", "GRU" or "RNN" under ``torch.compile``, for cells, too);
    ``formula``: done by a differentiable formula in PyTorch operations, for what the kernels do not do (double
    backward, forward-mode differentiation, ``torch.func``), by reason; ``fallback``: left to ``torch.nn``, by reason.
    Of these two, ``torch.compile`` counts graphs that it makes, not their calls.
    """
    found: dict[str, Any] = {"native": dict(native), "formula": dict(formula), "fallback": dict(fallback)}
    if reset:
        for counter in (native, formula, fallback):
            counter.clear()
    return found
