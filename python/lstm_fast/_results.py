"""What the methods of a layer return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import NDArray

from . import _lstm_fast_core as _core
from ._arguments import flag, integer
from ._axes import arranged

if TYPE_CHECKING:
    from .layers import LSTM

Array = NDArray[Any]


@dataclass(eq=False)
class Gradients:
    """What :meth:`LSTM.backward` returns: gradients in the shapes and under the names of what they belong to."""

    x: Array
    state: tuple[Array, Array]
    parameters: dict[str, Array]


class States(NamedTuple):
    """Activated gates and cell state after every step, each [T,B,H] ([B,T,H] if batch_first, [T,H] unbatched)."""

    i: Array
    f: Array
    g: Array
    o: Array
    c: Array


@dataclass(frozen=True, eq=False)
class LayerReserve:
    """What :meth:`LSTM.forward` keeps for :meth:`LSTM.backward`: h, c, gates and packed weights; x by reference.

    With ``save="lean"`` no gates, and c at a few steps only.
    """

    layer: LSTM
    core: _core.Reserve
    unbatched: bool
    y_shape: tuple[int, ...]
    dropout_seed: int | None  # of the masks; None without dropout

    @property
    def nbytes(self) -> int:
        """Bytes held, x not counted."""
        return self.core.nbytes

    def states(self, layer: int = 0, reverse: bool = False) -> States:
        """The gates and all c of one layer and direction, copied; 0 beyond a row's length.

        Computed again, with the same bits, after ``save="lean"``; x must not have changed then.
        ValueError if there is no such layer or direction.
        """
        gates, c = self.core.states(integer(layer, "layer", 0, 2**16), int(flag(reverse, "reverse")))
        return States(*(arranged(a, self.layer.batch_first, self.unbatched) for a in (*gates, c)))
