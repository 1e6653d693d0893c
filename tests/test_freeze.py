"""A frozen layer keeps its packed weights: the same bits, parameters that nobody changes, and back."""

from __future__ import annotations

import copy
import pickle

import lstm_fast as lf
import numpy as np
import pytest
from judge import assert_all_same_bits, assert_same_bits
from lstm_fast import _lstm_fast_core as core
from stacks import Sizes, draw_stack, layer_of, name_of

STACKS = [Sizes(1, 1, 3, 17), Sizes(1, 9, 5, 33, 0, 2, 2), Sizes(7, 3, 4, 9, 5, 2, 1), Sizes(30, 2, 3, 40, 0, 1, 2)]


def results(layer, stack, save):
    """Of inference, and of training if something is to be saved."""
    state, lengths = (stack.h0, stack.c0), stack.lengths
    if save is None:
        y, (hn, cn) = layer(stack.x, state, lengths=lengths)
        return {"y": y, "hn": hn, "cn": cn}
    y, (hn, cn), reserve = layer.forward(stack.x, state, lengths=lengths, save=save)
    found = layer.backward(reserve, stack.dy, (stack.dhn, stack.dcn))
    return {"y": y, "hn": hn, "cn": cn, "dx": found.x, **found.parameters}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("save", [None, "gates", "lean"])
@pytest.mark.parametrize("sizes", STACKS, ids=name_of)
def test_bits(sizes, save, dtype, isa, team):
    stack = draw_stack(sizes, dtype, seed=50)
    layer = layer_of(stack)
    expected = results(layer, stack, save)
    layer.freeze()
    for threads in (1, 2, 3):
        lf.set_num_threads(threads)
        for split in (core.Split.rows, core.Split.units):
            core.set_split(split)
            assert_all_same_bits(results(layer, stack, save), expected, f"{threads} threads, {split}")


def test_another_instruction_set_than_when_it_was_frozen():
    stack = draw_stack(STACKS[3], seed=51)
    layer = layer_of(stack)
    layer.freeze()
    expected = results(layer, stack, None)
    for name in core.isas_usable():
        lf.set_isa(name)
        assert_all_same_bits(results(layer, stack, None), expected, name)


def test_parameters_cannot_change_until_unfrozen():
    layer = lf.LSTM(3, 4, seed=1)
    x = np.ones((2, 1, 3), np.float32)
    y, _ = layer(x)
    layer.freeze()
    for array in layer.parameters.values():
        with pytest.raises(ValueError, match="read-only"):
            array += 1
    with pytest.raises(ValueError, match=r"load_state_dict: expected a layer that can change, got a frozen one"):
        layer.load_state_dict(layer.state_dict())
    assert_same_bits(layer(x)[0], y, "frozen")
    layer.freeze()  # again
    assert_same_bits(layer(x)[0], y, "frozen again")
    layer.unfreeze()
    for array in layer.parameters.values():
        array[...] = 0
    assert not layer(x)[0].any()
    layer.freeze()
    assert not layer(x)[0].any()


def test_unfreezing_what_is_not_frozen_changes_nothing():
    layer = lf.LSTM(3, 4, seed=1)
    before = layer.state_dict()
    layer.unfreeze()
    assert_all_same_bits(dict(layer.parameters), before, "parameters")


def test_a_layer_that_could_not_be_frozen_can_change(monkeypatch):
    def no_memory(*_):
        raise MemoryError

    layer = lf.LSTM(3, 4, seed=1)
    x = np.ones((2, 1, 3), np.float32)
    for frozen_before in (False, True):
        if frozen_before:
            layer.freeze()
        with monkeypatch.context() as patch:
            patch.setattr(core, "pack_weights", no_memory)
            with pytest.raises(MemoryError):
                layer.freeze()
        for array in layer.parameters.values():
            array += 1
        assert_same_bits(layer(x)[0], copy.deepcopy(layer)(x)[0], "with the new parameters")


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_are_not_frozen(copied):
    layer = lf.LSTM(3, 4, seed=1)
    x = np.ones((2, 1, 3), np.float32)
    y, _ = layer(x)
    layer.freeze()
    other = copied(layer)
    assert_same_bits(other(x)[0], y, "the copy")
    for array in other.parameters.values():
        array[...] = 0
    assert not other(x)[0].any()
    assert_same_bits(layer(x)[0], y, "the frozen one")
