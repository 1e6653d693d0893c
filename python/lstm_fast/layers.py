"""Recurrent layers over NumPy arrays."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import _lstm_fast_core as _core
from ._arguments import flag, integer, limit, require_in_scope, save_choice
from ._axes import arranged, as_array, time_major
from ._parameters import KINDS, Sizes, infer_options, initial_parameters, load_parameters
from ._results import Gradients, LayerReserve
from .stream import Stream

Array = NDArray[Any]
State = tuple[Array, Array]

LARGEST = 2**62  # size: no array has more elements


class LSTM:
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
            warnings.warn("dropout: a single layer has none, since it acts between layers", stacklevel=2)
        if dtype is None or np.dtype(dtype) not in (np.float32, np.float64):
            raise TypeError(f"dtype: expected float32 or float64, got {dtype!r}")
        self.dtype = np.dtype(dtype)
        self._generator = np.random.default_rng(None if seed is None else integer(seed, "seed", 0))
        sizes = Sizes(self.input_size, self.hidden_size, self.num_layers, self.bias, 1 + bidirectional, self.proj_size)
        self._hold(initial_parameters(sizes, self.dtype, self._generator))
        self._packed: Any = None  # the parameters, packed, while they are frozen

    def __repr__(self) -> str:
        options = {
            "num_layers": (self.num_layers, 1),
            "bias": (self.bias, True),
            "batch_first": (self.batch_first, False),
            "dropout": (self.dropout, 0.0),
            "bidirectional": (self.bidirectional, False),
            "proj_size": (self.proj_size, 0),
        }
        chosen = "".join(f"{name}={value!r}, " for name, (value, default) in options.items() if value != default)
        return f"LSTM({self.input_size}, {self.hidden_size}, {chosen}dtype={self.dtype.name})"

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "parameters": dict(self.parameters), "_packed": None}
        del state["_weights"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._hold(state["parameters"])

    def _hold(self, parameters: dict[str, Array]) -> None:
        self.parameters: Mapping[str, Array] = MappingProxyType(parameters)
        # Of every layer and direction: w_ih, w_hh, b_ih, b_hh, w_hr, None where there is none.
        self._weights: list[Any] = [tuple(map(parameters.get, names)) for names in self._names()]

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
        self, x: ArrayLike, state: tuple[ArrayLike, ArrayLike] | None = None, *, lengths: ArrayLike | None = None
    ) -> tuple[Array, State]:
        """Inference: y and the final state (hn, cn); nothing is saved.

        x [T,B,I], [B,T,I] if batch_first, or [T,I] unbatched; y alike with D*H (D*P) in place of I. state (h0, c0),
        [num_layers*D,B,H] each ([num_layers*D,H] unbatched; h0 with P in place of H), None: zeros. lengths: as in
        :mod:`lstm_fast.ops`. Dropout is off. TypeError and ValueError as there; lists are converted to the layer's
        dtype, arrays never are.
        """
        y, state_n, _, _ = self._run(x, state, lengths, save=None, seed=0)
        return y, state_n

    def forward(
        self,
        x: ArrayLike,
        state: tuple[ArrayLike, ArrayLike] | None = None,
        *,
        lengths: ArrayLike | None = None,
        save: str = "gates",
        dropout_seed: int | None = None,
        truncate: int | None = None,
        grad_clip: float | None = None,
        resets: Any = None,
    ) -> tuple[Array, State, LayerReserve]:
        """Training: as a call of the layer, and the reserve that :meth:`backward` takes.

        Dropout is on; its seed, in [0, 2^64), is drawn from the layer's generator when ``dropout_seed`` is None. y is
        read-only, since the reserve refers to it; x must not change until backward.

        ``save``: "gates" keeps the gates and c of every step; "lean" keeps c at a few steps only, about a sixth of the
        memory, and backward computes the gates again: the same bits, up to a third more time. The other options belong
        to later versions and raise NotImplementedError.
        """
        require_in_scope(truncate=truncate, grad_clip=grad_clip, resets=resets)
        choice = save_choice(save)
        if choice is None:
            raise ValueError("save: expected 'gates' or 'lean', got None; call the layer itself for inference")
        seed = None if dropout_seed is None else integer(dropout_seed, "dropout_seed", 0)
        if seed is not None and seed >= 2**64:
            raise ValueError(f"dropout_seed: expected less than 2^64, got {seed}")
        drops = self.dropout > 0 and self.num_layers > 1
        if seed is None and drops:
            seed = int(self._generator.integers(2**64, dtype=np.uint64))
        y, state_n, reserve, unbatched = self._run(x, state, lengths, save=_core.Save[choice], seed=seed or 0)
        assert reserve is not None
        return y, state_n, LayerReserve(self, reserve, unbatched, y.shape, seed if drops else None)

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
        if dy is not None:
            dy = as_array(dy, "dy", self.dtype)
            if dy.shape != reserve.y_shape:
                raise ValueError(f"dy: expected shape {reserve.y_shape}, that of y, got {dy.shape}")
            dy = time_major(dy, self.batch_first)
        dhn, dcn = self._state_pair(dstate_n, ("dhn", "dcn"), "dstate_n", unbatched)
        dx, dh0, dc0, found = _core.backward(reserve.core, dy, dhn, dcn)
        parameters: dict[str, Array] = {}
        for names, (dw_ih, dw_hh, db, dw_hr, _) in zip(self._names(), found, strict=True):
            # The two biases have equal gradients, in arrays of their own.
            own = (dw_ih, dw_hh, db, None if db is None else db.copy(), dw_hr)
            parameters |= {name: gradient for name, gradient in zip(names, own, strict=True) if gradient is not None}
        if unbatched:
            dh0, dc0 = dh0[:, 0], dc0[:, 0]
        return Gradients(arranged(dx, self.batch_first, unbatched), (dh0, dc0), parameters)

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
            self._packed = _core.pack_weights("lstm", self._weights, self.num_layers, 1 + self.bidirectional)
        except MemoryError:
            self.unfreeze()
            raise

    def unfreeze(self) -> None:
        """Undo :meth:`freeze`."""
        self._packed = None
        for array in self.parameters.values():
            array.flags.writeable = True

    def stream(self, batch_size: int = 1) -> Stream:
        """Open a stream: this layer one step at a time, with its weights as they are now; dropout is off.

        TypeError or ValueError if ``batch_size`` is no positive integer or the layer is bidirectional.
        """
        if self.bidirectional:
            raise ValueError("stream: expected a layer of one direction, got a bidirectional one")
        return Stream(self._weights, self.dtype, batch_size)

    def _names(self) -> list[tuple[str, ...]]:
        """The parameters' names of every layer and direction: w_ih, w_hh, b_ih, b_hh, w_hr."""
        return [
            tuple(f"{kind}_l{layer}{suffix}" for kind in KINDS)
            for layer in range(self.num_layers)
            for suffix in (("", "_reverse") if self.bidirectional else ("",))
        ]

    def _state_pair(
        self,
        pair: tuple[ArrayLike | None, ArrayLike | None] | None,
        names: tuple[str, str],
        pair_name: str,
        unbatched: bool,
    ) -> tuple[Array | None, Array | None]:
        """Two states as [L*D,B,.] arrays; None where there is none."""
        if pair is None:
            return None, None
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            got = type(pair).__name__ + (f" of {len(pair)}" if isinstance(pair, (tuple, list)) else "")
            raise TypeError(f"{pair_name}: expected a tuple ({', '.join(names)}), got {got}")
        h, c = pair
        return (
            None if h is None else self._state(h, names[0], self.proj_size or self.hidden_size, unbatched),
            None if c is None else self._state(c, names[1], self.hidden_size, unbatched),
        )

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
        state: tuple[ArrayLike, ArrayLike] | None,
        lengths: ArrayLike | None,
        save: _core.Save | None,
        seed: int,
    ) -> tuple[Array, State, _core.Reserve | None, bool]:
        x = as_array(x, "x", self.dtype)
        unbatched = x.ndim == 2
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            axes = "[B,T,I]" if self.batch_first else "[T,B,I]"
            raise ValueError(f"x: expected {axes} or [T,I] with I = {self.input_size}, got shape {x.shape}")
        x = time_major(x, self.batch_first)
        h0: Array | None = None
        c0: Array | None = None
        if state is not None:
            h0, c0 = self._state_pair(state, ("h0", "c0"), "state", unbatched)
            if h0 is None or c0 is None:
                name = "h0" if h0 is None else "c0"
                raise TypeError(f"{name}: expected an ndarray of {self.dtype} or a list, got NoneType")
        y, hn, cn, _, reserve = _core.lstm_forward(
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
            _core.Form.stack,
            0,
            None,
            False,
            self._packed,
        )
        if unbatched:
            hn, cn = hn[:, 0], cn[:, 0]
        return arranged(y, self.batch_first, unbatched), (hn, cn), reserve, unbatched
