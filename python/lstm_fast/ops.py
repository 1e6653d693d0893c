"""Functions on one layer and one direction, with explicit arrays.

Shapes: x [T,B,I], h0 and c0 [B,H], w_ih [4H,I], w_hh [4H,H], b_ih and b_hh [4H], y [T,B,H]. With a projection w_hr
[P,H], h0, hn and y are P wide and w_hh is [4H,P]. Blocks of 4H rows are the gates i, f, g, o, as in PyTorch. All arrays
are NumPy arrays of one dtype, float32 or float64, in any memory layout.

``lengths`` is an array or list of B integers, each in 0..T, in any order: row b is computed as if it stood alone with
its own length. y beyond it is 0, hn and cn are the state after its own last step, and what stands in the padding of x
and dy has no effect. ``reverse`` runs every row from its last step to its first.

Every function raises TypeError for anything that is not such an array, ValueError for shapes or lengths that disagree
(both name the argument, what was wanted and what came), MemoryError when the result does not fit, and
NotImplementedError for options that a later version brings. Formulas: PyTorch's ``nn.LSTM``.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from . import _lstm_fast_core as _core
from ._arguments import flag, save_choice
from ._lstm_fast_core import Reserve

__all__ = ["Reserve", "lstm_backward", "lstm_cell", "lstm_forward"]

Array = NDArray[Any]


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
) -> tuple[Array, Array, Array, Reserve | None]:
    """Run one layer over a whole sequence.

    Returns y [T,B,H], hn and cn [B,H], and the reserve that :func:`lstm_backward` takes. With ``save=None`` (inference)
    the reserve is None; otherwise y is read-only, since the reserve refers to it, and x must not change until backward.
    ``save="lean"`` keeps about a sixth of what ``"gates"`` keeps, and backward computes the gates again: the same bits,
    up to a third more time.
    """
    choice = save_choice(save)
    weights = [(w_ih, w_hh, b_ih, b_hh, w_hr)]
    kept = None if choice is None else _core.Save[choice]
    y, hn, cn, _, reserve = _core.lstm_forward(
        x, h0, c0, weights, lengths, 1, 1, flag(reverse, "reverse"), kept, 0.0, 0, _core.Form.layer
    )
    return y, hn, cn, reserve


def lstm_backward(
    reserve: Reserve, dy: Array | None = None, dhn: Array | None = None, dcn: Array | None = None
) -> dict[str, Array]:
    """Gradients of sum(y*dy) + sum(hn*dhn) + sum(cn*dcn); None stands for zeros. dy [T,B,H], dhn and dcn [B,H].

    Returns the gradients of x, h0, c0, w_ih, w_hh, and of b_ih, b_hh and w_hr where forward had them, by these names.
    They belong to what forward computed, even if the weights have changed since. A reserve can be used more than once.
    """
    if not isinstance(reserve, Reserve):
        raise TypeError(f"reserve: expected the Reserve of lstm_forward, got {type(reserve).__name__}")
    dx, dh0, dc0, ((w_ih, w_hh, b, w_hr, _),) = _core.backward(reserve, dy, dhn, dcn)
    grads = {"x": dx, "h0": dh0, "c0": dc0, "w_ih": w_ih, "w_hh": w_hh}
    if b is not None:
        # The two biases have equal gradients, in arrays of their own.
        grads |= {name: b.copy() for name, has in zip(("b_ih", "b_hh"), reserve.biases, strict=True) if has}
    if w_hr is not None:
        grads["w_hr"] = w_hr
    return grads


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
    weights = [(w_ih, w_hh, b_ih, b_hh, None)]
    _, h_new, c_new, *_ = _core.lstm_forward(x, h, c, weights, None, 1, 1, False, None, 0.0, 0, _core.Form.cell)
    return h_new, c_new
