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


def pair(*sizes, **options):
    """The module of torch.nn and ours, with the same parameters."""
    options.setdefault("dtype", torch.float64)
    theirs = torch.nn.LSTM(*sizes, **options)
    ours = lt.LSTM(*sizes, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def leaves(*tensors):
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def solve(module, x, state, lengths=None, seed=0):
    """Outputs and gradients of a random combination of the outputs, packed if there are lengths."""
    x, *state = leaves(x, *state)
    module.zero_grad()
    if lengths is None:
        y, (hn, cn) = module(x, tuple(state))
    else:
        packed = rnn.pack_padded_sequence(x, lengths, batch_first=module.batch_first, enforce_sorted=False)
        output, (hn, cn) = module(packed, tuple(state))
        y, _ = rnn.pad_packed_sequence(output, batch_first=module.batch_first)
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.dtype) for t in (y, hn, cn)]
    sum((t * w).sum() for t, w in zip((y, hn, cn), weights, strict=True)).backward()
    found = {"y": y, "hn": hn, "cn": cn, "dx": x.grad, "dh0": state[0].grad, "dc0": state[1].grad}
    return found | {name: parameter.grad for name, parameter in module.named_parameters()}


def assert_close(found, wanted, relative=1e-10):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].shape == value.shape, name
        assert found[name].dtype == value.dtype, name
        error = (found[name] - value).abs().max() if value.numel() else 0
        scale = value.abs().max() if value.numel() else 1
        assert error <= relative * scale, f"{name}: {error} of {scale}"


def drawn(seed):
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
    return sizes, options | {"proj_size": proj}, x, (normal(*states, proj or hidden), normal(*states, hidden)), lengths


STACK = {"num_layers": 2, "bidirectional": True, "proj_size": 2, "batch_first": True}


def normal(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(*sizes, **options):
    """A module in which nothing is zero."""
    torch.manual_seed(0)
    module = lt.LSTM(*sizes, **{"dtype": torch.float64} | options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(normal(*parameter.shape, seed=parameter.numel()) / 3)
    return module
