"""The peers of the bench: the paths that they name, and the state of the process that they leave alone."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
from lstm_fast.bench.engines import FORWARD, PASSES, STEP, TRAIN, UnsupportedError, can_run, path_of, timed_call
from lstm_fast.bench.peers import PEERS, Jax, OpenVino, PyTorch, missing_packages
from lstm_fast.bench.problems import Problem


def made(engine_class, threads=1, **options):
    """The engine for a small problem; skips where it is not installed, or where JAX has been started before."""
    if missing_packages(engine_class):
        pytest.skip(f"not installed: {', '.join(missing_packages(engine_class))}")
    problem = Problem(**{"cell": "lstm", "dtype": "float32", "steps": 6, "batch": 3, "hidden": 5} | options)
    try:
        return engine_class(problem, problem.arrays(), threads)
    except UnsupportedError as reason:
        if not str(reason).startswith("its pool has"):  # that of another test in this process
            raise
        pytest.skip(str(reason))


@pytest.mark.parametrize("engine_class", PEERS, ids=lambda engine_class: engine_class.name)
def test_every_peer_names_the_path_of_every_pass(engine_class):
    engine = made(engine_class)
    for which in filter(lambda which: can_run(engine, which), (FORWARD, TRAIN, STEP)):
        assert path_of(engine, which)


@pytest.mark.parametrize(
    ("options", "fused"),
    [
        ({}, True),
        ({"steps": 1}, True),
        ({"layers": 2, "directions": 2}, True),
        ({"dtype": "float64"}, False),
        ({"projection": 2}, False),
        ({"shortest": 2}, False),
    ],
    ids=str,
)
def test_path_of_pytorch_is_the_one_that_its_profiler_sees(options, fused):
    engine = made(PyTorch, **options)
    from torch.profiler import profile

    for which in PASSES:
        with profile() as profiler:
            timed_call(engine, which)()
        seen = any("mkldnn_rnn_layer" in event.key for event in profiler.key_averages())
        assert seen == fused
        assert ("oneDNN fused" in path_of(engine, which)) == seen


def test_path_of_pytorch_without_onednn(monkeypatch):
    engine = made(PyTorch)
    import torch

    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert path_of(engine, FORWARD) == "ATen, loop over steps (oneDNN is off)"


def test_path_of_openvino_is_in_float32_and_tells_ragged_from_padded():
    padded, ragged = (path_of(made(OpenVino, shortest=shortest), FORWARD) for shortest in (None, 2))
    assert "f32" in padded
    assert "bf16" not in padded
    assert "oneDNN" in padded
    assert "TensorIterator" in ragged


def test_path_of_jax_tells_the_loop_from_a_single_step():
    assert path_of(made(Jax), FORWARD) == "XLA, while loop"
    assert path_of(made(Jax), STEP) == "XLA, no loop"


def test_jax_computes_in_float64_and_leaves_the_flag_alone():
    engine = made(Jax, dtype="float64")
    import jax

    assert {str(array.dtype) for array in engine.forward()} == {"float64"}
    assert not jax.config.jax_enable_x64
    assert jax.numpy.zeros(1).dtype == "float32"


def test_jax_refuses_other_threads_than_its_pool_has():
    made(Jax, threads=1)
    problem = Problem("lstm", "float32", 6, 3, 5)
    with pytest.raises(UnsupportedError, match=r"its pool has 1 thread.* 2 were asked for"):
        Jax(problem, problem.arrays(), 2)


@pytest.mark.parametrize("threads", [1, 3])
def test_jax_gets_a_pool_of_so_many_threads(threads):
    made(Jax, threads=1)
    script = f"""
        import os, time
        from pathlib import Path
        from lstm_fast.bench.peers import Jax
        from lstm_fast.bench.problems import Problem
        problem = Problem("lstm", "float32", 50, 16, 128)
        engine = Jax(problem, problem.arrays(), {threads})
        engine.forward()
        before = time.process_time(), time.thread_time()
        for _ in range(20):
            engine.forward()
        print((time.thread_time() - before[1]) / (time.process_time() - before[0]))
        print([task.read_text() for task in Path("/proc/self/task").glob("*/comm")].count("tf_XLAEigen\\n"))
        print(os.environ.get("NPROC"))
    """
    environment = {name: value for name, value in os.environ.items() if name != "NPROC"}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    share, pool, variable = done.stdout.split()
    assert (int(pool), variable) == (threads, "None"), done.stderr
    # With one, the caller does all of the forward pass; by default it would wait, with 0.005 of the CPU time.
    assert threads > 1 or float(share) > 0.5
