"""What the modules' code has to know of a cell: all of it that is not the same for the LSTM, the GRU and the RNN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import _lstm_fast_core as _core


def _lstm(a_x: Tensor, a_h: Tensor, _: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    i, f, g, o = (a_x + a_h).chunk(4, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _gru(a_x: Tensor, a_h: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    r_x, z_x, n_x = a_x.chunk(3, dim=-1)
    r_h, z_h, n_h = a_h.chunk(3, dim=-1)
    z = torch.sigmoid(z_x + z_h)
    n = torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h)
    return ((1 - z) * n + z * h,)


def _rnn_tanh(a_x: Tensor, a_h: Tensor, _: Tensor) -> tuple[Tensor, ...]:
    return (torch.tanh(a_x + a_h),)


def _rnn_relu(a_x: Tensor, a_h: Tensor, _: Tensor) -> tuple[Tensor, ...]:
    return (torch.relu(a_x + a_h),)


@dataclass(frozen=True)
class Cell:
    """One kind of cell. A state is the pair (h, c) if it has c, else h alone."""

    name: str  # as the kernels have it
    title: str  # as PyTorch has it, and stats()
    gates: int  # blocks of H rows of the weights
    kept: int  # numbers of each unit that the reserve keeps of a step, at most
    has_c: bool
    forward: Callable[..., Any]  # the kernels'
    # A step in PyTorch operations: from x W_ih + b_ih, h W_hh + b_hh, h and, if it has one, c to the next h and c.
    equations: Callable[..., tuple[Tensor, ...]]


CELLS = {
    cell.name: cell
    for cell in (
        Cell("lstm", "LSTM", 4, 5, True, _core.lstm_forward, _lstm),
        Cell("gru", "GRU", 3, 5, False, _core.gru_forward, _gru),
        Cell("rnn_tanh", "RNN", 1, 1, False, _core.rnn_tanh_forward, _rnn_tanh),
        Cell("rnn_relu", "RNN", 1, 1, False, _core.rnn_relu_forward, _rnn_relu),
    )
}


def split(state: Any) -> tuple[Tensor, Tensor | None]:
    """h and c of a state; c is None if the cell has none."""
    if isinstance(state, (tuple, list)):
        h, c = state
        return h, c
    return state, None


def joined(h: Tensor, c: Tensor | None) -> Any:
    """The state of h and c, the inverse of :func:`split`."""
    return h if c is None else (h, c)


def each(function: Callable[..., Tensor], *states: Any) -> Any:
    """A state of what the function makes of every h, and of every c if there is one."""
    if isinstance(states[0], (tuple, list)):
        return tuple(map(function, *states))
    return function(*states)
