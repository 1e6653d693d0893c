"""The bench package: problems, tolerance, engines, timing, the chart, and that `benches/` collects and agrees."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path

import lstm_fast as lf
import numpy as np
import pytest
from lstm_fast import _lstm_fast_core as core
from lstm_fast.bench import machine, sweep, timing, tolerance, verification
from lstm_fast.bench.engines import FORWARD, PASSES, TRAIN, UnsupportedError, can_run, expected
from lstm_fast.bench.packages import MissingPackageError, require
from lstm_fast.bench.peers import all_engines, missing_packages
from lstm_fast.bench.problems import KERNELS, Problem
from lstm_fast.bench.truth import Truth

ROOT = Path(__file__).parents[1]
VARIANTS = [
    {},
    {"shortest": 1},
    {"projection": 3},
    {"directions": 2},
    {"layers": 3},
    {"layers": 2, "directions": 2, "projection": 3, "shortest": 1},
]
SMALL = [
    Problem(*kernel, 9, 5, 7, 4, **variant)
    for kernel in KERNELS
    for variant in VARIANTS
    if kernel.cell == "lstm" or "projection" not in variant
]


@pytest.fixture(params=all_engines(), ids=lambda made: made.name)
def engine_class(request):
    if missing_packages(request.param):
        pytest.skip(f"not installed: {', '.join(missing_packages(request.param))}")
    return request.param


def test_tolerance_is_the_documented_formula():
    problem = Problem("lstm", "float32", steps=100, batch=2, hidden=16, inputs=8)
    eps = 2.0**-23
    assert tolerance.bound(problem, backward=False) == 4 * math.ceil(math.log2(25 * 100)) * eps
    assert tolerance.bound(problem, backward=True) == 8 * math.ceil(math.log2(25 * 64 * 100)) * eps


@pytest.mark.parametrize("spoiled", [np.nan, np.inf])
def test_error_is_relative_above_one_and_infinite_for_what_is_not_a_number(spoiled):
    wanted = np.array([0.5, -4.0])
    assert tolerance.error(np.array([0.5, -3.0]), wanted) == 0.25
    assert tolerance.error(np.array([0.25, -0.5]), wanted / 8) == 0.1875
    assert tolerance.error(np.array([spoiled, -4.0]), wanted) == math.inf
    assert tolerance.error(wanted[:1], wanted) == math.inf


@pytest.mark.parametrize("problem", SMALL, ids=str)
def test_every_engine_agrees_with_the_reference(engine_class, problem):
    arrays = problem.arrays()
    try:
        engine = engine_class(problem, arrays, 1)
    except UnsupportedError as reason:
        pytest.skip(str(reason))
    wanted = expected(problem, arrays)
    for which in filter(lambda which: can_run(engine, which), wanted):
        result = sweep.checked(engine, problem, which, wanted[which])
        assert result.ok, f"{which}: {result.error} above {result.bound}"


def test_truth_is_what_pytorch_computes_in_float64():
    """The reference layer by layer is composed here; PyTorch composes by itself."""
    from lstm_fast.bench.peers import PyTorch

    pytest.importorskip("torch")
    for problem in (problem for problem in SMALL if problem.dtype == "float64"):
        arrays = problem.arrays()
        wanted = expected(problem, arrays)
        engine = PyTorch(problem, arrays, 1)
        for which in PASSES:
            result = sweep.checked(engine, problem, which, wanted[which])
            assert result.error < 1e-14, f"{problem} {which}"


def test_dropout_of_the_truth_is_off_at_zero_and_total_at_one():
    problem = Problem("lstm", "float64", 6, 2, 5, layers=2)
    arrays = problem.arrays()
    plain = Truth(problem, arrays)
    dropped = Truth(dataclasses.replace(problem, dropout=1.0), arrays)
    assert not np.array_equal(plain.values["y"], dropped.values["y"])
    assert not dropped.gradients(arrays["dy"])["x"].any()
    assert plain.gradients(arrays["dy"])["x"].all()


def test_check_notices_wrong_gradients_and_missing_ones():
    problem = SMALL[0]
    arrays = problem.arrays()
    wanted = expected(problem, arrays)

    class Twice:
        name = "twice"

        def forward(self):
            return list(wanted[FORWARD].values())

        def train(self):
            return wanted[TRAIN] | {"w_hh": 2 * wanted[TRAIN]["w_hh"]}

    class Short(Twice):
        def train(self):
            return {"x": wanted[TRAIN]["x"]}

    assert sweep.checked(Twice(), problem, FORWARD, wanted[FORWARD]).ok
    assert not sweep.checked(Twice(), problem, TRAIN, wanted[TRAIN]).ok
    with pytest.raises(ValueError, match="w_ih, w_hh, b_ih, b_hh"):
        sweep.checked(Short(), problem, TRAIN, wanted[TRAIN])


def test_engines_alternate_and_get_equal_rounds():
    order: list[str] = []
    samples, shares = timing.alternate({n: lambda n=n: order.append(n) for n in "abc"}, 0.0, lambda part: None)
    assert set(shares) == set("abc")
    assert all(0 < share <= 1.1 for share in shares.values())
    assert {len(s) for s in samples.values()} == {timing.MIN_ROUNDS}
    changes = [name for i, name in enumerate(order) if i == 0 or order[i - 1] != name]
    assert len(changes) >= 3 * timing.MIN_ROUNDS - timing.MIN_ROUNDS  # a round starts with the next engine
    assert set(changes[-3:]) == set("abc")


def test_row_figures_follow_from_the_median():
    problem = Problem("lstm", "float32", steps=10, batch=2, hidden=5)
    ours = sweep.Measurement(0.0, 1.0, [3.0, 1.0, 2.0, 9.0, 2.0])
    row = sweep.Row(problem, TRAIN, {"lstm_fast": ours, "slow": sweep.Measurement(0.0, 1.0, [5.0] * 5)})
    assert row.ratio("slow") == 2.5
    assert row.ns_per_step == 2e8
    assert row.gflops == pytest.approx(problem.flops(backward=True) / 2 * 1e-9)
    row.engines["lstm_fast"] = sweep.Measurement(2.0, 1.0)
    assert row.ratio("slow") is None
    assert row.ns_per_step is None


def test_share_of_the_peak_is_of_the_cores_that_were_used():
    problem = Problem("lstm", "float32", steps=10, batch=2, hidden=5)
    row = sweep.Row(problem, TRAIN, {"lstm_fast": sweep.Measurement(0.0, 1.0, [2.0] * 5)}, threads_used=2)
    peak = timing.FmaPeak("float32")
    peak.gflops = row.gflops
    assert sweep.Sweep([row], peak, {}).peak_share(row) == 0.5


def test_ragged_overhead_is_over_the_valid_share_of_the_padded_time():
    problem = Problem("lstm", "float32", 40, 8, 5, shortest=10)
    ours, padded = sweep.Measurement(0.0, 1.0, [3.0] * 5), sweep.Measurement(0.0, 1.0, [4.0] * 5)
    row = sweep.Row(problem, TRAIN, {"lstm_fast": ours}, padded=padded)
    assert row.ragged_overhead == pytest.approx(3 / (problem.valid_share * 4))
    assert sweep.Row(problem.padded(), TRAIN, {"lstm_fast": ours}).ragged_overhead is None


def test_wrong_padded_run_is_a_failure():
    problem = Problem("lstm", "float32", 40, 8, 5, shortest=10)
    ours, wrong = sweep.Measurement(0.0, 1.0, [3.0] * 5), sweep.Measurement(2.0, 1.0)
    measured = sweep.Sweep(
        [sweep.Row(problem, TRAIN, {"lstm_fast": ours}, padded=wrong)], timing.FmaPeak("float32"), {}
    )
    assert len(measured.failures) == 1
    assert measured.failures[0].startswith("lstm_fast, padded")


def test_barrier_is_measured_among_several_threads_only():
    assert core.barrier_ns(1) == 0
    for threads in (2, 3, 7):
        assert core.barrier_ns(threads) > 0


def test_forced_threads_are_proven_and_restored(monkeypatch):
    before = lf.get_num_threads()
    problem = SMALL[0]
    with verification.forced_threads(3):
        verification.outputs(problem, problem.arrays())
        assert core.threads_used() == 3
    assert lf.get_num_threads() == before
    monkeypatch.setattr(core, "threads_used", lambda: 1)
    with pytest.raises(RuntimeError, match="2 threads were asked for and 1 ran"), verification.forced_threads(2):
        pass


def test_fma_peak_keeps_the_highest_reading(monkeypatch):
    peak = timing.FmaPeak("float32")
    peak.read()
    assert peak.gflops > 0
    monkeypatch.setattr(core, "fma_peak", lambda dtype, seconds: 0.0)
    before = peak.gflops
    peak.read()
    assert peak.gflops == before


def test_engine_threads_are_restored():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with lf.threads(3):
            with machine.engine_threads(1) as used:
                assert torch.get_num_threads() == lf.get_num_threads() == 1
                assert used["torch"] == used["lstm_fast"] == "1"
                assert used["numpy"]
            assert lf.get_num_threads() == 3
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_forced_isa_is_proven_and_restored(monkeypatch):
    before = lf.isa()
    for name in core.isas_usable():
        with verification.forced_isa(name):
            assert lf.isa() == name
        assert lf.isa() == before
    monkeypatch.setattr(verification, "set_isa", lambda name: None)
    with pytest.raises(RuntimeError, match="left"), verification.forced_isa("another"):
        pass


def test_missing_package_message_has_the_pip_command():
    with pytest.raises(
        MissingPackageError, match=r"^the task needs no_such_package_, .*: pip install no_such_package_$"
    ):
        require("no_such_package_.part", "the task")


def test_benches_collect_and_every_row_checks_its_answer():
    pytest.importorskip("pytest_benchmark")
    rows = "T16-B1-H64 or T1-B1-H64 or (float32 and B1-H128-bidirectional)"
    command = [sys.executable, "-m", "pytest", "benches", "-p", "no:cacheprovider", "--benchmark-disable"]
    where = {"PYTHONPATH": os.pathsep.join([str(Path(lf.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])}
    ran = subprocess.run(
        [*command, "-k", rows, "--threads", "2"],
        cwd=ROOT,
        env=os.environ | where,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    # Our rows alone: forward, forward+backward and step of one problem, the first two of another.
    least = (3 * len(KERNELS) + 2) * (len(core.isas_usable()) - 1)
    assert int(ran.stdout.split(" passed")[0].split()[-1]) >= least
