"""T = 0, B = 0 and I = 0 are problems like any other; H = 0 is not."""

from __future__ import annotations

import lstm_fast as lf
import numpy as np
import pytest
from judge import assert_same_bits
from problems import PARAMETER_NAMES, draw, solve

DTYPES = ["float32", "float64"]
T, B, I, H = 3, 4, 5, 7  # noqa: E741  (the project's name for the input size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("save", ["gates", None])
def test_no_steps(save, dtype, isa):
    problem = draw(0, B, I, H, dtype)
    y, hn, cn, reserve = lf.ops.lstm_forward(**problem.forward, save=save)
    assert y.shape == (0, B, H)
    assert_same_bits(hn, problem.h0)
    assert_same_bits(cn, problem.c0)
    assert not np.shares_memory(hn, problem.h0)
    assert not np.shares_memory(cn, problem.c0)
    if save:
        grads = lf.ops.lstm_backward(reserve, **problem.backward)
        assert grads["x"].shape == (0, B, I)
        np.testing.assert_array_equal(grads["h0"], problem.dhn)
        np.testing.assert_array_equal(grads["c0"], problem.dcn)
        for name in PARAMETER_NAMES:
            assert_same_bits(grads[name], np.zeros_like(problem.arrays[name]), name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_rows(dtype, isa):
    problem = draw(T, 0, I, H, dtype)
    result = solve(problem)
    shapes = {"y": (T, 0, H), "hn": (0, H), "cn": (0, H), "dx": (T, 0, I), "dh0": (0, H), "dc0": (0, H)}
    assert {name: result[name].shape for name in shapes} == shapes
    for name in PARAMETER_NAMES:
        assert_same_bits(result[f"d{name}"], np.zeros_like(problem.arrays[name]), name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_inputs(dtype, isa):
    """I = 0 is the bias only: the bits of I = 1 with zeros in x and w_ih."""
    problem = draw(T, B, 0, H, dtype)
    result = solve(problem)
    zeros = problem.replace(x=np.zeros((T, B, 1), dtype), w_ih=np.zeros((4 * H, 1), dtype))
    expected = solve(zeros)
    assert result["dx"].shape == (T, B, 0)
    assert result["dw_ih"].shape == (4 * H, 0)
    for name in set(result) - {"dx", "dw_ih"}:
        np.testing.assert_array_equal(result[name], expected[name], err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0, 0, 0, 3), (0, B, 0, 1), (T, 0, 0, 5), (0, 0, 4, 2)])
def test_several_empty_dimensions(shape, dtype, isa):
    result = solve(draw(*shape, dtype))
    assert result["y"].shape == (shape[0], shape[1], shape[3])
    assert not any(result[f"d{name}"].any() for name in PARAMETER_NAMES)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_units(dtype):
    arrays = {"x": (T, B, I), "h0": (B, 0), "c0": (B, 0), "w_ih": (0, I), "w_hh": (0, 0)}
    with pytest.raises(ValueError, match=r"(?i)hidden|\bH\b|w_hh|h0"):
        lf.ops.lstm_forward(**{name: np.zeros(shape, dtype) for name, shape in arrays.items()})


def test_no_steps_and_no_rows_through_the_layer():
    layer = lf.LSTM(I, H, seed=0)
    for shape in [(0, B, I), (T, 0, I), (0, 0, I)]:
        y, (hn, cn), reserve = layer.forward(np.zeros(shape, np.float32))
        assert y.shape == (*shape[:2], H)
        assert hn.shape == cn.shape == (1, shape[1], H)
        grads = layer.backward(reserve, np.zeros_like(y))
        assert grads.x.shape == shape
        assert not any(value.any() for value in grads.parameters.values())
