"""NaN, infinities, subnormals and huge numbers: they reach what depends on them, and nothing else."""

from __future__ import annotations

import lstm_fast as lf
import numpy as np
import pytest
from judge import Array, assert_same_bits
from problems import Problem, draw, solve, solve_reference, states

DTYPES = ["float32", "float64"]
SHAPE = (5, 7, 6, 19)  # T, B, I, H
T, B, I, H = SHAPE  # noqa: E741  (the project's name for the input size)
STEP, ROW, UNIT = 2, 4, 17  # in the middle of time; row and unit in the tails of their tiles


def poison(problem: Problem, name: str, index: tuple[int, ...], value: float = np.nan) -> Problem:
    poisoned = problem.copy()
    poisoned.arrays[name][index] = value
    return poisoned


def where(shape: tuple[int, ...], *indices: object) -> Array:
    mask = np.zeros(shape, bool)
    for index in indices:
        mask[index] = True
    return mask


def assert_nan_exactly(result: dict[str, Array], clean: dict[str, Array], reached: dict[str, Array]) -> None:
    """NaN exactly where ``reached`` says; in y, hn, cn, dx, dh0, dc0 all other elements keep their bits."""
    for name, mask in reached.items():
        np.testing.assert_array_equal(np.isnan(result[name]), mask, err_msg=name)
        if name.startswith(("dw", "db")):
            continue
        assert_same_bits(result[name][~mask], clean[name][~mask], f"{name} out of reach of the NaN")


@pytest.fixture(params=DTYPES)
def problem(request):
    return draw(*SHAPE, request.param, seed=30)


@pytest.mark.parametrize("name", ["x", "h0", "c0"])
def test_nan_in_one_row_stays_in_that_row(name, problem, isa):
    index = {"x": (STEP, ROW, 3), "h0": (ROW, UNIT), "c0": (ROW, UNIT)}[name]
    clean, result = solve(problem), solve(poison(problem, name, index))
    later = slice(STEP, None) if name == "x" else slice(None)
    unit = slice(None) if name != "c0" else UNIT
    # c0 of one unit reaches h of that unit at the first step, and all units after it.
    y = where((T, B, H), np.s_[later, ROW]) if name != "c0" else where((T, B, H), np.s_[0, ROW, unit], np.s_[1:, ROW])
    # In backward: every gradient of that row before the step, and all weights.
    reached = {
        "y": y,
        "hn": where((B, H), ROW),
        "cn": where((B, H), ROW),
        "dx": where((T, B, I), np.s_[:, ROW]),
        "dh0": where((B, H), ROW),
        "dc0": where((B, H), ROW),
        "dw_ih": np.ones((4 * H, I), bool),
        "dw_hh": np.ones((4 * H, H), bool),
        "db_ih": np.ones(4 * H, bool),
        "db_hh": np.ones(4 * H, bool),
    }
    assert_nan_exactly(result, clean, reached)


@pytest.mark.parametrize("name", ["w_ih", "w_hh", "b_ih", "b_hh"])
@pytest.mark.parametrize("gate", range(4))
def test_nan_in_one_weight_reaches_its_unit_then_all(gate, name, problem, isa):
    index = (gate * H + UNIT, 3) if name.startswith("w") else (gate * H + UNIT,)
    clean, result = solve(problem), solve(poison(problem, name, index))
    y = where((T, B, H), np.s_[0, :, UNIT], np.s_[1:])
    everything = {n: np.ones((B, H), bool) for n in ("hn", "dh0", "dc0")}
    cn = np.ones((B, H), bool)
    assert_nan_exactly(result, clean, everything | {"y": y, "cn": cn, "dx": np.ones((T, B, I), bool)})


def test_nan_in_dy_reaches_earlier_steps_of_its_row(problem, isa):
    clean, result = solve(problem), solve(poison(problem, "dy", (STEP, ROW, UNIT)))
    nothing = np.zeros((B, H), bool)
    reached = {
        "y": np.zeros((T, B, H), bool),
        "hn": nothing,
        "cn": nothing,
        "dx": where((T, B, I), np.s_[: STEP + 1, ROW]),
        "dh0": where((B, H), ROW),
        "dc0": where((B, H), ROW),
        "dw_ih": np.ones((4 * H, I), bool),
        "db_ih": np.ones(4 * H, bool),
    }
    assert_nan_exactly(result, clean, reached)


@pytest.mark.parametrize("name", ["dhn", "dcn"])
def test_nan_in_the_last_gradients_reaches_its_row(name, problem, isa):
    clean, result = solve(problem), solve(poison(problem, name, (ROW, UNIT)))
    row = where((B, H), ROW)
    assert_nan_exactly(result, clean, {"dx": where((T, B, I), np.s_[:, ROW]), "dh0": row, "dc0": row})


@pytest.mark.parametrize("name", ["dy", "dhn", "dcn"])
def test_nan_at_the_first_step_reaches_the_weights_of_its_unit_only(name, isa):
    """With one step, the gradient of one unit concerns four rows of the weights."""
    problem = draw(1, B, I, H, seed=31)
    index = (0, ROW, UNIT) if name == "dy" else (ROW, UNIT)
    clean, result = solve(problem), solve(poison(problem, name, index))
    units = where((4, H), np.s_[:, UNIT])
    if name == "dcn":
        units[3] = False  # the output gate does not act on c
    reached = {
        "dx": where((1, B, I), np.s_[:, ROW]),
        "dh0": where((B, H), ROW),
        "dc0": where((B, H), np.s_[ROW, UNIT]),
        "db_ih": units.reshape(4 * H),
        "dw_hh": np.repeat(units.reshape(4 * H, 1), H, axis=1),
        "dw_ih": np.repeat(units.reshape(4 * H, 1), I, axis=1),
    }
    assert_nan_exactly(result, clean, reached)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
@pytest.mark.parametrize("gate", range(4))
def test_infinite_bias_saturates_its_gate(gate, value, problem, isa):
    """A gate at its limit is exactly 0, 1 or -1: never NaN out of an overflowing exp."""
    saturated = poison(problem, "b_ih", (gate * H + UNIT,), value)
    limit = 1.0 if value > 0 else (-1.0 if gate == 2 else 0.0)
    assert (getattr(states(saturated), "ifgo"[gate])[:, :, UNIT] == limit).all()
    result, truth = solve(saturated), solve_reference(saturated)
    for name, expected in truth.items():
        assert np.isfinite(result[name]).all(), name
        np.testing.assert_allclose(result[name], expected, rtol=0, atol=1e-4 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("value", [1e30, -1e30])
def test_huge_inputs_saturate(value, problem, isa):
    huge = poison(problem, "x", (STEP, ROW, 3), value)
    result, truth = solve(huge), solve_reference(huge)
    for name in ("y", "hn", "cn"):
        assert np.isfinite(result[name]).all()
        np.testing.assert_allclose(result[name], truth[name], rtol=0, atol=1e-5)


def test_infinite_cell_state(problem, isa):
    """c0 = Inf stays Inf until a forget gate of 0, and h is +-o, because tanh reaches its limit."""
    full = poison(problem, "c0", (ROW, UNIT), np.inf)
    y, _, cn, _ = lf.ops.lstm_forward(**full.forward)
    assert cn[ROW, UNIT] == np.inf
    assert np.isfinite(y).all()
    np.testing.assert_array_equal(y[:, ROW, UNIT], states(full).o[:, ROW, UNIT])


@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormals_are_not_flushed(dtype, isa):
    """A memory that halves every step goes down through the subnormals one bit at a time, as IEEE says."""
    tiny = np.finfo(dtype).tiny
    zero = draw(8, 1, 1, 1, dtype, bias="none")
    zero = zero.replace(**{name: np.zeros_like(value) for name, value in zero.arrays.items()})  # sigmoid 1/2, tanh 0
    expected = tiny * np.array([2.0**-t for t in range(1, 9)], dtype)
    assert_same_bits(states(zero.replace(c0=np.full((1, 1), tiny, dtype))).c[:, 0, 0], expected)
    assert expected[-1] > 0
