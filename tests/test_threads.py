"""Threads: the same bits for any number of them, proven to be used; who decides how many there are."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import lstm_fast as lf
import numpy as np
import pytest
from judge import assert_all_same_bits, assert_same_bits
from lstm_fast import _lstm_fast_core as core
from stacks import Sizes, draw_stack, infer_stack, layer_of, name_of, solve_stack

DTYPES = ["float32", "float64"]
THREADS = [1, 2, 3, 7]
# Fewer rows than threads, fewer tiles than threads, an odd number of each; several chunks of time, ragged ones too.
STACKS = [
    Sizes(1, 1, 1, 1),
    Sizes(5, 1, 3, 17, 0, 2, 2),
    Sizes(9, 2, 7, 16, 5, 1, 2, False),
    Sizes(30, 7, 5, 33, 0, 3, 1),
    Sizes(12, 13, 8, 9, 4, 2, 2),
    Sizes(120, 9, 3, 8, 0, 2, 2),
    Sizes(400, 5, 2, 5, 3, 1, 1),
    Sizes(3, 250, 2, 3, 0, 1, 2),
    Sizes(40, 16, 33, 31, 16, 2, 1),
]


def lengths_of(kind, sizes):
    if kind == "with zeros":
        return [sizes.steps * row % (sizes.steps + 1) for row in range(sizes.batch)]
    return kind


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", [None, "ragged", "with zeros"])
@pytest.mark.parametrize("sizes", STACKS, ids=name_of)
def test_bits_do_not_depend_on_threads(sizes, lengths, dtype, isa, team):
    core.set_split(core.Split.rows)
    stack = draw_stack(sizes, dtype, lengths=lengths_of(lengths, sizes), seed=40).padded_with(np.nan)
    expected = None
    for threads in THREADS:
        lf.set_num_threads(threads)
        inferred = infer_stack(stack)
        assert core.threads_used() == threads
        result = solve_stack(stack)
        assert core.threads_used() == threads
        expected = expected or result
        assert_all_same_bits(result, expected, f"with {threads} threads")
        assert_all_same_bits(inferred, {name: expected[name] for name in inferred}, f"inference, {threads} threads")


def test_forward_and_backward_may_have_different_numbers(isa, team):
    """A reserve does not remember how many threads wrote it."""
    stack = draw_stack(STACKS[4], seed=41)
    expected, layer = solve_stack(stack), layer_of(stack)
    for forward in THREADS:
        for backward in THREADS:
            lf.set_num_threads(forward)
            _, _, reserve = layer.forward(stack.x, (stack.h0, stack.c0), lengths=stack.lengths)
            assert core.threads_used() == forward
            lf.set_num_threads(backward)
            grads = layer.backward(reserve, stack.dy, (stack.dhn, stack.dcn))
            assert core.threads_used() == backward
            assert_same_bits(grads.x, expected["dx"])
            for name, value in grads.parameters.items():
                assert_same_bits(value, expected[f"d{name}"], name)


def test_every_repetition(isa, team):
    """A race would show as another result now and then."""
    stack = draw_stack(Sizes(60, 9, 3, 8, 3, 2, 2), seed=42)
    expected = solve_stack(stack)
    for turn in range(30):
        lf.set_num_threads(2 + turn % 6)
        assert_all_same_bits(solve_stack(stack), expected, f"in turn {turn}")


@pytest.mark.parametrize("sizes", [(0, 3, 2, 5, 0, 2, 2), (4, 0, 2, 5, 2, 1, 2), (4, 3, 0, 5, 0, 2, 1), (0, 0, 0, 1)])
def test_empty_problems(sizes, isa, team):
    stack = draw_stack(Sizes(*sizes), lengths=None)
    expected = solve_stack(stack)
    for threads in THREADS:
        lf.set_num_threads(threads)
        assert_all_same_bits(solve_stack(stack), expected, f"with {threads} threads")


def test_small_work_stays_on_the_caller():
    stack = draw_stack(Sizes(3, 2, 4, 8))
    lf.set_num_threads(4)
    infer_stack(stack)
    assert core.threads_used() == 1


def test_large_work_is_shared():
    stack = draw_stack(Sizes(100, 16, 64, 64), lengths=None)
    for threads in (4, 1, 2):
        lf.set_num_threads(threads)
        infer_stack(stack)
        assert core.threads_used() == threads


def test_number_used_is_that_of_the_own_last_call(team):
    stack = draw_stack(STACKS[3])
    lf.set_num_threads(3)
    infer_stack(stack)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(core.threads_used).result() == 0
    assert core.threads_used() == 3


def test_upper_layers_count_as_work():
    """One layer of these sizes is too little to wake a team, four are not: 5e7 flops."""
    lf.set_num_threads(2)
    x = np.ones((75, 16, 1), np.float32)
    for layers, used in ((1, 1), (4, 2)):
        lf.LSTM(1, 64, layers, seed=0)(x)
        assert core.threads_used() == used


# --- who decides ------------------------------------------------------------------------------------------------------


def test_setting_and_getting():
    for n in (1, 2, np.int64(3), 7, core.most_threads()):
        lf.set_num_threads(n)
        assert lf.get_num_threads() == n
        assert type(lf.get_num_threads()) is int
    for n in (core.most_threads() + 1, 2**31, 2**64):
        lf.set_num_threads(n)
        assert lf.get_num_threads() == core.most_threads()


def test_threads_inside_a_block():
    lf.set_num_threads(2)
    with lf.threads(5):
        assert lf.get_num_threads() == 5
        with lf.threads(1):
            assert lf.get_num_threads() == 1
        assert lf.get_num_threads() == 5
    assert lf.get_num_threads() == 2
    with pytest.raises(KeyError), lf.threads(4):
        raise KeyError
    assert lf.get_num_threads() == 2


def test_a_block_counts_for_its_own_thread():
    """Two blocks that overlap in two Python threads: each has its number, and the common one is untouched."""
    lf.set_num_threads(2)
    with ThreadPoolExecutor(1) as pool:
        other = lf.threads(7)
        with lf.threads(5):
            pool.submit(other.__enter__).result()
            assert (lf.get_num_threads(), pool.submit(lf.get_num_threads).result()) == (5, 7)
        assert (lf.get_num_threads(), pool.submit(lf.get_num_threads).result()) == (2, 7)
        pool.submit(other.__exit__, None, None, None).result()
        assert (lf.get_num_threads(), pool.submit(lf.get_num_threads).result()) == (2, 2)


def test_setting_inside_a_block_holds_after_it():
    lf.set_num_threads(2)
    with lf.threads(5):
        lf.set_num_threads(3)
        assert lf.get_num_threads() == 5
    assert lf.get_num_threads() == 3


@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (-1, ValueError), ("4", TypeError), (2.5, TypeError)])
def test_a_wrong_number_changes_nothing(n, error):
    lf.set_num_threads(2)
    with pytest.raises(error, match=r"\bn\b"), lf.threads(n):
        pytest.fail("the block must not run")
    assert lf.get_num_threads() == 2


def imported(**variables):
    """The number of threads after import in a process with these variables, and what it wrote to stderr."""
    environment = {k: v for k, v in os.environ.items() if k not in ("LSTM_FAST_NUM_THREADS", "OMP_NUM_THREADS")}
    script = "import lstm_fast as lf; print(lf.get_num_threads(), lf.config.available_cpus())"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment | variables, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    number, cpus = map(int, done.stdout.split())
    return number, cpus, done.stderr


@pytest.mark.parametrize(
    ("variables", "number"),
    [
        ({"LSTM_FAST_NUM_THREADS": "3"}, 3),
        ({"LSTM_FAST_NUM_THREADS": " 3 "}, 3),
        ({"OMP_NUM_THREADS": "5"}, 5),
        ({"OMP_NUM_THREADS": "4,2"}, 4),
        ({"LSTM_FAST_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}, 3),
        ({"LSTM_FAST_NUM_THREADS": "", "OMP_NUM_THREADS": "5"}, 5),
        ({"LSTM_FAST_NUM_THREADS": "100000"}, core.most_threads()),
    ],
)
def test_environment(variables, number):
    found, _, errors = imported(**variables)
    assert (found, errors) == (number, "")


GARBAGE = ["0", "-1", "two", "2.5", "0x4", "4 2", ",", "\u00b2", "9" * 5000]


@pytest.mark.parametrize(
    ("variable", "text"),
    [("LSTM_FAST_NUM_THREADS", text) for text in GARBAGE] + [("OMP_NUM_THREADS", text) for text in ("0,4", "many")],
    ids=lambda value: value[:24],
)
def test_garbage_in_the_environment_warns_and_is_ignored(variable, text):
    found, cpus, errors = imported(**{variable: text})
    assert found == cpus
    assert "Warning" in errors
    assert variable in errors
    assert repr(text)[1:-1] in errors or ascii(text)[1:-1] in errors


def test_garbage_leaves_the_next_variable():
    found, _, errors = imported(LSTM_FAST_NUM_THREADS="x", OMP_NUM_THREADS="3")
    assert found == 3
    assert "LSTM_FAST_NUM_THREADS" in errors
    assert "OMP_NUM_THREADS" not in errors


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_affinity_of_the_process():
    own = min(os.sched_getaffinity(0))
    script = f"import os; os.sched_setaffinity(0, [{own}]); import lstm_fast as lf; print(lf.get_num_threads())"
    environment = {k: v for k, v in os.environ.items() if k not in ("LSTM_FAST_NUM_THREADS", "OMP_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("1", "")


# --- floating-point environment ---------------------------------------------------------------------------------------

x86_only = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or sys.platform != "linux", reason="sets MXCSR through glibc's fenv_t"
)


class FloatingPoint:
    """Changes MXCSR of this thread; glibc's fenv_t ends with it."""

    size, mxcsr = 32, 28

    def __init__(self):
        self.libm = ctypes.CDLL(ctypes.util.find_library("m"))
        self.before = ctypes.create_string_buffer(self.size)

    def __enter__(self):
        assert self.libm.fegetenv(self.before) == 0
        return self

    def __exit__(self, *_):
        assert self.libm.fesetenv(self.before) == 0

    def get(self):
        now = ctypes.create_string_buffer(self.size)
        assert self.libm.fegetenv(now) == 0
        return int.from_bytes(now.raw[self.mxcsr :], "little") & 0xFFC0  # without the exceptions that were raised

    def set(self, bits):
        changed = bytearray(self.before.raw)
        word = int.from_bytes(changed[self.mxcsr :], "little") | bits
        changed[self.mxcsr :] = word.to_bytes(4, "little")
        assert self.libm.fesetenv(ctypes.create_string_buffer(bytes(changed), self.size)) == 0


MODES = {"upward": 0x4000, "downward": 0x2000, "toward zero": 0x6000, "flush to zero": 0x8040}


@x86_only
@pytest.mark.parametrize("mode", MODES)
def test_workers_have_the_callers_mode(mode, isa, team):
    """One thread or four: the bits of the caller's mode, which are others than the default's; then those again."""
    stack = draw_stack(Sizes(9, 8, 3, 17, 0, 2, 2), seed=43)
    if mode == "flush to zero":
        stack = stack.replace(x=stack.x * np.float32(1e-39), dy=stack.dy * np.float32(1e-39), dhn=0 * stack.dhn)
        parameters = {name: 0 * value if "bias" in name else value for name, value in stack.parameters.items()}
        stack = stack.replace(parameters=parameters, h0=0 * stack.h0, c0=0 * stack.c0, dcn=0 * stack.dcn)
    lf.set_num_threads(4)
    default = solve_stack(stack)
    found = {}
    with FloatingPoint() as floating_point:
        for threads in (1, 4):
            lf.set_num_threads(threads)
            floating_point.set(MODES[mode])
            before = floating_point.get()
            found[threads] = solve_stack(stack)
            after = floating_point.get()
            floating_point.set(0)
            assert core.threads_used() == threads
            assert after == before
    assert_all_same_bits(found[4], found[1], mode)
    for rows in (slice(0, None, 4), slice(1, None, 4)):  # of the caller, of the first worker
        assert not np.array_equal(found[4]["y"][:, rows], default["y"][:, rows])
    assert_all_same_bits(solve_stack(stack), default, "afterwards")


def test_barrier_can_be_measured():
    assert core.barrier_ns(1) == 0
    assert core.barrier_ns(2) > 0
