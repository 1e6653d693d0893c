"""Drop-in LSTM modules for PyTorch on the CPU: ``model = lstm_fast.torch.accelerate(model)``.

Needs PyTorch 2.4 or later, which lstm_fast neither links against nor installs.
"""

from __future__ import annotations

from ._counters import stats
from .modules import LSTM, LSTMCell
from .replace import accelerate, restore

__all__ = ["LSTM", "LSTMCell", "accelerate", "restore", "stats"]
