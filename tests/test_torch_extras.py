"""What lstm_fast.torch.LSTM has and torch.nn.LSTM lacks: cells, a learnt initial state, a forget bias, save."""

from __future__ import annotations

import copy
import pickle

import pytest

torch = pytest.importorskip("torch")

import lstm_fast.torch as lt  # noqa: E402
from torch.nn.utils import rnn  # noqa: E402
from torch_problems import STACK, assert_close, make, native_only, normal  # noqa: E402


@pytest.fixture(autouse=True)
def _every_call_is_seen():
    lt.stats(reset=True)


EXTRAS = {"return_cells": True, "learn_initial_state": True, "forget_bias": -1.5, "save": "lean"}
OFF = {"return_cells": False, "learn_initial_state": False, "forget_bias": None, "save": "gates"}


@pytest.mark.parametrize("extras", [{}, OFF])
def test_off_they_leave_no_trace(extras):
    torch.manual_seed(3)
    theirs = torch.nn.LSTM(3, 4, 2, proj_size=2)
    torch.manual_seed(3)
    ours = lt.LSTM(3, 4, 2, proj_size=2, **extras)
    assert repr(ours) == repr(theirs)
    assert ours.__dict__.keys() == theirs.__dict__.keys()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))


def test_shown_by_repr():
    shown = "return_cells=True, learn_initial_state=True, forget_bias=-1.5, save=lean"
    assert repr(lt.LSTM(3, 4, 2, **EXTRAS)) == f"LSTM(3, 4, num_layers=2, {shown})"


@pytest.mark.parametrize("way", ["pickle", "deepcopy", "state_dict"])
def test_copies_have_them(way):
    module = make(3, 4, **EXTRAS)
    if way == "state_dict":
        other = lt.LSTM(3, 4, dtype=torch.float64, **EXTRAS)
        other.load_state_dict(module.state_dict())
    else:
        other = pickle.loads(pickle.dumps(module)) if way == "pickle" else copy.deepcopy(module)
    assert repr(other) == repr(module)
    x = normal(5, 2, 3)
    assert torch.equal(other(x)[0], module(x)[0])
    other.reset_parameters()
    assert (other.bias_ih_l0[4:8] == -1.5).all()
    assert (other.h_0 == 0).all()
    assert not (module.h_0 == 0).any()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"return_cells": "yes"}, TypeError),
        ({"learn_initial_state": 1}, TypeError),
        ({"learn_initial_state": None}, TypeError),
        ({"forget_bias": "1"}, TypeError),
        ({"forget_bias": True}, TypeError),
        ({"forget_bias": float("nan")}, ValueError),
        ({"forget_bias": -float("inf")}, ValueError),
        ({"forget_bias": 10**400}, ValueError),
        ({"forget_bias": 1.0, "bias": False}, ValueError),
        ({"save": "all"}, ValueError),
        ({"save": None}, ValueError),
        ({"save": True}, TypeError),
    ],
)
def test_wrong_values_are_named(options, error):
    with pytest.raises(error, match=f"^{next(iter(options))}: expected"):
        lt.LSTM(2, 3, **options)


def test_restore_changes_no_result():
    options = {"learn_initial_state": True}, {"return_cells": True}, {"forget_bias": 1.0}
    model = torch.nn.ModuleDict(
        {name: make(3, 4, **each) for name, each in zip(("learns", "tells", "biased"), options, strict=True)}
    )
    x = normal(5, 2, 3)
    wanted = {name: module(x)[0] for name, module in model.items()}
    with (
        pytest.warns(UserWarning, match=r"^learns: .*torch\.nn can compute, got learn_initial_state; it stays"),
        pytest.warns(UserWarning, match="^tells: .*got return_cells; it stays as it is"),
    ):
        lt.restore(model)
    assert [type(module) for module in model.values()] == [lt.LSTM, lt.LSTM, torch.nn.LSTM]
    assert_close({name: module(x)[0] for name, module in model.items()}, wanted)


def test_a_module_that_was_made_by_pytorch_has_none():
    module = lt.accelerate(torch.nn.LSTM(2, 3))
    module.reset_parameters()
    assert repr(module) == "LSTM(2, 3)"
    assert len(module(torch.zeros(4, 2))) == 2


# --- learn_initial_state ---


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("kind", ["batch", "unbatched", "packed", "lengths", "left to PyTorch"])
@pytest.mark.parametrize("options", [{}, STACK])
def test_learnt_state_is_used_where_none_is_given(options, kind):
    """Values, and gradients that are sums over the rows, as with an expanded state that is given."""
    module = make(3, 4, learn_initial_state=True, **options)
    count = module.num_layers * (1 + module.bidirectional)
    assert module.h_0.shape == (count, module.proj_size or 4)
    assert module.c_0.shape == (count, 4)
    if kind == "left to PyTorch":
        module.bfloat16()
    dtype = module.h_0.dtype
    x = normal(*((5, 3) if kind == "unbatched" else (3, 5, 3) if module.batch_first else (5, 3, 3))).to(dtype)
    given = {"lengths": [2, 0, 5]} if kind == "lengths" else {}
    if kind == "packed":
        x = rnn.pack_padded_sequence(x, [2, 5, 4], batch_first=module.batch_first, enforce_sorted=False)

    def solve(*state):
        module.zero_grad()
        y, (hn, cn) = module(x, *state, **given)
        ((y.data if kind == "packed" else y).sin().sum() + hn.square().sum() + cn.cos().sum()).backward()
        found = {"y": y.data if kind == "packed" else y, "hn": hn, "cn": cn}
        return found | {name: parameter.grad for name, parameter in module.named_parameters()}

    found = solve()
    state = module.h_0, module.c_0
    if kind != "unbatched":
        state = tuple(torch.stack([each] * 3, dim=1) for each in state)
    # Sums over rows and steps in another order; a rounding of bfloat16 is 4e-3.
    assert_close(found, solve(state), 1e-12 if dtype == torch.float64 else 2e-2)
    assert (found["h_0"] != 0).any()
    assert (found["c_0"] != 0).any()


def test_a_given_state_comes_before_the_learnt_one():
    module = make(3, 4, learn_initial_state=True)
    x, state = normal(5, 2, 3), (normal(1, 2, 4), normal(1, 2, 4, seed=2))
    without = make(3, 4)
    assert torch.equal(module(x, state)[0], without(x, state)[0])
    module(x, state)[0].sum().backward()
    assert module.h_0.grad is None
    native_only()


def test_it_starts_at_zero_and_leaves_the_weights_pytorchs():
    torch.manual_seed(3)
    theirs = torch.nn.LSTM(3, 4, 2)
    torch.manual_seed(3)
    ours = lt.LSTM(3, 4, 2, learn_initial_state=True, dtype=torch.float32)
    assert list(ours.state_dict()) == [*theirs.state_dict(), "h_0", "c_0"]
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in theirs.state_dict().items())
    assert (ours.h_0 == 0).all()
    assert (ours.c_0 == 0).all()


# --- forget_bias ---


def test_forget_bias_is_set_at_every_reset():
    torch.manual_seed(3)
    theirs = torch.nn.LSTM(3, 4, 2, bidirectional=True)
    torch.manual_seed(3)
    ours = lt.LSTM(3, 4, 2, bidirectional=True, forget_bias=2)
    for _ in range(2):
        for name, value in theirs.named_parameters():
            wanted = value.detach().clone()
            if name.startswith("bias"):
                wanted[4:8] = 2.0 if "_ih_" in name else 0.0
            assert torch.equal(ours.get_parameter(name), wanted), name
        for module in (theirs, ours):
            torch.manual_seed(4)
            module.reset_parameters()


# --- save ---


@pytest.mark.parametrize("kind", ["batch", "unbatched", "packed", "lengths"])
@pytest.mark.parametrize("options", [{}, STACK | {"dropout": 0.5}])
@pytest.mark.parametrize("cells", [False, True])
def test_lean_has_the_bits_of_gates(cells, options, kind):
    """Outputs, cells and all gradients, over several chunks."""
    x = normal(*((250, 3) if kind == "unbatched" else (9, 70, 3) if options else (70, 9, 3)))
    lengths = [70, 3, 1, 44, 70, 12, 69, 5, 30]
    results = []
    for save in ("gates", "lean"):
        module = make(3, 4, return_cells=cells, save=save, **options)
        leaf = x.clone().requires_grad_()
        given = {"lengths": lengths} if kind == "lengths" else {}
        source = leaf
        if kind == "packed":
            source = rnn.pack_padded_sequence(leaf, lengths, batch_first=module.batch_first, enforce_sorted=False)
        torch.manual_seed(7)
        y, (hn, cn), *more = module(source, **given)
        outputs = [each.data if kind == "packed" else each for each in (y, *more)]
        sum((each.sin() * (1 + at)).sum() for at, each in enumerate((*outputs, hn, cn))).backward()
        results.append([*outputs, hn, cn, leaf.grad, *(parameter.grad for parameter in module.parameters())])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
    native_only()


def test_lean_saves_little():
    """Of what autograd keeps, but for x and the parameters, which are there anyway."""
    x = normal(500, 16, 8)

    def kept(save):
        module = make(8, 32, save=save)
        there = {each.data_ptr() for each in (x, *module.parameters())}
        sizes = {}

        def pack(tensor):
            if tensor.data_ptr() not in there:
                sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            y, _ = module(x)
        assert y.requires_grad
        return sum(sizes.values())

    assert kept("lean") <= 0.2 * kept("gates")
