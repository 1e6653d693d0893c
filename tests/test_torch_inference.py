"""Inference of the PyTorch modules past NumPy: who takes that way, and that it changes no bit."""

from __future__ import annotations

import pytest
from lstm_fast import _lstm_fast_core as core

torch = pytest.importorskip("torch")

import lstm_fast.torch as lt  # noqa: E402
from lstm_fast.torch import _call  # noqa: E402
from torch.nn.utils import rnn  # noqa: E402
from torch_problems import native_only  # noqa: E402

STACKS = [
    {},
    {"bias": False, "batch_first": True},
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 3, "proj_size": 4, "batch_first": True, "dropout": 0.5},
]


@pytest.fixture(params=["as they are", "capsules"])
def answers(request, monkeypatch):
    """Of every call by the short way, whether it had an answer; with tensors as an older PyTorch gives them, too."""
    if request.param == "capsules":
        monkeypatch.setattr(_call, "_looked_into", False)
    elif not _call._looked_into:
        pytest.skip("this PyTorch gives tensors in capsules only")
    found = []
    infer = core.lstm_infer

    def seen(*arguments):
        outputs = infer(*arguments)
        found.append(outputs is not None)
        return outputs

    monkeypatch.setattr(core, "lstm_infer", seen)
    lt.stats(reset=True)
    return found


def problem(steps, batch, dtype, hidden=9, **options):
    """A module in eval(), an input and states."""
    torch.manual_seed(steps)
    module = lt.LSTM(5, hidden, dtype=dtype, **options).eval()
    x = torch.randn(*((batch, steps) if module.batch_first else (steps, batch)), 5, dtype=dtype)
    count = module.num_layers * (1 + module.bidirectional)
    widths = module.proj_size or hidden, hidden
    return module, x, tuple(torch.randn(count, batch, width, dtype=dtype) for width in widths)


def outputs(module, *arguments, **options):
    y, (hn, cn), *more = module(*arguments, **options)
    return [y.data if isinstance(y, rnn.PackedSequence) else y, hn, cn, *more]


def assert_same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)
        assert one.dtype == other.dtype
        assert one.stride() == other.stride()
        assert not one.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", STACKS)
def test_bits(options, dtype, answers):
    """As with a graph."""
    for steps, batch in ((1, 1), (1, 8), (70, 3)):
        module, x, states = problem(steps, batch, dtype, **options)
        every_other = torch.stack([x, x], -2)[..., 0, :]
        for given in (None, states):
            wanted = outputs(module, x, given)
            for each in (x, every_other, x.transpose(0, 1).contiguous().transpose(0, 1)):
                with torch.no_grad():
                    assert_same(outputs(module, each, given), wanted)
    assert answers == [True] * 18
    native_only()


def test_an_input_of_rows_that_are_one(answers):
    module, x, states = problem(6, 3, torch.float32)
    x = x[:1, :1].expand(6, 3, 5)
    wanted = outputs(module, x, states)
    with torch.no_grad():
        assert_same(outputs(module, x, states), wanted)
    assert answers == [True]


def test_outputs_of_more_than_a_mebibyte(answers):
    module, x, states = problem(70, 16, torch.float32, hidden=256)
    wanted = outputs(module, x, states)
    with torch.no_grad():
        assert_same(outputs(module, x, states), wanted)
    assert answers == [True]


def test_outputs_outlive_everything_else(answers):
    module, x, states = problem(3, 2, torch.float32)
    with torch.no_grad():
        first = outputs(module, x, states)
        kept = [value.clone() for value in first]
        for _ in range(50):
            _, states = module(x, states)
        first[0].add_(1)  # they can be written to
    assert torch.equal(first[0], kept[0] + 1)
    assert_same(first[1:], kept[1:])
    assert all(answers)


def test_a_cell_without_states(answers):
    module = lt.LSTMCell(5, 9)
    x = torch.randn(3, 5)
    with torch.no_grad():
        assert_same(module(x), module(x, (torch.zeros(3, 9),) * 2))
    assert answers == [True, True]


def longer_ways():
    """By what they need: options of the module, and a function of x and the states that gives the arguments."""
    negative = torch.complex(torch.zeros(1, 3, 9), torch.randn(1, 3, 9)).conj().imag
    assert negative.is_neg()
    return {
        "lengths": ({}, lambda x, states: (x, states), {"lengths": [2, 4, 0]}),
        "cells": ({"return_cells": True}, lambda x, states: (x, states), {}),
        "learnt states": ({"learn_initial_state": True}, lambda x, states: (x,), {}),
        "no batch": ({}, lambda x, states: (x[:, 0], (states[0][:, 0], states[1][:, 0])), {}),
        "packed": ({}, lambda x, states: (rnn.pack_padded_sequence(x, [4, 2, 1]), states), {}),
        "a gap between inputs": ({}, lambda x, states: (torch.stack([x, x], -1)[..., 0], states), {}),
        "states with a gap": ({}, lambda x, states: (x, (torch.stack([states[0]] * 2, -1)[..., 0], states[1])), {}),
        "a negative bit": ({}, lambda x, states: (x, (states[0], negative)), {}),
        "a list of states": ({}, lambda x, states: (x, list(states)), {}),
    }


@pytest.mark.parametrize("name", longer_ways())
def test_what_is_not_that_simple(name, answers):
    options, arguments, more = longer_ways()[name]
    module, x, states = problem(4, 3, torch.float32, **options)
    given = arguments(x, states)
    wanted = outputs(module, *given, **more)
    with torch.no_grad():
        assert_same(outputs(module, *given, **more), wanted)
    assert not any(answers)
    native_only()


def test_dropout_in_training_takes_the_longer_way(answers):
    module, x, _ = problem(4, 3, torch.float32, num_layers=2, dropout=1.0)
    assert answers == []
    with torch.no_grad():
        dropped = outputs(module.train(), x)
        assert answers == []
        kept = outputs(module.eval(), x)
    assert answers == [True]
    assert not torch.equal(dropped[0], kept[0])


def test_weights_in_other_places(answers):
    """Parametrized, given by functional_call, transposed, and of a copy whose storage has been resized to nothing."""
    module, x, states = problem(4, 3, torch.float32)
    wanted = outputs(module, x, states)
    transposed = {name: value.detach().t().contiguous().t() for name, value in module.named_parameters()}
    with torch.no_grad():
        assert_same(torch.func.functional_call(module, transposed, (x, states))[:1], wanted[:1])
        torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
        torch.testing.assert_close(outputs(module, x, states), wanted)
        module, x, states = problem(4, 3, torch.float32)
        module.weight_ih_l0.untyped_storage().resize_(0)
        with pytest.raises(ValueError, match="its storage has been resized"):
            module(x, states)
    assert answers == [False, True, False]


def test_what_is_no_tensor():
    with pytest.raises(ValueError, match=r"^tensors: expected 3 and 5 of each layer and direction, got 4$"):
        core.lstm_infer((None,) * 4, 1, 1, 0, 1, 1, False, False, 1)
    assert core.lstm_infer((None,) * 8, 1, 1, 0, 1, 1, False, False, 1) is None
    assert not core.set_exchange(None)
    assert not core.set_exchange("a table")
