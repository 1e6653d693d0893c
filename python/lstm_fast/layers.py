"""Recurrent layers over NumPy arrays: what a layer of each cell has of its own."""

from __future__ import annotations

from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ._arguments import NONLINEARITIES, choice, flag, require_in_scope
from ._recurrent import Recurrent
from ._results import GRUStates, LSTMStates, RNNStates

Array = NDArray[Any]
Pair: TypeAlias = tuple[ArrayLike, ArrayLike]
HalfPair: TypeAlias = tuple[ArrayLike | None, ArrayLike | None]
States = TypeVar("States")


class LSTM(Recurrent[Pair, HalfPair, tuple[Array, Array], LSTMStates]):
    """A long short-term memory layer with the parameters, shapes and formulas of ``torch.nn.LSTM``.

    Args:
        input_size: I, at least 0.
        hidden_size: H, at least 1.
        num_layers: layers, each of which takes the output of the one below; at least 1.
        bias: whether the layers have ``bias_ih`` and ``bias_hh``.
        batch_first: x, y and their gradients are [B,T,.] instead of [T,B,.]; states never are.
        dropout: rate in [0, 1] at which :meth:`forward` zeroes outputs of every layer but the last, scaling the others
            by 1 / (1 - dropout); a mask depends on the seed, layer, step, row and unit only.
        bidirectional: every layer runs in both directions, D = 2; outputs stand side by side on the last axis.
        proj_size: P; h is projected from H to P units, 0 for none.
        dtype: float32 or float64, of the parameters and of every array given.
        seed: of the initial parameters, U(-1/sqrt(H), 1/sqrt(H)), in the order of ``parameters``, and then of the
            dropout seeds; None draws fresh.

    The state is (h, c). Raises TypeError or ValueError for arguments of the wrong type or size.
    """

    _gates: ClassVar[int] = 4
    _defaults: ClassVar[dict[str, Any]] = {**Recurrent._defaults, "proj_size": 0}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        dtype: DTypeLike = np.float32,
        seed: int | None = None,
    ) -> None:
        sizes = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size
        super().__init__("lstm", *sizes, dtype, seed)

    def _initial_state(self, state: Pair, unbatched: bool) -> tuple[Array, Array | None]:
        h0, c0 = self._pair(state, ("h0", "c0"), "state", unbatched)
        if h0 is None or c0 is None:
            name = "h0" if h0 is None else "c0"
            raise TypeError(f"{name}: expected an ndarray of {self.dtype} or a list, got NoneType")
        return h0, c0

    def _final_gradients(self, dstate_n: HalfPair, unbatched: bool) -> tuple[Array | None, Array | None]:
        return self._pair(dstate_n, ("dhn", "dcn"), "dstate_n", unbatched)

    def _pair(
        self, pair: HalfPair, names: tuple[str, str], pair_name: str, unbatched: bool
    ) -> tuple[Array | None, Array | None]:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            got = type(pair).__name__ + (f" of {len(pair)}" if isinstance(pair, (tuple, list)) else "")
            raise TypeError(f"{pair_name}: expected a tuple ({', '.join(names)}), got {got}")
        h, c = pair
        return (
            None if h is None else self._state(h, names[0], self.proj_size or self.hidden_size, unbatched),
            None if c is None else self._state(c, names[1], self.hidden_size, unbatched),
        )

    @staticmethod
    def _shown(*slots: Array) -> LSTMStates:
        return LSTMStates(*slots)


class _WithoutC(Recurrent[ArrayLike, ArrayLike, Array, States]):
    """A layer whose state is h alone."""

    def _initial_state(self, state: ArrayLike, unbatched: bool) -> tuple[Array, Array | None]:
        return self._h_alone(state, "h0", "state", unbatched), None

    def _final_gradients(self, dstate_n: ArrayLike, unbatched: bool) -> tuple[Array | None, Array | None]:
        return self._h_alone(dstate_n, "dhn", "dstate_n", unbatched), None

    def _h_alone(self, given: ArrayLike, name: str, argument: str, unbatched: bool) -> Array:
        if isinstance(given, tuple):  # what an LSTM takes
            raise TypeError(f"{argument}: expected {name} alone, an ndarray or a list, got a tuple of {len(given)}")
        return self._state(given, name, self.hidden_size, unbatched)


class GRU(_WithoutC[GRUStates]):
    """A gated recurrent unit layer with the parameters, shapes and formulas of ``torch.nn.GRU``.

    Args: those of :class:`LSTM` without proj_size, and
        reset_after: whether the reset gate multiplies what the candidate gets from h after the product with W_hn, as in
            PyTorch, or h before it. False belongs to a later version and raises NotImplementedError.

    The state is h. Raises TypeError or ValueError for arguments of the wrong type or size.
    """

    _gates: ClassVar[int] = 3
    _defaults: ClassVar[dict[str, Any]] = {**Recurrent._defaults, "reset_after": True}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: DTypeLike = np.float32,
        seed: int | None = None,
        reset_after: bool = True,
    ) -> None:
        self.reset_after = flag(reset_after, "reset_after")
        require_in_scope(reset_after=self.reset_after)
        sizes = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0
        super().__init__("gru", *sizes, dtype, seed)

    @staticmethod
    def _shown(*slots: Array) -> GRUStates:
        n, r, z, _ = slots
        return GRUStates(r, z, n)


class RNN(_WithoutC[RNNStates]):
    """A plain recurrent layer with the parameters, shapes and formulas of ``torch.nn.RNN``.

    Args: those of :class:`LSTM` without proj_size, and
        nonlinearity: "tanh", "relu", "sigmoid" or "identity".

    The state is h. Raises TypeError or ValueError for arguments of the wrong type or size.
    """

    _gates: ClassVar[int] = 1
    _defaults: ClassVar[dict[str, Any]] = {**Recurrent._defaults, "nonlinearity": "tanh"}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: DTypeLike = np.float32,
        seed: int | None = None,
        nonlinearity: str = "tanh",
    ) -> None:
        self.nonlinearity = choice(nonlinearity, "nonlinearity", NONLINEARITIES)
        sizes = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0
        super().__init__(f"rnn_{nonlinearity}", *sizes, dtype, seed)

    @staticmethod
    def _shown(*slots: Array) -> RNNStates:
        return RNNStates(*slots)
