"""Calls of the LSTM layer: batch_first, unbatched, states in and out, lists, wrong shapes."""

from __future__ import annotations

import lstm_fast as lf
import numpy as np
import pytest
from judge import assert_all_same_bits, assert_same_bits
from problems import PARAMETER_NAMES, draw, make_layer, solve
from stacks import Sizes, draw_stack, layer_of, name_of


@pytest.fixture(params=["float32", "float64"])
def problem(request):
    return draw(4, 3, 5, 7, request.param, seed=50)


def test_shapes_of_everything(problem):
    layer = make_layer(problem)
    y, (hn, cn), reserve = layer.forward(problem.x)
    grads = layer.backward(reserve, problem.dy)
    assert (y.shape, hn.shape, cn.shape) == ((4, 3, 7), (1, 3, 7), (1, 3, 7))
    assert (grads.x.shape, grads.state[0].shape, grads.state[1].shape) == ((4, 3, 5), (1, 3, 7), (1, 3, 7))
    assert {name: value.shape for name, value in grads.parameters.items()} == {
        name: value.shape for name, value in layer.parameters.items()
    }


ZEROS = [
    Sizes(1, 1, 3, 17),  # one step, from the weights as they are
    Sizes(1, 9, 5, 33, 0, 2, 2),  # one step, from packed blocks
    Sizes(1, 3, 4, 9, 5),
    Sizes(7, 3, 4, 9, 5, 2, 2),
    Sizes(70, 4, 3, 20, 0, 1, 2),  # several chunks
]


def results(layer, stack, state, save, unbatched):
    """Of inference, and of training if something is to be saved."""
    x, dy, dhn, dcn = stack.x, stack.dy, stack.dhn, stack.dcn
    if unbatched:
        x, dy, dhn, dcn = (each[:, 0] for each in (x, dy, dhn, dcn))
    lengths = None if unbatched else stack.lengths
    if save is None:
        y, (hn, cn) = layer(x, state, lengths=lengths)
        return {"y": y, "hn": hn, "cn": cn}
    y, (hn, cn), reserve = layer.forward(x, state, lengths=lengths, save=save, dropout_seed=3)
    found = layer.backward(reserve, dy, (dhn, dcn))
    states = reserve.states(layer.num_layers - 1)._asdict()
    dstate = dict(zip(("dh0", "dc0"), found.state, strict=True))
    return {"y": y, "hn": hn, "cn": cn, "dx": found.x, **dstate, **found.parameters, **states}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("save", [None, "gates", "lean"])
@pytest.mark.parametrize("sizes", ZEROS, ids=name_of)
def test_no_state_is_zeros(sizes, save, dtype, team):
    """Ragged with a row of length 0, unbatched, frozen, on two threads."""
    lengths = [0, *[sizes.steps] * (sizes.batch - 1)] if sizes.batch > 1 else None
    stack = draw_stack(sizes, dtype, lengths=lengths, seed=51)
    layer = layer_of(stack, dropout=0.5 if sizes.layers > 1 else 0.0)
    for unbatched in (False, True):
        zeros = [np.zeros_like(each[:, 0] if unbatched else each) for each in (stack.h0, stack.c0)]
        expected = results(layer, stack, tuple(zeros), save, unbatched)
        for threads in (1, 2):
            lf.set_num_threads(threads)
            assert_all_same_bits(results(layer, stack, None, save, unbatched), expected, f"{threads} threads")
        layer.freeze()
        assert_all_same_bits(results(layer, stack, None, save, unbatched), expected, "frozen")
        layer.unfreeze()


@pytest.mark.parametrize("which", [0, 1])
def test_half_a_state(which, problem):
    state = [problem.h0[None], problem.c0[None]]
    state[which] = None
    with pytest.raises(TypeError, match=rf"^{('h0', 'c0')[which]}: expected .*, got NoneType$"):
        make_layer(problem)(problem.x, tuple(state))


def test_call_is_inference_of_forward(problem):
    layer = make_layer(problem)
    state = problem.h0[None], problem.c0[None]
    inferred, trained = layer(problem.x, state), layer.forward(problem.x, state)
    assert len(inferred) == 2
    assert_same_bits(inferred[0], trained[0])
    for mine, same in zip(inferred[1], trained[1], strict=True):
        assert_same_bits(mine, same)


@pytest.mark.parametrize("batch_first", [False, True])
def test_unbatched(batch_first):
    """[T,I] is one row, whatever batch_first says; states lose their batch axis."""
    problem = draw(4, 1, 5, 7, seed=52)
    layer, expected = make_layer(problem, batch_first=batch_first), solve(problem)
    y, (hn, cn), reserve = layer.forward(problem.x[:, 0], (problem.h0, problem.c0))
    grads = layer.backward(reserve, problem.dy[:, 0], (problem.dhn, problem.dcn))
    assert_same_bits(y, expected["y"][:, 0], "y")
    assert_same_bits(hn, expected["hn"], "hn")
    assert_same_bits(cn, expected["cn"], "cn")
    assert_same_bits(grads.x, expected["dx"][:, 0], "dx")
    assert_same_bits(grads.state[0], expected["dh0"], "dh0")
    assert_same_bits(grads.state[1], expected["dc0"], "dc0")
    for short, name in PARAMETER_NAMES.items():
        assert_same_bits(grads.parameters[name], expected[f"d{short}"], name)
    assert reserve.states().c.shape == (4, 7)
    inferred, (h, c) = layer(problem.x[:, 0])
    assert (inferred.shape, h.shape, c.shape) == ((4, 7), (1, 7), (1, 7))


@pytest.mark.parametrize("shape", [(5,), (2, 4, 3, 5), (4, 3, 6), (4, 6), (), (4, 5, 3)])
def test_wrong_shape_of_x(shape, problem):
    with pytest.raises(ValueError, match=r"\bx\b"):
        make_layer(problem)(np.zeros(shape, problem.dtype))


@pytest.mark.parametrize("shape", [(3, 7), (1, 7), (1, 4, 7), (2, 3, 7), (1, 3, 8), (1, 1, 7)])
@pytest.mark.parametrize("which", [0, 1])
def test_wrong_shape_of_a_state(which, shape, problem):
    state = [problem.h0[None], problem.c0[None]]
    state[which] = np.zeros(shape, problem.dtype)
    with pytest.raises(ValueError, match=("h0", "c0")[which]):
        make_layer(problem)(problem.x, tuple(state))


@pytest.mark.parametrize("state", [np.zeros((2, 1, 3, 7), np.float32), (np.zeros((1, 3, 7), np.float32),), 3, "hc"])
def test_state_is_a_pair(state):
    with pytest.raises((TypeError, ValueError), match=r"state|h0|c0"):
        lf.LSTM(5, 7)(np.zeros((4, 3, 5), np.float32), state)


def test_wrong_gradients(problem):
    layer = make_layer(problem)
    _, _, reserve = layer.forward(problem.x)
    for wrong in (problem.dy[:-1], problem.dy[:, 0], problem.dy.swapaxes(0, 1), problem.dy[..., :-1]):
        with pytest.raises(ValueError, match=r"\bdy\b"):
            layer.backward(reserve, wrong)
    with pytest.raises(TypeError, match=r"\bdy\b"):
        layer.backward(reserve, problem.dy.astype(np.float16))
    with pytest.raises(ValueError, match="dhn"):
        layer.backward(reserve, problem.dy, (problem.dhn, problem.dcn[None]))
    with pytest.raises(ValueError, match="dcn"):
        layer.backward(reserve, problem.dy, (problem.dhn[None], problem.dcn[:, :-1][None]))


def test_gradients_may_be_missing(problem):
    layer = make_layer(problem)
    _, _, reserve = layer.forward(problem.x)
    whole = layer.backward(reserve, problem.dy, (problem.dhn[None], None))
    zeros = np.zeros((1, 3, 7), problem.dtype)
    same = layer.backward(reserve, problem.dy, (problem.dhn[None], zeros))
    np.testing.assert_array_equal(whole.x, same.x)
    nothing = layer.backward(reserve)
    assert not nothing.x.any()
    assert not any(value.any() for value in nothing.parameters.values())


def test_lists_become_the_dtype_of_the_layer(problem):
    layer = make_layer(problem)
    state = problem.h0[None].tolist(), problem.c0[None].tolist()
    assert_same_bits(layer(problem.x.tolist(), state)[0], layer(problem.x, (problem.h0[None], problem.c0[None]))[0])
    y, _, reserve = layer.forward(problem.x.tolist())
    assert y.dtype == problem.dtype
    assert_same_bits(layer.backward(reserve, problem.dy.tolist()).x, layer.backward(reserve, problem.dy).x)


@pytest.mark.parametrize("dtype", ["int64", "float16", "bool", "complex64", "object"])
def test_arrays_of_another_dtype_are_never_converted(dtype, problem):
    with pytest.raises(TypeError, match=r"\bx\b"):
        make_layer(problem)(problem.x.astype(dtype))


@pytest.mark.parametrize("x", [[[1.0], [1.0, 2.0]], "x", None, object(), [["a"]], 3.0])
def test_what_is_no_array_at_all(x):
    with pytest.raises((TypeError, ValueError), match=r"\bx\b"):
        lf.LSTM(1, 2)(x)


def test_a_reserve_outlives_its_inputs(problem):
    layer = make_layer(problem)
    y, _, reserve = layer.forward(problem.x.copy(), (problem.h0.copy()[None], problem.c0.copy()[None]))
    expected = layer.backward(reserve, problem.dy).x
    del y
    assert_same_bits(layer.backward(reserve, problem.dy).x, expected)
