"""Several Python threads at once, forked children, and Ctrl-C in a long call."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import lstm_fast as lf
import pytest
from judge import assert_all_same_bits
from problems import draw, make_layer, solve


def test_eight_threads_on_different_problems(isa):
    """Kernels run without the interpreter's lock: nothing of one call may reach another."""
    problems = [draw(60, batch, 9, hidden, seed=60) for batch in (1, 5, 16) for hidden in (7, 33, 64)]
    expected = [solve(problem) for problem in problems]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(solve, problems * 4))
    for result, serial in zip(results, expected * 4, strict=True):
        assert_all_same_bits(result, serial, "in eight threads")


def test_eight_threads_on_one_layer_and_one_reserve(isa):
    problem = draw(60, 5, 9, 33, seed=61)
    layer = make_layer(problem)
    _, _, reserve = layer.forward(problem.x)
    together = threading.Barrier(8)

    def use(_):
        together.wait(60)
        grads = layer.backward(reserve, problem.dy)
        return {"y": layer(problem.x)[0], "dx": grads.x} | grads.parameters

    expected = {"y": layer(problem.x)[0]}
    grads = layer.backward(reserve, problem.dy)
    expected |= {"dx": grads.x} | grads.parameters
    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(use, range(8)):
            assert_all_same_bits(result, expected, "in eight threads")


def test_choosing_the_set_while_others_compute():
    """A call keeps the set it began with; bits do not depend on it anyway."""
    problem = draw(40, 5, 9, 33, seed=62)
    expected = solve(problem)
    done = threading.Event()

    def choose():
        names = lf._lstm_fast_core.isas_usable()
        turn = 0
        while not done.is_set():
            lf.set_isa(names[turn % len(names)])
            turn += 1

    chooser = threading.Thread(target=choose)
    chooser.start()
    try:
        for _ in range(100):
            assert_all_same_bits(solve(problem), expected, "while the set changes")
    finally:
        done.set()
        chooser.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_child_computes():
    script = """
        import os, sys
        import numpy as np
        import lstm_fast as lf
        layer = lf.LSTM(5, 33, seed=0)
        x = np.random.default_rng(0).standard_normal((7, 3, 5)).astype(np.float32)
        before = layer(x)[0]
        child = os.fork()
        if child == 0:
            os._exit(0 if (layer(x)[0] == before).all() else 1)
        _, status = os.waitpid(child, 0)
        assert (layer(x)[0] == before).all()
        print(status)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "0", done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads ru_maxrss in KB")
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_interrupt_of_a_long_call(direction):
    """Ctrl-C ends the call inside, not after it: most of its output, hundreds of pages, was never touched."""
    script = """
        import os, resource, signal, sys, threading
        import numpy as np
        import lstm_fast as lf
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell runs in the background
        lf.set_isa("scalar")
        layer = lf.LSTM(64, 64, seed=0)
        row = np.ones((1, 1, 64), np.float32)
        if sys.argv[1] == "forward":
            x = np.broadcast_to(row, (100_000, 8, 64))
            call = lambda: layer(x)
        else:
            x = np.broadcast_to(row, (10_000, 8, 64))
            reserve = layer.forward(x)[2]
            call = lambda: layer.backward(reserve, x)
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        before = peak()
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            call()
        except KeyboardInterrupt:
            print("interrupted")
        print("inside" if peak() - before < x.size * 4 // 2 else "after")
        print(layer(x[:2])[0].shape)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), direction]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines() == ["interrupted", "inside", "(2, 8, 64)"], done.stderr
