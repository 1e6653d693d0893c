"""Checks of arguments that are not arrays, and the one list of what this version does not do yet."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray


def integer(value: int, name: str, least: int, most: int | None = None) -> int:
    """Value as an int; TypeError if it is none (a bool is none), ValueError outside [least, most]."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    if most is not None and value > most:
        raise ValueError(f"{name}: expected at most {most}, got a number of {int(value).bit_length()} bits")
    return int(value)


def flag(value: bool, name: str) -> bool:
    """Value as a bool; TypeError if it is none."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected a bool, got {type(value).__name__}")
    return bool(value)


def _number(value: float, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    return value


def finite(value: float, name: str) -> float:
    """Value as a float; TypeError if it is no number, ValueError if it is NaN or infinite."""
    if not abs(_number(value, name)) <= sys.float_info.max:
        raise ValueError(f"{name}: expected a finite number, got {value}")
    return float(value)


def limit(value: float, name: str, most: float = math.inf) -> float:
    """Value as a float; TypeError if it is no number, ValueError if it is NaN or outside [0, most]."""
    value = _number(value, name)
    if not 0 <= value <= most:
        wanted = "a number >= 0" if most == math.inf else f"a number in [0, {most:g}]"
        raise ValueError(f"{name}: expected {wanted}, got {value}")
    return float(value)


def positive(value: float, name: str) -> float:
    """Value as a float; TypeError if it is no number, ValueError if it is NaN, 0 or below."""
    if not _number(value, name) > 0:
        raise ValueError(f"{name}: expected a number > 0, got {value}")
    return float(value)


def rate(value: float, name: str) -> float:
    """Value as a float; TypeError if it is no number, ValueError if it is NaN or outside [0, 1)."""
    if not 0 <= _number(value, name) < 1:
        raise ValueError(f"{name}: expected a number in [0, 1), got {value}")
    return float(value)


def real_numbers(value: Any, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A list or array-like of real numbers as an array of dtype; TypeError if it holds anything else."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: expected numbers in rows of equal lengths: {error}") from None
    if array.dtype.kind not in "iuf" or hasattr(value, "mask"):
        raise TypeError(f"{name}: expected real numbers, got {type(value).__name__} of dtype {array.dtype}")
    return array.astype(dtype, copy=False)


def choice(value: str | None, name: str, choices: tuple[str | None, ...]) -> str | None:
    """Value, one of the choices; TypeError if it is no string (or None, if that is a choice), ValueError otherwise."""
    if not isinstance(value, str) and not (value is None and None in choices):
        wanted = "a string or None" if None in choices else "a string"
        raise TypeError(f"{name}: expected {wanted}, got {type(value).__name__}")
    if value not in choices:
        *most, last = (repr(each) for each in choices)
        raise ValueError(f"{name}: expected {', '.join(most)} or {last}, got {value!r}")
    return value


def save_choice(value: str | None) -> str | None:
    """Value, 'gates', 'lean' or None; TypeError if it is no string, ValueError if it is another one."""
    return choice(value, "save", ("gates", "lean", None))


NONLINEARITIES = ("tanh", "relu", "sigmoid", "identity")


def resets_mask(value: Any, shape: tuple[int, ...], axes: str) -> NDArray[Any]:
    """Value as an array of bool; TypeError for another dtype, ValueError for another shape than that of ``axes``."""
    mask = np.asarray(value)
    wanted = f"resets: expected an array of bool of shape {shape} {axes}"
    if mask.dtype != np.bool_:
        raise TypeError(f"{wanted}, got dtype {mask.dtype}")
    if mask.shape != shape:
        raise ValueError(f"{wanted}, got shape {mask.shape}")
    return mask


def kernel_aids(
    truncate: int | None, grad_clip: float | None, resets: NDArray[Any] | None
) -> tuple[int, float, NDArray[Any] | None] | None:
    """What the kernels take for them, ``resets`` being [T,B]; TypeError or ValueError if one is wrong."""
    if truncate is None and grad_clip is None and resets is None:
        return None
    return (
        0 if truncate is None else integer(truncate, "truncate", 1, 2**62),
        0.0 if grad_clip is None else positive(grad_clip, "grad_clip"),
        resets,
    )


# Option: the values that this version takes.
_SCOPE: dict[str, tuple[Any, ...]] = {
    "reset_after": (True,),
}


def require_in_scope(**options: Any) -> None:
    """Raise NotImplementedError if an option asks for what a later version brings."""
    for name, value in options.items():
        allowed = _SCOPE[name]
        if (value is None or isinstance(value, (bool, int, float, str))) and value in allowed:
            continue
        given = repr(value) if np.isscalar(value) else type(value).__name__
        choices = " or ".join(repr(choice) for choice in allowed)
        raise NotImplementedError(f"{name}: this version takes {choices} only, got {given}")
