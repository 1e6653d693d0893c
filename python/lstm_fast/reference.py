"""The LSTM in plain NumPy: the truth that every kernel is checked against.

Written for clarity only. Same names, signatures and shapes as :mod:`lstm_fast.ops`; computes in float64 unless
``dtype`` says otherwise. Formulas: PyTorch's ``nn.LSTM``, gates in the order i, f, g, o.

Shapes: x [T,B,I], h0 and c0 [B,H], w_ih [4H,I], w_hh [4H,H], biases [4H], y [T,B,H]; with a projection w_hr [P,H],
h0, hn and y are P wide and w_hh is [4H,P].
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ._arguments import save_choice

Array = NDArray[Any]


class Block(NamedTuple):
    """Rows of the batch that have the same length, in the order in which their steps are computed."""

    rows: slice
    x: Array  # [T,B,I]
    h: Array  # [T+1,B,H]: h0, then the state after every step; P wide with a projection
    c: Array  # [T+1,B,H]
    gates: Array  # [T,4,B,H]: activated i, f, g, o


class Reserve(NamedTuple):
    """What :func:`lstm_forward` keeps for :func:`lstm_backward`."""

    blocks: list[Block]
    steps: int
    batch: int
    reverse: bool
    w_ih: Array
    w_hh: Array
    w_hr: Array | None
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
    """Run one layer over a whole sequence; returns y, hn, cn and the reserve (None if ``save`` is None).

    The reserve keeps the gates whatever else ``save`` says.
    """
    save_choice(save)
    x, h0, c0, w_ih, w_hh = (np.asarray(v, dtype) for v in (x, h0, c0, w_ih, w_hh))
    projection = None if w_hr is None else np.asarray(w_hr, dtype)
    bias = _bias(b_ih, b_hh, w_ih.shape[0], dtype)
    y, hn, cn = np.zeros((*x.shape[:2], w_hh.shape[1]), dtype), h0.copy(), c0.copy()
    blocks = []
    for rows, length in _rows_of_one_length(x.shape[0], lengths):
        x_rows = _in_order(x[:length, rows], reverse)
        h, c = [h0[rows]], [c0[rows]]
        gates = np.empty((length, 4, *c0[rows].shape), dtype)
        for t in range(length):
            gates[t], c_new, h_new = _step(x_rows[t] @ w_ih.T + h[t] @ w_hh.T + bias, c[t])
            c.append(c_new)
            h.append(h_new if projection is None else h_new @ projection.T)
        blocks.append(Block(rows, x_rows, np.stack(h), np.stack(c), gates))
        y[:length, rows] = _in_order(blocks[-1].h[1:], reverse)
        hn[rows], cn[rows] = h[-1], c[-1]
    reserve = Reserve(
        blocks, x.shape[0], x.shape[1], reverse, w_ih, w_hh, projection, b_ih is not None, b_hh is not None
    )
    return y, hn, cn, reserve if save else None


def _rows_of_one_length(steps: int, lengths: ArrayLike | None) -> list[tuple[slice, int]]:
    """All rows at once, or, with lengths, each row alone."""
    if lengths is None:
        return [(slice(None), steps)]
    return [(slice(b, b + 1), int(length)) for b, length in enumerate(np.asarray(lengths))]


def _in_order(sequence: Array, reverse: bool) -> Array:
    """[T,...] in the order of computing, or back."""
    return sequence[::-1] if reverse else sequence


def lstm_backward(
    reserve: Reserve, dy: ArrayLike | None = None, dhn: ArrayLike | None = None, dcn: ArrayLike | None = None
) -> dict[str, Array]:
    """Gradients of sum(y*dy) + sum(hn*dhn) + sum(cn*dcn) with respect to every input of :func:`lstm_forward`."""
    w_ih, w_hh, w_hr = reserve.w_ih, reserve.w_hh, reserve.w_hr
    dtype, width, hidden = w_ih.dtype, w_hh.shape[1], w_ih.shape[0] // 4

    def given_or_zeros(gradient: ArrayLike | None, *shape: int) -> Array:
        return np.zeros(shape, dtype) if gradient is None else np.array(gradient, dtype)

    dy = given_or_zeros(dy, reserve.steps, reserve.batch, width)
    dh0 = given_or_zeros(dhn, reserve.batch, width)
    dc0 = given_or_zeros(dcn, reserve.batch, hidden)
    dx = np.zeros((reserve.steps, reserve.batch, w_ih.shape[1]), dtype)
    dw_ih, dw_hh, db = np.zeros_like(w_ih), np.zeros_like(w_hh), np.zeros(4 * hidden, dtype)
    dw_hr = None if w_hr is None else np.zeros_like(w_hr)
    for rows, x, h, c, gates in reserve.blocks:
        length = x.shape[0]
        dy_rows = _in_order(dy[:length, rows], reserve.reverse)
        dx_rows = np.zeros_like(x)
        dh, dc = dh0[rows], dc0[rows]
        for t in reversed(range(length)):
            i, f, g, o = gates[t]
            tc = np.tanh(c[t + 1])
            dh = dh + dy_rows[t]
            if w_hr is not None:
                dw_hr += dh.T @ (o * tc)
                dh = dh @ w_hr
            dc = dc + dh * o * (1 - tc**2)
            do, di, dg, df = dh * tc, dc * g, dc * i, dc * c[t]
            da = np.concatenate([di * i * (1 - i), df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o)], axis=-1)
            dc = dc * f
            dh = da @ w_hh
            dx_rows[t] = da @ w_ih
            dw_ih += da.T @ x[t]
            dw_hh += da.T @ h[t]
            db += da.sum(axis=0)
        dh0[rows], dc0[rows] = dh, dc
        dx[:length, rows] = _in_order(dx_rows, reserve.reverse)
    grads = {"x": dx, "h0": dh0, "c0": dc0, "w_ih": dw_ih, "w_hh": dw_hh}
    if reserve.has_b_ih:
        grads["b_ih"] = db
    if reserve.has_b_hh:
        grads["b_hh"] = db.copy()
    if dw_hr is not None:
        grads["w_hr"] = dw_hr
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


def philox(seed: int, counter: Array) -> Array:
    """Philox4x32-10 (Salmon et al., 2011): four random 32-bit words [...,4] from four counter words [...,4]."""
    mask = np.uint64(0xFFFFFFFF)
    x0, x1, x2, x3 = np.moveaxis(np.asarray(counter, np.uint64), -1, 0)
    key_low, key_high = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        even, odd = np.uint64(0xD2511F53) * x0, np.uint64(0xCD9E8D57) * x2
        x0, x1 = (odd >> np.uint64(32)) ^ x1 ^ np.uint64(key_low), odd & mask
        x2, x3 = (even >> np.uint64(32)) ^ x3 ^ np.uint64(key_high), even & mask
        key_low, key_high = (key_low + 0x9E3779B9) & 0xFFFFFFFF, (key_high + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([x0, x1, x2, x3], axis=-1).astype(np.uint32)


def dropout_scale(seed: int, layer: int, shape: tuple[int, int, int], p: float) -> Array:
    """What forward multiplies the output [T,B,D*H] of a layer by: 0 with probability p, else 1 / (1 - p)."""
    steps, batch, width = shape
    t, b, quad = np.meshgrid(np.arange(steps), np.arange(batch), np.arange(-(-width // 4)), indexing="ij")
    words = philox(seed, np.stack([quad, b, t, np.full_like(t, layer)], axis=-1))
    kept = words.reshape(steps, batch, -1)[..., :width].astype(np.uint64) >= np.uint64(int(p * 2**32))
    return np.where(kept, 1 / (1 - p) if p < 1 else 0.0, 0.0)
