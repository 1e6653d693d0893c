"""LSTM, GRU and RNN in plain NumPy: the truth that every kernel is checked against.

Written for clarity only. Same names, signatures and shapes as :mod:`lstm_fast.ops`; computes in float64 unless
``dtype`` says otherwise.

lstm, gru, rnn   the functions of each cell; the LSTM's equations, variants included, stand in lstm_step
sequence         what the cells share: the loop over the steps, ragged rows, truncate, grad_clip, resets
dropout          random masks as a function of seed and place
"""

from .dropout import Stream, dropout_scale, kept_units, philox
from .gru import gru_backward, gru_cell, gru_forward
from .lstm import lstm_backward, lstm_cell, lstm_forward
from .rnn import rnn_backward, rnn_cell, rnn_forward
from .sequence import Block, Reserve, sigmoid

__all__ = [
    "Block",
    "Reserve",
    "Stream",
    "dropout_scale",
    "gru_backward",
    "gru_cell",
    "gru_forward",
    "kept_units",
    "lstm_backward",
    "lstm_cell",
    "lstm_forward",
    "philox",
    "rnn_backward",
    "rnn_cell",
    "rnn_forward",
    "sigmoid",
]
