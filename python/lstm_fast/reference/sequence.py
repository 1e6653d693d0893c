"""What the cells of the reference share: the loop over the steps, ragged rows, and the training aids.

A cell knows the equations of one step; here stands when a step is computed and where its gradients go. The state is the
tuple (h, c) of an LSTM, (h,) of the others. Gradients of parameters are added up in a dict with the parameters' names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .._arguments import integer, positive, resets_mask

Array = NDArray[Any]
State = tuple[Array, ...]  # h, or h and c, [B,H] each; h is P wide with a projection
Gradients = dict[str, Any]  # arrays by name; "layer_norm" is a tuple of them


class Cell(Protocol):
    """The equations of one step."""

    parameters: dict[str, Any]

    def forward(self, x: Array, state: State, t: int, rows: slice) -> tuple[State, Any]:
        """The new state, and what backward needs of this step: its ``gates`` [G,B,H], activated, and what it likes.

        x [B,I] and the state belong to these rows of the batch; t is the index of x in the whole sequence.
        """

    def backward(self, step: Any, dstate: State, grads: Gradients) -> tuple[Array, State]:
        """dx and the gradient of the state before the step; adds to those of the parameters."""


class Aids(NamedTuple):
    """Training aids: they change the gradient (resets the values, too) of any cell."""

    truncate: int | None  # the state before step k, 2k, ... of a row, as computed, passes no gradient back
    grad_clip: float | None  # the gradient of h that arrives at a step is clipped to [-v, v] before it is used
    resets: Array | None  # bool [T,B]: the state is zeroed before the step that reads x[t]

    @classmethod
    def checked(cls, x: Array, truncate: int | None, grad_clip: float | None, resets: ArrayLike | None) -> Aids:
        """TypeError or ValueError for anything that :class:`Aids` cannot be."""
        if resets is not None:
            resets = resets_mask(resets, x.shape[:2], "(T, B)")
        return cls(
            None if truncate is None else integer(truncate, "truncate", 1),
            None if grad_clip is None else positive(grad_clip, "grad_clip"),
            resets,
        )

    def reset(self, state: State, t: int, rows: slice) -> State:
        """The state, or the gradient of it, 0 in the rows that begin anew at x[t]."""
        if self.resets is None:
            return state
        return tuple(np.where(self.resets[t, rows, None], 0, each) for each in state)

    def clip(self, dh: Array) -> Array:
        return dh if self.grad_clip is None else np.clip(dh, -self.grad_clip, self.grad_clip)

    def cut(self, dstate: State, done: int) -> State:
        """The gradient of the state after ``done`` steps."""
        if self.truncate is None or done == 0 or done % self.truncate:
            return dstate
        return tuple(np.zeros_like(each) for each in dstate)


class Block(NamedTuple):
    """Rows of the batch that have the same length. Steps stand in the order in which they are computed."""

    rows: slice
    states: State  # [T+1,B,H] each: the given state, then that after every step
    steps: list[Any]  # what the cell keeps

    @property
    def h(self) -> Array:
        return self.states[0]

    @property
    def c(self) -> Array:
        return self.states[1]

    @property
    def gates(self) -> Array:
        """[T,G,B,H], activated: i, f, g, o of an LSTM; r, z, n of a GRU; h of an RNN."""
        return np.stack([step.gates for step in self.steps])


class Reserve(NamedTuple):
    """What forward keeps for backward."""

    cell: Cell
    aids: Aids
    blocks: list[Block]
    steps: int
    batch: int
    reverse: bool


def sigmoid(a: Array) -> Array:
    """1 / (1 + e^-a), without overflow for large negative a."""
    e = np.exp(-np.abs(a))
    return np.where(a >= 0, 1.0, e) / (1.0 + e)


def given_or_zeros(array: ArrayLike | None, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """A copy of the array, or zeros of this shape."""
    return np.zeros(shape, dtype) if array is None else np.array(array, dtype)


def parameters(dtype: DTypeLike, **arrays: ArrayLike | None) -> dict[str, Any]:
    """Those that are given, as arrays of dtype, by name."""
    return {name: np.asarray(value, dtype) for name, value in arrays.items() if value is not None}


def biases(given: dict[str, Any]) -> tuple[Array, Array]:
    """b_ih and b_hh, zeros for a missing one."""
    zero = np.zeros(len(given["w_ih"]), given["w_ih"].dtype)
    return given.get("b_ih", zero), given.get("b_hh", zero)


def require_rows(given: dict[str, Any], gates: str, hidden: int) -> None:
    """ValueError unless weights and biases have H rows for every gate, one letter each."""
    for name in ("w_ih", "w_hh", "b_ih", "b_hh"):
        if name in given and len(given[name]) != len(gates) * hidden:
            wanted = f"{len(gates) * hidden} rows, {hidden} for each of {', '.join(gates)}"
            raise ValueError(f"{name}: expected {wanted}, got shape {given[name].shape}")


def add_to_biases(grads: Gradients, dgx: Array, dgh: Array) -> None:
    """Adds the gradients of b_ih and b_hh, where they are given, from those of the pre-activations of x and of h."""
    for name, gradient in (("b_ih", dgx), ("b_hh", dgh)):
        if name in grads:
            grads[name] += gradient.sum(axis=0)


def run_forward(
    cell: Cell, aids: Aids, x: Array, start: State, lengths: ArrayLike | None, reverse: bool
) -> tuple[Array, State, Reserve]:
    """y, the final states and the reserve of one layer and direction over a whole sequence."""
    steps, batch = x.shape[:2]
    y = np.zeros((steps, *start[0].shape), x.dtype)
    finals = tuple(each.copy() for each in start)
    blocks = []
    for rows, length in _rows_of_one_length(steps, lengths):
        state = tuple(each[rows] for each in start)
        states, kept = [state], []
        for t in _times(length, reverse):
            state, step = cell.forward(x[t, rows], aids.reset(state, t, rows), t, rows)
            states.append(state)
            kept.append(step)
            y[t, rows] = state[0]
        blocks.append(Block(rows, tuple(np.stack(each) for each in zip(*states, strict=True)), kept))
        for final, last in zip(finals, state, strict=True):
            final[rows] = last
    return y, finals, Reserve(cell, aids, blocks, steps, batch, reverse)


def run_backward(reserve: Reserve, dy: ArrayLike | None, *dfinals: ArrayLike | None) -> tuple[Array, State, Gradients]:
    """Gradients of x, of the initial states and of the parameters."""
    cell, aids = reserve.cell, reserve.aids
    dtype, inputs = cell.parameters["w_ih"].dtype, cell.parameters["w_ih"].shape[1]
    widths = [each.shape[-1] for each in reserve.blocks[0].states]
    dy = given_or_zeros(dy, (reserve.steps, reserve.batch, widths[0]), dtype)
    dstart = tuple(given_or_zeros(d, (reserve.batch, w), dtype) for d, w in zip(dfinals, widths, strict=True))
    dx = np.zeros((reserve.steps, reserve.batch, inputs), dtype)
    grads = {name: _zeros_like(value) for name, value in cell.parameters.items()}
    for rows, _, kept in reserve.blocks:
        dstate = tuple(each[rows] for each in dstart)
        times = _times(len(kept), reserve.reverse)
        for done in reversed(range(len(kept))):
            t = times[done]
            dh, *rest = dstate
            dstate = aids.clip(dh + dy[t, rows]), *rest
            dx[t, rows], dstate = cell.backward(kept[done], dstate, grads)
            dstate = aids.cut(aids.reset(dstate, t, rows), done)
        for whole, part in zip(dstart, dstate, strict=True):
            whole[rows] = part
    return dx, dstart, grads


def gradients_by_name(states: tuple[str, ...], dx: Array, dstart: State, grads: Gradients) -> Gradients:
    """What backward returns: x, the initial states, then the parameters in the order of the arguments."""
    return {"x": dx, **dict(zip(states, dstart, strict=True)), **grads}


def _zeros_like(parameter: Any) -> Any:
    if isinstance(parameter, tuple):
        return tuple(np.zeros_like(each) for each in parameter)
    return np.zeros_like(parameter)


def _rows_of_one_length(steps: int, lengths: ArrayLike | None) -> list[tuple[slice, int]]:
    """All rows at once, or, with lengths, each row alone."""
    if lengths is None:
        return [(slice(None), steps)]
    return [(slice(b, b + 1), int(length)) for b, length in enumerate(np.asarray(lengths))]


def _times(length: int, reverse: bool) -> Sequence[int]:
    """The indices of x in the order of computing."""
    return range(length)[::-1] if reverse else range(length)
