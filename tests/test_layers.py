"""The LSTM layer as a holder of parameters: state dictionaries, pickling, copies, gradient clipping."""

from __future__ import annotations

import copy
import math
import pickle

import lstm_fast as lf
import numpy as np
import pytest
from judge import assert_all_same_bits, assert_same_bits
from problems import PARAMETER_NAMES, draw, make_layer, solve

DTYPES = ["float32", "float64"]
NAMES = list(PARAMETER_NAMES.values())


@pytest.fixture(params=DTYPES)
def problem(request):
    return draw(4, 3, 5, 7, request.param, seed=50)


def outputs(layer, problem):
    y, (hn, cn) = layer(problem.x, (problem.h0[None], problem.c0[None]))
    return {"y": y, "hn": hn, "cn": cn}


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_parameters_are_those_of_pytorch(dtype):
    layer = lf.LSTM(5, 7, dtype=dtype, seed=0)
    shapes = {"weight_ih_l0": (28, 5), "weight_hh_l0": (28, 7), "bias_ih_l0": (28,), "bias_hh_l0": (28,)}
    assert list(layer.parameters) == NAMES == list(shapes)
    for name, parameter in layer.parameters.items():
        assert parameter.shape == shapes[name]
        assert parameter.dtype == np.dtype(dtype)
        assert parameter.flags.writeable
    assert list(lf.LSTM(5, 7, bias=False).parameters) == NAMES[:2]


def test_mapping_is_read_only():
    layer = lf.LSTM(2, 3)
    with pytest.raises(TypeError):
        layer.parameters["weight_ih_l0"] = np.zeros((12, 2), np.float32)
    with pytest.raises(TypeError):
        del layer.parameters["weight_ih_l0"]


def test_float32_is_the_default():
    assert lf.LSTM(2, 3).parameters["weight_ih_l0"].dtype == np.float32
    assert lf.LSTM(2, 3)(np.zeros((1, 1, 2), np.float32))[0].dtype == np.float32


@pytest.mark.parametrize("hidden", [1, 4, 100])
def test_initialisation_law(hidden):
    """U(-1/sqrt(H), 1/sqrt(H)) for every parameter: within the bounds, and of that law's mean and deviation."""
    layer = lf.LSTM(50, hidden, seed=1)
    bound = 1 / math.sqrt(hidden)
    every = np.concatenate([value.ravel() for value in layer.parameters.values()]).astype(np.float64)
    assert np.abs(every).max() <= bound * (1 + 1e-6)  # rounding to float32
    assert np.abs(every).max() >= 0.95 * bound
    deviations = 5 / math.sqrt(every.size)  # five standard errors, with a fixed seed
    assert abs(every.mean()) <= bound / math.sqrt(3) * deviations
    assert abs(every.std() * math.sqrt(3) / bound - 1) <= deviations


def test_seed_decides_the_parameters():
    same, again, other = lf.LSTM(2, 3, seed=4), lf.LSTM(2, 3, seed=4), lf.LSTM(2, 3, seed=5)
    assert_all_same_bits(same.parameters, again.parameters)
    assert not np.array_equal(same.parameters["weight_hh_l0"], other.parameters["weight_hh_l0"])
    fresh = lf.LSTM(2, 3), lf.LSTM(2, 3)
    assert not np.array_equal(fresh[0].parameters["weight_hh_l0"], fresh[1].parameters["weight_hh_l0"])


def test_writing_into_a_parameter_changes_the_next_call(problem):
    layer = make_layer(problem)
    outputs(layer, problem)
    for short, name in PARAMETER_NAMES.items():
        layer.parameters[name][...] *= -0.5
        problem = problem.replace(**{short: problem.arrays[short] * problem.dtype.type(-0.5)})
        assert_same_bits(outputs(layer, problem)["y"], solve(problem)["y"], f"y after {name}")


@pytest.mark.parametrize("dtype", ["float16", "int32", "complex64", "longdouble"])
def test_layers_are_float32_or_float64(dtype):
    with pytest.raises(TypeError, match="dtype"):
        lf.LSTM(2, 3, dtype=dtype)


# --- state dictionaries -----------------------------------------------------------------------------------------------


def test_state_dict_copies(problem):
    layer = make_layer(problem)
    saved = layer.state_dict()
    assert list(saved) == NAMES
    assert_all_same_bits(saved, layer.parameters)
    for value in saved.values():
        value[...] = 0
    for value in layer.parameters.values():
        assert value.any()


def test_load_state_dict_copies_into_the_same_arrays(problem):
    layer, source = lf.LSTM(5, 7, dtype=problem.dtype), make_layer(problem).state_dict()
    held = dict(layer.parameters)
    layer.load_state_dict(source)
    assert_all_same_bits(layer.parameters, source)
    for name, value in held.items():
        assert layer.parameters[name] is value
        assert not np.shares_memory(value, source[name])


def test_load_state_dict_takes_array_likes(problem):
    layer = lf.LSTM(5, 7, dtype=problem.dtype)
    source = make_layer(problem).state_dict()
    layer.load_state_dict({name: value.tolist() for name, value in source.items()})
    assert_all_same_bits(layer.parameters, source)


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_load_state_dict_strict(change, problem):
    layer, source = make_layer(problem), lf.LSTM(5, 7, dtype=problem.dtype).state_dict()
    name = "bias_hh_l0" if change == "missing" else "weight_hr_l0"
    if change == "missing":
        del source[name]
    else:
        source[name] = np.zeros((2, 7), problem.dtype)
    before = layer.state_dict()
    with pytest.raises((KeyError, ValueError), match=name):
        layer.load_state_dict(source)
    assert_all_same_bits(layer.parameters, before, "after the error")
    layer.load_state_dict(source, strict=False)
    for key in set(source) & set(NAMES):
        assert_same_bits(layer.parameters[key], source[key], key)


@pytest.mark.parametrize("name", NAMES)
def test_load_state_dict_of_a_wrong_shape_changes_nothing(name, problem):
    layer, source = make_layer(problem), lf.LSTM(5, 7, dtype=problem.dtype).state_dict()
    before = layer.state_dict()
    source[name] = source[name][:-1]
    for strict in (True, False):
        with pytest.raises(ValueError, match=name):
            layer.load_state_dict(source, strict=strict)
        assert_all_same_bits(layer.parameters, before, "after the error")


@pytest.mark.parametrize("bias", ["both", "none"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_from_state_dict_infers_the_sizes(bias, dtype):
    problem = draw(4, 3, 5, 7, dtype, bias=bias, seed=51)
    layer = make_layer(problem)
    mapping = {f"encoder.{name}": value for name, value in layer.state_dict().items()}
    mapping |= {"decoder.weight": np.zeros((3, 3)), "embedding": np.zeros(5)}
    twin = lf.LSTM.from_state_dict(mapping, prefix="encoder.")
    assert_all_same_bits(twin.parameters, layer.parameters)
    assert_all_same_bits(outputs(twin, problem), outputs(layer, problem))
    turned = lf.LSTM.from_state_dict(mapping, "encoder.", batch_first=True)
    assert_same_bits(turned(problem.x.swapaxes(0, 1))[0].swapaxes(0, 1), twin(problem.x)[0])


@pytest.mark.parametrize("mapping", [{}, {"weight_hh_l0": np.zeros((4, 1))}, {"other.weight_ih_l0": np.zeros((4, 1))}])
def test_from_state_dict_without_an_lstm(mapping):
    with pytest.raises((KeyError, ValueError), match=r"weight_ih_l0|prefix"):
        lf.LSTM.from_state_dict(mapping)


@pytest.mark.parametrize("options", [{"num_layers": 3}, {"bidirectional": True}, {"proj_size": 2}, {"bias": False}])
def test_from_state_dict_infers_the_options(options):
    layer = lf.LSTM(5, 3, **options)
    twin = lf.LSTM.from_state_dict(layer.state_dict())
    assert repr(twin) == repr(layer)
    assert list(twin.parameters) == list(layer.parameters)
    assert_all_same_bits(twin.parameters, layer.parameters)


def test_from_state_dict_takes_what_the_values_do_not_tell():
    layer = lf.LSTM(5, 3, 2)
    twin = lf.LSTM.from_state_dict(layer.state_dict(), dropout=0.25, batch_first=True)
    assert (twin.dropout, twin.batch_first) == (0.25, True)
    with pytest.raises(TypeError, match="num_layers"):
        lf.LSTM.from_state_dict(layer.state_dict(), num_layers=2)


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_pytorch_model_runs_without_pytorch(batch_first):
    torch = pytest.importorskip("torch", reason="the state dictionary comes from a PyTorch module")
    theirs = torch.nn.LSTM(5, 7, batch_first=batch_first)
    ours = lf.LSTM.from_state_dict(theirs.state_dict(), batch_first=batch_first)
    x = np.random.default_rng(0).standard_normal((4, 3, 5)).astype(np.float32)
    with torch.no_grad():
        y, (hn, cn) = theirs(torch.from_numpy(x))
    result, (h, c) = ours(x)
    for mine, other in ((result, y), (h, hn), (c, cn)):
        np.testing.assert_allclose(mine, other.numpy(), rtol=0, atol=8 * np.finfo(np.float32).eps)
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in ours.state_dict().items()})


# --- pickle and copy --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_are_equal_and_apart(duplicate, problem):
    layer = make_layer(problem, batch_first=True)
    twin = duplicate(layer)
    assert_all_same_bits(twin.parameters, layer.parameters)
    x = problem.x.swapaxes(0, 1)
    assert_same_bits(twin(x)[0], layer(x)[0])
    for name, value in twin.parameters.items():
        assert not np.shares_memory(value, layer.parameters[name])
        assert value.flags.writeable
        value[...] = 0
    assert not twin(x)[0].any()
    assert layer(x)[0].any()
    with pytest.raises(TypeError):
        twin.parameters["weight_ih_l0"] = np.zeros(1)


# --- clipping ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def grads(problem):
    layer = make_layer(problem)
    _, _, reserve = layer.forward(problem.x)
    return layer.backward(reserve, problem.dy)


def joint_norm(grads):
    return math.sqrt(sum(float((value.astype(np.float64) ** 2).sum()) for value in grads.parameters.values()))


@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.5])
def test_clip_grad_norm(fraction, grads, problem):
    before = {name: value.copy() for name, value in grads.parameters.items()}
    x_before, norm = grads.x.copy(), joint_norm(grads)
    held = dict(grads.parameters)
    returned = lf.clip_grad_norm(grads, fraction * norm)
    rounding = 4 * float(np.finfo(problem.dtype).eps)
    assert returned == pytest.approx(norm, rel=rounding)
    assert joint_norm(grads) <= min(1, fraction) * norm * (1 + rounding)
    for name, value in grads.parameters.items():
        assert value is held[name]
        # PyTorch's factor has norm + 1e-6 below: relative 1e-6 / norm
        np.testing.assert_allclose(value, before[name] * min(1, fraction), rtol=rounding + 2e-6 / norm, atol=0)
    assert_same_bits(grads.x, x_before, "x is not a parameter")


def test_clip_grad_norm_does_not_hide_nan(grads):
    grads.parameters["bias_ih_l0"][0] = np.nan
    assert math.isnan(lf.clip_grad_norm(grads, 1.0))
    assert any(np.isnan(value).any() for value in grads.parameters.values())


@pytest.mark.parametrize("limit", [0.0, 1e-3, 0.1, 1e6])
def test_clip_grad_value(limit, grads):
    expected = {name: np.clip(value, -limit, limit) for name, value in grads.parameters.items()}
    held = dict(grads.parameters)
    lf.clip_grad_value(grads, limit)
    for name, value in grads.parameters.items():
        assert value is held[name]
        np.testing.assert_array_equal(value, expected[name])


@pytest.mark.parametrize("clip", [lf.clip_grad_norm, lf.clip_grad_value])
@pytest.mark.parametrize(("limit", "error"), [(-1.0, ValueError), ("1", TypeError), (None, TypeError)])
def test_clip_limits(clip, limit, error, grads):
    with pytest.raises(error, match=r"limit|max_norm"):
        clip(grads, limit)
