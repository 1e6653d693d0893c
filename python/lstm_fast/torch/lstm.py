"""torch.nn.LSTM with the same constructor, parameters and state_dict, and extras of its own."""

from __future__ import annotations

from typing import Any

import torch

from .._arguments import finite, flag
from ._cells import CELLS
from .modules import Recurrent


class LSTM(Recurrent, torch.nn.LSTM):
    """``torch.nn.LSTM`` through the kernels of lstm_fast: same constructor, parameters, ``state_dict`` and results.

    ``forward(input, hx=None, *, lengths=None)`` takes what ``torch.nn.LSTM`` takes, and for a padded batch ``lengths``,
    a tensor or list of B integers in 0..T in any order: every row is computed as if it stood alone with its own length,
    as in a PackedSequence; the output beyond is 0. What the kernels do not do (see :func:`lstm_fast.torch.stats`) is
    computed by PyTorch, rows with ``lengths`` packed. Errors are PyTorch's, but for a parameter of another shape than
    the module's sizes say, which a RuntimeError names; ValueError and TypeError for wrong lengths.

    What ``torch.nn.LSTM`` lacks, keyword-only arguments of the constructor, off by default (D directions, L layers):

    * ``return_cells=True``: ``forward`` returns ``(output, (h_n, c_n), cells)``: c after every step of the last layer,
      of the kind, shape and dtype of output but with D*hidden_size features, and differentiable. Every call takes the
      memory of a training call. NotImplementedError where PyTorch would have to compute;
    * ``learn_initial_state=True``: parameters ``h_0`` [L*D, proj_size or hidden_size] and ``c_0`` [L*D, hidden_size] of
      the module's dtype, zero at first, are the state of every row where ``hx`` is None;
    * ``save="lean"``: between forward and backward the module keeps a few cell states in place of gates and states of
      every step, and backward computes them again: the same bits, about a sixth of the memory, up to a third more time.
      Compiled graphs keep all. ValueError if it is neither "gates", the default, nor "lean";
    * ``forget_bias=value``: ``reset_parameters`` sets the forget gate's part of every ``bias_ih`` to it and that of
      ``bias_hh`` to 0. ValueError if it is not finite, or if there are no biases.

    TypeError for values of another type. An extra that is off leaves no trace in the module.
    """

    _cell = CELLS["lstm"]
    forget_bias: float | None = None  # of a module that was made by torch.nn.LSTM, too

    def __init__(self, *args: Any, return_cells: bool = False, forget_bias: float | None = None, **kwargs: Any) -> None:
        cells = flag(return_cells, "return_cells")
        bias = None if forget_bias is None else finite(forget_bias, "forget_bias")
        super().__init__(*args, **kwargs)
        if cells:
            self.return_cells = True
        if bias is not None:
            if not self.bias:
                raise ValueError(f"forget_bias: expected None with bias=False, got {forget_bias}")
            self.forget_bias = bias
            self._set_forget_gates()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.forget_bias is not None:
            self._set_forget_gates()

    def _set_forget_gates(self) -> None:
        forget = slice(self.hidden_size, 2 * self.hidden_size)
        with torch.no_grad():
            for names in self._all_weights:
                getattr(self, names[2])[forget] = self.forget_bias
                getattr(self, names[3])[forget] = 0.0
