"""From the arrays that users give to those that the kernels take, and back: dtypes and the order of axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arguments import real_numbers

Array = NDArray[Any]


def as_array(value: ArrayLike, name: str, dtype: np.dtype[Any]) -> Array:
    """Lists become arrays of the layer's dtype, arrays never do; whatever else is left to the kernels' check."""
    if isinstance(value, np.ndarray):
        if value.dtype != dtype and value.dtype in (np.float32, np.float64):
            raise TypeError(
                f"{name}: expected dtype {dtype}, the layer's, got {value.dtype}; use "
                f"{name}.astype(np.{dtype}) or make the layer with dtype=np.{value.dtype}"
            )
        return value
    if value is None or hasattr(value, "dtype") or isinstance(value, (str, bytes)):
        raise TypeError(f"{name}: expected an ndarray of {dtype} or a list, got {type(value).__name__}")
    return real_numbers(value, name, dtype)


def time_major(array: Array, batch_first: bool) -> Array:
    """[T,B,.] from what the user calls x or y."""
    if array.ndim == 2:
        return array[:, None]
    return array.swapaxes(0, 1) if batch_first else array


def arranged(array: Array, batch_first: bool, unbatched: bool) -> Array:
    """What the user sees of a [T,B,.] array."""
    if unbatched:
        return array[:, 0]
    return array.swapaxes(0, 1) if batch_first else array
