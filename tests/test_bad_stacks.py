"""Bad input about lengths, stacked states, projection, dropout and layers: the row's error, nothing changed."""

from __future__ import annotations

import re

import lstm_fast as lf
import numpy as np
import pytest
from judge import assert_all_same_bits
from stacks import Sizes, draw_stack, layer_of, solve_stack

T, B, I, H, P = 3, 4, 5, 7, 2  # noqa: E741  (the project's name for the input size)
SIZES = Sizes(T, B, I, H, P, 2, 2)


@pytest.fixture(params=["float32", "float64"])
def stack(request):
    return draw_stack(SIZES, request.param, seed=60)


@pytest.fixture(autouse=True)
def _nothing_changes_and_all_still_works(request):
    """Around every test with a stack: its arrays keep their bits, the next good call gives what it gave before."""
    if "stack" not in request.fixturenames:
        yield
        return
    stack = request.getfixturevalue("stack")
    before = {name: getattr(stack, name).copy() for name in stack.ARRAYS}
    answer = solve_stack(stack)
    yield
    assert_all_same_bits({name: getattr(stack, name) for name in stack.ARRAYS}, before, "after the error")
    assert_all_same_bits(solve_stack(stack), answer, "after the error")


def call(stack, **changed):
    """Forward, then backward, with some arguments replaced."""
    given = {"x": stack.x, "h0": stack.h0, "c0": stack.c0, "lengths": stack.lengths}
    given |= {name: getattr(stack, name) for name in ("dy", "dhn", "dcn")} | changed
    layer = layer_of(stack)
    _, _, reserve = layer.forward(given["x"], (given["h0"], given["c0"]), lengths=given["lengths"])
    return layer.backward(reserve, given["dy"], (given["dhn"], given["dcn"]))


def says(error, argument, *words):
    """The message names the argument and contains the words."""
    message = str(error.value)
    for word in (argument, *words):
        assert re.search(rf"(?<![\w.]){re.escape(str(word))}(?!\w)", message), f"{word!r} is not in {message!r}"


# --- lengths ----------------------------------------------------------------------------------------------------------

WRONG_TYPES = {
    "floats": np.array([1.0, 2.0, 3.0, 3.0]),
    "list of floats": [1.0, 2.0, 3.0, 3.0],
    "one float": [1, 2, 3, 3.0],
    "bools": np.array([True, True, False, True]),
    "list of bools": [True, False, True, True],
    "complex": np.array([1, 2, 3, 3], complex),
    "objects": np.array([1, 2, 3, 3], object),
    "strings": ["1", "2", "3", "3"],
    "times": np.array([1, 2, 3, 3], "m8[s]"),
    "none inside": [1, 2, None, 3],
    "too large for 64 bits": [1, 2, 3, 2**70],
    "ragged list": [[1], [2, 3], 3, 3],
    "masked": np.ma.masked_array([1, 2, 3, 3]),
    "a number": 3,
    "a NumPy number": np.int64(3),
    "text": "3333",
    "bytes": b"3333",
    "a dictionary": {0: 1, 1: 2, 2: 3, 3: 3},
    "a set": {1, 2, 3},
    "an iterator": iter([1, 2, 3, 3]),
    "a thing": object(),
}
WRONG_SHAPES = {
    "two dimensions": [[1, 2, 3, 3]],
    "a column": np.ones((B, 1), int),
    "no dimension": np.array(3),
    "too few": [1, 2, 3],
    "too many": [1, 2, 3, 3, 3],
    "one for all": [3],
    "none": [],
}
WRONG_VALUES = {
    "negative": [1, -1, 3, 3],
    "beyond T": [1, 2, 3, 4],
    "the least": np.array([1, 2, 3, np.iinfo(np.int64).min]),
    "the most": np.array([1, 2, 3, np.iinfo(np.uint64).max], np.uint64),
}


def calls_with_lengths(stack, lengths):
    """Every way to give lengths: training, inference, and the functions on one layer."""
    layer, narrow = layer_of(stack), lf.LSTM(I, H, dtype=stack.dtype)
    weights = [narrow.parameters[f"{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    state = np.zeros((B, H), stack.dtype)
    return [
        lambda: layer.forward(stack.x, lengths=lengths),
        lambda: layer(stack.x, lengths=lengths),
        lambda: lf.ops.lstm_forward(stack.x, state, state, *weights, lengths=lengths),
        lambda: lf.ops.lstm_forward(stack.x, state, state, *weights, lengths=lengths, reverse=True, save=None),
    ]


@pytest.mark.parametrize("kind", WRONG_TYPES)
def test_lengths_of_a_wrong_type(kind, stack):
    for bad in calls_with_lengths(stack, WRONG_TYPES[kind]):
        with pytest.raises(TypeError) as error:
            bad()
        says(error, "lengths")


@pytest.mark.parametrize("kind", WRONG_SHAPES)
def test_lengths_of_a_wrong_shape(kind, stack):
    for bad in calls_with_lengths(stack, WRONG_SHAPES[kind]):
        with pytest.raises(ValueError, match="lengths") as error:
            bad()
        assert f"({B},)" in str(error.value)
        assert str(np.shape(WRONG_SHAPES[kind])) in str(error.value)


@pytest.mark.parametrize("kind", WRONG_VALUES)
def test_lengths_out_of_range(kind, stack):
    row = 1 if kind == "negative" else 3
    for bad in calls_with_lengths(stack, WRONG_VALUES[kind]):
        with pytest.raises(ValueError, match="lengths") as error:
            bad()
        says(error, "lengths", f"0..{T}", f"row {row}")


def test_lengths_of_an_unbatched_sequence(stack):
    layer = layer_of(stack)
    for wrong in ([], [1, 1], [T + 1]):
        with pytest.raises(ValueError, match="lengths"):
            layer(stack.x[:, 0], lengths=wrong)


# --- states and gradients of stacks -----------------------------------------------------------------------------------

SHAPES = {"h0": (4, B, P), "c0": (4, B, H), "dhn": (4, B, P), "dcn": (4, B, H), "dy": (T, B, 2 * P)}


def wrong_shapes(name):
    shape = SHAPES[name]
    for axis, size in enumerate(shape):
        for wrong in {size - 1, size + 1, 1, 0, 2 * size}:
            yield (*shape[:axis], wrong, *shape[axis + 1 :])
    yield shape[1:]
    yield (1, *shape)
    yield (shape[1], shape[0], shape[2] + 1)  # states are never batch-first
    yield (*shape[:-1], {P: H, H: P, 2 * P: 2 * H}[shape[-1]])  # projected for not projected


@pytest.mark.parametrize(("name", "shape"), [(name, shape) for name in SHAPES for shape in sorted(wrong_shapes(name))])
def test_wrong_shape(name, shape, stack):
    with pytest.raises(ValueError, match=rf"\b{name}\b") as error:
        call(stack, **{name: np.ones(shape, stack.dtype)})
    if len(shape) == 3:
        says(error, name, *shape, *SHAPES[name])


@pytest.mark.parametrize("kind", ["other float", "int64", "bool", "complex128", "float16", "object"])
@pytest.mark.parametrize("name", SHAPES)
def test_wrong_dtype(name, kind, stack):
    if kind == "other float":
        kind = "float64" if stack.dtype == np.float32 else "float32"
    with pytest.raises(TypeError) as error:
        call(stack, **{name: np.ones(SHAPES[name], kind)})
    says(error, name, stack.dtype)


@pytest.mark.parametrize("name", ["h0", "c0"])
def test_half_a_state(name, stack):
    with pytest.raises(TypeError, match=rf"\b{name}\b"):
        call(stack, **{name: None})


@pytest.mark.parametrize("state", [(), (1,), (1, 2, 3), "h0", 3, {"h0": 1, "c0": 2}])
def test_not_a_state(state, stack):
    with pytest.raises(TypeError, match="state"):
        layer_of(stack)(stack.x, state)


def test_unbatched_states(stack):
    layer = layer_of(stack)
    for h0, c0, name in [
        (stack.h0, stack.c0[:, 0], "h0"),
        (stack.h0[:, 0], stack.c0, "c0"),
        (stack.h0[:2, 0], stack.c0[:, 0], "h0"),
    ]:
        with pytest.raises(ValueError, match=rf"\b{name}\b"):
            layer(stack.x[:, 0], (h0, c0))


# --- projection -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [H, H + 1, -1, 2**62])
def test_projection_must_be_narrower(value):
    with pytest.raises(ValueError, match="proj_size") as error:
        lf.LSTM(I, H, proj_size=value)
    says(error, "proj_size", value)


@pytest.mark.parametrize(
    "shape", [(0, H), (H, H), (H + 1, H), (P, H + 1), (P + 1, H), (P,), (H, P), (P, H, 1), (P, 0), (0, 0)]
)
def test_wrong_w_hr(shape):
    weights = np.ones((4 * H, I)), np.ones((4 * H, P)), None, None, np.ones(shape)
    with pytest.raises(ValueError, match=r"\bw_h[rh]\b|\bw_ih\b"):
        lf.ops.lstm_forward(np.ones((T, B, I)), np.zeros((B, P)), np.zeros((B, H)), *weights)


@pytest.mark.parametrize("w_hr", [np.ones((P, H), np.float32), np.ones((P, H), int), [[1.0] * H] * P, "w_hr", 3])
def test_w_hr_of_a_wrong_type(w_hr):
    weights = np.ones((4 * H, I)), np.ones((4 * H, P)), None, None, w_hr
    with pytest.raises(TypeError, match=r"\bw_hr\b"):
        lf.ops.lstm_forward(np.ones((T, B, I)), np.zeros((B, P)), np.zeros((B, H)), *weights)


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan, np.inf, -np.inf, 2, -1, np.float32(1.5)])
def test_dropout_out_of_range(value):
    with pytest.raises(ValueError, match="dropout") as error:
        lf.LSTM(I, H, 2, dropout=value)
    says(error, "dropout", "[0, 1]")


@pytest.mark.parametrize("value", ["0.5", None, True, [0.5], 0.5j, np.array([0.5]), object()])
def test_dropout_of_a_wrong_type(value):
    with pytest.raises(TypeError, match="dropout"):
        lf.LSTM(I, H, 2, dropout=value)


def test_dropout_of_one_layer_warns():
    with pytest.warns(UserWarning, match="dropout") as caught:
        lf.LSTM(I, H, dropout=0.5)
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.25), np.float64(1), np.int64(0)])
def test_dropout_of_any_number(value):
    assert lf.LSTM(I, H, 2, dropout=value).dropout == float(value)


@pytest.mark.parametrize("value", [0, -1, -(2**62)])
def test_there_must_be_a_layer(value):
    with pytest.raises(ValueError, match="num_layers") as error:
        lf.LSTM(I, H, value)
    says(error, "num_layers", value)


@pytest.mark.parametrize("name", ["num_layers", "proj_size"])
@pytest.mark.parametrize("value", [2.0, "2", True, None, [2], np.float64(2), np.array([2])])
def test_sizes_must_be_integers(name, value):
    with pytest.raises(TypeError, match=name):
        lf.LSTM(I, H, **{name: value})


@pytest.mark.parametrize("value", [0, 1, 2, "yes", None, 1.0, [True], np.array([True])])
@pytest.mark.parametrize("name", ["bidirectional", "bias", "batch_first"])
def test_switches_must_be_bools(name, value):
    with pytest.raises(TypeError, match=name):
        lf.LSTM(I, H, **{name: value})


@pytest.mark.parametrize("value", [1, None, "no"])
def test_reverse_must_be_a_bool(value, stack):
    weights = np.ones((4 * H, I), stack.dtype), np.ones((4 * H, H), stack.dtype)
    state = np.zeros((B, H), stack.dtype)
    with pytest.raises(TypeError, match="reverse"):
        lf.ops.lstm_forward(stack.x, state, state, *weights, reverse=value)


def test_reserve_of_another_kind_of_call(stack):
    """Of a function or of a layer of other sizes: never read as if it were the own one."""
    layer, other = layer_of(stack), lf.LSTM(I, H, dtype=stack.dtype)
    own, foreign = layer.forward(stack.x)[2], other.forward(stack.x)[2]
    for bad in (foreign, own.core, None):
        with pytest.raises((TypeError, ValueError), match="reserve"):
            layer.backward(bad, stack.dy)
    with pytest.raises(TypeError, match="reserve"):
        lf.ops.lstm_backward(own, stack.dy)
