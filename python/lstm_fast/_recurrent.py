"""The calls of every layer: inference, training, streams. What a cell's state is, the layer of that cell says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _lstm_fast_core as _core
from ._arguments import integer, kernel_aids, resets_mask, save_choice
from ._axes import arranged, as_array, time_major
from ._layer import Layer
from ._results import Gradients, LayerReserve, State, States
from .stream import Stream

Array = NDArray[Any]
Given = TypeVar("Given")  # a state as users give it: (h0, c0) of an LSTM, h0 of the others
GivenGradients = TypeVar("GivenGradients")  # likewise; halves may be None

_STACK = _core.Form.stack


class Recurrent(Layer, Generic[Given, GivenGradients, State, States], ABC):
    """A layer that can be called."""

    def __call__(
        self, x: ArrayLike, state: Given | None = None, *, lengths: ArrayLike | None = None
    ) -> tuple[Array, State]:
        """Inference: y and the final state; nothing is saved.

        x [T,B,I], [B,T,I] if batch_first, or [T,I] unbatched; y alike with D*H (D*P) in place of I. state: (h0, c0) of
        an LSTM, h0 of the others, [num_layers*D,B,H] each ([num_layers*D,H] unbatched; h0 with P in place of H), None:
        zeros; the final state alike. lengths: as in :mod:`lstm_fast.ops`. Dropout is off. TypeError and ValueError as
        there; lists are converted to the layer's dtype, arrays never are.
        """
        y, state_n, _, _ = self._run(x, state, lengths, None, 0, None)
        return y, state_n

    def forward(
        self,
        x: ArrayLike,
        state: Given | None = None,
        *,
        lengths: ArrayLike | None = None,
        save: str = "gates",
        dropout_seed: int | None = None,
        truncate: int | None = None,
        grad_clip: float | None = None,
        resets: Any = None,
    ) -> tuple[Array, State, LayerReserve[States]]:
        """Training: as a call of the layer, and the reserve that :meth:`backward` takes.

        Dropout is on; its seed, in [0, 2^64), is drawn from the layer's generator when ``dropout_seed`` is None. y is
        read-only, since the reserve refers to it; x must not change until backward.

        ``save``: "gates" keeps the gates of every step, and an LSTM's c; "lean" keeps neither, but for c at a few
        steps, about a sixth of the memory (of an RNN's, half), and backward computes the gates again: the same bits, up
        to a third more time.

        ``truncate``: k, at least 1: backward cuts the gradient of the state every k steps, counted from each row's own
        start in the direction of the layer. ``grad_clip``: backward clips dh, the gradient of h after a step from y and
        from the step after, to [-grad_clip, grad_clip] before the step. ``resets``: booleans [T,B] ([B,T] if
        batch_first, [T] unbatched): before the step that reads x[t] of row b the state of every layer and direction is
        zeroed, and its gradient stops there. TypeError or ValueError if one of them is none of these.
        """
        choice = save_choice(save)
        if choice is None:
            raise ValueError("save: expected 'gates' or 'lean', got None; call the layer itself for inference")
        seed = None if dropout_seed is None else integer(dropout_seed, "dropout_seed", 0)
        if seed is not None and seed >= 2**64:
            raise ValueError(f"dropout_seed: expected less than 2^64, got {seed}")
        drops = self.dropout > 0 and self.num_layers > 1
        if seed is None and drops:
            seed = int(self._generator.integers(2**64, dtype=np.uint64))
        x = as_array(x, "x", self.dtype)
        if resets is not None:
            axes = "(T)" if x.ndim == 2 else "(B, T)" if self.batch_first else "(T, B)"
            mask = resets_mask(resets, x.shape[:-1], axes)
            resets = mask[:, None] if x.ndim == 2 else mask.T if self.batch_first else mask
        aids = kernel_aids(truncate, grad_clip, resets)
        y, state_n, reserve, unbatched = self._run(x, state, lengths, _core.Save[choice], seed or 0, aids)
        assert reserve is not None
        return y, state_n, LayerReserve(self, reserve, unbatched, y.shape, seed if drops else None)

    def backward(
        self,
        reserve: LayerReserve[States],
        dy: ArrayLike | None = None,
        dstate_n: GivenGradients | None = None,
    ) -> Gradients[State]:
        """Gradients of sum(y*dy) + sum(hn*dhn) + sum(cn*dcn); None stands for zeros.

        ``dstate_n`` is (dhn, dcn) for an LSTM, each of which may be None, and dhn for the others.

        They belong to what ``forward`` computed, even if parameters have changed since; a reserve can be used again.
        TypeError or ValueError if the reserve is not this layer's, or a shape or dtype differs from forward's.
        """
        if not isinstance(reserve, LayerReserve):
            raise TypeError(f"reserve: expected what forward returned, got {type(reserve).__name__}")
        if reserve.layer is not self:
            raise ValueError("reserve: expected one that this layer's forward returned, got another layer's")
        unbatched = reserve.unbatched
        if dy is not None:
            dy = as_array(dy, "dy", self.dtype)
            if dy.shape != reserve.y_shape:
                raise ValueError(f"dy: expected shape {reserve.y_shape}, that of y, got {dy.shape}")
            dy = time_major(dy, self.batch_first)
        dhn, dcn = (None, None) if dstate_n is None else self._final_gradients(dstate_n, unbatched)
        dx, dh0, dc0, found = _core.backward(reserve.core, dy, dhn, dcn)
        parameters: dict[str, Array] = {}
        for names, (dw_ih, dw_hh, db_ih, dw_hr, db_hh) in zip(self._names(), found, strict=True):
            if db_ih is not None and db_hh is None:
                db_hh = db_ih.copy()  # equal gradients, in arrays of their own
            own = (dw_ih, dw_hh, db_ih, db_hh, dw_hr)
            parameters |= {name: gradient for name, gradient in zip(names, own, strict=True) if gradient is not None}
        return Gradients(arranged(dx, self.batch_first, unbatched), _state_of(dh0, dc0, unbatched), parameters)

    def stream(self, batch_size: int = 1) -> Stream[Given, State]:
        """Open a stream: this layer one step at a time, with its weights as they are now; dropout is off.

        TypeError or ValueError if ``batch_size`` is no positive integer or the layer is bidirectional.
        """
        if self.bidirectional:
            raise ValueError("stream: expected a layer of one direction, got a bidirectional one")
        return Stream(self._cell, self._weights, self.dtype, batch_size)

    @abstractmethod
    def _initial_state(self, state: Given, unbatched: bool) -> tuple[Array, Array | None]:
        """h0 and c0 as [L*D,B,.] arrays; None for a cell without c."""

    @abstractmethod
    def _final_gradients(self, dstate_n: GivenGradients, unbatched: bool) -> tuple[Array | None, Array | None]:
        """dhn and dcn as [L*D,B,.] arrays; None where there is none."""

    @staticmethod
    @abstractmethod
    def _shown(*slots: Array) -> States:
        """What a reserve shows of the arrays that the kernels know, in their order: gates, then an LSTM's c."""

    def _state(self, value: ArrayLike, name: str, width: int, unbatched: bool) -> Array:
        array = as_array(value, name, self.dtype)
        if not unbatched:
            return array
        wanted = (self.num_layers * (1 + self.bidirectional), width)
        if array.shape != wanted:
            raise ValueError(f"{name}: expected shape {wanted}, got {array.shape}")
        return array[:, None]

    def _run(
        self,
        x: ArrayLike,
        state: Given | None,
        lengths: ArrayLike | None,
        save: _core.Save | None,
        seed: int,
        aids: tuple[int, float, Array | None] | None,
    ) -> tuple[Array, State, _core.Reserve | None, bool]:
        x = as_array(x, "x", self.dtype)
        unbatched = x.ndim == 2
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            axes = "[B,T,I]" if self.batch_first else "[T,B,I]"
            raise ValueError(f"x: expected {axes} or [T,I] with I = {self.input_size}, got shape {x.shape}")
        x = time_major(x, self.batch_first)
        h0, c0 = (None, None) if state is None else self._initial_state(state, unbatched)
        y, hn, cn, _, reserve = self._forward_core(
            x,
            h0,
            c0,
            self._weights,
            lengths,
            self.num_layers,
            1 + self.bidirectional,
            False,
            save,
            self.dropout if self.num_layers > 1 else 0.0,
            seed,
            _STACK,
            0,
            None,
            False,
            self._packed,
            aids,
        )
        return arranged(y, self.batch_first, unbatched), _state_of(hn, cn, unbatched), reserve, unbatched


def _state_of(h: Array, c: Array | None, unbatched: bool) -> Any:
    """What the user sees of a final state, or of the gradient of an initial one."""
    if unbatched:
        h, c = h[:, 0], None if c is None else c[:, 0]
    return h if c is None else (h, c)
