"""What was computed where: nothing falls back in silence."""

from __future__ import annotations

import logging
import os
from collections import Counter
from typing import Any

_log = logging.getLogger("lstm_fast.torch")

native: Counter[str] = Counter()  # calls of the kernels, by module class
formula: Counter[str] = Counter()  # calls of the differentiable formula, by reason
fallback: Counter[str] = Counter()  # calls left to torch.nn, by reason


def note(counter: Counter[str], reason: str) -> None:
    """Count a call that the kernels did not do; log the first of each reason if LSTM_FAST_VERBOSE=1."""
    counter[reason] += 1
    if counter[reason] == 1 and os.environ.get("LSTM_FAST_VERBOSE") == "1":
        where = "left to torch.nn" if counter is fallback else "computed by the differentiable formula"
        _log.warning("a call was %s: %s", where, reason)


def stats(reset: bool = False) -> dict[str, dict[str, int]]:
    """Calls since import, or since ``stats(reset=True)``, which answers and starts anew.

    ``native``: done by the kernels, by class ("LSTM" for all under ``torch.compile``); ``formula``: done by a
    differentiable formula in PyTorch operations, for what the kernels do not do (double backward, forward-mode
    differentiation, ``torch.func``), by reason; ``fallback``: left to ``torch.nn``, by reason.
    """
    found: dict[str, Any] = {"native": dict(native), "formula": dict(formula), "fallback": dict(fallback)}
    if reset:
        for counter in (native, formula, fallback):
            counter.clear()
    return found
