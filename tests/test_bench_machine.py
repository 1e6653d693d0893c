"""What the bench measures beside times: the bound of a layer, the memory of a call."""

from __future__ import annotations

import lstm_fast as lf
import numpy as np
import pytest
from lstm_fast import _lstm_fast_core as core
from lstm_fast.bench.engines import FORWARD, TRAIN, LstmFast
from lstm_fast.bench.memory import own_bytes
from lstm_fast.bench.problems import Problem
from lstm_fast.bench.roofline import bound, recurrent_bytes


def test_bound_of_one_row_is_the_input_product_at_the_peak_and_one_reading_of_w_hh_a_step():
    problem = Problem("lstm", "float32", steps=10, batch=1, hidden=32, inputs=16)
    assert recurrent_bytes(problem) == 4 * 32 * 32 * 4
    products, weights, peak, rate = 10 * 8 * 32 * 16, 10 * 4 * 32 * 32 * 4, 100.0, 50.0
    seconds = products / peak + weights / rate
    assert bound(problem, FORWARD, peak, rate) == pytest.approx(problem.flops(backward=False) / seconds)
    # Backward reads W_hh once a step, too; the products of the weight gradients and of dx run at the peak.
    seconds = (3 * products + 10 * 8 * 32 * 32) / peak + 2 * weights / rate
    assert bound(problem, TRAIN, peak, rate) == pytest.approx(problem.flops(backward=True) / seconds)


def test_bound_of_many_rows_is_the_peak():
    problem = Problem("lstm", "float64", 10, 64, 32, 16, layers=2, directions=2, projection=8, shortest=10)
    for which in (FORWARD, TRAIN):
        assert bound(problem, which, 100.0, 50.0) == pytest.approx(100.0)


def test_bound_counts_the_readings_of_every_layer_direction_and_projection():
    problem = Problem("lstm", "float64", steps=10, batch=1, hidden=32, layers=2, directions=2, projection=8)
    each = (4 * 32 * 8 + 8 * 32) * 8
    assert recurrent_bytes(problem) == each
    at_no_cost = 1e300  # the peak: only reading takes time
    assert bound(problem, FORWARD, at_no_cost, 50.0) == pytest.approx(
        problem.flops(backward=False) / (10 * 4 * each / 50.0)
    )


def taken(**options):
    problem = Problem(**{"cell": "lstm", "dtype": "float32", "batch": 16, "hidden": 64} | options)
    arrays = problem.arrays()
    return own_bytes(LstmFast(problem, arrays, 1), arrays["dy"])


@pytest.mark.parametrize("variant", [{}, {"directions": 2, "projection": 8}], ids=str)
def test_memory_of_inference_does_not_depend_on_the_number_of_steps(variant):
    short, long = (taken(steps=steps, **variant) for steps in (50, 400))
    assert 0 < short[FORWARD] == long[FORWARD]
    # Gates and c of 350 steps more stay for backward.
    assert long[TRAIN] - short[TRAIN] >= 350 * 16 * 5 * 64 * 4


def test_memory_of_training_is_the_reserve_and_a_workspace():
    problem = Problem("lstm", "float32", steps=300, batch=4, hidden=64)
    arrays = problem.arrays()
    engine = LstmFast(problem, arrays, 1)
    y, *_, reserve = engine.saving_forward()
    saved = reserve.nbytes - np.asarray(y).nbytes
    assert saved < own_bytes(engine, arrays["dy"])[TRAIN] < saved + 10 * recurrent_bytes(problem) + (1 << 20)


def test_measuring_memory_leaves_the_limit_alone():
    limit = core.spare_memory_limit()
    lf.set_spare_memory(123 << 10)
    try:
        taken(steps=3)
        assert core.spare_memory_limit() == 123 << 10
        assert core.spare_memory() <= 123 << 10
    finally:
        lf.set_spare_memory(limit)
