"""GRU and RNN as layers: parameters, copies, forms of a call, and bad input."""

from __future__ import annotations

import copy
import pickle

import lstm_fast as lf
import numpy as np
import pytest
from family import CELLS, draw_case, functions_of, layer_of, make_layer, solve
from judge import assert_all_same_bits, assert_same_bits
from stacks import Sizes

GATES = {"gru": 3}  # others: 1
I, H, T, B = 5, 7, 3, 4  # noqa: E741  (the project's name for the input size)


@pytest.fixture(params=CELLS)
def cell(request):
    return request.param


def test_parameters_are_those_of_pytorch(cell):
    rows = GATES.get(cell, 1) * H
    layer = make_layer(cell, I, H, 2, bidirectional=True, dtype="float64", seed=0)
    shapes = {"weight_ih": [(rows, I), (rows, 2 * H)], "weight_hh": [(rows, H)] * 2}
    shapes |= dict.fromkeys(("bias_ih", "bias_hh"), [(rows,)] * 2)
    wanted = {f"{n}_l{at}{way}": shapes[n][at] for at in (0, 1) for way in ("", "_reverse") for n in shapes}
    assert list(layer.parameters) == list(wanted)
    assert {name: value.shape for name, value in layer.parameters.items()} == wanted
    assert all(np.abs(value).max() <= H**-0.5 for value in layer.parameters.values())


def test_repr_says_how_to_make_it(cell):
    layer = make_layer(cell, I, H, 2, dropout=0.5)
    other = {"rnn_tanh": "", "gru": ""}.get(cell, f"nonlinearity='{cell[4:]}', ")
    assert repr(layer) == f"{'GRU' if cell == 'gru' else 'RNN'}(5, 7, num_layers=2, dropout=0.5, {other}dtype=float32)"


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_are_equal_and_apart(duplicate, cell):
    case = draw_case(cell, Sizes(T, B, I, H), seed=60)
    layer = layer_of(case)
    layer.freeze()
    twin = duplicate(layer)
    assert_all_same_bits(solve(case, twin), solve(case, layer))
    for value in twin.parameters.values():
        value[...] = 0
    assert layer(case.x)[0].any()


def test_from_state_dict(cell):
    layer = make_layer(cell, I, H, 2, bidirectional=True, dtype="float64")
    mapping = {f"encoder.{name}": value for name, value in layer.state_dict().items()}
    options = {} if cell == "gru" else {"nonlinearity": cell[4:]}
    twin = type(layer).from_state_dict(mapping, "encoder.", **options)
    assert repr(twin) == repr(layer)
    assert_all_same_bits(twin.parameters, layer.parameters)


@pytest.mark.parametrize("given", [lf.LSTM, lf.GRU, lf.RNN])
@pytest.mark.parametrize("wanted", [lf.LSTM, lf.GRU, lf.RNN])
@pytest.mark.parametrize("hidden", [1, 6, 12])
def test_parameters_of_another_cell(hidden, wanted, given):
    state = given(I, hidden).state_dict()
    if wanted is given:
        assert wanted.from_state_dict(state).hidden_size == hidden
        return
    with pytest.raises(ValueError, match=r"^weight_[ih]h_l0: expected shape \([34]?H, "):
        wanted.from_state_dict(state)


@pytest.mark.parametrize("layer", [lf.GRU, lf.RNN])
def test_a_projection_is_of_an_lstm_only(layer):
    with pytest.raises(ValueError, match="weight_hr_l0: expected none, since only an LSTM has a projection"):
        layer.from_state_dict(lf.LSTM(I, H, proj_size=3).state_dict())
    with pytest.raises(TypeError, match="proj_size"):
        layer(I, H, proj_size=3)


def test_no_state_is_zeros(cell):
    layer = make_layer(cell, I, H, 2, bidirectional=True)
    x = draw_case(cell, Sizes(T, B, I, H)).x
    for one, other in zip(layer(x), layer(x, np.zeros((4, B, H), np.float32)), strict=True):
        assert_same_bits(one, other)


def test_batch_first_and_unbatched(cell):
    case = draw_case(cell, Sizes(T, 1, I, H, 0, 2, 2), seed=61)
    expected = solve(case)
    y, hn, reserve = layer_of(case, batch_first=True).forward(case.x.swapaxes(0, 1), case.h0)
    assert_same_bits(np.ascontiguousarray(y.swapaxes(0, 1)), expected["y"], "y")
    assert_same_bits(hn, expected["hn"], "hn")
    assert {value.shape for value in reserve.states()} == {(1, T, H)}
    layer = layer_of(case)
    y, hn, reserve = layer.forward(case.x[:, 0], case.h0[:, 0])
    grads = layer.backward(reserve, case.dy[:, 0], case.dhn[:, 0])
    for name, value in {"y": y, "hn": hn, "dx": grads.x, "dh0": grads.state}.items():
        assert_same_bits(value, expected[name][:, 0], name)


def test_gradients_may_be_missing_and_are_arrays_of_their_own(cell):
    case = draw_case(cell, Sizes(T, B, I, H, 0, 2), seed=62)
    layer = layer_of(case)
    reserve = layer.forward(case.x, case.h0)[2]
    assert not layer.backward(reserve).x.any()
    grads = layer.backward(reserve, None, case.dhn)
    assert_same_bits(grads.x, solve(case.replace(dy=np.zeros_like(case.dy)))["dx"], "dx")
    every = [grads.x, grads.state, *grads.parameters.values()]
    assert not any(np.shares_memory(one, other) for at, one in enumerate(every) for other in every[:at])


def test_bad_states(cell):
    layer = make_layer(cell, I, H)
    x, h0 = np.zeros((T, B, I), np.float32), np.zeros((1, B, H), np.float32)
    with pytest.raises(TypeError, match=r"state: expected h0 alone, an ndarray or a list, got a tuple of 2"):
        layer(x, (h0, h0))
    with pytest.raises(ValueError, match=r"h0: expected shape \(1, 4, 7\), got \(1, 3, 7\)"):
        layer(x, h0[:, 1:])
    with pytest.raises(ValueError, match=r"h0: expected shape \(1, 7\), got \(1, 4, 7\)"):
        layer(x[:, 0], h0)
    with pytest.raises(TypeError, match="h0: expected dtype float32"):
        layer(x, h0.astype("float64"))
    reserve = layer.forward(x)[2]
    with pytest.raises(TypeError, match=r"dstate_n: expected dhn alone, .* got a tuple of 2"):
        layer.backward(reserve, None, (h0, None))
    with pytest.raises(ValueError, match=r"dhn: expected shape \(1, 4, 7\), got \(1, 3, 7\)"):
        layer.backward(reserve, None, h0[:, 1:])


@pytest.mark.parametrize("other", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_reserve_of_another_function(kind, other):
    rows = {"lstm": 4, "gru": 3, "rnn": 1}[kind] * H
    states = [np.zeros((B, H))] * (1 + (kind == "lstm"))
    *_, reserve = getattr(lf.ops, f"{kind}_forward")(
        np.ones((T, B, I)), *states, np.ones((rows, I)), np.ones((rows, H))
    )
    backward = getattr(lf.ops, f"{other}_backward")
    if other == kind:
        assert list(backward(reserve)) == ["x", "h0", *(["c0"] if kind == "lstm" else []), "w_ih", "w_hh"]
        return
    with pytest.raises(ValueError, match=f"reserve: expected that of {other}_forward, got that of {kind}_forward"):
        backward(reserve)


def test_weights_of_another_size(cell):
    rows = GATES.get(cell, 1) * H
    x, h0 = np.ones((T, B, I)), np.ones((B, H))
    good = {"w_ih": np.ones((rows, I)), "w_hh": np.ones((rows, H)), "b_ih": np.ones(rows), "b_hh": np.ones(rows)}
    functions_of(cell).forward(x, h0, **good)
    for name, value in good.items():
        with pytest.raises(ValueError, match=rf"\bw_hh\b|\b{name}\b"):
            functions_of(cell).forward(x, h0, **good | {name: np.concatenate([value, value[:1]])})
        with pytest.raises(TypeError, match=rf"\b{name}\b"):
            functions_of(cell).cell(x[0], h0, **good | {name: value.astype(np.float32)})


def test_what_this_version_does_not_do():
    arrays = np.ones((T, B, I)), np.ones((B, H)), np.ones((3 * H, I)), np.ones((3 * H, H))
    cell = (arrays[0][0], *arrays[1:])
    for call in (
        lambda wrong: lf.GRU(I, H, reset_after=wrong),
        lambda wrong: lf.ops.gru_forward(*arrays, reset_after=wrong),
        lambda wrong: lf.ops.gru_cell(*cell, reset_after=wrong),
    ):
        with pytest.raises(NotImplementedError, match="reset_after: this version takes True only, got False"):
            call(False)
        with pytest.raises(TypeError, match="reset_after: expected a bool, got int"):
            call(0)


@pytest.mark.parametrize(("value", "error"), [("gelu", ValueError), ("Tanh", ValueError), (None, TypeError)])
def test_nonlinearity_is_one_of_four(value, error):
    with pytest.raises(error, match="nonlinearity: expected"):
        lf.RNN(I, H, nonlinearity=value)
    with pytest.raises(error, match="nonlinearity: expected"):
        lf.ops.rnn_forward(np.ones((T, B, I)), np.ones((B, H)), np.ones((H, I)), np.ones((H, H)), nonlinearity=value)
