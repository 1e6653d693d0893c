"""Bad input: the error of its row in the table; argument, wanted and given named; nothing changed, usable after."""

from __future__ import annotations

import re

import lstm_fast as lf
import numpy as np
import pytest
from judge import assert_all_same_bits
from problems import draw, make_layer, solve

DTYPES = ["float32", "float64"]
T, B, I, H = 3, 4, 5, 7  # noqa: E741  (the project's name for the input size)
FORWARD = ("x", "h0", "c0", "w_ih", "w_hh", "b_ih", "b_hh")
SHAPES = {"x": (T, B, I), "h0": (B, H), "c0": (B, H), "w_ih": (4 * H, I), "w_hh": (4 * H, H)}
SHAPES |= {"b_ih": (4 * H,), "b_hh": (4 * H,), "dy": (T, B, H), "dhn": (B, H), "dcn": (B, H)}


@pytest.fixture(params=DTYPES)
def problem(request):
    return draw(T, B, I, H, request.param, seed=40)


@pytest.fixture(autouse=True)
def _nothing_changes_and_all_still_works(request):
    """Around every test with a problem: its arrays keep their bits, the next good call gives what it gave before."""
    if "problem" not in request.fixturenames:
        yield
        return
    problem = request.getfixturevalue("problem")
    before, answer = problem.copy(), solve(problem)
    yield
    assert_all_same_bits(problem.arrays, before.arrays, "after the error")
    assert_all_same_bits(solve(problem), answer, "after the error")


def call(problem, **changed):
    """Forward, then backward, with some arguments replaced."""
    arguments = problem.forward | {name: value for name, value in changed.items() if name in FORWARD}
    *_, reserve = lf.ops.lstm_forward(**arguments)
    return lf.ops.lstm_backward(reserve, **problem.backward | {k: v for k, v in changed.items() if k not in FORWARD})


def says(error, argument, *words):
    """The message names the argument and contains the words, sizes as numbers of their own."""
    message = str(error.value)
    for word in (argument, *words):
        assert re.search(rf"(?<![\w.]){re.escape(str(word))}(?!\w)", message), f"{word!r} is not in {message!r}"


def test_the_good_call_is_good(problem):
    assert set(call(problem)) == set(FORWARD)


# --- shapes -----------------------------------------------------------------------------------------------------------


def wrong_shapes(name):
    shape = SHAPES[name]
    yield shape[1:] if len(shape) > 1 else ()
    yield (*shape, 1)
    yield (1, *shape)
    for axis, size in enumerate(shape):
        # x brings T and B itself, and w_hh brings H, so that a wrong size there shows in another argument.
        if (name, axis) in {("x", 0), ("x", 1)}:
            continue
        for wrong in {size + 1, size - 1, 1, 0, 2 * size}:
            yield (*shape[:axis], wrong, *shape[axis + 1 :])
    if len(shape) > 1:
        yield shape[::-1]
    if len(shape) == 3:
        yield (shape[1], shape[0], shape[2])


@pytest.mark.parametrize(("name", "shape"), [(name, shape) for name in SHAPES for shape in wrong_shapes(name)])
def test_wrong_shape(name, shape, problem):
    with pytest.raises(ValueError, match=r".") as error:
        call(problem, **{name: np.ones(shape, problem.dtype)})
    if len(shape) == len(SHAPES[name]) and name not in ("x", "w_hh"):
        says(error, name, *shape, *SHAPES[name])
    elif name not in ("x", "w_hh"):
        says(error, name, *SHAPES[name])
    else:  # the sizes of x and w_hh are what the others are measured by: either side may be named
        assert re.search(r"\b(x|h0|c0|w_ih|w_hh|b_ih|b_hh)\b", str(error.value)), str(error.value)


def test_one_row_is_not_broadcast(problem):
    for name in ("h0", "c0", "dhn", "dcn"):
        with pytest.raises(ValueError, match=name):
            call(problem, **{name: np.ones((1, H), problem.dtype)})
    with pytest.raises(ValueError, match="dy"):
        call(problem, dy=np.ones((T, 1, H), problem.dtype))


def test_cell_shapes(problem):
    cell = problem.cell
    for name, wrong in {"x": (T, B, I), "h": (B, H + 1), "c": (1, H), "w_ih": (4 * H, I + 1), "b_ih": (H,)}.items():
        with pytest.raises(ValueError, match=rf"\b{name}\b"):
            lf.ops.lstm_cell(**cell | {name: np.ones(wrong, problem.dtype)})


# --- dtypes and types -------------------------------------------------------------------------------------------------

WRONG_DTYPES = ["int32", "int64", "uint8", "bool", "complex64", "complex128", "float16", "longdouble", "object", "U3"]
WRONG_DTYPES += ["S3", "M8[s]", "i4,f4", "swapped", "mixed"]


def of_dtype(kind, value):
    if kind == "swapped":
        return value.astype(value.dtype.newbyteorder())
    if kind == "mixed":
        return value.astype("float64" if value.dtype == np.float32 else "float32")
    return np.zeros(value.shape, kind)


@pytest.mark.parametrize("kind", WRONG_DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_wrong_dtype(name, kind, problem):
    given = of_dtype(kind, problem.arrays[name])
    with pytest.raises(TypeError) as error:
        call(problem, **{name: given})
    says(error, name)
    assert re.search(r"float(32|64)", str(error.value)), str(error.value)


@pytest.mark.parametrize(("own", "given"), [("float32", "float64"), ("float64", "float32")])
def test_layer_names_x_and_shows_the_fix(own, given):
    with pytest.raises(TypeError, match=rf"\bx\.astype\(np\.{own}\)|dtype=") as error:
        lf.LSTM(I, H, dtype=own)(np.zeros((T, B, I), given))
    says(error, "x", own, given)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(
    "kind", ["masked", "list", "tuple", "scalar", "string", "bytes", "memoryview", "array-like", "thing"]
)
def test_not_an_array(name, kind, problem):
    good = problem.arrays[name]

    class ArrayLike:
        def __array__(self, dtype=None, copy=None):
            return good.astype(dtype or good.dtype)

    given = {
        "masked": np.ma.masked_array(good),
        "list": good.tolist(),
        "tuple": tuple(good.tolist()),
        "scalar": 1.0,
        "string": "x",
        "bytes": b"\0" * good.nbytes,
        "memoryview": memoryview(good),
        "array-like": ArrayLike(),
        "thing": object(),
    }[kind]
    with pytest.raises(TypeError) as error:
        call(problem, **{name: given})
    says(error, name)


@pytest.mark.parametrize("name", ["x", "h0", "c0", "w_ih", "w_hh"])
def test_none_for_a_required_array(name, problem):
    with pytest.raises(TypeError) as error:
        call(problem, **{name: None})
    says(error, name)


@pytest.mark.parametrize("reserve", [None, 3, "reserve", object(), (), {}])
def test_not_a_reserve(reserve, problem):
    with pytest.raises(TypeError, match="reserve"):
        lf.ops.lstm_backward(reserve, **problem.backward)


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, -(2**62)])
def test_hidden_size_must_be_positive(value):
    with pytest.raises(ValueError, match="hidden_size") as error:
        lf.LSTM(3, value)
    says(error, "hidden_size", value)


@pytest.mark.parametrize("value", [3.0, "3", True, None, [3], np.float64(3), np.array([3])])
@pytest.mark.parametrize("name", ["input_size", "hidden_size"])
def test_sizes_must_be_integers(name, value):
    with pytest.raises(TypeError, match=name):
        lf.LSTM(**{"input_size": 3, "hidden_size": 3, name: value})


def test_input_size_may_be_zero_but_not_negative():
    assert lf.LSTM(0, 3).parameters["weight_ih_l0"].shape == (12, 0)
    with pytest.raises(ValueError, match="input_size"):
        lf.LSTM(-1, 3)


def test_numpy_integers_are_integers():
    assert lf.LSTM(np.int64(2), np.uint8(3)).parameters["weight_ih_l0"].shape == (12, 2)


@pytest.mark.parametrize(
    ("inputs", "hidden"), [(1, 2**62), (2**62, 1), (2**31, 2**31), (1, 2**40), (2**63, 1), (1, 2**70)]
)
def test_absurd_sizes_fail_at_once(inputs, hidden):
    with pytest.raises((MemoryError, ValueError, OverflowError)):
        lf.LSTM(inputs, hidden)


def test_absurd_sequences_fail_at_once():
    """2^62 steps of stride 0 are a legal array; their output is not."""
    problem = draw(1, 1, 1, 1)
    for shape in [(2**61, 1, 1), (2**40, 2**20, 1), (1, 2**61, 1)]:
        try:
            x = np.broadcast_to(problem.x, shape)
        except ValueError:
            continue  # this NumPy refuses the view itself
        state = np.broadcast_to(problem.h0, (shape[1], 1))
        for save in ("gates", None):
            with pytest.raises((MemoryError, ValueError)):
                lf.ops.lstm_forward(x, state, state, problem.w_ih, problem.w_hh, save=save)


@pytest.mark.parametrize("value", [0, -1])
def test_num_threads_must_be_positive(value):
    with pytest.raises(ValueError, match=r"\bn\b"):
        lf.set_num_threads(value)


@pytest.mark.parametrize("value", ["4", 2.5, True, None])
def test_num_threads_must_be_an_integer(value):
    with pytest.raises(TypeError, match=r"\bn\b"):
        lf.set_num_threads(value)


# --- reserves ---------------------------------------------------------------------------------------------------------


def test_reserve_of_another_layer(problem):
    layer, other = make_layer(problem), make_layer(problem)
    y, _, reserve = layer.forward(problem.x)
    with pytest.raises((TypeError, ValueError), match="reserve"):
        other.backward(reserve, np.ones_like(y))
    with pytest.raises((TypeError, ValueError), match="reserve"):
        layer.backward(None, np.ones_like(y))


def test_y_is_read_only(problem):
    y, *_ = lf.ops.lstm_forward(**problem.forward)
    with pytest.raises(ValueError, match="read-only"):
        y[0, 0, 0] = 1


BAD_AIDS = [
    ("truncate", 0, ValueError),
    ("truncate", 2.0, TypeError),
    ("truncate", True, TypeError),
    ("grad_clip", 0, ValueError),
    ("grad_clip", float("nan"), ValueError),
    ("grad_clip", "1", TypeError),
    ("resets", np.zeros((T, B + 1), bool), ValueError),
    ("resets", np.zeros(T, bool), ValueError),
    ("resets", np.zeros((T, B)), TypeError),
]


@pytest.mark.parametrize(("name", "value", "error"), BAD_AIDS)
def test_training_aids(name, value, error, problem):
    for functions in (lf.ops, lf.reference):
        with pytest.raises(error, match=f"^{name}: expected .*, got"):
            functions.lstm_forward(**problem.forward, **{name: value})
    with pytest.raises(error, match=f"^{name}: expected .*, got"):
        make_layer(problem).forward(problem.x, **{name: value})


@pytest.mark.parametrize(
    ("save", "error"), [("all", ValueError), ("", ValueError), ("Lean", ValueError), (3, TypeError), (True, TypeError)]
)
def test_unknown_save(save, error, problem):
    choices = "a string or None" if error is TypeError else "'gates', 'lean' or None"
    for functions in (lf.ops, lf.reference):
        with pytest.raises(error, match=f"^save: expected {choices}, got"):
            functions.lstm_forward(**problem.forward, save=save)
    with pytest.raises(error, match=f"^save: expected {choices}, got"):
        make_layer(problem).forward(problem.x, save=save)


def test_training_saves_something(problem):
    with pytest.raises(ValueError, match=r"^save: expected 'gates' or 'lean', got None; call"):
        make_layer(problem).forward(problem.x, save=None)
