"""``lengths=`` where PyTorch has to compute: rows in their order, each with its own last state, and zeros beyond."""

from __future__ import annotations

import warnings

import pytest

torch = pytest.importorskip("torch")

import lstm_fast.torch as lt  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch_problems import STACK, make, normal  # noqa: E402

# PyTorch's, of projections on one side only, and of what it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

LENGTHS = [3, 0, 5, 1]


@pytest.fixture(autouse=True)
def _every_call_is_seen():
    lt.stats(reset=True)


class Own(torch.Tensor):
    pass


class Unseen(TorchDispatchMode):
    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        return operation(*arguments, **(options or {}))


def autocast(module, *call, **options):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return module(*call, **options)


def mode(module, *call, **options):
    with Unseen():
        return module(*call, **options)


def bfloat16(module, x, states, **options):
    given = None if states is None else tuple(state.bfloat16() for state in states)
    try:
        return module.bfloat16()(x.bfloat16(), given, **options)
    finally:
        module.float()


# The module is of float32; whether the result is rounded to bfloat16; the reason that is counted.
WAYS = {
    "autocast": (autocast, True, "autocast"),
    "dtype": (bfloat16, True, "dtype torch.bfloat16"),
    "mode": (mode, False, "a mode that sees every operation"),
    "subclass": (
        lambda module, x, *call, **options: module(x.as_subclass(Own), *call, **options),
        False,
        "an input of type Own",
    ),
}


def problem(options):
    """A module whose parameters are exact in bfloat16, x with NaN in the padding, states."""
    module = make(3, 4, dtype=torch.float32, **options)
    module.bfloat16().float()
    x = normal(5, 4, 3).bfloat16().float()
    x[torch.arange(5)[:, None] >= torch.tensor(LENGTHS)] = torch.nan
    count = module.num_layers * (1 + module.bidirectional)
    states = normal(count, 4, module.proj_size or 4).float(), normal(count, 4, 4, seed=2).float()
    return module, x.transpose(0, 1) if module.batch_first else x, states


def flat(result):
    return [result[0], *result[1]]


@pytest.mark.parametrize("options", [{}, STACK])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("given", [True, False])
def test_as_the_kernels(given, way, options):
    module, x, states = problem(options)
    states = states if given else None
    wanted = module(x, states, lengths=LENGTHS)
    call, rounded, reason = WAYS[way]
    # Roundings to bfloat16, 2^-9 of numbers of order 1, in each of two layers and five steps; or those of float32.
    near = {"rtol": 0, "atol": 0.03} if rounded else {"rtol": 1e-5, "atol": 1e-6}
    for lengths in (LENGTHS, torch.tensor(LENGTHS), torch.tensor(LENGTHS, dtype=torch.uint16)):
        found = call(module, x, states, lengths=lengths)
        for one, other in zip(flat(found), flat(wanted), strict=True):
            torch.testing.assert_close(torch.Tensor(one.float()), other, **near)
        y = found[0].transpose(0, 1) if module.batch_first else found[0]
        assert (y[torch.arange(5)[:, None] >= torch.tensor(LENGTHS)] == 0).all()
        if given and not rounded:
            assert all(torch.equal(new[:, 1], old[:, 1]) for new, old in zip(found[1], states, strict=True))
    assert lt.stats()["fallback"] == {reason: 3}


@pytest.mark.parametrize("options", [{}, STACK])
def test_padding_reaches_no_gradient(options):
    module, x, states = problem(options)
    gradients = []
    for way in (mode, lambda module, *call, **options: module(*call, **options)):
        leaf, *hx = (tensor.clone().requires_grad_() for tensor in (x, *states))
        module.zero_grad()
        sum(each.sin().sum() for each in flat(way(module, leaf, tuple(hx), lengths=LENGTHS))).backward()
        gradients.append([leaf.grad, *(state.grad for state in hx), *(p.grad for p in module.parameters())])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)  # float32 sums over 9 rows, in other orders
    assert lt.stats()["fallback"]


@pytest.mark.parametrize("batch_first", [True, False])
def test_one_row_without_an_axis_and_no_rows(batch_first):
    module = make(3, 4, dtype=torch.float32, batch_first=batch_first)
    x, states = normal(5, 3).float(), (normal(1, 4).float(), normal(1, 4, seed=2).float())
    for call in ((x,), (x, states)):
        wanted, found = module(*call, lengths=[2]), mode(module, *call, lengths=[2])
        for one, other in zip(flat(found), flat(wanted), strict=True):
            torch.testing.assert_close(one, other)
    none = torch.zeros((0, 5, 3) if batch_first else (5, 0, 3))
    assert mode(module, none, lengths=[])[0].shape == module(none)[0].shape


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_reads_the_lengths_it_is_given():
    class Holder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = make(3, 4)

        def forward(self, x, lengths):
            return self.lstm(x, lengths=lengths)[0]

    holder, x = Holder(), normal(5, 4, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(holder, (x, torch.tensor([5, 4, 2, 2])))
    torch.testing.assert_close(traced(x, torch.tensor(LENGTHS)), holder(x, torch.tensor(LENGTHS)))


@pytest.mark.parametrize(
    ("lengths", "error"), [([1], ValueError), ([1, 2, 3, 9], ValueError), ([1.0, 2.0, 3.0, 4.0], TypeError)]
)
def test_wrong_lengths(lengths, error):
    module, x, states = problem({})
    with pytest.raises(error, match=r"^lengths: expected"):
        autocast(module, x, states, lengths=lengths)


def test_other_errors_are_those_without_lengths():
    module, x, (h, c) = problem({})
    for call in ((x[..., :2],), (x, (h[:, :2], c[:, :2])), (x, (h, c, c)), (x, h), (x[None],), (None,), (x[:0],)):
        with pytest.raises(Exception) as wanted:  # noqa: PT011
            autocast(module, *call)
        with pytest.raises(type(wanted.value)) as found:
            autocast(module, *call, lengths=LENGTHS)
        assert str(found.value) == str(wanted.value)
