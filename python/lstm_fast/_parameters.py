"""Parameters under PyTorch's names: shapes, initial values, loading, and what a state_dict tells of its layer."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arguments import real_numbers

Array = NDArray[Any]

KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
LSTM_GATES = 4
_CELLS: dict[float, str] = {LSTM_GATES: "an LSTM", 3: "a GRU", 1: "an RNN"}  # by the number of gates
_NAME = re.compile(rf"(?:{'|'.join(KINDS)})_l(\d+)(_reverse)?")


class Sizes(NamedTuple):
    """What the shapes of all parameters follow from."""

    gates: int
    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    directions: int
    proj_size: int


def parameter_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Every parameter's shape, in PyTorch's order."""
    rows, width = sizes.gates * sizes.hidden_size, sizes.proj_size or sizes.hidden_size
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(sizes.num_layers):
        inputs = sizes.directions * width if layer else sizes.input_size
        for suffix in ("", "_reverse")[: sizes.directions]:
            own: list[tuple[int, ...] | None] = [(rows, inputs), (rows, width), None, None, None]
            if sizes.bias:
                own[2:4] = (rows,), (rows,)
            if sizes.proj_size:
                own[4] = (sizes.proj_size, sizes.hidden_size)
            shapes |= {f"{kind}_l{layer}{suffix}": shape for kind, shape in zip(KINDS, own, strict=True) if shape}
    return shapes


def initial_parameters(sizes: Sizes, dtype: np.dtype[Any], generator: np.random.Generator) -> dict[str, Array]:
    """U(-1/sqrt(H), 1/sqrt(H)) for every parameter, biases too, drawn in PyTorch's order."""
    bound = 1 / math.sqrt(sizes.hidden_size)
    shapes = parameter_shapes(sizes)
    return {name: generator.uniform(-bound, bound, shape).astype(dtype) for name, shape in shapes.items()}


def load_parameters(parameters: Mapping[str, Array], mapping: Mapping[str, ArrayLike], strict: bool) -> None:
    """Copy from mapping into parameters, all or nothing; ValueError and TypeError as a layer's load_state_dict says."""
    if not isinstance(mapping, Mapping):
        raise TypeError(f"mapping: expected a mapping of names to arrays, got {type(mapping).__name__}")
    missing = [name for name in parameters if name not in mapping]
    unknown = [name for name in mapping if name not in parameters]
    if strict and (missing or unknown):
        raise ValueError(f"mapping: expected {list(parameters)}; missing {missing}, unknown {unknown}")
    arrays = {}
    for name, parameter in parameters.items():
        if name in missing:
            continue
        given = mapping[name]
        array = real_numbers(given, name, parameter.dtype)
        if hasattr(given, "dtype") and np.asarray(given).dtype != parameter.dtype:
            raise TypeError(f"{name}: expected dtype {parameter.dtype}, got {given.dtype}; convert it first")
        if array.shape != parameter.shape:
            raise ValueError(f"{name}: expected shape {parameter.shape}, got {array.shape}")
        arrays[name] = array
    for name, array in arrays.items():
        parameters[name][...] = array


def infer_options(
    mapping: Mapping[str, ArrayLike], prefix: str, gates: int
) -> tuple[dict[str, ArrayLike], dict[str, Any]]:
    """The parameters under prefix, and the constructor's arguments that they tell.

    ValueError if there are none, or those of a cell with another number of gates.
    """
    if not isinstance(prefix, str):
        raise TypeError(f"prefix: expected a string, got {type(prefix).__name__}")
    own = {name[len(prefix) :]: value for name, value in mapping.items() if name.startswith(prefix)}
    own = {name: value for name, value in own.items() if _NAME.fullmatch(name)}
    if "weight_ih_l0" not in own or "weight_hh_l0" not in own:
        found = sorted(name[: -len("weight_ih_l0")] for name in mapping if name.endswith("weight_ih_l0"))
        raise ValueError(f"prefix: expected one that leads to weight_ih_l0, such as {found}, got {prefix!r}")
    w_ih, hidden = np.asarray(own["weight_ih_l0"]), _hidden_size(own, gates)
    matches = [match for name in own if (match := _NAME.fullmatch(name))]
    layers = {int(match[1]) for match in matches}
    if layers != set(range(len(layers))):
        raise ValueError(f"mapping: expected layers 0, 1, 2, ..., got {sorted(layers)[:8]}")
    options = {
        "input_size": w_ih.shape[1],
        "hidden_size": hidden,
        "num_layers": len(layers),
        "bias": "bias_ih_l0" in own,
        "bidirectional": any(match[2] for match in matches),
        "dtype": w_ih.dtype,
    }
    if gates == LSTM_GATES:
        options["proj_size"] = np.shape(own["weight_hh_l0"])[1] if "weight_hr_l0" in own else 0
    return own, options


def _hidden_size(own: Mapping[str, ArrayLike], gates: int) -> int:
    """H of the first layer; ValueError if its weights are not those of a cell with so many gates."""
    w_ih, w_hh = np.asarray(own["weight_ih_l0"]), np.asarray(own["weight_hh_l0"])
    if "weight_hr_l0" in own and gates != LSTM_GATES:
        raise ValueError("weight_hr_l0: expected none, since only an LSTM has a projection, got one")
    rows = f"{gates}H" if gates > 1 else "H"
    if w_ih.ndim != 2 or w_hh.ndim != 2 or w_ih.shape[0] % gates:
        raise ValueError(f"weight_ih_l0: expected shape ({rows}, I) beside ({rows}, H), got {w_ih.shape}, {w_hh.shape}")
    hidden = int(w_ih.shape[0]) // gates
    if "weight_hr_l0" not in own and w_hh.shape != (gates * hidden, hidden):
        cell = _CELLS.get(w_hh.shape[0] / max(w_hh.shape[1], 1))
        whose = f", that of {cell}" if cell else ""
        raise ValueError(f"weight_hh_l0: expected shape ({rows}, H), that of {_CELLS[gates]}, got {w_hh.shape}{whose}")
    return hidden
