"""Functions on one layer and one direction, with explicit arrays.

Shapes: x [T,B,I], h0 and c0 [B,H], y [T,B,H]; with G blocks of H rows, w_ih [G*H,I], w_hh [G*H,H], b_ih and b_hh [G*H].
The blocks are, as in PyTorch, the gates i, f, g, o of an LSTM and r, z, n of a GRU; an RNN has one. Only an LSTM has c,
and a projection w_hr [P,H]: h0, hn and y are then P wide and w_hh is [4H,P]. All arrays are NumPy arrays of one dtype,
float32 or float64, in any memory layout.

``lengths`` is an array or list of B integers, each in 0..T, in any order: row b is computed as if it stood alone with
its own length. y beyond it is 0, hn and cn are the state after its own last step, and what stands in the padding of x
and dy has no effect. ``reverse`` runs every row from its last step to its first.

With ``save=None`` (inference) forward returns None for the reserve; otherwise y is read-only, since the reserve refers
to it, and x must not change until backward. ``save="lean"`` keeps about a sixth of what ``"gates"`` keeps (of an RNN:
half), and backward computes the gates again: the same bits, up to a third more time.

``truncate``, ``grad_clip`` and ``resets``, booleans [T,B], are those of :meth:`lstm_fast.LSTM.forward`.

The gradients that backward returns, by the names of the arguments of forward, belong to what forward computed, even if
the weights have changed since. A reserve can be used more than once.

Every function raises TypeError for anything that is not such an array, ValueError for shapes, lengths or reserves that
disagree (they name the argument, what was wanted and what came), MemoryError when the result does not fit, and
NotImplementedError for options that a later version brings. Formulas: PyTorch's ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _lstm_fast_core as _core
from ._arguments import NONLINEARITIES, choice, flag, kernel_aids, require_in_scope, resets_mask, save_choice
from ._lstm_fast_core import Reserve

__all__ = [
    "Reserve",
    "gru_backward",
    "gru_cell",
    "gru_forward",
    "lstm_backward",
    "lstm_cell",
    "lstm_forward",
    "rnn_backward",
    "rnn_cell",
    "rnn_forward",
]

Array = NDArray[Any]
Weights = tuple[Array | None, ...]  # w_ih, w_hh, b_ih, b_hh, w_hr


def lstm_forward(
    x: Array,
    h0: Array,
    c0: Array,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    w_hr: Array | None = None,
    *,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    save: str | None = "gates",
    truncate: int | None = None,
    grad_clip: float | None = None,
    resets: ArrayLike | None = None,
) -> tuple[Array, Array, Array, Reserve | None]:
    """Run one layer over a whole sequence.

    Returns y [T,B,H], hn and cn [B,H], and the reserve that :func:`lstm_backward` takes.
    """
    return _forward(
        "lstm", x, h0, c0, (w_ih, w_hh, b_ih, b_hh, w_hr), lengths, reverse, save, (truncate, grad_clip, resets)
    )


def lstm_backward(
    reserve: Reserve, dy: Array | None = None, dhn: Array | None = None, dcn: Array | None = None
) -> dict[str, Array]:
    """Gradients of sum(y*dy) + sum(hn*dhn) + sum(cn*dcn); None stands for zeros. dy [T,B,H], dhn and dcn [B,H].

    Returns those of x, h0, c0, w_ih, w_hh, and of b_ih, b_hh and w_hr where forward had them.
    """
    return _backward("lstm", reserve, dy, dhn, dcn)


def lstm_cell(
    x: Array,
    h: Array,
    c: Array,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
) -> tuple[Array, Array]:
    """One step: x [B,I], h and c [B,H]; returns the new h and c. Bit-equal to a step of :func:`lstm_forward`."""
    return _step("lstm", x, h, c, (w_ih, w_hh, b_ih, b_hh, None))


def gru_forward(
    x: Array,
    h0: Array,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    *,
    reset_after: bool = True,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    save: str | None = "gates",
    truncate: int | None = None,
    grad_clip: float | None = None,
    resets: ArrayLike | None = None,
) -> tuple[Array, Array, Reserve | None]:
    """Run one layer over a whole sequence.

    Returns y [T,B,H], hn [B,H], and the reserve that :func:`gru_backward` takes. ``reset_after``: whether the reset
    gate multiplies what the candidate gets from h after the product with W_hn, or h before it, which a later version
    brings.
    """
    cell = _gru(reset_after)
    y, hn, _, reserve = _forward(
        cell, x, h0, None, (w_ih, w_hh, b_ih, b_hh, None), lengths, reverse, save, (truncate, grad_clip, resets)
    )
    return y, hn, reserve


def gru_backward(reserve: Reserve, dy: Array | None = None, dhn: Array | None = None) -> dict[str, Array]:
    """Gradients of sum(y*dy) + sum(hn*dhn); None stands for zeros. dy [T,B,H], dhn [B,H].

    Returns those of x, h0, w_ih, w_hh, and of b_ih and b_hh where forward had them.
    """
    return _backward("gru", reserve, dy, dhn, None)


def gru_cell(
    x: Array,
    h: Array,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    *,
    reset_after: bool = True,
) -> Array:
    """One step: x [B,I], h [B,H]; returns the new h. Bit-equal to a step of :func:`gru_forward`."""
    return _step(_gru(reset_after), x, h, None, (w_ih, w_hh, b_ih, b_hh, None))[0]


def rnn_forward(
    x: Array,
    h0: Array,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    *,
    nonlinearity: str = "tanh",
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    save: str | None = "gates",
    truncate: int | None = None,
    grad_clip: float | None = None,
    resets: ArrayLike | None = None,
) -> tuple[Array, Array, Reserve | None]:
    """Run one layer over a whole sequence; ``nonlinearity`` is tanh, relu, sigmoid or identity.

    Returns y [T,B,H], hn [B,H], and the reserve that :func:`rnn_backward` takes.
    """
    cell = _rnn(nonlinearity)
    y, hn, _, reserve = _forward(
        cell, x, h0, None, (w_ih, w_hh, b_ih, b_hh, None), lengths, reverse, save, (truncate, grad_clip, resets)
    )
    return y, hn, reserve


def rnn_backward(reserve: Reserve, dy: Array | None = None, dhn: Array | None = None) -> dict[str, Array]:
    """Gradients of sum(y*dy) + sum(hn*dhn); None stands for zeros. dy [T,B,H], dhn [B,H].

    Returns those of x, h0, w_ih, w_hh, and of b_ih and b_hh where forward had them.
    """
    return _backward("rnn", reserve, dy, dhn, None)


def rnn_cell(
    x: Array,
    h: Array,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    *,
    nonlinearity: str = "tanh",
) -> Array:
    """One step: x [B,I], h [B,H]; returns the new h. Bit-equal to a step of :func:`rnn_forward`."""
    return _step(_rnn(nonlinearity), x, h, None, (w_ih, w_hh, b_ih, b_hh, None))[0]


def _gru(reset_after: bool) -> str:
    require_in_scope(reset_after=flag(reset_after, "reset_after"))
    return "gru"


def _rnn(nonlinearity: str) -> str:
    return f"rnn_{choice(nonlinearity, 'nonlinearity', NONLINEARITIES)}"


def _forward(
    cell: str,
    x: Array,
    h0: Array,
    c0: Array | None,
    weights: Weights,
    lengths: ArrayLike | None,
    reverse: bool,
    save: str | None,
    aids: tuple[int | None, float | None, ArrayLike | None],
) -> tuple[Array, Array, Any, Reserve | None]:
    """y, hn, cn (None for a cell without c) and the reserve; ``cell`` is the name that the kernels know it by."""
    wanted = save_choice(save)
    kept = None if wanted is None else _core.Save[wanted]
    truncate, grad_clip, resets = aids
    mask = None if resets is None else resets_mask(resets, np.shape(x)[:2], "(T, B)")
    given = kernel_aids(truncate, grad_clip, mask)
    run = getattr(_core, f"{cell}_forward")
    y, hn, cn, _, reserve = run(
        x, h0, c0, [weights], lengths, 1, 1, flag(reverse, "reverse"), kept, 0.0, 0, _core.Form.layer, aids=given
    )
    return y, hn, cn, reserve


def _backward(kind: str, reserve: Reserve, dy: Array | None, dhn: Array | None, dcn: Array | None) -> dict[str, Array]:
    if not isinstance(reserve, Reserve):
        raise TypeError(f"reserve: expected the Reserve of {kind}_forward, got {type(reserve).__name__}")
    found = reserve.cell.partition("_")[0]
    if found != kind:
        raise ValueError(f"reserve: expected that of {kind}_forward, got that of {found}_forward")
    dx, dh0, dc0, ((w_ih, w_hh, b_ih, w_hr, b_hh),) = _core.backward(reserve, dy, dhn, dcn)
    if b_hh is None and all(reserve.biases):
        b_hh = b_ih.copy()  # equal gradients, in arrays of their own
    of_b_ih, of_b_hh = reserve.biases
    grads = {
        "x": dx,
        "h0": dh0,
        "c0": dc0,
        "w_ih": w_ih,
        "w_hh": w_hh,
        "b_ih": b_ih if of_b_ih else None,
        "b_hh": (b_ih if b_hh is None else b_hh) if of_b_hh else None,
        "w_hr": w_hr,
    }
    return {name: gradient for name, gradient in grads.items() if gradient is not None}


def _step(cell: str, x: Array, h: Array, c: Array | None, weights: Weights) -> tuple[Array, Any]:
    """The new h, and the new c or None."""
    run = getattr(_core, f"{cell}_forward")
    _, h_new, c_new, *_ = run(x, h, c, [weights], None, 1, 1, False, None, 0.0, 0, _core.Form.cell)
    return h_new, c_new
