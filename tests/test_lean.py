"""save="lean": the bits of save="gates" at a fraction of the memory."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import lstm_fast as lf
import numpy as np
import pytest
from judge import assert_all_same_bits, assert_same_bits
from lstm_fast import _lstm_fast_core as core
from problems import draw, make_layer, solve
from stacks import Sizes, directions_of, draw_stack, layer_of, name_of, solve_stack

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis draws the problems")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

DTYPES = ["float32", "float64"]
THREADS = (1, 2, 3, 7)
# Chunks have 192 rows, those of less than 8 steps up to 768: many steps of few rows, few steps of many, one step each.
CHUNKS = [
    Sizes(700, 2, 7, 33),
    Sizes(400, 1, 3, 9, 4, 1, 2),
    Sizes(60, 13, 5, 17, 0, 2, 2),
    Sizes(30, 17, 3, 8, 5, 3, 1),
    Sizes(20, 100, 3, 9, 0, 1, 2),
    Sizes(9, 150, 2, 5, 2, 2, 1, False),
    Sizes(3, 800, 2, 9, 0, 2, 1),
    Sizes(1, 6, 3, 9),
    Sizes(1, 7, 3, 9, 0, 2, 2),
    Sizes(0, 3, 2, 5, 0, 2, 2),
    Sizes(4, 0, 2, 5, 2, 1, 2),
]


def states_of(stack, save, **options):
    """Gates and c of every layer and direction."""
    _, _, reserve = layer_of(stack, **options).forward(
        stack.x, (stack.h0, stack.c0), lengths=stack.lengths, dropout_seed=3, save=save
    )
    places = [(layer, reverse) for layer in range(stack.sizes.layers) for reverse in range(stack.sizes.directions)]
    found = [(place, reserve.states(place[0], bool(place[1]))) for place in places]
    return {f"{name} of {place}": getattr(states, name) for place, states in found for name in "ifgoc"}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", [None, "ragged"])
@pytest.mark.parametrize("sizes", CHUNKS, ids=name_of)
def test_bits(sizes, lengths, dtype, isa, team):
    stack = draw_stack(sizes, dtype, lengths=lengths, seed=70)
    options = {"dropout": 0.5, "seed": 3} if sizes.layers > 1 else {}
    lf.set_num_threads(1)
    expected = solve_stack(stack, **options)
    for threads in THREADS:
        lf.set_num_threads(threads)
        assert_all_same_bits(solve_stack(stack, save="lean", **options), expected, f"with {threads} threads")
        assert core.threads_used() == threads or not stack.x.size


@st.composite
def drawn_stacks(draw_from):
    batch, steps, layers = (draw_from(st.sampled_from(each)) for each in ((1, 2, 5, 7, 30), (1, 2, 9, 70), (1, 2, 3)))
    hidden = draw_from(st.sampled_from([2, 3, 8, 9, 16, 17, 33]))
    sizes = Sizes(
        steps,
        batch,
        draw_from(st.sampled_from([1, 3, 16])),
        hidden,
        draw_from(st.sampled_from([0, 0, 1, hidden - 1])),
        layers,
        draw_from(st.sampled_from([1, 2])),
        draw_from(st.booleans()),
    )
    lengths = draw_from(st.none() | st.lists(st.integers(0, steps), min_size=batch, max_size=batch))
    dropout = draw_from(st.sampled_from([0.0, 0.3, 1.0])) if layers > 1 else 0.0
    stack = draw_stack(sizes, draw_from(st.sampled_from(DTYPES)), lengths=lengths, seed=draw_from(st.integers(0, 99)))
    return stack, dropout, draw_from(st.sampled_from(THREADS))


@settings(max_examples=80)
@given(drawn_stacks())
def test_bits_of_drawn_stacks(drawn):
    """Gates, c and gradients, with NaN in the padding, on every instruction set."""
    stack, dropout, threads = drawn
    core.use_team_always(True)
    try:
        lf.set_num_threads(threads)
        expected = solve_stack(stack, dropout=dropout, seed=3)
        states = states_of(stack, "gates", dropout=dropout)
        for name in core.isas_usable():
            lf.set_isa(name)
            found = solve_stack(stack.padded_with(np.nan), dropout=dropout, seed=3, save="lean")
            assert_all_same_bits(found, expected, f"on {name}")
            assert_all_same_bits(states_of(stack, "lean", dropout=dropout), states, f"on {name}")
    finally:
        core.use_team_always(False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [Sizes(60, 13, 5, 17), Sizes(60, 13, 5, 17, 4)], ids=name_of)
@pytest.mark.parametrize("reverse", [False, True])
def test_functions(reverse, sizes, dtype, isa):
    stack = draw_stack(sizes, dtype, seed=71)
    arguments = directions_of(stack)[0][0] | {"reverse": reverse}
    arguments.pop("index")
    results = []
    for save in ("gates", "lean"):
        y, hn, cn, reserve = lf.ops.lstm_forward(stack.x, **arguments, save=save)
        results.append({"y": y, "hn": hn, "cn": cn} | lf.ops.lstm_backward(reserve, stack.dy, stack.dhn[0]))
        results[-1]["gates"], results[-1]["c"] = reserve.states(0, 0)
    assert_all_same_bits(results[1], results[0], "lean")


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_forward_had_is_what_counts(dtype):
    """Another instruction set and other weights since; used again; what it shows stays what it was."""
    problem = draw(40, 7, 5, 17, dtype, seed=72)
    expected = solve(problem)
    for forward_isa in core.isas_usable():
        for backward_isa in core.isas_usable():
            lf.set_isa(forward_isa)
            overwritten = problem.copy()
            *_, reserve = lf.ops.lstm_forward(**overwritten.forward, save="lean")
            for name in ("h0", "c0", "w_ih", "w_hh", "b_ih", "b_hh"):
                getattr(overwritten, name)[...] = np.nan
            lf.set_isa(backward_isa)
            gates, c = reserve.states(0, 0)
            for _ in range(2):
                for name, value in lf.ops.lstm_backward(reserve, **problem.backward).items():
                    assert_same_bits(value, expected[f"d{name}"], f"d{name}, {forward_isa} then {backward_isa}")
            for one, other in zip((gates, c), reserve.states(0, 0), strict=True):
                assert_same_bits(one, other, "states after backward")


# --- memory ---


@pytest.mark.parametrize(
    ("steps", "batch", "hidden", "share"),
    [
        # y, a sixth of all, and the weights stay; c of every 12th step.
        (1024, 16, 128, 0.20),
        # c of every 8th.
        (512, 64, 128, 0.21),
        # c of every 192nd.
        (4096, 1, 32, 0.19),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_share_of_the_memory(steps, batch, hidden, share, dtype):
    x = np.zeros((steps, batch, hidden), dtype)
    layer = lf.LSTM(hidden, hidden, dtype=dtype, seed=0)
    sizes = {save: layer.forward(x, save=save)[2].nbytes for save in ("gates", "lean")}
    assert sizes["lean"] <= share * sizes["gates"]


def test_reserve_says_what_it_holds():
    """What goes back to the spare memory with the reserve is what it said, but for y, which belongs to NumPy."""
    limit = core.spare_memory_limit()
    lf.set_spare_memory(0)
    lf.set_spare_memory(limit)
    problem = draw(60, 13, 8, 32)
    *_, reserve = lf.ops.lstm_forward(**problem.forward, save="lean")
    size, before = reserve.nbytes, core.spare_memory()
    del reserve
    assert core.spare_memory() == before + size - problem.dy.nbytes


# --- interrupts ---


@pytest.mark.skipif(sys.platform != "linux", reason="sends itself a signal")
@pytest.mark.parametrize("call", ["forward", "backward", "states"])
def test_interrupt_of_a_long_call(call):
    script = """
        import os, signal, sys, threading
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell runs in the background
        import numpy as np
        import lstm_fast as lf
        lf.set_isa("scalar")
        layer = lf.LSTM(64, 64, seed=0)
        rows = np.broadcast_to(np.ones((1, 1, 64), np.float32), (20_000, 8, 64))
        calls = {"forward": lambda: layer.forward(rows, save="lean")}
        if sys.argv[1] != "forward":
            reserve = layer.forward(rows, save="lean")[2]
            calls |= {"backward": lambda: layer.backward(reserve, rows), "states": reserve.states}
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            while True:
                calls[sys.argv[1]]()
                print("whole")
        except KeyboardInterrupt:
            print("interrupted")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), call], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["interrupted"], done.stderr


def test_states_of_a_layer_with_batch_first():
    problem = draw(40, 7, 5, 17, seed=73)
    turned = np.ascontiguousarray(problem.x.swapaxes(0, 1))
    seen = [make_layer(problem, batch_first=True).forward(turned, save=save)[2].states() for save in ("gates", "lean")]
    for one, other in zip(*seen, strict=True):
        assert_same_bits(one, other)
