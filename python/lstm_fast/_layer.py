"""What every layer is apart from its calls: sizes, parameters under PyTorch's names, copies, freezing."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import _lstm_fast_core as _core
from ._arguments import flag, integer, limit
from ._parameters import KINDS, Sizes, infer_options, initial_parameters, load_parameters

Array = NDArray[Any]
Own = TypeVar("Own", bound="Layer")

LARGEST = 2**62  # size: no array has more elements


class Layer:
    """Sizes and parameters of a stack of layers of one cell; ``cell`` is the name that the kernels know it by.

    Arguments and errors are those of :class:`lstm_fast.LSTM`.
    """

    _gates: ClassVar[int]  # blocks of H rows in the weights
    _defaults: ClassVar[dict[str, Any]] = {  # of the options that repr shows where they differ
        "num_layers": 1,
        "bias": True,
        "batch_first": False,
        "dropout": 0.0,
        "bidirectional": False,
    }

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        proj_size: int,
        dtype: DTypeLike,
        seed: int | None,
    ) -> None:
        self._cell = cell
        self.input_size = integer(input_size, "input_size", 0, LARGEST)
        self.hidden_size = integer(hidden_size, "hidden_size", 1, LARGEST)
        self.num_layers = integer(num_layers, "num_layers", 1, 2**16)
        self.bias = flag(bias, "bias")
        self.batch_first = flag(batch_first, "batch_first")
        self.dropout = limit(dropout, "dropout", 1.0)
        self.bidirectional = flag(bidirectional, "bidirectional")
        self.proj_size = integer(proj_size, "proj_size", 0)
        if self.proj_size >= self.hidden_size:
            raise ValueError(f"proj_size: expected less than hidden_size = {hidden_size}, got {proj_size}")
        if self.dropout > 0 and self.num_layers == 1:
            warnings.warn("dropout: a single layer has none, since it acts between layers", stacklevel=3)
        if dtype is None or np.dtype(dtype) not in (np.float32, np.float64):
            raise TypeError(f"dtype: expected float32 or float64, got {dtype!r}")
        self.dtype = np.dtype(dtype)
        self._generator = np.random.default_rng(None if seed is None else integer(seed, "seed", 0))
        sizes = Sizes(
            self._gates,
            self.input_size,
            self.hidden_size,
            self.num_layers,
            self.bias,
            1 + self.bidirectional,
            self.proj_size,
        )
        self._hold(initial_parameters(sizes, self.dtype, self._generator))
        self._packed: Any = None  # the parameters, packed, while they are frozen

    def __repr__(self) -> str:
        options = {name: getattr(self, name) for name in self._defaults}
        chosen = "".join(f"{name}={value!r}, " for name, value in options.items() if value != self._defaults[name])
        return f"{type(self).__name__}({self.input_size}, {self.hidden_size}, {chosen}dtype={self.dtype.name})"

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "parameters": dict(self.parameters), "_packed": None}
        del state["_weights"], state["_forward_core"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._hold(state["parameters"])

    def _hold(self, parameters: dict[str, Array]) -> None:
        self.parameters: Mapping[str, Array] = MappingProxyType(parameters)
        # Of every layer and direction: w_ih, w_hh, b_ih, b_hh, w_hr, None where there is none.
        self._weights: list[Any] = [tuple(map(parameters.get, names)) for names in self._names()]
        self._forward_core = getattr(_core, f"{self._cell}_forward")

    def state_dict(self) -> dict[str, Array]:
        """A copy of every parameter under PyTorch's name."""
        return {name: array.copy() for name, array in self.parameters.items()}

    def load_state_dict(self, mapping: Mapping[str, ArrayLike], strict: bool = True) -> None:
        """Copy parameters from any mapping of array-likes: another ``state_dict``, PyTorch CPU tensors, safetensors.

        All or nothing. ValueError if the layer is frozen, a shape differs or, when ``strict``, a name is missing or
        unknown; TypeError if an array has another dtype than the layer.
        """
        if self._packed is not None:
            raise ValueError(
                "load_state_dict: expected a layer that can change, got a frozen one; call unfreeze() first"
            )
        load_parameters(self.parameters, mapping, strict)

    @classmethod
    def from_state_dict(cls: type[Own], mapping: Mapping[str, ArrayLike], prefix: str = "", **options: Any) -> Own:
        """A layer with the sizes, dtype and values of the one whose parameters stand under ``prefix`` in ``mapping``.

        ``options`` are those keyword arguments of the constructor that the values do not tell, such as ``batch_first``.
        ValueError if there are no parameters under the prefix, or those of another cell.
        """
        own, inferred = infer_options(mapping, prefix, cls._gates)
        for name in inferred.keys() & options.keys():
            raise TypeError(f"{name}: from_state_dict infers it from the mapping; it cannot be given")
        layer = cls(**inferred, **options)
        layer.load_state_dict(own)
        return layer

    def freeze(self) -> None:
        """Keep the packed weights for the calls to come, and make the parameters read-only until :meth:`unfreeze`.

        For many calls of few steps: a layer that is not frozen packs its weights at every call. An array that was taken
        as a view of a parameter before stays writable; what is written there has no effect until ``unfreeze``. Deep
        copies and pickles of a frozen layer are not frozen; a shallow copy shares its parameters. With another
        instruction set than now (``lf.set_isa``) the weights are packed at every call. After a MemoryError the layer is
        not frozen.
        """
        for array in self.parameters.values():
            array.flags.writeable = False
        try:
            self._packed = _core.pack_weights(self._cell, self._weights, self.num_layers, 1 + self.bidirectional)
        except MemoryError:
            self.unfreeze()
            raise

    def unfreeze(self) -> None:
        """Undo :meth:`freeze`."""
        self._packed = None
        for array in self.parameters.values():
            array.flags.writeable = True

    def _names(self) -> list[tuple[str, ...]]:
        """The parameters' names of every layer and direction: w_ih, w_hh, b_ih, b_hh, w_hr."""
        return [
            tuple(f"{kind}_l{layer}{suffix}" for kind in KINDS)
            for layer in range(self.num_layers)
            for suffix in (("", "_reverse") if self.bidirectional else ("",))
        ]
