"""What a call must be like for the kernels, and what is wrong with it otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._call import PLAIN, recorded

_DTYPES = (torch.float32, torch.float64)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64)
_STRIDED = torch.strided


def _is_plain(value: Any) -> bool:
    # Under the compiler tensors are of its own types, and the operators know what to do with them.
    return type(value) in PLAIN or (torch.compiler.is_compiling() and isinstance(value, Tensor))


def _is_like(value: Any, dtype: torch.dtype) -> bool:
    return _is_plain(value) and value.dtype is dtype and value.is_cpu and value.layout is _STRIDED


def left_to_torch(x: Any, weights: Sequence[Any], hx: Any) -> str | None:
    """Why PyTorch has to compute this, whatever the shapes: the reason, or None."""
    if type(x) not in PLAIN and not _is_plain(x):
        return f"an input of type {type(x).__name__}"
    dtype = x.dtype
    if not x.is_cpu:
        return f"a tensor on {x.device.type}"
    if dtype not in _DTYPES:
        return f"dtype {dtype}"
    if x.layout is not _STRIDED:
        return f"layout {x.layout}"
    given = weights if hx is None else (*weights, *hx) if isinstance(hx, (tuple, list)) else (*weights, hx)
    for other in given:
        # The usual kind without a call for each.
        if other is None or (
            type(other) in PLAIN and other.dtype is dtype and other.is_cpu and other.layout is _STRIDED
        ):
            continue
        if not _is_like(other, dtype):
            return "tensors of different types, dtypes, layouts or devices"
    return recorded()


def wrong_states(hx: Any, h_shape: tuple[int, ...], c_shape: tuple[int, ...] | None) -> str | None:
    """Why these cannot be the initial states, if so; ``c_shape``: None for a cell without c."""
    if c_shape is None:
        fits = isinstance(hx, Tensor) and hx.shape == h_shape
        return None if fits else "a state that is no tensor of the expected size"
    if not isinstance(hx, (tuple, list)) or len(hx) != 2:
        return "states that are no pair"
    h, c = hx
    if h is None or c is None or h.shape != h_shape or c.shape != c_shape:
        return "states of another size than expected"
    return None


def _integers(lengths: Tensor) -> Tensor:
    if lengths.dtype not in _INTEGERS and lengths.numel():
        raise TypeError(f"lengths: expected integers, got dtype {lengths.dtype}")
    return lengths


def lengths_of(lengths: Any, x: Tensor) -> Any:
    """As an array, or a tensor where its values cannot be read: under the compiler and torch.func.

    x [T,B,I]. TypeError for no integers, ValueError for wrong ones. What computes checks the shape of such a tensor.
    """
    if torch.compiler.is_compiling():
        return _integers(torch.as_tensor(lengths, device="cpu"))
    try:
        # A copy: what the caller writes there later must not reach backward.
        found = np.array(_integers(lengths).cpu().numpy() if isinstance(lengths, Tensor) else lengths)
    except ValueError as error:
        raise TypeError(f"lengths: expected {x.shape[1]} integers, got {lengths}") from error
    except RuntimeError:
        if isinstance(lengths, Tensor) and torch._C._are_functorch_transforms_active():
            return lengths.to(torch.int64)
        raise
    if found.size and found.dtype.kind not in "iu":
        raise TypeError(f"lengths: expected integers, got dtype {found.dtype}")
    if found.shape != (x.shape[1],):
        raise ValueError(f"lengths: expected shape ({x.shape[1]},), got {found.shape}")
    if found.size and not 0 <= found.min() <= found.max() <= x.shape[0]:
        raise ValueError(f"lengths: expected each in 0..{x.shape[0]}, got {found.min()}..{found.max()}")
    return found.astype(np.int64)


def require_shapes(module: torch.nn.Module, wanted: Mapping[str, tuple[int, ...]]) -> None:
    """RuntimeError, as from PyTorch for a wrong size, that names the first parameter of another shape, if any is."""
    for name, shape in wanted.items():
        parameter = getattr(module, name)
        if parameter is not None and parameter.shape != shape:
            raise RuntimeError(f"{name}: expected shape {shape}, got {tuple(parameter.shape)}")
