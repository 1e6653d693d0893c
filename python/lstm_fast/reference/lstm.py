"""The LSTM in plain NumPy. Formulas: PyTorch's ``nn.LSTM``, gates in the order i, f, g, o; lstm_step.py has them.

Shapes: x [T,B,I], h0 and c0 [B,H], w_ih [4H,I], w_hh [4H,H], biases [4H], y [T,B,H]; with a projection w_hr [P,H],
h0, hn and y are P wide and w_hh is [4H,P]. With ``coupled`` every 4H is 3H: the coupled gate has no rows, the others
keep their order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .._arguments import choice, flag, integer, positive, rate, save_choice
from .dropout import Stream, Zoneout, kept_units
from .lstm_step import GATES, LSTM, Variants
from .sequence import (
    Aids,
    Array,
    Reserve,
    gradients_by_name,
    parameters,
    require_rows,
    run_backward,
    run_forward,
)


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
    truncate: int | None = None,
    grad_clip: float | None = None,
    resets: ArrayLike | None = None,
    peephole: ArrayLike | None = None,
    coupled: str | None = None,
    layer_norm: tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike] | None = None,
    zoneout: tuple[float, float] = (0.0, 0.0),
    recurrent_dropout: float = 0.0,
    drop_connect: float = 0.0,
    clip: float | None = None,
    cell_clip: float | None = None,
    training: bool = True,
    seed: int = 0,
    place: int = 0,
    dtype: DTypeLike = np.float64,
) -> tuple[Array, Array, Array, Reserve | None]:
    """Run one layer over a whole sequence; returns y, hn, cn and the reserve (None if ``save`` is None).

    The reserve keeps the gates whatever else ``save`` says.

    Training aids, kept in the reserve, since backward is the gradient of what forward computed:

    truncate: the state before step k, 2k, ... in the order of computing passes no gradient back, neither h nor c.
    grad_clip: v > 0; the gradient of h_t, that of y_t included, is clipped to [-v, v] before it is used in step t.
    resets: bool [T,B]; the state of a row is zeroed before the step that reads x[t], and its gradient stops there.

    Variants, all off by default; they can be combined at will, and :mod:`lstm_fast.reference.lstm_step` says how:

    peephole: [3,H]: p_i, p_f, p_o ([2,H] with ``coupled``); i and f see c', o sees the new c.
    coupled: "f=1-i" or "i=1-f".
    layer_norm: g_x [4H], g_h [4H], g_c [H], b_c [H]; the c that is carried is not normalised.
    zoneout: rates in [0, 1) of h and c.
    recurrent_dropout: rate in [0, 1); one mask for the sequence, row and unit of h', scaled by 1 / (1 - rate).
    drop_connect: rate in [0, 1); one mask for the call on W_hh, scaled by 1 / (1 - rate).
    clip: v > 0; pre-activations are clipped to [-v, v]. Their gradient is 0 outside, as that of ``torch.clamp``.
    cell_clip: v > 0; the new c, likewise.
    training: whether masks are drawn; otherwise zoneout takes the mean, and the two dropouts do nothing.
    seed: of the masks, in [0, 2^64).
    place: layer * D + direction, the index of the initial state in a stack; part of the masks' counter.

    Raises TypeError or ValueError, which name the argument, for an option that is none of these, and for weights,
    biases or parameters of a variant with another number of rows.
    """
    save_choice(save)
    choice(coupled, "coupled", tuple(GATES))
    given = parameters(dtype, w_ih=w_ih, w_hh=w_hh, b_ih=b_ih, b_hh=b_hh, w_hr=w_hr, peephole=peephole)
    x, h0, c0 = np.asarray(x, dtype), np.asarray(h0, dtype), np.asarray(c0, dtype)
    gates, hidden = GATES[coupled], c0.shape[1]
    require_rows(given, gates, hidden)
    if peephole is not None:
        _require_shape(given["peephole"], "peephole", (len(gates) - 1, hidden))
    if layer_norm is not None:
        given["layer_norm"] = _layer_norm(layer_norm, len(gates) * hidden, hidden, dtype)
    flag(training, "training")
    integer(seed, "seed", 0, 2**64 - 1)
    integer(place, "place", 0, 2**28 - 1)

    def zone(stream: Stream, p: float, width: int) -> Zoneout | None:
        if not rate(p, "zoneout"):
            return None
        shape = (*x.shape[:2], width)
        return Zoneout(p, kept_units(stream, seed, place, shape, p) if training else None)

    def scale(stream: Stream, name: str, p: float, rows: int, units: int) -> Array | None:
        if not rate(p, name) or not training:
            return None
        (mask,) = kept_units(stream, seed, place, (1, rows, units), p)
        return np.asarray(mask / (1 - p), dtype)

    if not isinstance(zoneout, (tuple, list)) or len(zoneout) != 2:
        raise TypeError(f"zoneout: expected two numbers, for h and c, got {zoneout!r}")
    variants = Variants(
        coupled,
        None if clip is None else positive(clip, "clip"),
        None if cell_clip is None else positive(cell_clip, "cell_clip"),
        zone(Stream.zoneout_h, zoneout[0], h0.shape[1]),
        zone(Stream.zoneout_c, zoneout[1], hidden),
        scale(Stream.recurrent, "recurrent_dropout", recurrent_dropout, *h0.shape),
        scale(Stream.drop_connect, "drop_connect", drop_connect, *given["w_hh"].shape),
    )
    aids = Aids.checked(x, truncate, grad_clip, resets)
    y, (hn, cn), reserve = run_forward(LSTM(given, variants), aids, x, (h0, c0), lengths, reverse)
    return y, hn, cn, reserve if save else None


def _require_shape(array: Array, name: str, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")


def _layer_norm(given: Any, rows: int, hidden: int, dtype: DTypeLike) -> tuple[Array, ...]:
    if not isinstance(given, (tuple, list)) or len(given) != 4:
        got = f"{len(given)} of them" if isinstance(given, (tuple, list)) else type(given).__name__
        raise TypeError(f"layer_norm: expected the four arrays g_x, g_h, g_c, b_c, got {got}")
    arrays = tuple(np.asarray(each, dtype) for each in given)
    for array, name, width in zip(arrays, ("g_x", "g_h", "g_c", "b_c"), (rows, rows, hidden, hidden), strict=True):
        _require_shape(array, f"layer_norm {name}", (width,))
    return arrays


def lstm_backward(
    reserve: Reserve, dy: ArrayLike | None = None, dhn: ArrayLike | None = None, dcn: ArrayLike | None = None
) -> dict[str, Any]:
    """Gradients of sum(y*dy) + sum(hn*dhn) + sum(cn*dcn) with respect to every input of :func:`lstm_forward`.

    By the names of its arguments, those that were given; "layer_norm" is a tuple as there.
    """
    return gradients_by_name(("h0", "c0"), *run_backward(reserve, dy, dhn, dcn))


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
    x, h, c = (np.asarray(v, dtype) for v in (x, h, c))
    cell = LSTM(parameters(dtype, w_ih=w_ih, w_hh=w_hh, b_ih=b_ih, b_hh=b_hh), Variants())
    (h_new, c_new), _ = cell.forward(x, (h, c), 0, slice(None))
    return h_new, c_new
