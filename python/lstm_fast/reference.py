"""The LSTM in plain NumPy: the truth that every kernel is checked against.

Written for clarity only. Same names, signatures and shapes as :mod:`lstm_fast.ops`; computes in float64 unless
``dtype`` says otherwise. Formulas: PyTorch's ``nn.LSTM``, gates in the order i, f, g, o.

Shapes: x [T,B,I], h0 and c0 [B,H], w_ih [4H,I], w_hh [4H,H], biases [4H], y [T,B,H].
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ._arguments import require_in_scope

Array = NDArray[Any]


class Reserve(NamedTuple):
    """What :func:`lstm_forward` keeps for :func:`lstm_backward`."""

    x: Array  # [T,B,I]
    h: Array  # [T+1,B,H]: h0, then the state after every step
    c: Array  # [T+1,B,H]
    gates: Array  # [T,4,B,H]: activated i, f, g, o
    w_ih: Array
    w_hh: Array
    has_b_ih: bool
    has_b_hh: bool


def sigmoid(a: Array) -> Array:
    """1 / (1 + e^-a), without overflow for large negative a."""
    e = np.exp(-np.abs(a))
    return np.where(a >= 0, 1.0, e) / (1.0 + e)


def _bias(b_ih: ArrayLike | None, b_hh: ArrayLike | None, size: int, dtype: DTypeLike) -> Array:
    total: Array = np.zeros(size, dtype)
    for b in (b_ih, b_hh):
        if b is not None:
            total = total + np.asarray(b, dtype)
    return total


def _step(a: Array, c_prev: Array) -> tuple[Array, Array, Array]:
    """One step from the pre-activations a [B,4H]; returns gates [4,B,H], c and h [B,H]."""
    a_i, a_f, a_g, a_o = np.split(a, 4, axis=-1)
    i = sigmoid(a_i)
    f = sigmoid(a_f)
    g = np.tanh(a_g)
    o = sigmoid(a_o)
    c = f * c_prev + i * g
    h = o * np.tanh(c)
    return np.stack([i, f, g, o]), c, h


def lstm_forward(
    x: ArrayLike,
    h0: ArrayLike,
    c0: ArrayLike,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None,
    w_hr: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    save: str | None = "gates",
    dtype: DTypeLike = np.float64,
) -> tuple[Array, Array, Array, Reserve | None]:
    """Run one layer over a whole sequence; returns y, hn, cn and the reserve (None if ``save`` is None)."""
    require_in_scope(w_hr=w_hr, lengths=lengths, reverse=reverse, save=save)
    x, h0, c0, w_ih, w_hh = (np.asarray(v, dtype) for v in (x, h0, c0, w_ih, w_hh))
    bias = _bias(b_ih, b_hh, w_ih.shape[0], dtype)
    steps, batch, hidden = x.shape[0], x.shape[1], w_hh.shape[1]
    h = np.empty((steps + 1, batch, hidden), dtype)
    c = np.empty_like(h)
    gates = np.empty((steps, 4, batch, hidden), dtype)
    h[0], c[0] = h0, c0
    for t in range(steps):
        gates[t], c[t + 1], h[t + 1] = _step(x[t] @ w_ih.T + h[t] @ w_hh.T + bias, c[t])
    reserve = Reserve(x, h, c, gates, w_ih, w_hh, b_ih is not None, b_hh is not None)
    return h[1:], h[-1].copy(), c[-1].copy(), reserve if save else None


def lstm_backward(
    reserve: Reserve, dy: ArrayLike | None = None, dhn: ArrayLike | None = None, dcn: ArrayLike | None = None
) -> dict[str, Array]:
    """Gradients of sum(y*dy) + sum(hn*dhn) + sum(cn*dcn) with respect to every input of :func:`lstm_forward`."""
    x, h, c, gates, w_ih, w_hh, has_b_ih, has_b_hh = reserve
    steps, dtype = x.shape[0], x.dtype
    dy = np.zeros_like(h[1:]) if dy is None else np.asarray(dy, dtype)
    dh = np.zeros_like(h[0]) if dhn is None else np.asarray(dhn, dtype).copy()
    dc = np.zeros_like(c[0]) if dcn is None else np.asarray(dcn, dtype).copy()
    dx, dw_ih, dw_hh = np.zeros_like(x), np.zeros_like(w_ih), np.zeros_like(w_hh)
    db = np.zeros(w_ih.shape[0], dtype)
    for t in reversed(range(steps)):
        i, f, g, o = gates[t]
        tc = np.tanh(c[t + 1])
        dh = dh + dy[t]
        dc = dc + dh * o * (1 - tc**2)
        do, di, dg, df = dh * tc, dc * g, dc * i, dc * c[t]
        da = np.concatenate([di * i * (1 - i), df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o)], axis=-1)
        dc = dc * f
        dh = da @ w_hh
        dx[t] = da @ w_ih
        dw_ih += da.T @ x[t]
        dw_hh += da.T @ h[t]
        db += da.sum(axis=0)
    grads = {"x": dx, "h0": dh, "c0": dc, "w_ih": dw_ih, "w_hh": dw_hh}
    if has_b_ih:
        grads["b_ih"] = db
    if has_b_hh:
        grads["b_hh"] = db.copy()
    return grads


def lstm_cell(
    x: ArrayLike,
    h: ArrayLike,
    c: ArrayLike,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None,
    *,
    dtype: DTypeLike = np.float64,
) -> tuple[Array, Array]:
    """One step: x [B,I], h and c [B,H]; returns the new h and c."""
    x, h, c, w_ih, w_hh = (np.asarray(v, dtype) for v in (x, h, c, w_ih, w_hh))
    a = x @ w_ih.T + h @ w_hh.T + _bias(b_ih, b_hh, w_ih.shape[0], dtype)
    _, c_new, h_new = _step(a, c)
    return h_new, c_new
