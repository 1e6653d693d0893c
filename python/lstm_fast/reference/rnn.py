"""The plain recurrent network in plain NumPy: h = act(x W_ih^T + h' W_hh^T + b_ih + b_hh), as PyTorch's ``nn.RNN``.

Shapes: x [T,B,I], h0 [B,H], w_ih [H,I], w_hh [H,H], biases [H], y [T,B,H].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .._arguments import choice, save_choice
from .sequence import (
    Aids,
    Array,
    Gradients,
    Reserve,
    State,
    add_to_biases,
    biases,
    gradients_by_name,
    parameters,
    require_rows,
    run_backward,
    run_forward,
    sigmoid,
)


class Activation(NamedTuple):
    """A function, and its derivative as a function of its value."""

    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]


ACTIVATIONS = {
    "tanh": Activation(np.tanh, lambda h: 1 - h**2),
    # The slope at 0 is 0, and that of a NaN 1, as in PyTorch.
    "relu": Activation(lambda a: np.maximum(a, 0), lambda h: np.where(h <= 0, 0, np.ones_like(h))),
    "sigmoid": Activation(sigmoid, lambda h: h * (1 - h)),
    "identity": Activation(lambda a: a, np.ones_like),
}


class Step(NamedTuple):
    """What backward needs of one step."""

    x: Array  # [B,I]
    h_prev: Array  # [B,H]
    gates: Array  # [1,B,H]: the new h


class RNN:
    """The equation of one step and its gradients."""

    def __init__(self, given: dict[str, Any], nonlinearity: str) -> None:
        choice(nonlinearity, "nonlinearity", tuple(ACTIVATIONS))
        require_rows(given, "h", given["w_hh"].shape[1])
        self.parameters = given
        self.activation = ACTIVATIONS[nonlinearity]
        b_ih, b_hh = biases(given)
        self.bias = b_ih + b_hh

    def forward(self, x: Array, state: State, t: int, rows: slice) -> tuple[State, Step]:
        (h_prev,) = state
        h = self.activation.value(x @ self.parameters["w_ih"].T + h_prev @ self.parameters["w_hh"].T + self.bias)
        return (h,), Step(x, h_prev, h[None])

    def backward(self, step: Step, dstate: State, grads: Gradients) -> tuple[Array, State]:
        (dh,) = dstate
        x, h_prev, (h,) = step
        da = dh * self.activation.slope(h)
        grads["w_ih"] += da.T @ x
        grads["w_hh"] += da.T @ h_prev
        add_to_biases(grads, da, da)
        return da @ self.parameters["w_ih"], (da @ self.parameters["w_hh"],)


def rnn_forward(
    x: ArrayLike,
    h0: ArrayLike,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None,
    *,
    nonlinearity: str = "tanh",
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    save: str | None = "gates",
    truncate: int | None = None,
    grad_clip: float | None = None,
    resets: ArrayLike | None = None,
    dtype: DTypeLike = np.float64,
) -> tuple[Array, Array, Reserve | None]:
    """Run one layer over a whole sequence; returns y, hn and the reserve (None if ``save`` is None).

    ``nonlinearity`` is tanh, relu, sigmoid or identity; ValueError for another. ``truncate``, ``grad_clip`` and
    ``resets`` are those of :func:`lstm_forward`, and so are the errors they raise.
    """
    save_choice(save)
    cell = RNN(parameters(dtype, w_ih=w_ih, w_hh=w_hh, b_ih=b_ih, b_hh=b_hh), nonlinearity)
    x, h0 = np.asarray(x, dtype), np.asarray(h0, dtype)
    y, (hn,), reserve = run_forward(cell, Aids.checked(x, truncate, grad_clip, resets), x, (h0,), lengths, reverse)
    return y, hn, reserve if save else None


def rnn_backward(reserve: Reserve, dy: ArrayLike | None = None, dhn: ArrayLike | None = None) -> dict[str, Array]:
    """Gradients of sum(y*dy) + sum(hn*dhn) with respect to every array that :func:`rnn_forward` was given."""
    return gradients_by_name(("h0",), *run_backward(reserve, dy, dhn))


def rnn_cell(
    x: ArrayLike,
    h: ArrayLike,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None,
    *,
    nonlinearity: str = "tanh",
    dtype: DTypeLike = np.float64,
) -> Array:
    """One step: x [B,I], h [B,H]; returns the new h."""
    cell = RNN(parameters(dtype, w_ih=w_ih, w_hh=w_hh, b_ih=b_ih, b_hh=b_hh), nonlinearity)
    (h_new,), _ = cell.forward(np.asarray(x, dtype), (np.asarray(h, dtype),), 0, slice(None))
    return h_new
