"""torch.nn.LSTMCell with the same constructor, parameters and state_dict; only forward is ours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _counters
from ._call import infer, run
from ._checks import left_to_torch, require_shapes, wrong_states
from ._plan import Plan

States = tuple[Tensor, Tensor]  # h and c
_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class LSTMCell(torch.nn.LSTMCell):
    """``torch.nn.LSTMCell`` through the kernels of lstm_fast: same constructor, parameters, results and errors.

    But for a parameter of another shape than the module's sizes say: a RuntimeError names it.
    """

    def forward(self, input: Tensor, hx: States | None = None) -> States:
        own = self._parameters
        weights: list[Tensor | None]
        try:
            weights = [own["weight_ih"], own["weight_hh"], own["bias_ih"], own["bias_hh"], None]
        except KeyError:  # parametrizations and functional_call put tensors elsewhere
            weights = [*(getattr(self, name) for name in _NAMES), None]
        try:
            if not torch.compiler.is_compiling():
                found = infer(input, hx, weights, self.input_size, self.hidden_size, cell=True)
                if found is not None:
                    _counters.native[type(self).__name__] += 1
                    return found  # type: ignore[no-any-return]
            reason = left_to_torch(input, weights, hx) or self._misshapen(input, hx)
            if not reason:
                return self._run(input, hx, weights)
        except ValueError:
            require_shapes(self, self._shapes())
            raise
        result = super().forward(input, hx)
        _counters.note("fallback", reason)
        return result

    def _run(self, input: Tensor, hx: States | None, weights: list[Tensor | None]) -> States:
        if torch.compiler.is_compiling():  # when the graph runs, its parameters have no names
            require_shapes(self, self._shapes())
        batched = input.dim() == 2
        x = input if batched else input[None]
        if hx is None:
            h0 = c0 = x.new_zeros(x.shape[0], self.hidden_size)
        else:
            h0, c0 = hx if batched else (hx[0][None], hx[1][None])
        _, hn, cn = run(type(self).__name__, Plan(step=True), x, h0, c0, weights)
        return (hn, cn) if batched else (hn[0], cn[0])

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every weight and bias."""
        gates = 4 * self.hidden_size
        wanted = (gates, self.input_size), (gates, self.hidden_size), (gates,), (gates,)
        return dict(zip(_NAMES, wanted, strict=True))

    def _misshapen(self, input: Tensor, hx: Any) -> str | None:
        if input.dim() not in (1, 2) or input.shape[-1] != self.input_size:
            return "an input of another size than the module's"
        if hx is None:
            return None
        wanted = (*input.shape[:-1], self.hidden_size)
        return wrong_states(hx, wanted, wanted)
