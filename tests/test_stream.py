"""A stream: one step at a time, with the bits of the whole sequence, its own weights and states, and no allocation."""

from __future__ import annotations

import copy
import os
import pickle
import shlex
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lstm_fast as lf
import numpy as np
import pytest
from judge import assert_same_bits
from lstm_fast import _lstm_fast_core as core

HERE = Path(__file__).parent

# I, H, layers, P, B: units of one block, of several, and of a part of one; more rows than a tile.
SIZES = [(1, 1, 1, 0, 1), (3, 17, 1, 0, 1), (5, 16, 3, 0, 2), (7, 33, 2, 5, 3), (64, 130, 1, 0, 1), (9, 40, 2, 0, 14)]


def draw(layer, batch, steps=5):
    generator = np.random.default_rng(batch)
    widths = layer.proj_size or layer.hidden_size, layer.hidden_size
    state = tuple(generator.standard_normal((layer.num_layers, batch, w)).astype(layer.dtype) for w in widths)
    return generator.standard_normal((steps, batch, layer.input_size)).astype(layer.dtype), state


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_bits_of_the_whole_sequence(sizes, dtype, bias, isa, team):
    inputs, hidden, layers, proj, batch = sizes
    layer = lf.LSTM(inputs, hidden, layers, bias, proj_size=proj, dtype=dtype, seed=1)
    x, state = draw(layer, batch)
    y, (hn, cn) = layer(x, state)
    lanes = {"avx512": 64, "avx2": 32}.get(isa, layer.dtype.itemsize) // layer.dtype.itemsize
    for threads in (1, 2, 3):
        lf.set_num_threads(threads)
        stream = layer.stream(batch)
        stream.state = state
        for step, now in enumerate(x):
            assert_same_bits(stream.step(now), y[step], f"step {step}, {threads} threads")
            shared = 1 if proj else min(threads, -(-hidden // lanes))  # a projection needs whole rows
            assert core.threads_used() == shared
        h, c = stream.state
        assert_same_bits(h, hn, "h")
        assert_same_bits(c, cn, "c")


def test_any_number_of_threads_from_step_to_step(isa, team):
    layer = lf.LSTM(5, 70, 3, dtype="float64", seed=8)
    x, state = draw(layer, 2, steps=9)
    y, _ = layer(x, state)
    stream = layer.stream(2)
    stream.state = state
    for step, threads in enumerate((2, 3, 1, 2, 7, 3, 7, 1, 2)):
        lf.set_num_threads(threads)
        assert_same_bits(stream.step(x[step]), y[step], f"step {step}, {threads} threads")
        assert core.threads_used() == threads


def test_starts_at_zero_and_serves_one_row_without_an_axis():
    layer = lf.LSTM(4, 6, seed=2)
    x, _ = draw(layer, 1)
    y, _ = layer(x)
    stream, other = layer.stream(), layer.stream()
    for step, now in enumerate(x):
        found = stream.step(now[0])
        assert found.shape == (6,)
        assert_same_bits(found, y[step, 0], f"step {step}")
        assert_same_bits(other.step(now[0].tolist()), y[step, 0], "a list")


def test_a_snapshot_of_the_weights():
    layer = lf.LSTM(4, 6, seed=2)
    x, _ = draw(layer, 1)
    y, _ = layer(x)
    stream = layer.stream()
    for array in layer.parameters.values():
        array[...] = 0
    for step, now in enumerate(x):
        assert_same_bits(stream.step(now), y[step], f"step {step}")


def test_out_takes_the_result():
    layer = lf.LSTM(4, 6, seed=3)
    x, _ = draw(layer, 2)
    y, _ = layer(x)
    stream = layer.stream(2)
    for step, now in enumerate(x):
        out = np.full((2, 6), np.nan, np.float32)
        assert stream.step(now, out) is out
        assert_same_bits(out, y[step], f"step {step}")


def test_rows_with_gaps():
    layer = lf.LSTM(4, 6, seed=3)
    x, _ = draw(layer, 4)
    y, _ = layer(x[:, ::-2])
    stream = layer.stream(2)
    for step, now in enumerate(x):
        assert_same_bits(stream.step(now[::-2]), y[step], f"step {step}")


def test_reset():
    layer = lf.LSTM(4, 6, 2, seed=4)
    x, state = draw(layer, 3)
    stream = layer.stream(3)
    stream.state = state
    stream.reset([True, False, True])
    h, c = (array.copy() for array in state)
    h[:, ::2] = c[:, ::2] = 0
    for name, found, expected in zip("hc", stream.state, (h, c), strict=True):
        assert_same_bits(found, expected, name)
    stream.step(x[0])
    stream.reset()
    for array in stream.state:
        assert not array.any()


@pytest.mark.parametrize(
    ("x", "out", "error", "message"),
    [
        (np.zeros((3, 4), np.float32), None, ValueError, r"x: expected shape \(2, 4\), got \(3, 4\)"),
        (np.zeros(4, np.float32), None, ValueError, r"x: expected shape \(2, 4\), got \(4,\)"),
        (np.zeros((2, 4)), None, TypeError, "x: expected dtype float32, the dtype of the stream, got float64"),
        ("xx", None, TypeError, "x: expected an ndarray of float32 or a list, got str"),
        (np.zeros((2, 4), np.float32), np.zeros((2, 7), np.float32), ValueError, r"out: expected shape \(2, 6\), got"),
        (np.zeros((2, 4), np.float32), np.zeros((2, 6)), TypeError, "out: expected dtype float32"),
        (np.zeros((2, 4), np.float32), [[0] * 6] * 2, TypeError, "out: expected a numpy.ndarray of float32, got list"),
        (np.zeros((2, 4), np.float32), np.zeros((6, 2), np.float32).T, ValueError, "out: expected a dense"),
    ],
)
def test_bad_arrays_change_nothing(x, out, error, message):
    layer = lf.LSTM(4, 6, seed=5)
    stream = layer.stream(2)
    stream.step(np.ones((2, 4), np.float32))
    before = stream.state
    with pytest.raises(error, match=message):
        stream.step(x, out)
    for one, other in zip(stream.state, before, strict=True):
        assert_same_bits(one, other, "the state")


def test_out_must_be_writable_memory_of_its_own():
    stream = lf.LSTM(6, 6, seed=5).stream(2)
    memory = np.zeros((4, 6), np.float32)
    with pytest.raises(ValueError, match="out: expected memory of its own, got some of x"):
        stream.step(memory[1:3], memory[2:])
    with pytest.raises(ValueError, match="out: expected memory of its own, got some of x"):
        stream.step(memory[2:0:-1], memory[2:])
    assert not stream.step(memory[2:], memory[:2]).flags.owndata
    memory.flags.writeable = False
    with pytest.raises(ValueError, match="out: expected a dense, aligned, writable array"):
        stream.step(np.zeros((2, 6), np.float32), memory[:2])


def test_bad_requests():
    layer = lf.LSTM(4, 6, seed=5)
    with pytest.raises(ValueError, match="stream: expected a layer of one direction"):
        lf.LSTM(4, 6, bidirectional=True).stream()
    with pytest.raises(ValueError, match=r"batch_size: expected .* got 0"):
        layer.stream(0)
    with pytest.raises(TypeError, match="batch_size: expected an integer"):
        layer.stream(1.5)
    stream = layer.stream(2)
    with pytest.raises(TypeError, match=r"state: expected a tuple \(h, c\), got ndarray"):
        stream.state = np.zeros((2, 1, 2, 6), np.float32)
    with pytest.raises(ValueError, match=r"c: expected shape \(1, 2, 6\), got \(1, 3, 6\)"):
        stream.state = np.zeros((1, 2, 6), np.float32), np.zeros((1, 3, 6), np.float32)
    with pytest.raises(TypeError, match="mask: expected booleans, got dtype int64"):
        stream.reset([0, 1])
    with pytest.raises(ValueError, match=r"mask: expected shape \(2,\), got \(3,\)"):
        stream.reset([True] * 3)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_no_copies(copied):
    """A shallow one would share the states."""
    stream = lf.LSTM(4, 6, seed=5).stream()
    with pytest.raises(TypeError, match="stream: expected what can be copied, got a Stream"):
        copied(stream)


def test_one_caller_at_a_time():
    layer = lf.LSTM(1000, 1000, seed=6)
    x = np.ones((500, 1000), np.float32)
    expected, _ = layer(x[None])
    stream = layer.stream(500)
    refused = False
    with ThreadPoolExecutor(1) as pool:
        step = pool.submit(stream.step, x)
        while not step.done():
            try:
                stream.state  # noqa: B018
            except RuntimeError as error:
                assert "stream: expected one caller at a time" in str(error)  # noqa: PT017
                refused = True
    assert refused
    assert_same_bits(step.result(), expected[0], "y")


COUNTED = """
import ctypes, numpy as np, lstm_fast as lf
count = ctypes.CDLL(None).allocations
count.restype = ctypes.c_long
lf.set_num_threads(int(input()))
stream = lf.LSTM(100, 128, 2, seed=0).stream()
x, out = np.ones((1, 100), np.float32), np.empty((1, 128), np.float32)
for _ in range(100):
    stream.step(x, out)
before = count()
for _ in range(1000):
    stream.step(x, out)
between = count()
stream.step(x)
print(between - before, count() > between)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator is replaced by LD_PRELOAD")
@pytest.mark.parametrize("threads", ["1", "2"])
def test_steps_allocate_nothing(threads, tmp_path):
    library = tmp_path / "count_malloc.so"
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    command = [*compiler, "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library)]
    try:
        done = subprocess.run([*command, str(HERE / "count_malloc.c"), "-ldl"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip(f"no C compiler ({compiler[0]}) for the counting allocator")
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [sys.executable, "-c", COUNTED],
        env={**os.environ, "LD_PRELOAD": str(library)},
        input=threads,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "True"]
