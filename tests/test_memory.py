"""Memory: nothing leaks, too little of it is a MemoryError, more than 2^31 elements are indexed right."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap

import lstm_fast as lf
import numpy as np
import pytest
from judge import assert_same_bits
from problems import draw, make_layer, solve

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def resident_bytes():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def one_of_everything(problem, layer):
    solve(problem)
    lf.ops.lstm_forward(**problem.forward, save=None)
    lf.ops.lstm_cell(**problem.cell)
    layer(problem.x)
    y, _, reserve = layer.forward(problem.x)
    reserve.states()
    layer.backward(reserve, y)
    for wrong in ({"x": problem.x[0]}, {"h0": problem.h0.astype("f2")}, {"w_ih": None}, {"b_ih": problem.b_ih[1:]}):
        with pytest.raises((TypeError, ValueError)):
            lf.ops.lstm_forward(**problem.forward | wrong)


@linux_only
def test_nothing_leaks():
    """Ten bytes a call would show: the resident memory stays flat over thousands of calls, errors included."""
    problem = draw(3, 5, 7, 33)
    layer = make_layer(problem)
    for _ in range(200):
        one_of_everything(problem, layer)
    gc.collect()
    before = resident_bytes()
    for _ in range(1000):
        one_of_everything(problem, layer)
    gc.collect()
    # 11,000 calls of the package; the smallest array among them has 660 bytes, so that one leaked array is 0.7 MB.
    assert resident_bytes() - before < 512 << 10


@linux_only
def test_big_arrays_are_given_back():
    problem = draw(200, 16, 32, 64)
    solve(problem)
    before = resident_bytes()
    for _ in range(20):
        solve(problem)
    assert resident_bytes() - before < 16 << 20  # a reserve has 4 MB: twenty would be 80


@linux_only
def test_allocation_failure_is_a_memory_error():
    """Under a limit on the address space the call fails with MemoryError, and the next small one works."""
    script = """
        import resource
        import numpy as np
        import lstm_fast as lf
        layer = lf.LSTM(8, 64, seed=0)
        small = np.ones((3, 2, 8), np.float32)
        before = layer(small)[0]
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        x = np.ones((40_000, 2, 8), np.float32)
        resource.setrlimit(resource.RLIMIT_AS, (used + (48 << 20),) * 2)
        failures = 0
        for run in (layer.forward, layer):
            for batch in (64, 4096):
                try:
                    run(np.broadcast_to(x[:, :1], (40_000, batch, 8)))
                except MemoryError:
                    failures += 1
        assert failures == 4, failures
        assert (layer(small)[0] == before).all()
        print("survived")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "survived", done.stderr


@linux_only
def test_more_than_two_to_the_31_elements():
    """T*B*4H > 2^31: rows have the bits of the same rows alone, up to the last step."""
    if not os.environ.get("LSTM_FAST_TEST_LARGE"):
        pytest.skip("15 GB of memory and half a minute: set LSTM_FAST_TEST_LARGE=1")
    steps, batch, hidden = (1 << 13) + 1, 1 << 10, 64
    assert steps * batch * 4 * hidden > 2**31
    few = draw(1, batch, 2, hidden)
    x = np.random.default_rng(1).standard_normal((steps, batch, 2)).astype(np.float32)
    problem = few.replace(x=x, dy=np.broadcast_to(few.dy, (steps, batch, hidden)))
    y, hn, cn, reserve = lf.ops.lstm_forward(**problem.forward)
    rows = [0, 1, batch // 2, batch - 1]
    alone = solve(problem.rows(rows))
    for name, value in (("y", y[:, rows]), ("hn", hn[rows]), ("cn", cn[rows])):
        assert_same_bits(value, alone[name], name)
    del y
    grads = lf.ops.lstm_backward(reserve, **problem.backward)
    for name, value in (("x", grads["x"][:, rows]), ("h0", grads["h0"][rows]), ("c0", grads["c0"][rows])):
        assert_same_bits(value, alone[f"d{name}"], name)
