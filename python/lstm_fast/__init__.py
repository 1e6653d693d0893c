"""Fused, bit-reproducible LSTM, GRU and RNN kernels for NumPy: forward and backward, float32 and float64."""

from __future__ import annotations

import importlib
from typing import Any

from . import diagnostics, ops, reference
from ._results import Gradients
from .clip import clip_grad_norm, clip_grad_value
from .config import get_num_threads, isa, set_isa, set_num_threads, set_spare_memory, show_config, threads
from .layers import GRU, LSTM, RNN
from .stream import Stream

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``lstm_fast.torch`` without an import of its own; PyTorch is imported only then."""
    if name == "torch":
        return importlib.import_module(".torch", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Gradients",
    "Stream",
    "clip_grad_norm",
    "clip_grad_value",
    "diagnostics",
    "get_num_threads",
    "isa",
    "ops",
    "reference",
    "set_isa",
    "set_num_threads",
    "set_spare_memory",
    "show_config",
    "threads",
]
