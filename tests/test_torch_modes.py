"""What looks into PyTorch: modes, batched and dual gradients, parametrizations, replaced forwards, freed storages."""

from __future__ import annotations

import warnings
from functools import partial

import pytest

torch = pytest.importorskip("torch")

import lstm_fast.torch as lt  # noqa: E402
from lstm_fast import _lstm_fast_core as core  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402
from torch.nn.utils import parametrizations, parametrize  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch_problems import pair  # noqa: E402


@pytest.fixture(autouse=True)
def _every_call_is_seen():
    lt.stats(reset=True)


def cell_pair():
    theirs, ours = torch.nn.LSTMCell(3, 4).double(), lt.LSTMCell(3, 4).double()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


class Names(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        self.seen.append(str(operation))
        return operation(*arguments, **(options or {}))


def test_a_mode_sees_pytorchs_operations():
    for _, module in (pair(3, 4), cell_pair()):
        x = torch.randn(2, 3, dtype=torch.float64)
        with torch.no_grad(), Names() as names:
            module(x, (torch.zeros(2, 4).double(),) * 2) if isinstance(module, lt.LSTMCell) else module(x)
        assert len(names.seen) > 2
    assert lt.stats()["fallback"] == {"a mode that sees every operation": 2}


def doubled(module, x):
    return module(x)[0] * 2


@pytest.mark.parametrize("grad", [True, False])
def test_make_fx_traces_instead_of_baking_in(grad):
    for theirs, module in (pair(3, 4), cell_pair()):
        first, other = torch.randn(2, 5, 3, dtype=torch.float64)
        with torch.set_grad_enabled(grad):
            traced = make_fx(partial(doubled, module))(first)
        torch.testing.assert_close(traced(other), theirs(other)[0] * 2)


@pytest.mark.parametrize("vectorize", [True, False])
def test_jacobians_and_hessians(vectorize):
    jacobian, hessian = torch.autograd.functional.jacobian, torch.autograd.functional.hessian
    at = torch.randn(2, 3, dtype=torch.float64)
    for modules in (pair(3, 4), cell_pair()):
        theirs, ours = ([lambda x, m=m: m(x)[0], lambda x, m=m: m(x)[0].square().sum()] for m in modules)
        torch.testing.assert_close(
            jacobian(ours[0], at, vectorize=vectorize), jacobian(theirs[0], at, vectorize=vectorize)
        )
        torch.testing.assert_close(
            hessian(ours[1], at, vectorize=vectorize), hessian(theirs[1], at, vectorize=vectorize)
        )
    if vectorize:
        assert lt.stats()["formula"]["batched gradients"]


def test_gradcheck_of_batched_gradients():
    _, ours = pair(2, 3)
    x = torch.randn(4, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: ours(x)[0], x, check_batched_grad=True)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of PyTorch's own
def test_a_dual_gradient_of_a_graph_made_before():
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    tangents = []
    for module in pair(3, 4):
        leaf = x.clone().requires_grad_()
        y, _ = module(leaf)
        with forward_ad.dual_level():
            gradient = forward_ad.make_dual(torch.ones_like(y), x[..., :1].expand_as(y))
            (found,) = torch.autograd.grad(y, leaf, gradient)
            tangents.append(forward_ad.unpack_dual(found).tangent)
    torch.testing.assert_close(tangents[1], tangents[0])


def test_lengths_may_change_before_backward():
    _, ours = pair(3, 4)
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    for create_graph in (True, False):
        gradients = []
        for change in (False, True):
            lengths = torch.tensor([5, 3])
            y, _ = ours(x, lengths=lengths)
            if change:
                lengths.fill_(1)
            gradients += torch.autograd.grad(y.sum(), x, create_graph=create_graph)
        torch.testing.assert_close(gradients[1], gradients[0])


def test_strange_lengths():
    _, ours = pair(3, 4)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    for lengths, error in (
        (torch.tensor([1.0, 2.0], requires_grad=True), TypeError),
        ([[1], [1, 2]], TypeError),
        ([1, 6], ValueError),
    ):
        with pytest.raises(error, match=r"^lengths: expected"):
            ours(x, lengths=lengths)
    with pytest.raises(RuntimeError, match=r"input.size"):
        ours(x[..., :2], lengths=[1, 2])
    assert ours(x[:, :0], lengths=[])[0].shape == (5, 0, 4)


def test_an_output_that_no_wanted_leaf_reaches():
    for module in pair(3, 4, proj_size=2):
        y, (hn, cn) = module(torch.randn(1, 2, 3, dtype=torch.float64))
        (found,) = torch.autograd.grad(y.sum() + hn.sum() + cn.sum(), module.weight_hr_l0, create_graph=True)
        assert found.shape == (2, 4)
    theirs, ours = pair(3, 4, proj_size=2)
    for module in (theirs, ours):
        module.requires_grad_(False)
        module.weight_hr_l0.requires_grad_()
    x = torch.randn(1, 2, 3, dtype=torch.float64)
    gradients = []
    for module in (theirs, ours):
        y, (hn, cn) = module(x)
        gradients += torch.autograd.grad(y.sum() + hn.sum() + cn.sum(), module.weight_hr_l0, create_graph=True)
    torch.testing.assert_close(gradients[1], gradients[0])


def test_parametrized_modules_are_swapped_and_restored():
    model = torch.nn.Sequential(torch.nn.LSTM(3, 4, dtype=torch.float64))
    parametrizations.weight_norm(model[0], "weight_hh_l0")
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    expected = model(x)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lt.accelerate(model)
        found = model(x)[0]
        assert isinstance(model[0], lt.LSTM)
        assert lt.stats()["native"]
        found.sum().backward()
        lt.restore(model)
    torch.testing.assert_close(found, expected)
    assert not isinstance(model[0], lt.LSTM)
    torch.testing.assert_close(model(x)[0], expected)
    parametrize.remove_parametrizations(lt.accelerate(model)[0], "weight_hh_l0")
    assert type(model[0]) is lt.LSTM
    torch.testing.assert_close(model(x)[0], expected)


def test_a_class_derived_from_ours_is_named_by_restore():
    class Own(lt.LSTM):
        pass

    model = torch.nn.Sequential(Own(3, 4))
    with pytest.warns(UserWarning, match="0: expected what torch.nn can compute, got class Own; it stays"):
        lt.restore(model)
    assert type(model[0]) is Own


def test_a_replaced_forward_is_left(capsys):
    model = torch.nn.Sequential(torch.nn.LSTM(3, 4), torch.nn.LSTM(4, 4))
    model[0].forward = lambda x: x
    lt.accelerate(model, report=True)
    assert type(model[0]) is torch.nn.LSTM
    printed = capsys.readouterr().out
    assert "swapped: 1\n  1: LSTM(4, 4)" in printed
    assert "left: 1\n  0: LSTM(3, 4): its forward has been replaced" in printed


def test_a_freed_storage():
    for module, shape in ((lt.LSTM(3, 4), (5, 2, 3)), (lt.LSTMCell(3, 4), (2, 3))):
        x = torch.randn(shape)
        x.untyped_storage().resize_(0)
        with torch.no_grad():
            for state in (None, (torch.zeros(2, 4), torch.zeros(2, 4))):
                try:
                    module(x, state if isinstance(module, lt.LSTMCell) else None)
                except ValueError as error:
                    message = str(error)  # pytest must not try to print x
                else:
                    message = "none"
                assert message == "tensor: expected elements in memory, got none: its storage has been resized"


def test_dropout_beside_another_default_device():
    module = lt.LSTM(3, 4, 2, dropout=0.5)
    x = torch.randn(5, 2, 3)
    with torch.device("meta"):
        y, _ = module(x)
    assert y.is_cpu


def test_sparse_states_are_left_to_pytorch():
    theirs, ours = pair(3, 4)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    state = tuple(torch.zeros(1, 2, 4, dtype=torch.float64).to_sparse() for _ in range(2))

    def outcome(module):
        try:
            return module(x, state)[0]
        except (RuntimeError, NotImplementedError) as error:
            return str(error)

    wanted, found = outcome(theirs), outcome(ours)
    assert found == wanted if isinstance(wanted, str) else torch.equal(found, wanted)


def test_a_step_without_a_graph_goes_past_numpy(monkeypatch):
    """stats() counts both ways as native; only the time tells them apart."""
    calls = []
    step = core.lstm_infer
    monkeypatch.setattr(core, "lstm_infer", lambda *arguments: calls.append(1) or step(*arguments))
    module = lt.LSTMCell(3, 4)
    state = (torch.zeros(2, 4), torch.zeros(2, 4))
    with torch.no_grad():
        module(torch.zeros(2, 3), state)
    module(torch.zeros(2, 3), state)
    assert calls == [1]
