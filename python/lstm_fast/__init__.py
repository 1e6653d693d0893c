"""Fused, bit-reproducible LSTM kernels for NumPy: forward and backward, float32 and float64."""

from __future__ import annotations

from . import ops, reference
from .clip import clip_grad_norm, clip_grad_value
from .config import get_num_threads, isa, set_isa, set_num_threads, set_spare_memory, show_config, threads
from .layers import LSTM, Gradients

__version__ = "0.1.0"

__all__ = [
    "LSTM",
    "Gradients",
    "clip_grad_norm",
    "clip_grad_value",
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
