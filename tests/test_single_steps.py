"""One step packs no weights as a whole, and none at all for few rows: the bits must be those of packed weights.

A call of two steps in which every row has length 1 computes the same with packed weights.
"""

from __future__ import annotations

import lstm_fast as lf
import numpy as np
import pytest
from judge import assert_same_bits
from lstm_fast import _lstm_fast_core as core

# A whole cache line and vector of inputs or units, one less, one more, and less than one of any instruction set.
WIDTHS = [(1, 1), (3, 17), (16, 15), (17, 16), (33, 8), (64, 33)]
BATCHES = [1, 2, 5, 6, 7, 20]  # the last two pack a block of the weights at a time


def draw(layer, batch, steps=2):
    generator = np.random.default_rng(batch)
    count = layer.num_layers * (2 if layer.bidirectional else 1)
    width = layer.hidden_size * (2 if layer.bidirectional else 1)
    x, dy, h0, c0 = (
        generator.standard_normal(shape).astype(layer.dtype)
        for shape in (
            (steps, batch, layer.input_size),
            (steps, batch, width),
            (count, batch, layer.hidden_size),
            (count, batch, layer.hidden_size),
        )
    )
    return x, dy, (h0, c0)


def assert_same_gradients(found, expected):
    assert_same_bits(found.x[0], expected.x[0], "dx")
    for name, one, other in zip(("dh0", "dc0"), found.state, expected.state, strict=True):
        assert_same_bits(one, other, name)
    assert found.parameters.keys() == expected.parameters.keys()
    for name, value in found.parameters.items():
        assert_same_bits(value, expected.parameters[name], name)


def cell_forward(layer, x, h0, c0):
    """The reserve of a cell with the layer's weights."""
    weights = [(*layer.parameters.values(), None)]
    save = core.Save.gates
    return core.lstm_forward(x[0], h0[0], c0[0], weights, None, 1, 1, False, save, 0.0, 0, core.Form.cell)[-1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_bits_are_those_of_packed_weights(widths, dtype, isa):
    for batch in BATCHES:
        for bias in (True, False):
            layer = lf.LSTM(*widths, bias=bias, dtype=dtype, seed=3)
            x, dy, state = draw(layer, batch)
            y, (hn, cn), reserve = layer.forward(x[:1], state)
            packed_y, (packed_hn, packed_cn), packed = layer.forward(x, state, lengths=[1] * batch)
            inferred, _ = layer(x[:1], state)
            for name, found, expected in (
                ("y", y[0], packed_y[0]),
                ("hn", hn, packed_hn),
                ("cn", cn, packed_cn),
                ("inferred y", inferred[0], packed_y[0]),
            ):
                assert_same_bits(found, expected, f"{name}, batch {batch}, bias {bias}")
            assert_same_gradients(layer.backward(reserve, dy[:1]), layer.backward(packed, dy))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_cell_has_the_gradients_of_a_layer(widths, dtype, isa):
    """A cell's backward reads the weights themselves, a layer's the copy that forward made."""
    for batch in BATCHES:
        layer = lf.LSTM(*widths, dtype=dtype, seed=7)
        x, dy, (h0, c0) = draw(layer, batch, steps=1)
        reserve = layer.forward(x, (h0, c0))[-1]
        expected = layer.backward(reserve, None, (dy, 2 * dy))
        cell = cell_forward(layer, x, h0, c0)
        dx, dh, dc, [(dw_ih, dw_hh, db, _, _)] = core.backward(cell, None, dy[0], 2 * dy[0])
        assert_same_bits(dx, expected.x[0], "dx")
        assert_same_bits(dh, expected.state[0][0], "dh")
        assert_same_bits(dc, expected.state[1][0], "dc")
        found = dict(zip(expected.parameters, (dw_ih, dw_hh, db, db), strict=True))
        for name, value in found.items():
            assert_same_bits(value, expected.parameters[name], f"{name}, batch {batch}")


@pytest.mark.parametrize("batch", [3, 9])
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_stacks_with_dropout_and_any_number_of_threads(threads, batch, isa, team):
    layer = lf.LSTM(5, 33, num_layers=3, bidirectional=True, dropout=0.4, seed=4)
    x, dy, state = draw(layer, batch)
    lf.set_num_threads(threads)
    y, _, reserve = layer.forward(x[:1], state, dropout_seed=8)
    assert core.threads_used() == threads
    packed_y, _, packed = layer.forward(x, state, lengths=[1] * batch, dropout_seed=8)
    assert_same_bits(y[0], packed_y[0], "y")
    assert_same_gradients(layer.backward(reserve, dy[:1]), layer.backward(packed, dy))


@pytest.mark.parametrize("batch", [2, 9])
@pytest.mark.parametrize("threads", [2, 3, 7])
def test_cells_with_any_number_of_threads(threads, batch, isa, team):
    layer = lf.LSTM(70, 33, seed=11)
    x, dy, (h0, c0) = draw(layer, batch, steps=1)
    found = []
    for count in (1, threads):
        lf.set_num_threads(count)
        reserve = cell_forward(layer, x, h0, c0)
        dx, dh, dc, [weights] = core.backward(reserve, None, dy[0], 2 * dy[0])
        assert core.threads_used() == count
        found.append((dx, dh, dc, *weights[:3]))
    for name, one, other in zip(("dx", "dh", "dc", "dw_ih", "dw_hh", "db"), *found, strict=True):
        assert_same_bits(one, other, name)


def test_rows_that_take_no_step():
    layer = lf.LSTM(4, 9, seed=5)
    x, dy, state = draw(layer, 3, steps=1)
    y, (hn, cn), reserve = layer.forward(x, state, lengths=[1, 0, 1])
    gradients = layer.backward(reserve, dy)
    alone_y, (alone_hn, alone_cn), _ = layer.forward(x[:, ::2], tuple(s[:, ::2] for s in state))
    assert_same_bits(y[0, ::2], alone_y[0], "y")
    assert_same_bits(hn[:, ::2], alone_hn, "hn")
    assert_same_bits(cn[:, ::2], alone_cn, "cn")
    assert not y[0, 1].any()
    assert_same_bits(hn[:, 1], state[0][:, 1], "hn of the row without steps")
    assert not gradients.x[0, 1].any()


def test_no_row_takes_a_step(isa):
    layer = lf.LSTM(4, 9, seed=5)
    x, dy, state = draw(layer, 3, steps=1)
    y, (hn, cn), reserve = layer.forward(x, state, lengths=[0, 0, 0])
    np.full(10**6, np.nan)  # what new memory may hold
    gradients = layer.backward(reserve, dy)
    assert not y.any()
    assert_same_bits(hn, state[0], "hn")
    assert_same_bits(cn, state[1], "cn")
    assert not gradients.x.any()
    for name, value in gradients.parameters.items():
        assert not value.any(), name


def test_only_some_gradients():
    """What is not asked for is not computed, and changes nothing of the rest."""
    layer = lf.LSTM(6, 10, seed=6)
    x, dy, (h0, c0) = draw(layer, 2, steps=1)
    reserve = cell_forward(layer, x, h0, c0)
    _, _, _, [(dw_ih, dw_hh, db, _, _)] = core.backward(reserve, None, dy[0], None)
    for wanted in ((True, False, False), (False, True, False), (False, False, True), (False, False, False)):
        flags = (False, False, False, [(*wanted, False)])
        dx, dh, dc, [found] = core.backward(reserve, None, dy[0], None, flags)
        assert dx is dh is dc is None
        for want, one, other in zip(wanted, found, (dw_ih, dw_hh, db), strict=False):
            if want:
                assert_same_bits(one, other, str(wanted))
            else:
                assert one is None


def test_a_released_cell_wants_its_weights_again():
    layer = lf.LSTM(3, 4, seed=9)
    x, dy, (h0, c0) = draw(layer, 2, steps=1)
    reserve = cell_forward(layer, x, h0, c0)
    before = core.backward(reserve, None, dy[0], None)[0]
    saved = reserve.release()
    with pytest.raises(ValueError, match=r"saved: expected 4 .* got 3"):
        core.backward(reserve, None, dy[0], None, None, saved)
    with pytest.raises(ValueError, match="saved: expected the weights of 1 layers and directions, got 0"):
        core.backward(reserve, None, dy[0], None, None, (*saved, []))
    weights = tuple(layer.parameters.values())
    with pytest.raises(ValueError, match="w_hh: expected shape"):
        core.backward(reserve, None, dy[0], None, None, (*saved, [(*weights[:1], weights[0], None, None, None)]))
    again = core.backward(reserve, None, dy[0], None, None, (*saved, [(*weights, None)]))[0]
    assert_same_bits(again, before, "dx")
