"""A layer one step at a time, without copies between the steps."""

from __future__ import annotations

from typing import Any, Generic, NoReturn, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _lstm_fast_core as _core
from ._arguments import integer
from ._axes import as_array

Array = NDArray[Any]
Given = TypeVar("Given")  # a state as users give it: (h, c) of an LSTM, h of the others
State = TypeVar("State")


class Stream(Generic[Given, State]):
    """What a layer's ``stream`` opens: a snapshot of its weights, and the states of a batch, zero at first.

    Steps have the bits of a call with the whole sequence. A stream serves one thread at a time: RuntimeError if two
    call it at once. It cannot be copied or pickled: TypeError.

    Attributes: batch_size.
    """

    def __init__(self, cell: str, weights: list[tuple[Any, ...]], dtype: np.dtype[Any], batch_size: int) -> None:
        self.batch_size = integer(batch_size, "batch_size", 1, 2**31)
        self._dtype = dtype
        self._core = _core.open_stream(cell, weights, self.batch_size, len(weights))
        self._has_c = self._core.state()[1] is not None

    def __reduce__(self) -> NoReturn:
        raise TypeError("stream: expected what can be copied, got a Stream; open another one and set its state")

    def step(self, x: ArrayLike, out: Array | None = None) -> Array:
        """Return y [B,H] ([B,P] with projection), the last layer's h after one more step, with x [B,I].

        With a batch size of 1, x may be [I], and y is alike. ``out``, if given, is a dense array that takes y and is
        returned: nothing is allocated then. TypeError or ValueError if an array has another dtype or shape, or if
        ``out`` shares memory with x; the states are then as before.
        """
        if type(x) is not np.ndarray:
            x = as_array(x, "x", self._dtype)
        return self._core.step(x, out)

    @property
    def state(self) -> State:
        """(h, c) of an LSTM, h of the others after the last step: copies. Can be assigned to.

        [num_layers,B,H] each; h with P in place of H.
        """
        h, c = self._core.state()
        state: Any = (h, c) if self._has_c else h
        return state  # type: ignore[no-any-return]

    @state.setter
    def state(self, given: Given) -> None:
        parts: Any = given
        if not self._has_c:
            if isinstance(given, tuple):
                raise TypeError(f"state: expected h alone, an ndarray or a list, got a tuple of {len(given)}")
            self._core.set_state(as_array(parts, "h", self._dtype), None)
            return
        if not isinstance(given, (tuple, list)) or len(given) != 2:
            raise TypeError(f"state: expected a tuple (h, c), got {type(given).__name__}")
        h, c = (as_array(value, name, self._dtype) for value, name in zip(parts, ("h", "c"), strict=True))
        self._core.set_state(h, c)

    def reset(self, mask: ArrayLike | None = None) -> None:
        """Set the states of all rows to zero, or of those where ``mask``, booleans [B], is True.

        TypeError or ValueError if the mask is not of that dtype or shape.
        """
        h, c = self._core.state()
        if mask is None:
            rows: Any = slice(None)
        else:
            rows = np.asarray(mask)
            if rows.dtype != np.bool_:
                raise TypeError(f"mask: expected booleans, got dtype {rows.dtype}")
            if rows.shape != (self.batch_size,):
                raise ValueError(f"mask: expected shape ({self.batch_size},), got {rows.shape}")
        h[:, rows] = 0
        if c is not None:
            c[:, rows] = 0
        self._core.set_state(h, c)
