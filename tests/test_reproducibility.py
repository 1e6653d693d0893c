"""The reproducibility promise, by comparing bits: the same numbers whatever the instruction set, pieces or company."""

from __future__ import annotations

import lstm_fast as lf
import numpy as np
import pytest
from judge import assert_all_same_bits, assert_close, assert_same_bits, distance, tolerance
from lstm_fast import _lstm_fast_core as core
from problems import draw, make_layer, solve, solve_layer

DTYPES = ["float32", "float64"]
# Rows, units and inputs on both sides of every tile height (1..6) and vector length (4, 8, 16); T over several chunks.
SHAPES = [
    (1, 1, 1, 1),
    (7, 1, 5, 17),
    (5, 7, 3, 33),
    (9, 6, 16, 16),
    (3, 13, 8, 129),
    (40, 5, 1, 7),
    (12, 3, 17, 15),
    (130, 17, 33, 64),
    (700, 2, 7, 33),
    (3, 400, 2, 9),
]
WEIGHT_GRADIENTS = ("dw_ih", "dw_hh", "db_ih", "db_hh")  # sums over rows and steps: they depend on both by definition


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_instruction_set(shape, dtype):
    problem = draw(*shape, dtype, seed=10)
    results = {}
    for name in core.isas_usable():
        lf.set_isa(name)
        results[name] = solve(problem)
    first, *others = results
    for other in others:
        assert_all_same_bits(results[first], results[other], f"on {first} and {other}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_backward_of_a_forward_on_another_instruction_set(dtype):
    """A reserve remembers the instruction set of its forward: its layout is that one's."""
    problem = draw(5, 7, 3, 33, dtype, seed=11)
    expected = solve(problem)
    for forward_isa in core.isas_usable():
        for backward_isa in core.isas_usable():
            lf.set_isa(forward_isa)
            *_, reserve = lf.ops.lstm_forward(**problem.forward)
            lf.set_isa(backward_isa)
            for name, value in lf.ops.lstm_backward(reserve, **problem.backward).items():
                assert_same_bits(value, expected[f"d{name}"], f"d{name}, {forward_isa} then {backward_isa}")
            assert lf.isa() == backward_isa


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_repetition(shape, dtype, isa):
    problem = draw(*shape, dtype, seed=12)
    first = solve(problem)
    lf.ops.lstm_forward(**draw(3, 5, 7, 2 * shape[3]).forward)  # leaves other numbers in recycled memory
    assert_all_same_bits(first, solve(problem), "on the second run")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_inference_has_the_bits_of_training(shape, dtype, isa):
    problem = draw(*shape, dtype, seed=13)
    trained, inferred = lf.ops.lstm_forward(**problem.forward), lf.ops.lstm_forward(**problem.forward, save=None)
    assert inferred[3] is None
    for name, one, other in zip(("y", "hn", "cn"), trained[:3], inferred[:3], strict=True):
        assert_same_bits(one, other, name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[0] > 1])
def test_pieces_are_the_whole(shape, dtype, isa):
    problem = draw(*shape, dtype, seed=14)
    whole = solve(problem)
    for cut in sorted({1, shape[0] // 2, shape[0] - 1}):
        before = problem.replace(x=problem.x[:cut], dy=problem.dy[:cut])
        y1, h1, c1, reserve1 = lf.ops.lstm_forward(**before.forward)
        after = problem.replace(x=problem.x[cut:], dy=problem.dy[cut:], h0=h1, c0=c1)
        y2, hn, cn, reserve2 = lf.ops.lstm_forward(**after.forward)
        grads2 = lf.ops.lstm_backward(reserve2, **after.backward)
        grads1 = lf.ops.lstm_backward(reserve1, before.dy, dhn=grads2["h0"], dcn=grads2["c0"])
        pieces = {"y": np.concatenate([y1, y2]), "hn": hn, "cn": cn, "dh0": grads1["h0"], "dc0": grads1["c0"]}
        pieces["dx"] = np.concatenate([grads1["x"], grads2["x"]])
        for name, value in pieces.items():
            assert_same_bits(value, whole[name], f"{name}, cut at {cut}")
        for name in WEIGHT_GRADIENTS:  # one sum in two parts: equal up to rounding
            parts = grads1[name[1:]].astype("float64") + grads2[name[1:]]
            assert distance(parts, whole[name]) <= tolerance(*shape, dtype, backward=True), f"{name}, cut at {cut}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7, 1, 5, 17), (5, 7, 3, 33), (4, 6, 16, 16)])
def test_step_by_step_is_the_whole(shape, dtype, isa):
    problem = draw(*shape, dtype, seed=15)
    y, hn, cn, _ = lf.ops.lstm_forward(**problem.forward)
    cell = problem.cell
    for t in range(shape[0]):
        cell["h"], cell["c"] = lf.ops.lstm_cell(**{**cell, "x": problem.x[t]})
        assert_same_bits(cell["h"], y[t], f"h after step {t}")
    assert_same_bits(cell["h"], hn)
    assert_same_bits(cell["c"], cn)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 7, 3, 33), (9, 6, 16, 16), (3, 13, 8, 129), (130, 17, 33, 64)])
def test_row_alone_is_row_in_batch(shape, dtype, isa):
    problem = draw(*shape, dtype, seed=16)
    whole = solve(problem)
    batch = shape[1]
    for rows in ([0], [batch - 1], [batch // 2], [1, 0], list(range(5)), list(range(batch))[::-1], [2, 2, 2, 0]):
        part = solve(problem.rows(rows))
        for name in ("hn", "cn", "dh0", "dc0"):
            assert_same_bits(part[name], whole[name][rows], f"{name} of rows {rows}")
        for name in ("y", "dx"):
            assert_same_bits(part[name], whole[name][:, rows], f"{name} of rows {rows}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_first_has_the_bits_of_time_major(dtype, isa):
    problem = draw(9, 6, 5, 17, dtype, seed=17)
    assert_all_same_bits(solve_layer(problem, batch_first=True), solve_layer(problem), "batch_first")
    assert_all_same_bits(solve_layer(problem), solve(problem), "layer and function")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 7, 3, 33), (9, 6, 16, 16)])
def test_hidden_units_in_another_order(shape, dtype, isa):
    """Sums over units run in another order then, so values agree up to rounding only."""
    problem = draw(*shape, dtype, seed=18)
    hidden = shape[3]
    order = np.random.default_rng(0).permutation(hidden)
    rows = (np.arange(4)[:, None] * hidden + order).ravel()
    moved = problem.replace(
        **{name: getattr(problem, name)[..., order] for name in ("h0", "c0", "dy", "dhn", "dcn")},
        **{name: getattr(problem, name)[rows] for name in ("w_ih", "b_ih", "b_hh")},
        w_hh=problem.w_hh[np.ix_(rows, order)],
    )
    whole = solve(problem)
    expected = {name: whole[name][..., order] for name in ("y", "hn", "cn", "dh0", "dc0")}
    expected |= {name: whole[name][rows] for name in ("dw_ih", "db_ih", "db_hh")}
    expected |= {"dx": whole["dx"], "dw_hh": whole["dw_hh"][np.ix_(rows, order)]}
    assert_close(solve(moved.copy()), expected, shape, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 7, 3, 33), (40, 5, 1, 7)])
def test_backward_is_linear(shape, dtype, isa):
    """Exactly so for powers of two, which no rounding touches; up to rounding for sums."""
    problem, other = draw(*shape, dtype, seed=19), draw(*shape, dtype, seed=20)
    *_, reserve = lf.ops.lstm_forward(**problem.forward)
    once = lf.ops.lstm_backward(reserve, **problem.backward)
    for factor in (4.0, -0.5):
        scaled = lf.ops.lstm_backward(reserve, **{k: (v * factor).astype(dtype) for k, v in problem.backward.items()})
        for name, value in once.items():
            np.testing.assert_array_equal(scaled[name], value * np.dtype(dtype).type(factor), err_msg=name)
    second = lf.ops.lstm_backward(reserve, **other.backward)
    both = {name: value + other.backward[name] for name, value in problem.backward.items()}
    together = lf.ops.lstm_backward(reserve, **both)
    for name, value in together.items():
        assert distance(value, once[name] + second[name]) <= tolerance(*shape, dtype, backward=True), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_reserve_can_be_used_again(dtype, isa):
    problem = draw(9, 7, 5, 17, dtype, seed=21)
    layer = make_layer(problem)
    y, _, reserve = layer.forward(problem.x, (problem.h0[None], problem.c0[None]))
    y_before = y.copy()
    before = {name: getattr(reserve.states(), name).copy() for name in "ifgoc"}
    last = problem.dhn[None], problem.dcn[None]
    first = layer.backward(reserve, problem.dy, last)
    for name, value in before.items():
        assert_same_bits(getattr(reserve.states(), name), value, f"reserve's {name} after backward")
    assert_same_bits(y, y_before, "y after backward")
    other = layer.backward(reserve, -problem.dy)
    again = layer.backward(reserve, problem.dy, last)
    assert_all_same_bits(again.parameters, first.parameters, "the third time")
    assert_same_bits(again.x, first.x, "the third time")
    for one, another in zip(again.state, first.state, strict=True):
        assert_same_bits(one, another, "the third time")
    assert not np.array_equal(other.x, first.x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_backward_is_of_what_forward_computed(dtype, isa):
    """Weights and states changed after forward change nothing: the reserve keeps its own."""
    problem = draw(9, 7, 5, 17, dtype, seed=22)
    expected = solve(problem)
    overwritten = problem.copy()
    *_, reserve = lf.ops.lstm_forward(**overwritten.forward)
    for name in ("h0", "c0", "w_ih", "w_hh", "b_ih", "b_hh"):
        getattr(overwritten, name)[...] = np.nan
    for name, value in lf.ops.lstm_backward(reserve, **overwritten.backward).items():
        assert_same_bits(value, expected[f"d{name}"], f"d{name}")
