"""How far gradients reach: Jacobians against closed forms, finite differences, one backward of the whole sequence."""

from __future__ import annotations

import copy

import lstm_fast as lf
import numpy as np
import pytest
from lstm_fast.diagnostics import gradient_flow, jacobians

BATCH, STEPS, INPUTS = 2, 4, 3

LAYERS = {
    "LSTM": lambda **o: lf.LSTM(INPUTS, 4, **o),
    "LSTM of two layers, projected": lambda **o: lf.LSTM(INPUTS, 4, 2, proj_size=2, **o),
    "GRU": lambda **o: lf.GRU(INPUTS, 4, **o),
    "GRU of two layers": lambda **o: lf.GRU(INPUTS, 3, 2, **o),
    "RNN": lambda **o: lf.RNN(INPUTS, 4, **o),
    "RNN of two layers": lambda **o: lf.RNN(INPUTS, 3, 2, nonlinearity="sigmoid", **o),
}


def parts(state):
    """(h, c) of an LSTM, (h,) of the others."""
    return list(state) if isinstance(state, tuple) else [state]


def whole(arrays):
    """What a layer takes as its state."""
    return tuple(arrays) if len(arrays) == 2 else arrays[0]


def joined(state):
    """A state as [B,S]."""
    return np.concatenate([part.swapaxes(0, 1).reshape(part.shape[1], -1) for part in parts(state)], axis=1)


def problem(name):
    """A layer of float64, x [T,B,I] and an initial state."""
    layer = LAYERS[name](dtype=np.float64, seed=1)
    draw = np.random.default_rng(0)
    x = draw.standard_normal((STEPS, BATCH, INPUTS))
    state = whole([0.5 * draw.standard_normal(part.shape) for part in parts(layer(x)[1])])
    return layer, x, state


def unit_layer(nonlinearity, w, dtype=np.float64):
    """h_t = act(w h_(t-1) + x_t), one unit."""
    layer = lf.RNN(1, 1, bias=False, nonlinearity=nonlinearity, dtype=dtype)
    layer.parameters["weight_ih_l0"][:] = 1
    layer.parameters["weight_hh_l0"][:] = w
    return layer


@pytest.mark.parametrize("w", [2.0, 0.5, -1.5])
def test_one_unit_explodes_or_vanishes_with_its_weight(w):
    flow = gradient_flow(unit_layer("identity", w), np.ones((51, 1)))
    assert flow.x.shape == (51,)
    assert flow.state.shape == (52,)
    np.testing.assert_allclose(flow.state, np.abs(w) ** np.arange(52), rtol=1e-10)
    np.testing.assert_allclose(flow.x, np.abs(w) ** np.arange(51), rtol=1e-10)


def test_sigmoid_network_has_the_product_of_the_theory():
    """d h_n / d x_k = D(h_n) V ... D(h_k) U with D(h) = diag(h (1 - h))."""
    layer = lf.RNN(3, 5, nonlinearity="sigmoid", dtype=np.float64, seed=2)
    u, v = layer.parameters["weight_ih_l0"], layer.parameters["weight_hh_l0"]
    x = np.random.default_rng(0).standard_normal((50, 3))
    h, _ = layer(x)
    count = 0
    for jacobian in jacobians(layer, x):
        k = 49 - jacobian.distance
        expected = np.diag(h[k] * (1 - h[k])) @ u
        for t in range(k + 1, 50):
            expected = np.diag(h[t] * (1 - h[t])) @ v @ expected
        error = np.abs(jacobian.x[0] - expected).max() / np.abs(expected).max()
        assert error < 1e-10, k
        count += 1
    assert count == 50


@pytest.mark.parametrize("name", LAYERS)
def test_jacobians_by_finite_differences(name):
    layer, x, state = problem(name)
    for jacobian in jacobians(layer, x, state):
        t = STEPS - 1 - jacobian.distance
        start = layer(x[:t], state)[1] if t else state

        def end(inputs, start, t=t):
            y, last = layer(np.concatenate([inputs[None], x[t + 1 :]]), start)
            return y[-1], joined(last)

        step = 1e-6
        for column in range(INPUTS):
            moved = np.zeros((BATCH, INPUTS))
            moved[:, column] = step
            slope = (end(x[t] + moved, start)[0] - end(x[t] - moved, start)[0]) / (2 * step)
            # A central difference is off by step^2, and rounding by 1e-16 / step: both below 1e-9.
            np.testing.assert_allclose(jacobian.x[:, :, column], slope, rtol=0, atol=1e-8)
        column = 0
        for which, part in enumerate(parts(start)):
            for level, unit in np.ndindex(part.shape[0], part.shape[2]):
                values = []
                for sign in (1, -1):
                    arrays = [array.copy() for array in parts(start)]
                    arrays[which][level, :, unit] += sign * step
                    values.append(end(x[t], whole(arrays))[1])
                slope = (values[0] - values[1]) / (2 * step)
                np.testing.assert_allclose(jacobian.state[:, :, column], slope, rtol=0, atol=1e-8)
                column += 1
        assert column == jacobian.state.shape[2]


@pytest.mark.parametrize("name", LAYERS)
def test_jacobians_have_the_bits_of_one_backward_over_the_whole_sequence(name):
    layer, x, state = problem(name)
    found = list(jacobians(layer, x, state))
    assert [each.distance for each in found] == list(range(STEPS))
    _, last, reserve = layer.forward(x, state)
    outputs = found[0].x.shape[1]
    for unit in range(outputs):
        arrays = [np.zeros_like(part) for part in parts(last)]
        arrays[0][-1, :, unit] = 1
        gradients = layer.backward(reserve, None, whole(arrays))
        row = (layer.num_layers - 1) * outputs + unit
        np.testing.assert_array_equal(joined(gradients.state), found[-1].state[:, row])
        for each in found:
            np.testing.assert_array_equal(gradients.x[STEPS - 1 - each.distance], each.x[:, unit])


@pytest.mark.parametrize("name", ["LSTM", "GRU of two layers", "RNN"])
def test_flow_is_the_spectral_norm_in_any_arrangement(name):
    layer, x, state = problem(name)
    flow = gradient_flow(layer, x, state)
    for each in jacobians(layer, x, state):
        np.testing.assert_allclose(flow.x[each.distance], np.linalg.norm(each.x, 2, axis=(1, 2)), rtol=1e-13)
        expected = np.linalg.norm(each.state, 2, axis=(1, 2))
        np.testing.assert_allclose(flow.state[each.distance + 1], expected, rtol=1e-13)
    assert flow.x.shape == (STEPS, BATCH)
    np.testing.assert_array_equal(flow.state[0], 1)

    first = LAYERS[name](dtype=np.float64, seed=1, batch_first=True)
    for one, other in zip(gradient_flow(first, x.swapaxes(0, 1), state), flow, strict=True):
        np.testing.assert_array_equal(one, other)
    row = whole([part[:, 1] for part in parts(state)])
    for one, other in zip(gradient_flow(layer, x[:, 1], row), flow, strict=True):
        np.testing.assert_array_equal(one, other[:, 1])


def test_no_state_is_a_state_of_zeros():
    layer, x, state = problem("LSTM")
    zeros = whole([np.zeros_like(part) for part in parts(state)])
    for one, other in zip(gradient_flow(layer, x), gradient_flow(layer, x, zeros), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(gradient_flow(layer, x).x, gradient_flow(layer, x, state).x)


def test_lists_are_taken_and_the_dtype_is_the_layers():
    layer = lf.GRU(1, 2, seed=0)
    flow = gradient_flow(layer, [[1.0], [2.0]], [[0.5, -0.5]])
    assert flow.x.dtype == flow.state.dtype == np.float32
    assert flow.state.shape == (3,)


def test_what_a_dtype_cannot_hold_is_zero_or_infinite():
    flow = gradient_flow(unit_layer("identity", 2.0), np.zeros((1030, 1)))
    assert flow.state[1023] == 2.0**1023
    assert np.isposinf(flow.state[1024:]).all()
    flow = gradient_flow(unit_layer("identity", 0.5), np.zeros((1080, 1)))
    assert flow.state[1060] == 2.0**-1060  # subnormal, and its square would be 0
    assert not flow.state[1076:].any()
    assert gradient_flow(unit_layer("identity", 0.5, np.float32), np.zeros((200, 1), np.float32)).state[-1] == 0


def test_the_layer_stays_as_it_is_and_its_dropout_is_off():
    plain = lf.LSTM(INPUTS, 4, 2, dtype=np.float64, seed=1)
    thinned = lf.LSTM(INPUTS, 4, 2, dropout=0.5, dtype=np.float64, seed=1)
    thinned.freeze()
    before = copy.deepcopy(thinned)
    x = np.random.default_rng(0).standard_normal((STEPS, INPUTS))
    for one, other in zip(gradient_flow(plain, x), gradient_flow(thinned, x), strict=True):
        np.testing.assert_array_equal(one, other)
    assert thinned.dropout == 0.5
    assert all(not array.flags.writeable for array in thinned.parameters.values())
    # The generator of the dropout seeds has not moved.
    thinned.unfreeze()
    np.testing.assert_array_equal(thinned.forward(x)[0], before.forward(x)[0])


def test_nothing_to_look_at():
    flow = gradient_flow(lf.LSTM(INPUTS, 4, seed=0), np.zeros((0, BATCH, INPUTS), np.float32))
    assert flow.x.shape == (0, BATCH)
    np.testing.assert_array_equal(flow.state, np.ones((1, BATCH)))
    flow = gradient_flow(lf.LSTM(0, 4, seed=0), np.zeros((2, BATCH, 0), np.float32))
    np.testing.assert_array_equal(flow.x, np.zeros((2, BATCH)))


@pytest.mark.parametrize("call", [gradient_flow, jacobians])
def test_wrong_arguments_are_named_at_once(call):
    x = np.zeros((STEPS, INPUTS), np.float32)
    with pytest.raises(ValueError, match=r"layer: expected one direction.*bidirectional"):
        call(lf.GRU(INPUTS, 4, bidirectional=True), x)
    with pytest.raises(TypeError, match="layer: expected an LSTM, GRU or RNN of lstm_fast, got dict"):
        call({}, x)
    layer = lf.LSTM(INPUTS, 4)
    with pytest.raises(TypeError, match="x: expected dtype float32"):
        call(layer, x.astype(np.float64))
    with pytest.raises(ValueError, match=r"x: expected .* I = 3, got shape \(4, 2\)"):
        call(layer, x[:, :2])
    with pytest.raises(TypeError, match=r"state: expected a tuple \(h0, c0\)"):
        call(layer, x, np.zeros((1, 4), np.float32))
    with pytest.raises(ValueError, match="h0: expected shape"):
        call(layer, x, (np.zeros((1, 5), np.float32), np.zeros((1, 4), np.float32)))
