"""sigmoid and tanh of the kernels, through a layer of one unit: its gates are sigmoid(x) and tanh(x) themselves."""

from __future__ import annotations

import os

import lstm_fast as lf
import numpy as np
import pytest
from judge import Array, assert_same_bits
from lstm_fast import _lstm_fast_core as core

DTYPES = ["float32", "float64"]
# Measured over all 2^32 floats: sigmoid 2.49, tanh 1.96 ULP; f64 over 16 million points: 2.1 and 2.3. Stated: 2.5.
STATED_ULP = 2.5


def gates_at(points: Array) -> tuple[Array, Array]:
    """sigmoid and tanh of the points as the kernel computes them, every point a row of the batch."""
    layer = lf.LSTM(1, 1, bias=False, dtype=points.dtype)
    layer.parameters["weight_ih_l0"][...] = 1
    layer.parameters["weight_hh_l0"][...] = 0
    blocks = []
    for first in range(0, len(points), 1 << 16):  # a reserve that fits the cache, where all points at once take a GB
        *_, reserve = layer.forward(points[first : first + (1 << 16)].reshape(1, -1, 1))
        states = reserve.states()
        blocks.append([getattr(states, name)[0, :, 0] for name in "ifgo"])
    i, f, g, o = (np.concatenate(gate) for gate in zip(*blocks, strict=True))
    assert_same_bits(i, f, "sigmoid of the input and forget gates")
    assert_same_bits(i, o, "sigmoid of the input and output gates")
    return i, g


def tanh_of_memory(points: Array) -> Array:
    """tanh(c) as the kernel computes it on the way to h: forget and output gates at 1, input gate at 0."""
    dtype, zero = points.dtype, np.zeros((len(points), 1), points.dtype)
    bias = np.array([-np.inf, np.inf, 0, np.inf], dtype)
    weights = np.zeros((4, 1), dtype), np.zeros((4, 1), dtype), bias
    y, *_ = lf.ops.lstm_forward(zero[None], zero, points.reshape(-1, 1), *weights, save=None)
    return y[0, :, 0]


def sample(dtype: str, count: int = 1 << 18) -> Array:
    """Points over all exponents and both signs, dense in +-100 (f64: 800), and the edges of the formulas; never 0."""
    rng = np.random.default_rng(7)
    unsigned = {"float32": np.uint32, "float64": np.uint64}[dtype]
    anywhere = rng.integers(0, np.iinfo(unsigned).max, count, dtype=unsigned, endpoint=True).view(dtype)
    widest = {"float32": 100.0, "float64": 800.0}[dtype]
    dense = np.concatenate([rng.uniform(-widest, widest, count), rng.normal(0, 2, count), rng.normal(0, 0.01, count)])
    edges = np.array(
        [0.0, 0.5, np.log(2) / 2, 1, 9, 10, 20, 22, 87.3, 88.4, 88.72, 89, 103.97, 708.3, 709.78, 710, 745.2]
    )
    edges = np.concatenate([edges, -edges]).astype(dtype)
    close = [np.nextafter(edges, np.array(limit, dtype)) for limit in (-np.inf, np.inf)]
    points = np.concatenate([anywhere[np.isfinite(anywhere)], dense.astype(dtype), edges, *close])
    points = points.astype(dtype)
    return points[points != 0]  # the sums start at +0, so a -0 never arrives


def truth(points: Array) -> tuple[Array, Array]:
    """sigmoid and tanh with eleven more bits (f64) or twice the bits (f32) than the kernel's."""
    wide = points.astype(np.longdouble if points.dtype == np.float64 else np.float64)
    if np.finfo(wide.dtype).nmant < np.finfo(points.dtype).nmant + 10:
        pytest.skip("longdouble is no wider than float64 on this platform")
    decay = np.exp(-np.abs(wide))
    return np.where(wide >= 0, 1, decay) / (1 + decay), np.tanh(wide)


def ulps(result: Array, exact: Array) -> Array:
    """|result - exact| in units in the last place of the exact value, as the dtype spaces its numbers there."""
    rounded = exact.astype(result.dtype)
    return np.abs(result - exact) / np.spacing(np.abs(rounded)).astype(exact.dtype)


def assert_within_bounds(points: Array) -> None:
    sigmoid, tanh = gates_at(points)
    exact_sigmoid, exact_tanh = truth(points)
    assert ulps(tanh, exact_tanh).max() <= STATED_ULP
    # Below -87.3 (f64 -708.3) sigmoid is about to be subnormal: an absolute bound instead, the stated 4.2e-39.
    lowest, absolute = {"float32": (-87.3, 4.2e-39), "float64": (-708.3, 2.3e-308)}[points.dtype.name]
    normal = points >= lowest
    assert ulps(sigmoid[normal], exact_sigmoid[normal]).max(initial=0) <= STATED_ULP
    assert np.abs(sigmoid[~normal] - exact_sigmoid[~normal]).max(initial=0) <= absolute


@pytest.mark.parametrize("dtype", DTYPES)
def test_error_bounds(dtype, isa):
    assert_within_bounds(sample(dtype))


def test_error_bounds_of_every_float32():
    """All 2^32 of them, on the fastest instruction set; the others have its bits. After a change of math-inl.h."""
    if not os.environ.get("LSTM_FAST_TEST_EXHAUSTIVE"):
        pytest.skip("takes a quarter of an hour: set LSTM_FAST_TEST_EXHAUSTIVE=1")
    block = 1 << 20
    for first in range(0, 1 << 32, block):
        points = np.arange(first, first + block, dtype=np.uint64).astype(np.uint32).view(np.float32)
        points = points[np.isfinite(points) & (points != 0)]
        if points.size:
            assert_within_bounds(points)


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_on_every_instruction_set(dtype):
    points = np.concatenate([sample(dtype), np.array([np.nan, np.inf, -np.inf, -0.0], dtype)])
    results = []
    for name in core.isas_usable():
        lf.set_isa(name)
        results.append((*gates_at(points), tanh_of_memory(points)))
    for other in results[1:]:
        for one, another in zip(results[0], other, strict=True):
            assert_same_bits(one, another)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tanh_is_the_same_for_gate_and_memory(dtype, isa):
    points = sample(dtype, 1 << 14)
    assert_same_bits(tanh_of_memory(points), gates_at(points)[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_range_and_symmetry(dtype, isa):
    points = sample(dtype)
    sigmoid, tanh = gates_at(points)
    assert ((sigmoid >= 0) & (sigmoid <= 1)).all()
    assert (np.abs(tanh) <= 1).all()
    assert_same_bits(gates_at(-points)[1], -tanh, "tanh is odd")
    assert (np.sign(tanh) == np.sign(points)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values(dtype, isa):
    points = np.array([0.0, np.inf, -np.inf, np.nan, -np.nan, 200.0, 2e4, -2e4], dtype)
    sigmoid, tanh = gates_at(points)
    np.testing.assert_array_equal(sigmoid, np.array([0.5, 1, 0, np.nan, np.nan, 1, 1, 0], dtype))
    np.testing.assert_array_equal(tanh, np.array([0, 1, -1, np.nan, np.nan, 1, 1, -1], dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_published_points(dtype, isa):
    sigmoid, tanh = gates_at(np.array([10, -5, 2], dtype))
    assert sigmoid[0] == pytest.approx(0.99995, abs=5e-6)
    assert sigmoid[1] == pytest.approx(0.00669, abs=5e-6)
    assert tanh[2] == pytest.approx(0.96403, abs=5e-6)
    assert tanh[1] == pytest.approx(-0.99991, abs=5e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tanh_of_subnormals_is_themselves(dtype, isa):
    smallest = np.finfo(dtype).smallest_subnormal
    points = smallest * np.array([1, 2, 3, 1000, 8e6], dtype)
    np.testing.assert_allclose(gates_at(points)[1], points, rtol=0, atol=STATED_ULP * smallest)
