"""Ragged batches: every row as if it stood alone, bit by bit; the padding is not read, and is 0 where it is written."""

from __future__ import annotations

import itertools

import lstm_fast as lf
import numpy as np
import pytest
from judge import assert_all_same_bits, assert_close, assert_same_bits
from stacks import (
    BY_ROW,
    Sizes,
    draw_stack,
    infer_stack,
    layer_of,
    name_of,
    reference_stack,
    solve_stack,
    torch_stack,
)

DTYPES = ["float32", "float64"]
# One layer and stacks, one and two directions, with and without projection; the last ones cross chunks of time.
STACKS = [
    Sizes(6, 5, 3, 7),
    Sizes(9, 8, 5, 17, 0, 1, 2),
    Sizes(7, 6, 4, 16, 9, 1, 2),
    Sizes(12, 7, 3, 9, 4, 3, 1, False),
    Sizes(11, 13, 8, 15, 0, 2, 2),
    Sizes(10, 5, 2, 33, 17, 2, 2),
    Sizes(61, 9, 3, 8, 0, 2, 2),
    Sizes(250, 3, 2, 5, 2, 1, 2),
]
LENGTHS = ["ragged", "with zeros", "one row full", "all zeros", "all full", "rising", "falling", "short"]


def lengths_of(kind, sizes):
    steps, batch = sizes.steps, sizes.batch
    rng = np.random.default_rng([steps, batch])
    if kind == "with zeros":
        return np.where(np.arange(batch) % 2, rng.integers(0, steps + 1, batch), 0)
    rows = {
        "ragged": rng.integers(1, steps + 1, batch),
        "one row full": [0] * (batch - 1) + [steps],
        "all zeros": [0] * batch,
        "all full": [steps] * batch,
        "rising": [steps * row // batch for row in range(batch)],
        "falling": [max(0, steps - row) for row in range(batch)],
        "short": rng.integers(0, 3, batch),
    }
    return rows[kind]


@pytest.fixture(params=list(itertools.product(STACKS, LENGTHS)), ids=name_of)
def stack(request):
    sizes, kind = request.param
    dtype = DTYPES[(STACKS.index(sizes) + LENGTHS.index(kind)) % 2]
    return draw_stack(sizes, dtype, lengths=lengths_of(kind, sizes), seed=20)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", STACKS, ids=name_of)
def test_row_is_the_row_alone(sizes, dtype, isa):
    """Bit by bit, of its own length and with no padding there."""
    for kind in ("ragged", "with zeros"):
        stack = draw_stack(sizes, dtype, lengths=lengths_of(kind, sizes), seed=21)
        whole = solve_stack(stack.padded_with(np.nan))
        for row, length in enumerate(stack.lengths):
            alone = solve_stack(stack.rows([row]).cut(length))
            for name in BY_ROW:
                found = whole[name][:, [row]]
                if name in ("y", "dx"):
                    assert_same_bits(found[length:], np.zeros_like(found[length:]), f"{name} beyond row {row}")
                    found = found[:length]
                assert_same_bits(found, alone[name], f"{name} of row {row}, length {length}")


def test_padding_changes_no_bit(stack, isa):
    clean = solve_stack(stack.padded_with(0.0))
    for value in (np.nan, np.inf, -1e30):
        assert_all_same_bits(solve_stack(stack.padded_with(value)), clean, f"with {value} in the padding")


def test_near_the_reference(stack, isa):
    """Weight gradients too: no sum runs over the padding."""
    result = solve_stack(stack.padded_with(np.nan))
    assert_close(result, reference_stack(stack), stack.sizes.judged_as, stack.dtype)


def test_beyond_the_length_all_is_zero(stack, isa):
    """+0, not -0, in y and dx; a row of no steps keeps its state, and its gradient passes through."""
    stack = stack.padded_with(np.nan)
    padding, results = stack.padding(), solve_stack(stack)
    inferred = infer_stack(stack)
    assert_all_same_bits(inferred, {name: results[name] for name in inferred}, "inference")
    for name in ("y", "dx"):
        beyond = results[name][padding]
        assert_same_bits(beyond, np.zeros_like(beyond), name)
    idle = [row for row, length in enumerate(stack.lengths) if length == 0]
    for one, other in {"hn": "h0", "cn": "c0", "dh0": "dhn", "dc0": "dcn"}.items():
        assert_same_bits(results[one][:, idle], getattr(stack, other)[:, idle], one)
    if len(idle) == stack.sizes.batch:
        assert all(not value.any() for name, value in results.items() if name.startswith(("dweight", "dbias")))


def test_state_is_that_of_the_own_last_step(stack, isa):
    """The last layer's hn stands in y: at the row's last step forward, at its first in the reverse direction."""
    sizes = stack.sizes
    y, hn, _ = infer_stack(stack).values()
    for direction in range(sizes.directions):
        own = slice(direction * sizes.outputs, (direction + 1) * sizes.outputs)
        for row, length in enumerate(stack.lengths):
            if length:
                last = y[0 if direction else length - 1, row, own]
                assert_same_bits(hn[direction - sizes.directions, row], last, f"row {row}, direction {direction}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", STACKS, ids=name_of)
def test_permuted_rows_give_permuted_results(sizes, dtype, isa):
    stack = draw_stack(sizes, dtype, lengths=lengths_of("with zeros", sizes), seed=22)
    whole, rng = solve_stack(stack), np.random.default_rng(0)
    for order in (rng.permutation(sizes.batch), np.argsort(stack.lengths), [sizes.batch - 1, 0, 0]):
        moved = solve_stack(stack.rows(list(order)))
        for name in BY_ROW:
            assert_same_bits(moved[name], np.ascontiguousarray(whole[name][:, order]), f"{name}, order {order}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", STACKS, ids=name_of)
def test_no_lengths_are_full_lengths(sizes, dtype, isa):
    """All results, sums over rows included: equal lengths keep the order of the rows."""
    stack = draw_stack(sizes, dtype, lengths=None, seed=23)
    full = stack.replace(lengths=(sizes.steps,) * sizes.batch)
    assert_all_same_bits(solve_stack(full), solve_stack(stack), "all lengths T")


@pytest.mark.parametrize("kind", [list, tuple, "int8", "uint8", "int32", "int64", "uint64", ">i4", "strided"])
def test_lengths_as_any_integers(kind):
    stack = draw_stack(STACKS[1], seed=24)
    expected = infer_stack(stack)
    if kind == "strided":
        lengths = np.repeat(np.array(stack.lengths), 3)[::3]
    else:
        lengths = kind(stack.lengths) if callable(kind) else np.array(stack.lengths, kind)
    y, (hn, cn) = layer_of(stack)(stack.x, (stack.h0, stack.c0), lengths=lengths)
    assert_all_same_bits({"y": y, "hn": hn, "cn": cn}, expected, str(kind))


def test_lengths_are_copied():
    """Changed after forward, they change nothing in backward."""
    stack = draw_stack(STACKS[4], seed=25)
    layer, lengths = layer_of(stack), np.array(stack.lengths)
    _, _, reserve = layer.forward(stack.x, (stack.h0, stack.c0), lengths=lengths)
    lengths[:] = 0
    grads = layer.backward(reserve, stack.dy, (stack.dhn, stack.dcn))
    assert_same_bits(grads.x, solve_stack(stack)["dx"], "dx")


def flipped(array, lengths):
    """Every row of a [T,B,.] array from its own last step to its first; the padding stays."""
    result = array.copy()
    for row, length in enumerate(lengths):
        result[:length, row] = array[:length, row][::-1]
    return result


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [sizes for sizes in STACKS if sizes.layers == 1], ids=name_of)
def test_reverse_is_flip_run_flip(sizes, dtype, isa):
    """ops with reverse=True; and a bidirectional layer is forward beside it."""
    sizes = sizes._replace(directions=2)
    stack = draw_stack(sizes, dtype, lengths=lengths_of("with zeros", sizes), seed=26)
    both = solve_stack(stack)
    lengths, width = stack.lengths, sizes.outputs
    dx = 0
    for direction, suffix in enumerate(("", "_reverse")):
        names = [f"{kind}_l0{suffix}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")]
        weights = [stack.parameters.get(name) for name in names]
        own = slice(direction * width, (direction + 1) * width)
        dy = np.ascontiguousarray(stack.dy[..., own])
        states = stack.h0[direction], stack.c0[direction]
        last = stack.dhn[direction], stack.dcn[direction]
        turn = flipped if direction else lambda array, _: array
        y, hn, cn, reserve = lf.ops.lstm_forward(turn(stack.x, lengths), *states, *weights, lengths=lengths)
        grads = lf.ops.lstm_backward(reserve, turn(dy, lengths), *last)
        if direction:
            y_r, hn_r, cn_r, reserve_r = lf.ops.lstm_forward(stack.x, *states, *weights, lengths=lengths, reverse=True)
            grads_r = lf.ops.lstm_backward(reserve_r, dy, *last)
            for one, other, name in [(y_r, turn(y, lengths), "y"), (hn_r, hn, "hn"), (cn_r, cn, "cn")]:
                assert_same_bits(one, other, f"{name} of reverse=True")
            assert_all_same_bits(grads_r, grads | {"x": turn(grads["x"], lengths)}, "of reverse=True")
        assert_same_bits(both["y"][..., own], turn(y, lengths), "y")
        assert_same_bits(both["hn"][direction], hn, "hn")
        assert_same_bits(both["cn"][direction], cn, "cn")
        dx = dx + turn(grads["x"], lengths)
        for name, key in zip(names, ("w_ih", "w_hh", "b_ih", "b_hh", "w_hr"), strict=True):
            if key in grads:
                assert_same_bits(both[f"d{name}"], grads[key], name)
    assert_same_bits(both["dx"], dx, "dx")


def test_pytorch_agrees_on_packed_sequences_in_any_order():
    pytest.importorskip("torch", reason="PyTorch's packed sequences are the judge")
    for sizes in STACKS:
        stack = draw_stack(sizes, "float64", seed=27)
        assert_close(solve_stack(stack.padded_with(np.nan)), torch_stack(stack), sizes.judged_as, "float64")


def test_work_is_for_valid_steps_only():
    """The reserve of a ragged batch holds the gates of its valid steps alone."""
    sizes = Sizes(200, 16, 8, 32)
    full, ragged = (draw_stack(sizes, lengths=lengths) for lengths in (None, [200] + [10] * 15))
    bytes_of = [
        layer_of(s).forward(s.x, lengths=s.lengths)[2].nbytes - s.dy.nbytes  # y is whole in both
        for s in (full, ragged)
    ]
    assert bytes_of[1] < 0.25 * bytes_of[0]
