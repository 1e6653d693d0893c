"""Modules of torch.nn and ours side by side: problems, solutions, comparison."""

from __future__ import annotations

import lstm_fast.torch as lt
import numpy as np
import torch
from torch.nn.utils import rnn


def native_only():
    found = lt.stats()
    assert found["native"]
    assert not found["formula"]
    assert not found["fallback"]


STACKS = ("LSTM", "GRU", "RNN", "RNN relu")
CELLS = ("LSTMCell", "GRUCell", "RNNCell", "RNNCell relu")


def built(place, kind, *sizes, **options):
    """A module of a kind from torch.nn or lstm_fast.torch."""
    name, *nonlinearity = kind.split()
    given = {"nonlinearity": nonlinearity[0]} if nonlinearity else {}
    return getattr(place, name)(*sizes, **given, **{"dtype": torch.float64} | options)


def pair(*sizes, kind="LSTM", **options):
    """The module of torch.nn and ours, with the same parameters."""
    theirs, ours = (built(place, kind, *sizes, **options) for place in (torch.nn, lt))
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def joined(states):
    """As modules take and give them."""
    return tuple(states) if len(states) == 2 else states[0]


def split(state):
    return list(state) if isinstance(state, tuple) else [state]


def leaves(*tensors):
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def solve(module, x, state, lengths=None, seed=0):
    """Outputs and gradients of a random combination of the outputs, packed if there are lengths."""
    x, *state = leaves(x, *state)
    module.zero_grad()
    if lengths is None:
        y, last = module(x, joined(state))
    else:
        packed = rnn.pack_padded_sequence(x, lengths, batch_first=module.batch_first, enforce_sorted=False)
        output, last = module(packed, joined(state))
        y, _ = rnn.pad_packed_sequence(output, batch_first=module.batch_first)
    generator = torch.Generator().manual_seed(seed)
    outputs = [y, *split(last)]
    weights = [torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.dtype) for t in outputs]
    sum((t * w).sum() for t, w in zip(outputs, weights, strict=True)).backward()
    found = dict(zip(("y", "hn", "cn"), outputs, strict=False))
    found |= dict(zip(("dx", "dh0", "dc0"), (x.grad, *(each.grad for each in state)), strict=False))
    return found | {name: parameter.grad for name, parameter in module.named_parameters()}


def assert_close(found, wanted, relative=1e-10):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].shape == value.shape, name
        assert found[name].dtype == value.dtype, name
        error = (found[name] - value).abs().max() if value.numel() else 0
        scale = value.abs().max() if value.numel() else 1
        assert error <= relative * scale, f"{name}: {error} of {scale}"


def drawn(seed, kind="LSTM"):
    """A random configuration, its input, states and lengths."""
    rng = np.random.default_rng(seed)
    layers, directions = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    inputs, hidden = int(rng.integers(1, 20)), int(rng.integers(2, 40))
    proj = int(rng.integers(1, hidden)) if rng.random() < 0.3 else 0
    steps, batch = int(rng.integers(1, 12)), int(rng.integers(1, 9))
    batch_first, unbatched = bool(rng.random() < 0.5), bool(rng.random() < 0.15)
    options = {"bias": bool(rng.random() < 0.7), "batch_first": batch_first, "bidirectional": directions == 2}
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    if unbatched:
        x, states = normal(steps, inputs), (layers * directions,)
    else:
        x = normal(batch, steps, inputs) if batch_first else normal(steps, batch, inputs)
        states = (layers * directions, batch)
    lengths = None
    if not unbatched and rng.random() < 0.5:
        lengths = rng.integers(1, steps + 1, batch)
        lengths[rng.integers(batch)] = steps  # pad_packed_sequence gives the longest back
    sizes = (inputs, hidden, layers)
    if kind != "LSTM":
        return sizes, options, x, (normal(*states, hidden),), lengths
    return sizes, options | {"proj_size": proj}, x, (normal(*states, proj or hidden), normal(*states, hidden)), lengths


STACK = {"num_layers": 2, "bidirectional": True, "proj_size": 2, "batch_first": True}


def normal(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(*sizes, kind="LSTM", **options):
    """A module in which nothing is zero."""
    torch.manual_seed(0)
    module = built(lt, kind, *sizes, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(normal(*parameter.shape, seed=parameter.numel()) / 3)
    return module
