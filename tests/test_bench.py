"""The bench package: problems, tolerance, engines, timing, the chart, and that `benches/` collects and agrees."""

from __future__ import annotations

import hashlib
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
from lstm_fast.bench.engines import FORWARD, PASSES, STEP, TRAIN, UnsupportedError, can_run, expected
from lstm_fast.bench.packages import MissingPackageError, require
from lstm_fast.bench.peers import all_engines, missing_packages
from lstm_fast.bench.problems import FULL, KERNELS, QUICK, Problem, grid_problems

ROOT = Path(__file__).parents[1]
SMALL = [Problem(*kernel, steps=9, batch=3, hidden=7, inputs=4) for kernel in KERNELS]


@pytest.fixture(params=all_engines(), ids=lambda made: made.name)
def engine_class(request):
    if missing_packages(request.param):
        pytest.skip(f"not installed: {', '.join(missing_packages(request.param))}")
    return request.param


@pytest.mark.parametrize("kernel", KERNELS, ids="-".join)
def test_every_listed_kernel_has_its_functions_and_reference(kernel):
    for module in (lf.ops, lf.reference):
        for suffix in ("forward", "backward", "cell"):
            assert callable(getattr(module, f"{kernel.cell}_{suffix}"))


def test_problem_arrays_are_the_same_bits_everywhere():
    digest = hashlib.sha256()
    for array in Problem("lstm", "float64", steps=5, batch=2, hidden=3).arrays().values():
        digest.update(array.astype("<f8").tobytes())
    assert digest.hexdigest() == "9e647d0400656f539021bb00ab89d11cef18118725ea8488495ad5c4eb95bb88"


def test_problem_arrays_are_centred_and_weights_on_pytorchs_scale():
    arrays = Problem("lstm", "float32", steps=50, batch=8, hidden=64).arrays()
    assert {a.dtype for a in arrays.values()} == {np.dtype("float32")}
    assert 0.95 < np.abs(arrays["x"]).max() <= 1
    assert abs(arrays["x"].mean()) < 0.02
    assert 0.95 / 8 < np.abs(arrays["w_hh"]).max() <= 1 / 8


def test_flops_count_the_matrix_products():
    problem = Problem("lstm", "float32", steps=5, batch=2, hidden=3, inputs=4)
    assert problem.flops(backward=False) == 8 * 5 * 2 * 3 * (4 + 3)
    assert problem.flops(backward=True) == 3 * problem.flops(backward=False)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"hidden": -1}, {"dtype": "float16"}, {"cell": "gru9"}])
def test_impossible_problem_is_refused(wrong):
    with pytest.raises(ValueError, match="|".join(map(str, wrong.values()))):
        Problem(**({"cell": "lstm", "dtype": "float32", "steps": 1, "batch": 1, "hidden": 1} | wrong))


def test_default_sweep_runs_from_16_to_4096():
    assert (min(FULL.steps), max(FULL.steps)) == (16, 4096)
    assert set(QUICK.sizes) <= set(FULL.sizes)
    assert len(grid_problems(KERNELS[0], FULL)) == len(FULL.steps) * len(FULL.sizes)


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
    for which in filter(lambda which: can_run(engine, which), (*PASSES, STEP)):
        result = sweep.checked(engine, problem, which, wanted[which])
        assert result.ok, f"{which}: {result.error} above {result.bound}"


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
    samples = timing.alternate({n: lambda n=n: order.append(n) for n in "abc"}, 0.0, lambda part: None)
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


def test_fma_peak_keeps_the_highest_reading(monkeypatch):
    peak = timing.FmaPeak("float32")
    peak.read()
    assert peak.gflops > 0
    monkeypatch.setattr(core, "fma_peak", lambda dtype, seconds: 0.0)
    before = peak.gflops
    peak.read()
    assert peak.gflops == before


def test_peer_threads_are_restored():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with machine.peer_threads(1) as used:
            assert torch.get_num_threads() == 1
            assert used["torch"] == "1"
            assert used["numpy"]
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
    command = [sys.executable, "-m", "pytest", "benches", "-p", "no:cacheprovider", "--benchmark-disable"]
    where = {"PYTHONPATH": os.pathsep.join([str(Path(lf.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])}
    ran = subprocess.run(
        [*command, "-k", "T16-B1-H64 or T1-B1-H64"], cwd=ROOT, env=os.environ | where, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    least = 3 * len(KERNELS) * len(core.isas_usable())  # our rows alone: forward, forward+backward, step
    assert int(ran.stdout.split(" passed")[0].split()[-1]) >= least
