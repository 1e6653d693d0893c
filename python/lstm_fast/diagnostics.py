"""How far back a layer's gradients reach: exact Jacobians of its last state, computed by the kernels' backward.

A layer's state is one vector of size S per row: h of every layer and then, for an LSTM, c of every layer. The inputs
are ``x_1 .. x_T``, ``y_t`` is the output of step t and ``state_t`` the state after it; ``state_0`` is the initial one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._axes import as_array, time_major
from .layers import GRU, LSTM, RNN

Array = NDArray[Any]
Parts = tuple[Array, ...]  # (h, c) of an LSTM, (h,) of the others; [L,B,.]


class Jacobian(NamedTuple):
    """Of the end of a sequence with respect to one of its steps; a matrix for every row of the batch."""

    distance: int
    x: Array  # d y_T / d x_(T-distance), [B,Ho,I]
    state: Array  # d state_T / d state_(T-distance-1), with respect to the state that the step starts from, [B,S,S]


class GradientFlow(NamedTuple):
    """Spectral norms (largest singular values) by distance, in the layer's dtype; without B if x is unbatched."""

    x: Array  # [T,B]; x[k] is the norm of d y_T / d x_(T-k)
    state: Array  # [T+1,B]; state[k] is the norm of d state_T / d state_(T-k), so that state[0] is 1


def jacobians(layer: LSTM | GRU | RNN, x: ArrayLike, state: Any = None) -> Iterator[Jacobian]:
    """Exact Jacobians at the distances 0, 1, ..., T-1, in this order.

    ``layer``: an :class:`LSTM`, :class:`GRU` or :class:`RNN` of one direction; several layers and a projection are
    fine, and dropout is off. ``x`` and the initial ``state`` are what a call of the layer takes, without ``lengths``.

    Every row stands S times in the batch, each time with another unit vector as the gradient of the last state, and
    backward goes back one step at a time, from the state that forward had there, and hands the state's gradient on.
    Time grows with T * B * S * S; memory beyond the states of all steps does not grow with T. What the dtype cannot
    hold becomes 0 or infinite, as in training.

    Before the first Jacobian: TypeError if ``layer`` is no layer, ValueError if it is bidirectional, and what a call of
    the layer raises.
    """
    if not isinstance(layer, (LSTM, GRU, RNN)):
        raise TypeError(f"layer: expected an LSTM, GRU or RNN of lstm_fast, got {type(layer).__name__}")
    if layer.bidirectional:
        raise ValueError("layer: expected one direction, since no distance belongs to both, got a bidirectional one")
    x = as_array(x, "x", layer.dtype)
    _, last = layer(x, state)  # x and state are fine, then
    pair = isinstance(layer, LSTM)
    first: Parts = tuple(map(np.zeros_like, last if pair else (last,)))
    if state is not None:
        first = tuple(np.asarray(part, layer.dtype) for part in (state if pair else (state,)))
    if x.ndim == 2:
        first = tuple(part[:, None] for part in first)
    steps = time_major(x, layer.batch_first)[:, None]
    own = copy.copy(layer)  # of the same parameters; the options below are its own
    own.batch_first, own.dropout = False, 0.0
    return _going_back(own, steps, first)


def gradient_flow(layer: LSTM | GRU | RNN, x: ArrayLike, state: Any = None) -> GradientFlow:
    """How the gradient of a layer's end decays or explodes with distance: norms of :func:`jacobians`.

    Arguments, errors and cost are those of :func:`jacobians`. A norm above 1 in ``state`` means that some change of the
    state at that distance arrives larger than it was; below 1, none arrives as large as it was.
    """
    every = jacobians(layer, x, state)
    x = as_array(x, "x", layer.dtype)
    batch = time_major(x, layer.batch_first).shape[1]
    found = [(_norms(each.x), _norms(each.state)) for each in every]
    by_x = np.array([norms for norms, _ in found], layer.dtype).reshape(-1, batch)
    by_state = np.array([np.ones(batch), *(norms for _, norms in found)], layer.dtype)
    if x.ndim == 2:
        return GradientFlow(by_x[:, 0], by_state[:, 0])
    return GradientFlow(by_x, by_state)


def _going_back(layer: Any, steps: Array, first: Parts) -> Iterator[Jacobian]:
    """The Jacobians of a time-major layer, dropout off, from its state before ``steps`` [T,1,B,I]."""
    pair = len(first) == 2
    states = [first]
    for x in steps[:-1]:
        _, state = layer(x, states[-1] if pair else states[-1][0])
        states.append(state if pair else (state,))
    layers, batch = first[0].shape[:2]
    widths = [part.shape[2] for part in first]
    size = layers * sum(widths)
    outputs = slice((layers - 1) * widths[0], layers * widths[0])  # h of the last layer, which is y

    def split(rows: Array) -> Parts:
        """[B*S,S] as the parts of a state."""
        ends = np.cumsum([layers * width for width in widths])[:-1]
        parts = zip(np.split(rows, ends, axis=1), widths, strict=True)
        return tuple(np.ascontiguousarray(part.reshape(-1, layers, width).swapaxes(0, 1)) for part, width in parts)

    def joined(parts: Parts) -> Array:
        """The parts of a state as [B*S,S]."""
        return np.concatenate([part.swapaxes(0, 1).reshape(batch * size, -1) for part in parts], axis=1)

    back = split(np.tile(np.eye(size, dtype=layer.dtype), (batch, 1)))
    for distance in range(len(steps)):
        at = len(steps) - 1 - distance
        many = tuple(np.repeat(part, size, axis=1) for part in states[at])
        _, _, reserve = layer.forward(np.repeat(steps[at], size, axis=1), many if pair else many[0])
        gradients = layer.backward(reserve, None, back if pair else back[0])
        back = gradients.state if pair else (gradients.state,)
        dx = gradients.x.reshape(batch, size, -1)[:, outputs]
        yield Jacobian(distance, dx, joined(back).reshape(batch, size, size))


def _norms(matrices: Array) -> Array:
    """The spectral norm of each of [B,.,.]; infinite or NaN where an element is."""
    largest = np.abs(matrices).max(axis=(1, 2), initial=0)
    # Divided by the largest element, so that squares neither overflow nor vanish.
    plain = np.isfinite(largest) & (largest > 0)
    scale = np.where(plain, largest, 1)
    scaled = np.where(plain[:, None, None], matrices / scale[:, None, None], 0)
    norms: Array = np.where(plain, scale * np.linalg.norm(scaled, 2, axis=(1, 2)), largest)
    return norms
