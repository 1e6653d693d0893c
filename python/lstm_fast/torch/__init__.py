"""Drop-in recurrent modules for PyTorch on the CPU: ``model = lstm_fast.torch.accelerate(model)``.

Needs PyTorch 2.4 or later, which lstm_fast neither links against nor installs. Importing this sets
``torch._dynamo.config.allow_rnn``, without which ``torch.compile`` refuses every module derived
from torch.nn.LSTM, GRU or RNN.
"""

from __future__ import annotations

from ._compiler import let_compilers_in
from ._counters import stats
from ._threads import borrow
from .cell import GRUCell, LSTMCell, RNNCell
from .lstm import LSTM
from .modules import GRU, RNN
from .replace import accelerate, restore

let_compilers_in()
borrow()

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell", "accelerate", "restore", "stats"]
