"""Problems drawn by hypothesis: any shape, any strides, special values anywhere."""

from __future__ import annotations

import lstm_fast as lf
import numpy as np
import pytest
from judge import assert_all_same_bits, assert_same_bits
from lstm_fast import _lstm_fast_core as core
from problems import Problem, draw, solve, solve_reference

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis draws the problems")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

DTYPES = ["float32", "float64"]
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, 1e-310, -1e-42, 1e-45, 3e38, -3e38, 1e30, 88.5, -104.0, 710.0]
EDGE_SIZES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 15, 16, 17, 31, 32, 33]


@st.composite
def spoiled_problems(draw_from: st.DrawFn) -> Problem:
    """A small problem with a few special values anywhere in it."""
    shape = tuple(draw_from(st.sampled_from(EDGE_SIZES)) for _ in range(4))
    dtype = draw_from(st.sampled_from(DTYPES))
    bias = draw_from(st.sampled_from(["both", "none", "b_ih", "b_hh"]))
    problem = draw(*shape, dtype, bias=bias, seed=draw_from(st.integers(0, 1000)))
    for _ in range(draw_from(st.integers(0, 6))):
        array = problem.arrays[draw_from(st.sampled_from(sorted(problem.arrays)))]
        with np.errstate(over="ignore"):
            array.flat[draw_from(st.integers(0, array.size - 1))] = draw_from(st.sampled_from(SPECIAL))
    return problem


@settings(max_examples=150)
@given(spoiled_problems())
def test_special_values_have_the_same_bits_everywhere(problem):
    """On every instruction set, on every run, in inference, and for every row alone."""
    lf.set_isa(core.isas_usable()[0])
    first = solve(problem)
    for name in core.isas_usable():
        lf.set_isa(name)
        assert_all_same_bits(solve(problem), first, f"on {name}")
        assert_all_same_bits(solve(problem, save="lean"), first, f"lean, on {name}")
        for key, value in zip(("y", "hn", "cn"), lf.ops.lstm_forward(**problem.forward, save=None), strict=False):
            assert_same_bits(value, first[key], f"{key} of inference on {name}")
    for row in {0, problem.shape[1] - 1}:
        alone = solve(problem.rows([row]))
        for key in ("hn", "cn", "dh0", "dc0"):
            assert_same_bits(alone[key][0], first[key][row], f"{key} of row {row} alone")
        for key in ("y", "dx"):
            assert_same_bits(alone[key][:, 0], first[key][:, row], f"{key} of row {row} alone")


@settings(max_examples=100)
@given(spoiled_problems())
def test_special_values_make_nan_where_the_reference_does(problem):
    """NaN and infinities among ordinary numbers: at the ends of the range, f32 has 0 or Inf where f64 has neither."""
    for value in problem.arrays.values():
        value[np.isfinite(value) & ((np.abs(value) > 4) | (np.abs(value) < 1e-3))] = 1.0
    result = solve(problem)
    with np.errstate(invalid="ignore"):
        truth = solve_reference(problem)
    for name in ("y", "hn", "cn"):
        np.testing.assert_array_equal(np.isnan(result[name]), np.isnan(truth[name]), err_msg=name)
    assert (np.isnan(result["y"]) | (np.abs(result["y"]) <= 1)).all()


def scattered(value, axes, steps, gap):
    """A view with these values whose memory runs through the axes in the given order, with these steps and a gap."""
    room = np.full([value.shape[axis] * abs(steps[axis]) + gap for axis in axes], np.nan, value.dtype)
    room = room.transpose(np.argsort(axes))
    view = room[tuple(np.s_[: size * abs(step) : abs(step)] for size, step in zip(value.shape, steps, strict=True))]
    view = view[tuple(np.s_[:: 1 if step > 0 else -1] for step in steps)]
    view[...] = value
    return view


@st.composite
def layouts(draw_from, problem):
    """The same problem with every array in a layout of its own."""
    changed = {}
    for name, value in problem.arrays.items():
        axes = tuple(draw_from(st.permutations(range(value.ndim))))
        steps = tuple(draw_from(st.sampled_from([1, 1, 2, 3, -1, -2])) for _ in axes)
        changed[name] = scattered(value, axes, steps, draw_from(st.integers(0, 3)))
    return problem.replace(**changed)


@settings(max_examples=60)
@given(st.data())
def test_any_strides(data):
    shape = tuple(data.draw(st.sampled_from([1, 2, 3, 7, 8, 9, 16, 17])) for _ in range(4))
    dense = draw(*shape, data.draw(st.sampled_from(["float32", "float64"])), seed=42)
    spread = data.draw(layouts(dense))
    assert_all_same_bits(spread.arrays, dense.arrays, "in the spread problem")
    assert_all_same_bits(solve(spread), solve(dense), "of the spread problem")
