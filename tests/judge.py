"""How a result is judged: by bits, or by the tolerance of the numerical policy.

The tolerance stands here a second time on purpose: a suite that took it from the package under test could be loosened
by the package.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FORWARD_NAMES = ("y", "hn", "cn")


def tolerance(steps: int, batch: int, inputs: int, hidden: int, dtype: Any, *, backward: bool) -> float:
    """Bound on max|a - b| / max(1, max|b|) for weights of scale 1/sqrt(H): the form of oneDNN's benchdnn.

    The longest chain of additions behind one number is acc_dim * T long; pairwise rounding errors grow with its
    logarithm, and 4 (8 backward) is the allowance for the activations.
    """
    accumulated = (inputs + hidden + 1) * (max(4 * hidden, batch) if backward else 1)
    bound = 4 * (1 + backward) * math.ceil(math.log2(accumulated * steps)) * float(np.finfo(dtype).eps)
    return min(bound, {4: 2e-4, 8: 1e-9}[np.dtype(dtype).itemsize])


def distance(result: Array, truth: Array) -> float:
    """max|a - b| / max(1, max|b|), in float64; NaN if a NaN stands in either."""
    if not truth.size:
        return 0.0
    truth = truth.astype(np.float64)
    return float(np.max(np.abs(result.astype(np.float64) - truth)) / max(1.0, float(np.max(np.abs(truth)))))


def assert_close(
    result: Mapping[str, Array], truth: Mapping[str, Array], shape: tuple[int, int, int, int], dtype: Any
) -> None:
    """Every array of ``result`` has the dtype, and is within the tolerance of ``truth`` for a problem (T, B, I, H)."""
    assert set(result) == set(truth)
    for name, value in result.items():
        assert value.dtype == np.dtype(dtype), name
        assert value.shape == truth[name].shape, name
        bound = tolerance(*shape, dtype, backward=name not in FORWARD_NAMES)
        measured = distance(value, truth[name])
        assert measured <= bound, f"{name}: {measured:.3e} from the truth, {bound:.3e} allowed, (T, B, I, H) = {shape}"


def bits(value: Array) -> Array:
    """The bits of an array as integers, every NaN as one pattern: the bits of a NaN are not promised."""
    value = np.ascontiguousarray(value)
    patterns = value.view({4: np.uint32, 8: np.uint64}[value.dtype.itemsize]).copy()
    patterns[np.isnan(value)] = np.iinfo(patterns.dtype).max
    return patterns


def assert_same_bits(a: Array, b: Array, what: str = "") -> None:
    """Same dtype, same shape, same bits: +0 and -0 differ, NaN equals NaN."""
    assert (a.dtype, a.shape) == (b.dtype, b.shape), what
    different = bits(a) != bits(b)
    assert not different.any(), (
        f"{what}: {int(different.sum())} of {different.size} elements differ in their bits, the first at "
        f"{tuple(int(k) for k in np.argwhere(different)[0])}: {a[different][0]!r} and {b[different][0]!r}"
    )


def assert_all_same_bits(a: Mapping[str, Array], b: Mapping[str, Array], what: str = "") -> None:
    assert set(a) == set(b)
    for name in a:
        assert_same_bits(a[name], b[name], f"{name} {what}")
