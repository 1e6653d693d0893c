"""truncate, grad_clip and resets: drawn calls against the reference, every cell, set and way to split work."""

from __future__ import annotations

import lstm_fast as lf
import numpy as np
import pytest
from lstm_fast import _lstm_fast_core as core

KINDS = ["lstm", "lstm_projected", "gru", "rnn_tanh", "rnn_relu", "rnn_sigmoid", "rnn_identity"]
# Sums of some hundred products in another order than the reference's: 1e-13 and less of the largest was seen.
RELATIVE = 1e-11


@pytest.fixture(autouse=True)
def restored():
    isa, threads = core.isa(), core.num_threads()
    yield
    core.set_isa(isa)
    core.set_num_threads(threads)
    core.use_team_always(False)
    core.set_split(core.Split.faster)


def drawn(kind, rng):
    """(names of functions, arguments of forward, what they are called with beside arrays, gradients) of one call."""
    steps, batch, inputs, hidden = (int(rng.integers(1, most)) for most in (30, 14, 20, 70))
    lstm = kind.startswith("lstm")
    proj = int(rng.integers(1, hidden)) if kind == "lstm_projected" and hidden > 1 else 0
    width = proj or hidden
    rows = {"l": 4, "g": 3, "r": 1}[kind[0]] * hidden
    arrays = {"x": (steps, batch, inputs), "h0": (batch, width)} | ({"c0": (batch, hidden)} if lstm else {})
    arrays |= {"w_ih": (rows, inputs), "w_hh": (rows, width), "b_ih": (rows,), "b_hh": (rows,)}
    arrays |= {"w_hr": (proj, hidden)} if proj else {}
    scale = {"w_ih": 0.3, "w_hh": 0.3 / np.sqrt(width)}
    given = {name: rng.standard_normal(shape) * scale.get(name, 1) for name, shape in arrays.items()}
    aids = {
        "truncate": int(rng.integers(1, 8)),
        "grad_clip": float(rng.uniform(0.1, 1.5)),
        "resets": rng.random((steps, batch)) < 0.3,
    }
    options = {name: value for name, value in aids.items() if rng.integers(2)}
    options |= {
        "reverse": bool(rng.integers(2)),
        "lengths": rng.integers(0, steps + 1, batch) if rng.integers(2) else None,
    }
    options |= {"nonlinearity": kind[4:]} if kind[0] == "r" else {}
    gradients = {"dy": (steps, batch, width), "dhn": (batch, width)} | ({"dcn": (batch, hidden)} if lstm else {})
    return kind.split("_")[0], given, options, {name: rng.standard_normal(s) for name, s in gradients.items()}


def assert_close(got, wanted, name):
    assert got.shape == wanted.shape, name
    if got.size:
        assert np.abs(got - wanted).max() <= RELATIVE * max(1e-3, np.abs(wanted).max()), name


@pytest.mark.parametrize("isa", core.isas_usable())
@pytest.mark.parametrize("kind", KINDS)
def test_as_the_reference(kind, isa):
    core.set_isa(isa)
    rng = np.random.default_rng([KINDS.index(kind), 7])
    for _ in range(20):
        cell, given, options, gradients = drawn(kind, rng)
        save = str(rng.choice(["gates", "lean"]))
        core.use_team_always(bool(rng.integers(2)))
        core.set_num_threads(int(rng.integers(1, 4)))
        core.set_split([core.Split.faster, core.Split.rows, core.Split.units][rng.integers(3)])
        *outputs, reserve = getattr(lf.ops, f"{cell}_forward")(**given, **options, save=save)
        *wanted, truth = getattr(lf.reference, f"{cell}_forward")(**given, **options)
        for name, got, right in zip(("y", "hn", "cn"), outputs, wanted, strict=False):
            assert_close(got, right, name)
        found = getattr(lf.ops, f"{cell}_backward")(reserve, **gradients)
        right = getattr(lf.reference, f"{cell}_backward")(truth, **gradients)
        assert found.keys() == right.keys()
        for name in found:
            assert_close(found[name], right[name], f"{name} with {options}")


@pytest.mark.parametrize("make", [lf.LSTM, lf.GRU, lf.RNN])
def test_resets_in_a_stack_are_sequences_of_their_own(make):
    """Of every layer: the same bits as if each part had been run alone."""
    layer = make(3, 9, num_layers=2, batch_first=True, seed=0)
    x = np.random.default_rng(0).standard_normal((4, 12, 3)).astype(np.float32)
    resets = np.zeros((4, 12), bool)
    resets[:, [5, 6]] = True
    y, _, reserve = layer.forward(x, resets=resets)
    parts = [slice(0, 5), slice(5, 6), slice(6, 12)]
    assert np.array_equal(y, np.concatenate([layer(x[:, part])[0] for part in parts], axis=1))
    dy = np.ones_like(y)
    found = layer.backward(reserve, dy).x
    for part in parts:
        *_, alone = layer.forward(x[:, part])
        assert np.array_equal(found[:, part], layer.backward(alone, dy[:, part]).x)


def test_truncate_is_detaching_between_pieces():
    layer = lf.LSTM(3, 5, dtype=np.float64, seed=1)
    x = np.random.default_rng(1).standard_normal((7, 3))
    y, _, reserve = layer.forward(x, truncate=3)
    found = layer.backward(reserve, np.ones_like(y))
    state, pieces = None, []
    for part in (slice(0, 3), slice(3, 6), slice(6, 7)):
        _, state, own = layer.forward(x[part], state)
        pieces.append(layer.backward(own, np.ones((part.stop - part.start, 5))).x)
    assert np.array_equal(found.x, np.concatenate(pieces))


def test_resets_from_the_first_step_forget_the_given_state():
    layer = lf.GRU(3, 5, seed=2)
    x = np.random.default_rng(2).standard_normal((4, 2, 3)).astype(np.float32)
    resets = np.array([[True, False]] + [[False, False]] * 3)
    h0 = np.ones((1, 2, 5), np.float32)
    y, _, reserve = layer.forward(x, h0, resets=resets)
    assert np.array_equal(y[:, 0], layer(x)[0][:, 0])
    assert np.array_equal(y[:, 1], layer(x, h0)[0][:, 1])
    dh0 = layer.backward(reserve, np.ones_like(y)).state
    assert not dh0[0, 0].any()
    assert dh0[0, 1].all()
