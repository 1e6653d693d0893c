"""What the methods of a layer return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from numpy.typing import NDArray

from . import _lstm_fast_core as _core
from ._arguments import flag, integer
from ._axes import arranged

if TYPE_CHECKING:
    from ._recurrent import Recurrent

Array = NDArray[Any]
State = TypeVar("State")  # (h, c) of an LSTM, h of the others
States = TypeVar("States")  # one of those below


@dataclass(eq=False)
class Gradients(Generic[State]):
    """What a layer's ``backward`` returns: gradients in the shapes and under the names of what they belong to.

    ``state``: (dh0, dc0) for an LSTM, dh0 for the others.
    """

    x: Array
    state: State
    parameters: dict[str, Array]


class LSTMStates(NamedTuple):
    """Activated gates and cell state after every step, each [T,B,H] ([B,T,H] if batch_first, [T,H] unbatched)."""

    i: Array
    f: Array
    g: Array
    o: Array
    c: Array


class GRUStates(NamedTuple):
    """Activated gates of every step, each [T,B,H] ([B,T,H] if batch_first, [T,H] unbatched)."""

    r: Array
    z: Array
    n: Array


class RNNStates(NamedTuple):
    """h after every step, [T,B,H] ([B,T,H] if batch_first, [T,H] unbatched)."""

    h: Array


@dataclass(frozen=True, eq=False)
class LayerReserve(Generic[States]):
    """What a layer's ``forward`` keeps for its ``backward``: states, gates and packed weights; x by reference.

    With ``save="lean"`` no gates, and what the cell carries at a few steps only.
    """

    layer: Recurrent[Any, Any, Any, States]
    core: _core.Reserve
    unbatched: bool
    y_shape: tuple[int, ...]
    dropout_seed: int | None  # of the masks; None without dropout

    @property
    def nbytes(self) -> int:
        """Bytes held, x not counted."""
        return self.core.nbytes

    def states(self, layer: int = 0, reverse: bool = False) -> States:
        """i, f, g, o, c of one layer and direction of an LSTM; r, z, n of a GRU; h of an RNN. Copies, by these names.

        0 beyond a row's length. Computed again, with the same bits, after ``save="lean"``; x must not have changed
        then. ValueError if there is no such layer or direction.
        """
        gates, c = self.core.states(integer(layer, "layer", 0, 2**16), int(flag(reverse, "reverse")))
        every = [*gates] if c is None else [*gates, c]
        return self.layer._shown(*(arranged(a, self.layer.batch_first, self.unbatched) for a in every))
