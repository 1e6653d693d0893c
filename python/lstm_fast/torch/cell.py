"""torch.nn's cells with the same constructors, parameters and state_dict; only forward is ours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _counters
from ._call import infer, run
from ._cells import CELLS, Cell, each, joined, split
from ._checks import left_to_torch, require_shapes, wrong_states
from ._plan import Plan

_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_LSTM = CELLS["lstm"]


class SingleStep(torch.nn.RNNCellBase):
    """The base of our cells, before that of ``torch.nn``, whose ``forward`` it wraps."""

    _cell: Cell | None  # None: PyTorch says what is wrong

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        own = self._parameters
        weights: list[Tensor | None]
        try:
            weights = [own["weight_ih"], own["weight_hh"], own["bias_ih"], own["bias_hh"], None]
        except KeyError:  # parametrizations and functional_call put tensors elsewhere
            weights = [*(getattr(self, name) for name in _NAMES), None]
        try:
            if self._cell is _LSTM and not torch.compiler.is_compiling():
                found = infer(input, hx, weights, self.input_size, self.hidden_size, cell=True)
                if found is not None:
                    _counters.native[type(self).__name__] += 1
                    return found
            reason = left_to_torch(input, weights, hx) or self._misshapen(input, hx)
            if not reason:
                return self._run(input, hx, weights)
        except ValueError:
            require_shapes(self, self._shapes())
            raise
        result = super().forward(input, hx)
        _counters.note("fallback", reason)
        return result

    def _run(self, input: Tensor, hx: Any, weights: list[Tensor | None]) -> Any:
        if torch.compiler.is_compiling():  # when the graph runs, its parameters have no names
            require_shapes(self, self._shapes())
        batched = input.dim() == 2
        x = input if batched else input[None]
        assert self._cell is not None
        if hx is None:
            zeros = x.new_zeros(x.shape[0], self.hidden_size)
            hx = (zeros, zeros) if self._cell.has_c else zeros
        elif not batched:
            hx = each(lambda state: state[None], hx)
        _, hn, cn = run(type(self).__name__, Plan(self._cell, step=True), x, *split(hx), weights)
        state = joined(hn, cn)
        return state if batched else each(lambda value: value[0], state)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every weight and bias."""
        assert self._cell is not None
        rows = self._cell.gates * self.hidden_size
        wanted = (rows, self.input_size), (rows, self.hidden_size), (rows,), (rows,)
        return dict(zip(_NAMES, wanted, strict=True))

    def _misshapen(self, input: Tensor, hx: Any) -> str | None:
        if self._cell is None:
            return "an unknown nonlinearity"
        if input.dim() not in (1, 2) or input.shape[-1] != self.input_size:
            return "an input of another size than the module's"
        if hx is None:
            return None
        wanted = (*input.shape[:-1], self.hidden_size)
        return wrong_states(hx, wanted, wanted if self._cell.has_c else None)


class LSTMCell(SingleStep, torch.nn.LSTMCell):
    """``torch.nn.LSTMCell`` through the kernels of lstm_fast: same constructor, parameters, results and errors.

    But for a parameter of another shape than the module's sizes say: a RuntimeError names it.
    """

    _cell = _LSTM


class GRUCell(SingleStep, torch.nn.GRUCell):
    """``torch.nn.GRUCell`` through the kernels of lstm_fast, as :class:`LSTMCell`."""

    _cell = CELLS["gru"]


class RNNCell(SingleStep, torch.nn.RNNCell):
    """``torch.nn.RNNCell`` through the kernels of lstm_fast, as :class:`LSTMCell`."""

    @property
    def _cell(self) -> Cell | None:  # type: ignore[override]
        return CELLS.get(f"rnn_{self.nonlinearity}")
