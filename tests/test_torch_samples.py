"""PyTorch's own samples for its recurrent modules and cells, on our classes."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal import common_modules

import lstm_fast.torch as lt  # noqa: E402

OURS = {f"nn.{each.__name__}": each for each in (lt.LSTM, lt.GRU, lt.RNN, lt.LSTMCell, lt.GRUCell, lt.RNNCell)}
INFOS = {info.name: info for info in common_modules.module_db if info.name in OURS}


def samples(name, dtype=torch.float64, requires_grad=False):
    """(ours, theirs, arguments, keywords) for every sample."""
    info = INFOS[name]
    for training in (True, False):
        found = info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=requires_grad, training=training)
        for sample in found:
            built = sample.constructor_input
            torch.manual_seed(0)
            theirs = info.module_cls(*built.args, **{"dtype": dtype, **built.kwargs}).train(training)
            torch.manual_seed(0)
            ours = OURS[name](*built.args, **{"dtype": dtype, **built.kwargs}).train(training)
            yield ours, theirs, sample.forward_input.args, sample.forward_input.kwargs


def tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [tensor for each in value if each is not None for tensor in tensors(each)]
    return []


def drops(module):
    return module.training and getattr(module, "dropout", 0) > 0


@pytest.fixture(autouse=True)
def _nothing_falls_back():
    lt.stats(reset=True)
    yield
    assert lt.stats()["native"]
    assert not lt.stats()["fallback"]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")  # of PyTorch's side
@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_forward_and_gradients(name, dtype):
    assert len(list(samples(name))) >= 4
    # float32: rounding of both sides, neither of which is the truth, through two layers forth and back.
    near = {"rtol": 1e-10, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    for ours, theirs, args, kwargs in samples(name, dtype, requires_grad=True):
        if drops(ours):
            continue  # other masks
        results = []
        for module in (ours, theirs):
            outputs = tensors(module(*args, **kwargs))
            leaves = [t for t in [*tensors(args), *tensors(list(kwargs.values())), *module.parameters()] if t.is_leaf]
            leaves = [t for t in leaves if t.requires_grad]
            results.append((outputs, torch.autograd.grad(sum(t.sin().sum() for t in outputs), leaves)))
        for one, other in zip(results[0], results[1], strict=True):
            for a, b in zip(one, other, strict=True):
                torch.testing.assert_close(a, b, **near)


@pytest.mark.parametrize("name", OURS)
def test_noncontiguous(name):
    for ours, _, args, kwargs in samples(name):
        if drops(ours):
            continue

        def apart(value):
            if isinstance(value, torch.Tensor):
                return value.repeat_interleave(2, dim=-1)[..., ::2] if value.is_floating_point() else value
            return (
                tuple(map(apart, value)) if isinstance(value, (tuple, list)) and not hasattr(value, "data") else value
            )

        wanted = tensors(ours(*args, **kwargs))
        found = tensors(ours(*map(apart, args), **{key: apart(value) for key, value in kwargs.items()}))
        assert all(map(torch.equal, found, wanted))


@pytest.mark.parametrize("name", OURS)
def test_gradcheck_twice(name):
    for ours, _, args, kwargs in samples(name, requires_grad=True):
        if not ours.training:
            continue  # the same again, without dropout
        leaves = [t for t in [*tensors(args), *tensors(list(kwargs.values()))] if t.requires_grad]
        parameters = tuple(ours.parameters())

        def run(*_, ours=ours, args=args, kwargs=kwargs):
            torch.manual_seed(1)  # the same masks
            return tuple(t for t in tensors(ours(*args, **kwargs)) if t.requires_grad)

        inputs = tuple(leaves) + parameters
        assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
        assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize("name", OURS)
def test_copies(name):
    for ours, _, args, kwargs in samples(name):
        if drops(ours):
            continue
        wanted = tensors(ours(*args, **kwargs))
        for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
            assert all(map(torch.equal, tensors(other(*args, **kwargs)), wanted))
