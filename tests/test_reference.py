"""The reference is the truth of every other test, so it is checked first: finite differences, PyTorch, by hand."""

from __future__ import annotations

import lstm_fast as lf
import numpy as np
import pytest
from judge import assert_all_same_bits, distance
from problems import Problem, draw, solve, solve_reference, solve_torch
from reference_problems import numeric_gradient
from worked_example import C0, DAYS, H0, PREDICTIONS, WEIGHTS, X, sequence_problem

SHAPES = [(1, 1, 1, 1), (2, 1, 3, 2), (4, 3, 2, 5), (7, 2, 5, 3)]
BIAS = ["both", "none", "b_ih", "b_hh"]


def loss(problem: Problem) -> float:
    y, hn, cn, _ = lf.reference.lstm_forward(**problem.forward)
    return float((y * problem.dy).sum() + (hn * problem.dhn).sum() + (cn * problem.dcn).sum())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", BIAS)
def test_gradients_are_those_of_finite_differences(shape, bias):
    problem = draw(*shape, "float64", bias=bias, seed=1)
    grads = solve(problem, lf.reference)
    for name, value in problem.arrays.items():
        if name in problem.backward:
            continue
        numeric = numeric_gradient(lambda moved, name=name: loss(problem.replace(**{name: moved})), value)
        assert distance(grads[f"d{name}"], numeric) <= 1e-8, name  # leaves room for a loss of 1000


@pytest.mark.parametrize("shape", [*SHAPES, (17, 5, 8, 33), (100, 7, 16, 64)])
@pytest.mark.parametrize("bias", BIAS)
def test_values_and_gradients_are_those_of_pytorch(shape, bias):
    pytest.importorskip("torch", reason="PyTorch is the second opinion on the reference")
    problem = draw(*shape, "float64", bias=bias, seed=2)
    ours, theirs = solve(problem, lf.reference), solve_torch(problem)
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        assert distance(value, theirs[name]) <= 1e-13 * np.sqrt(shape[0] * shape[1]), name  # float64, other sum orders


def test_worked_example_single_step():
    h, c = lf.reference.lstm_cell(X, H0, C0, *WEIGHTS)
    assert c[0, 0] == pytest.approx(2.947567, abs=1e-6)
    assert h[0, 0] == pytest.approx(0.986229, abs=1e-6)


def test_worked_example_gates_on_the_way():
    _, _, _, reserve = lf.reference.lstm_forward(X[None], H0, C0, *WEIGHTS)
    (block,) = reserve.blocks
    i, f, g, o = block.gates[0, :, 0, 0]
    assert f == pytest.approx(1 / (1 + np.exp(-5.95)), abs=1e-15)
    assert g == pytest.approx(np.tanh(2.03), abs=1e-15)
    assert g == pytest.approx(0.966, abs=5e-4)
    assert i == pytest.approx(1 / (1 + np.exp(-4.27)), abs=1e-15)
    assert o == pytest.approx(1 / (1 + np.exp(-4.78)), abs=1e-15)


@pytest.mark.parametrize("name", DAYS)
def test_worked_example_sequences(name):
    y, hn, _, reserve = lf.reference.lstm_forward(**sequence_problem(name))
    assert np.abs(y[:, 0, 0] - DAYS[name][:, 0]).max() <= 1e-6
    (block,) = reserve.blocks
    assert np.abs(block.c[1:, 0, 0] - DAYS[name][:, 1]).max() <= 1e-6
    assert round(float(hn[0, 0])) == PREDICTIONS[name]


@pytest.mark.parametrize(
    ("point", "expected"),
    [(10, 0.99995), (-5, 0.00669), (0, 0.5), (800.0, 1.0), (-800.0, 0.0), (np.inf, 1), (-np.inf, 0)],
)
def test_sigmoid(point, expected):
    assert lf.reference.sigmoid(np.float64(point)) == pytest.approx(expected, abs=5e-6)


def test_cell_is_one_step():
    problem = draw(1, 3, 4, 5, "float64")
    y, hn, cn, _ = lf.reference.lstm_forward(**problem.forward)
    h, c = lf.reference.lstm_cell(**problem.cell)
    np.testing.assert_array_equal(h, hn)
    np.testing.assert_array_equal(h, y[0])
    np.testing.assert_array_equal(c, cn)


def test_missing_gradients_are_zero():
    problem = draw(4, 2, 3, 5, "float64")
    _, _, _, reserve = lf.reference.lstm_forward(**problem.forward)
    none = lf.reference.lstm_backward(reserve)
    assert all(not value.any() for value in none.values())
    parts = [lf.reference.lstm_backward(reserve, **{name: value}) for name, value in problem.backward.items()]
    whole = lf.reference.lstm_backward(reserve, **problem.backward)
    for name, value in whole.items():
        np.testing.assert_allclose(sum(part[name] for part in parts), value, rtol=0, atol=1e-13)


def test_nothing_is_written_into_arguments_or_reserve():
    problem = draw(4, 2, 3, 5, "float64")
    before = problem.copy()
    _, _, _, reserve = lf.reference.lstm_forward(**problem.forward)
    first, second = (lf.reference.lstm_backward(reserve, **problem.backward) for _ in range(2))
    assert_all_same_bits(first, second)
    for name, value in problem.arrays.items():
        np.testing.assert_array_equal(value, before.arrays[name], err_msg=name)


def test_no_reserve_when_nothing_is_saved():
    *_, reserve = lf.reference.lstm_forward(**draw(2, 1, 1, 1).forward, save=None)
    assert reserve is None


def test_computes_in_float64_unless_told():
    problem = draw(3, 2, 4, 5, "float32")
    assert all(value.dtype == np.float64 for value in solve(problem, lf.reference).values())
    y, *_ = lf.reference.lstm_forward(**problem.forward, dtype=np.float32)
    assert y.dtype == np.float32
    assert distance(y, solve_reference(problem)["y"]) <= 1e-5
