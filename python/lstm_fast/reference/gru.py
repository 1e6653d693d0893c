"""The GRU in plain NumPy. Formulas: PyTorch's ``nn.GRU``, gates in the order r, z, n.

    r = s(gx_r + gh_r)    z = s(gx_z + gh_z)    n = tanh(gx_n + r * gh_n)    h = (1 - z) * n + z * h'
    gx = x W_ih^T + b_ih    gh = h' W_hh^T + b_hh

With ``reset_after=False`` (the default of ONNX, and of Keras once) r stands before the product, not after it:

    gh_n = (r * h') W_hn^T + b_hn    n = tanh(gx_n + gh_n)

Shapes: x [T,B,I], h0 [B,H], w_ih [3H,I], w_hh [3H,H], biases [3H], y [T,B,H].
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .._arguments import flag, save_choice
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


class Step(NamedTuple):
    """What backward needs of one step."""

    x: Array  # [B,I]
    h_prev: Array  # [B,H]
    seen: Array  # [B,H]: what W_hn multiplies, h' or r * h'
    gates: Array  # [3,B,H]: activated r, z, n
    gh_n: Array  # [B,H]


class GRU:
    """The equations of one step and their gradients."""

    def __init__(self, given: dict[str, Any], reset_after: bool) -> None:
        self.parameters = given
        self.reset_after = flag(reset_after, "reset_after")
        self.b_ih, b_hh = biases(given)
        hidden = given["w_hh"].shape[1]
        require_rows(given, "rzn", hidden)
        self.w_rz, self.w_n = np.split(given["w_hh"], [2 * hidden])
        self.b_rz, self.b_n = np.split(b_hh, [2 * hidden])

    def forward(self, x: Array, state: State, t: int, rows: slice) -> tuple[State, Step]:
        (h_prev,) = state
        gx_r, gx_z, gx_n = np.split(x @ self.parameters["w_ih"].T + self.b_ih, 3, axis=-1)
        gh_r, gh_z = np.split(h_prev @ self.w_rz.T + self.b_rz, 2, axis=-1)
        r = sigmoid(gx_r + gh_r)
        z = sigmoid(gx_z + gh_z)
        seen = h_prev if self.reset_after else r * h_prev
        gh_n = seen @ self.w_n.T + self.b_n
        n = np.tanh(gx_n + (r * gh_n if self.reset_after else gh_n))
        h = (1 - z) * n + z * h_prev
        return (h,), Step(x, h_prev, seen, np.stack([r, z, n]), gh_n)

    def backward(self, step: Step, dstate: State, grads: Gradients) -> tuple[Array, State]:
        (dh,) = dstate
        x, h_prev, seen, (r, z, n), gh_n = step
        dn, dz, dh_prev = dh * (1 - z), dh * (h_prev - n), dh * z
        da_n = dn * (1 - n**2)
        dgh_n = da_n * r if self.reset_after else da_n
        dseen = dgh_n @ self.w_n
        if self.reset_after:
            dr = da_n * gh_n
            dh_prev = dh_prev + dseen
        else:
            dr = dseen * h_prev
            dh_prev = dh_prev + dseen * r
        da_rz = np.concatenate([dr * r * (1 - r), dz * z * (1 - z)], axis=-1)
        dh_prev = dh_prev + da_rz @ self.w_rz
        dgx = np.concatenate([da_rz, da_n], axis=-1)
        dgh = np.concatenate([da_rz, dgh_n], axis=-1)
        grads["w_ih"] += dgx.T @ x
        grads["w_hh"] += np.concatenate([da_rz.T @ h_prev, dgh_n.T @ seen])
        add_to_biases(grads, dgx, dgh)
        return dgx @ self.parameters["w_ih"], (dh_prev,)


def gru_forward(
    x: ArrayLike,
    h0: ArrayLike,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None,
    *,
    reset_after: bool = True,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    save: str | None = "gates",
    truncate: int | None = None,
    grad_clip: float | None = None,
    resets: ArrayLike | None = None,
    dtype: DTypeLike = np.float64,
) -> tuple[Array, Array, Reserve | None]:
    """Run one layer over a whole sequence; returns y, hn and the reserve (None if ``save`` is None).

    ``truncate``, ``grad_clip`` and ``resets`` are those of :func:`lstm_forward`, and so are the errors they raise.
    """
    save_choice(save)
    cell = GRU(parameters(dtype, w_ih=w_ih, w_hh=w_hh, b_ih=b_ih, b_hh=b_hh), reset_after)
    x, h0 = np.asarray(x, dtype), np.asarray(h0, dtype)
    y, (hn,), reserve = run_forward(cell, Aids.checked(x, truncate, grad_clip, resets), x, (h0,), lengths, reverse)
    return y, hn, reserve if save else None


def gru_backward(reserve: Reserve, dy: ArrayLike | None = None, dhn: ArrayLike | None = None) -> dict[str, Array]:
    """Gradients of sum(y*dy) + sum(hn*dhn) with respect to every array that :func:`gru_forward` was given."""
    return gradients_by_name(("h0",), *run_backward(reserve, dy, dhn))


def gru_cell(
    x: ArrayLike,
    h: ArrayLike,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None,
    *,
    reset_after: bool = True,
    dtype: DTypeLike = np.float64,
) -> Array:
    """One step: x [B,I], h [B,H]; returns the new h."""
    cell = GRU(parameters(dtype, w_ih=w_ih, w_hh=w_hh, b_ih=b_ih, b_hh=b_hh), reset_after)
    (h_new,), _ = cell.forward(np.asarray(x, dtype), (np.asarray(h, dtype),), 0, slice(None))
    return h_new
