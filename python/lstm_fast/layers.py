"""Recurrent layers over NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import _lstm_fast_core as _core
from ._arguments import flag, integer, require_in_scope
from ._parameters import infer_options, initial_parameters, load_parameters

Array = NDArray[Any]
State = tuple[Array, Array]


@dataclass
class Gradients:
    """What :meth:`LSTM.backward` returns: gradients in the shapes and under the names of what they belong to."""

    x: Array
    state: State
    parameters: dict[str, Array]


class States(NamedTuple):
    """Activated gates and cell state after every step, each [T,B,H] ([B,T,H] if batch_first, [T,H] unbatched)."""

    i: Array
    f: Array
    g: Array
    o: Array
    c: Array


@dataclass(frozen=True)
class LayerReserve:
    """What :meth:`LSTM.forward` keeps for :meth:`LSTM.backward`: h, c, gates and packed weights; x by reference."""

    layer: LSTM
    core: _core.Reserve
    unbatched: bool

    @property
    def nbytes(self) -> int:
        """Bytes held, x not counted."""
        return self.core.nbytes

    def states(self, layer: int = 0, reverse: bool = False) -> States:
        """The gates and all c of one layer and direction, copied."""
        if layer != 0 or reverse:
            raise ValueError(f"layer, reverse: expected 0, False: the only ones, got {layer!r}, {reverse!r}")
        gates, c = self.core.states()
        return States(*(self.layer._arrange(a, self.unbatched) for a in (*gates, c)))


class LSTM:
    """A long short-term memory layer with the parameters, shapes and formulas of ``torch.nn.LSTM``.

    Args:
        input_size: I, at least 0.
        hidden_size: H, at least 1.
        bias: whether the layer has ``bias_ih_l0`` and ``bias_hh_l0``.
        batch_first: x, y and their gradients are [B,T,.] instead of [T,B,.]; states never are.
        dtype: float32 or float64, of the parameters and of every array given.
        seed: of the initial parameters, U(-1/sqrt(H), 1/sqrt(H)), in the order of ``parameters``; None draws fresh.

    ``num_layers``, ``dropout``, ``bidirectional`` and ``proj_size`` keep their places for a later version and raise
    NotImplementedError for anything but their defaults.

    Raises TypeError or ValueError for arguments of the wrong type or size.
    """

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
        self.input_size = integer(input_size, "input_size", 0)
        self.hidden_size = integer(hidden_size, "hidden_size", 1)
        self.bias = flag(bias, "bias")
        self.batch_first = flag(batch_first, "batch_first")
        require_in_scope(
            num_layers=integer(num_layers, "num_layers", 1),
            dropout=dropout,
            bidirectional=flag(bidirectional, "bidirectional"),
            proj_size=integer(proj_size, "proj_size", 0),
        )
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.float32, np.float64):
            raise TypeError(f"dtype: expected float32 or float64, got {self.dtype}")
        self.parameters: Mapping[str, Array] = MappingProxyType(
            initial_parameters(self.input_size, self.hidden_size, self.bias, self.dtype, seed)
        )

    def __repr__(self) -> str:
        return (
            f"LSTM({self.input_size}, {self.hidden_size}, bias={self.bias}, batch_first={self.batch_first}, "
            f"dtype={self.dtype.name})"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "parameters": dict(self.parameters)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.parameters = MappingProxyType(state["parameters"])

    def state_dict(self) -> dict[str, Array]:
        """A copy of every parameter under PyTorch's name."""
        return {name: array.copy() for name, array in self.parameters.items()}

    def load_state_dict(self, mapping: Mapping[str, ArrayLike], strict: bool = True) -> None:
        """Copy parameters from any mapping of array-likes: another ``state_dict``, PyTorch CPU tensors, safetensors.

        All or nothing. ValueError if a shape differs or, when ``strict``, if a name is missing or unknown; TypeError if
        an array has another dtype than the layer.
        """
        load_parameters(self.parameters, mapping, strict)

    @classmethod
    def from_state_dict(cls, mapping: Mapping[str, ArrayLike], prefix: str = "", **options: Any) -> LSTM:
        """A layer with the sizes, dtype and values of the LSTM whose parameters stand under ``prefix`` in ``mapping``.

        ``options`` are those keyword arguments of the constructor that the values do not tell, such as ``batch_first``.
        ValueError if there is no LSTM under the prefix.
        """
        own, inferred = infer_options(mapping, prefix)
        for name in inferred.keys() & options.keys():
            raise TypeError(f"{name}: from_state_dict infers it from the mapping; it cannot be given")
        layer = cls(**inferred, **options)
        layer.load_state_dict(own)
        return layer

    def __call__(
        self, x: ArrayLike, state: tuple[ArrayLike, ArrayLike] | None = None, *, lengths: Any = None
    ) -> tuple[Array, State]:
        """Inference: y and the final state (hn, cn); nothing is saved.

        x [T,B,I], [B,T,I] if batch_first, or [T,I] unbatched; state (h0, c0), each [1,B,H] ([1,H]
        unbatched), None: zeros.
        TypeError and ValueError as in :mod:`lstm_fast.ops`; lists are converted to the layer's dtype, arrays never are.
        """
        if lengths is not None:
            require_in_scope(lengths=lengths)
        y, state_n, _, _ = self._run(x, state, save=False)
        return y, state_n

    def forward(
        self,
        x: ArrayLike,
        state: tuple[ArrayLike, ArrayLike] | None = None,
        *,
        lengths: Any = None,
        save: str = "gates",
        dropout_seed: int | None = None,
        truncate: int | None = None,
        grad_clip: float | None = None,
        resets: Any = None,
    ) -> tuple[Array, State, LayerReserve]:
        """Training: as a call of the layer, and the reserve that :meth:`backward` takes.

        y is read-only, since the reserve refers to it; x must not change until backward. The other options belong to
        later versions and raise NotImplementedError.
        """
        require_in_scope(
            lengths=lengths, save=save, dropout_seed=dropout_seed, truncate=truncate, grad_clip=grad_clip, resets=resets
        )
        if save is None:
            raise ValueError("save: expected 'gates', got None; call the layer itself for inference")
        y, state_n, reserve, unbatched = self._run(x, state, save=True)
        assert reserve is not None
        return y, state_n, LayerReserve(self, reserve, unbatched)

    def backward(
        self,
        reserve: LayerReserve,
        dy: ArrayLike | None = None,
        dstate_n: tuple[ArrayLike | None, ArrayLike | None] | None = None,
    ) -> Gradients:
        """Gradients of sum(y*dy) + sum(hn*dhn) + sum(cn*dcn), with dstate_n = (dhn, dcn); None stands for zeros.

        They belong to what ``forward`` computed, even if parameters have changed since; a reserve can be used again.
        TypeError or ValueError if the reserve is not this layer's, or a shape or dtype differs from forward's.
        """
        if not isinstance(reserve, LayerReserve):
            raise TypeError(f"reserve: expected what forward returned, got {type(reserve).__name__}")
        if reserve.layer is not self:
            raise ValueError("reserve: expected one that this layer's forward returned, got another layer's")
        unbatched = reserve.unbatched
        dy = None if dy is None else self._time_major(self._array(dy, "dy"), "dy", 2 if unbatched else 3)
        dhn, dcn = self._state_pair(dstate_n, ("dhn", "dcn"), "dstate_n", unbatched)
        found = _core.lstm_backward(reserve.core, dy, dhn, dcn)
        names = {"weight_ih_l0": "w_ih", "weight_hh_l0": "w_hh", "bias_ih_l0": "b_ih", "bias_hh_l0": "b_hh"}
        dh0, dc0 = (found[name][:, 0] if unbatched else found[name] for name in ("h0", "c0"))
        return Gradients(
            self._arrange(found["x"], unbatched), (dh0, dc0), {name: found[names[name]] for name in self.parameters}
        )

    def _array(self, value: ArrayLike, name: str) -> Array:
        """Lists become arrays of the layer's dtype, arrays never do; whatever else is left to the kernels' check."""
        if isinstance(value, np.ndarray):
            if value.dtype != self.dtype and value.dtype in (np.float32, np.float64):
                raise TypeError(
                    f"{name}: expected dtype {self.dtype}, the layer's, got {value.dtype}; use "
                    f"{name}.astype(np.{self.dtype}) or make the layer with dtype=np.{value.dtype}"
                )
            return value
        if value is None or hasattr(value, "dtype") or isinstance(value, (str, bytes)):
            raise TypeError(f"{name}: expected an ndarray of {self.dtype} or a list, got {type(value).__name__}")
        try:
            return np.asarray(value, self.dtype)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: expected a list of numbers of equal lengths: {error}") from None

    def _time_major(self, array: Array, name: str, rank: int) -> Array:
        """[T,B,.] from what the user calls x or y; ValueError if it has another rank than ``rank``."""
        if array.ndim != rank:
            raise ValueError(f"{name}: expected {rank} dimensions, got shape {array.shape}")
        if rank == 2:
            return array[:, None]
        return array.swapaxes(0, 1) if self.batch_first else array

    def _arrange(self, array: Array, unbatched: bool) -> Array:
        """What the user sees of a [T,B,.] array."""
        if unbatched:
            return array[:, 0]
        return array.swapaxes(0, 1) if self.batch_first else array

    def _state_pair(
        self,
        pair: tuple[ArrayLike | None, ArrayLike | None] | None,
        names: tuple[str, str],
        pair_name: str,
        unbatched: bool,
    ) -> tuple[Array | None, Array | None]:
        """Two states as [1,B,H] arrays; None where there is none."""
        if pair is None:
            return None, None
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"{pair_name}: expected a tuple ({', '.join(names)}), got {type(pair).__name__}")
        arrays: list[Array | None] = []
        for value, name in zip(pair, names, strict=True):
            array = None if value is None else self._array(value, name)
            if array is not None and unbatched:
                if array.shape != (1, self.hidden_size):
                    raise ValueError(f"{name}: expected shape {(1, self.hidden_size)}, got {array.shape}")
                array = array[:, None]
            arrays.append(array)
        return arrays[0], arrays[1]

    def _run(
        self, x: ArrayLike, state: tuple[ArrayLike, ArrayLike] | None, save: bool
    ) -> tuple[Array, State, _core.Reserve | None, bool]:
        x = self._array(x, "x")
        unbatched = x.ndim == 2
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            axes = "[B,T,I]" if self.batch_first else "[T,B,I]"
            raise ValueError(f"x: expected {axes} or [T,I] with I = {self.input_size}, got shape {x.shape}")
        x = self._time_major(x, "x", x.ndim)
        if state is None:
            zeros = np.zeros((1, x.shape[1], self.hidden_size), self.dtype)
            h0, c0 = zeros, zeros
        else:
            h0, c0 = self._state_pair(state, ("h0", "c0"), "state", unbatched)  # type: ignore[assignment]
        p = self.parameters
        y, hn, cn, reserve = _core.lstm_forward(
            x,
            h0,
            c0,
            [(p["weight_ih_l0"], p["weight_hh_l0"], p.get("bias_ih_l0"), p.get("bias_hh_l0"), None)], None, 1, 1, False, save, 0.0, 0,
            _core.Form.stack,
        )
        if unbatched:
            hn, cn = hn[:, 0], cn[:, 0]
        return self._arrange(y, unbatched), (hn, cn), reserve, unbatched
