"""lstm_fast.torch's modules in use: state, copies, parameters from elsewhere, hooks, layouts, accelerate, restore."""

from __future__ import annotations

import copy
import io
import pickle

import lstm_fast as lf
import pytest

torch = pytest.importorskip("torch")

import lstm_fast.torch as lt  # noqa: E402
from torch_problems import assert_close, native_only, pair, solve  # noqa: E402


@pytest.fixture(autouse=True)
def _every_call_is_seen():
    lt.stats(reset=True)


def test_state_dict_goes_both_ways():
    theirs, ours = pair(3, 4, 2, bidirectional=True, proj_size=2)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    theirs.load_state_dict(ours.state_dict())
    assert repr(ours) == repr(theirs)


def test_starts_with_pytorchs_values():
    torch.manual_seed(3)
    theirs = torch.nn.LSTM(3, 4, 2)
    torch.manual_seed(3)
    assert all(map(torch.equal, theirs.parameters(), lt.LSTM(3, 4, 2).parameters()))


@pytest.mark.parametrize("way", ["pickle", "deepcopy", "save"])
def test_copies_compute_the_same(way):
    _, ours = pair(3, 4, 2)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    if way == "pickle":
        other = pickle.loads(pickle.dumps(ours))
    elif way == "deepcopy":
        other = copy.deepcopy(ours)
    else:
        file = io.BytesIO()
        torch.save(ours, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    assert type(other) is lt.LSTM
    assert torch.equal(other(x)[0], ours(x)[0])
    with torch.no_grad():
        other.weight_hh_l0.zero_()
    assert not torch.equal(other(x)[0], ours(x)[0])
    native_only()


def test_parameters_are_read_at_every_call():
    """In place, through .data, assigned, by functional_call, parametrized: always what stands there now."""
    theirs, ours = pair(3, 4)
    x = torch.randn(5, 2, 3, dtype=torch.float64)

    def check():
        assert_close({"y": ours(x)[0]}, {"y": theirs(x)[0]})

    for module in (theirs, ours):
        module.weight_hh_l0.data.mul_(0.5)
    check()
    with torch.inference_mode():
        for module in (theirs, ours):
            module.weight_ih_l0.add_(0.1)
    check()
    for module in (theirs, ours):
        module.weight_hh_l0 = torch.nn.Parameter(torch.full((16, 4), 0.1, dtype=torch.float64))
    check()
    other = {name: torch.randn_like(value) for name, value in theirs.state_dict().items()}
    for module in (theirs, ours):
        module.load_state_dict({name: value.clone() for name, value in other.items()}, assign=True)
    check()
    swapped = {name: torch.randn_like(value).requires_grad_() for name, value in theirs.state_dict().items()}
    outputs = [torch.func.functional_call(module, swapped, (x,))[0] for module in (theirs, ours)]
    assert_close({"y": outputs[1]}, {"y": outputs[0]})
    gradients = [torch.autograd.grad(y.sum(), list(swapped.values())) for y in outputs]
    assert_close(dict(zip(swapped, gradients[1], strict=True)), dict(zip(swapped, gradients[0], strict=True)))
    check()
    native_only()


def test_parametrized_weights():
    theirs, ours = pair(3, 4)
    for module in (theirs, ours):
        torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    for module in (theirs, ours):
        module(x)[0].square().sum().backward()
    names = [name for name, _ in theirs.named_parameters()]
    assert len(names) == 5
    gradients = [{name: p.grad for name, p in module.named_parameters()} for module in (theirs, ours)]
    assert_close(gradients[1], gradients[0])
    native_only()


def test_hooks_run():
    _, ours = pair(3, 4)
    seen = []
    ours.register_forward_pre_hook(lambda *_: seen.append("before"))
    ours.register_forward_hook(lambda *_: seen.append("after"))
    ours.register_full_backward_hook(lambda *_: seen.append("backward"))
    ours(torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True))[0].sum().backward()
    assert seen == ["before", "after", "backward"]


@pytest.mark.parametrize("way", ["transposed", "strided", "expanded", "flipped", "batch strided"])
def test_layouts(way):
    theirs, ours = pair(3, 4)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    if way == "transposed":
        x = x.transpose(0, 2).contiguous().transpose(0, 2)
    elif way == "strided":
        x = torch.randn(5, 2, 6, dtype=torch.float64)[..., ::2]
    elif way == "expanded":
        x = x[:1].expand(5, 2, 3)
    elif way == "batch strided":
        x = torch.randn(5, 4, 3, dtype=torch.float64)[:, ::2]
    else:
        x = x.flip(0)
    h = torch.randn(4, 2, 1, dtype=torch.float64).permute(2, 1, 0)
    wanted, found = (solve(module, x, (h, h)) for module in (theirs, ours))
    assert_close(found, wanted)
    native_only()


def test_to_moves_between_dtypes():
    _, ours = pair(3, 4)
    x = torch.randn(5, 2, 3)
    assert ours.to(torch.float32)(x)[0].dtype == torch.float32
    assert ours.double()(x.double())[0].dtype == torch.float64
    native_only()
    ours.bfloat16()(x.bfloat16())
    assert lt.stats()["fallback"] == {"dtype torch.bfloat16": 1}


# --- accelerate and restore ---


def test_accelerate_swaps_in_place_and_restore_undoes_it(capsys):
    class Own(torch.nn.LSTM):
        pass

    model = torch.nn.ModuleDict(
        {"a": torch.nn.LSTM(3, 4), "b": torch.nn.Sequential(torch.nn.LSTMCell(3, 4)), "c": Own(3, 4)}
        | {"d": torch.nn.Linear(3, 4)}
    )
    before = dict(model.named_parameters())
    assert lt.accelerate(model, report=True) is model
    printed = capsys.readouterr().out
    assert "swapped: 2" in printed
    assert "a: LSTM(3, 4)" in printed
    assert "b.0: LSTMCell(3, 4)" in printed
    assert "c: Own(3, 4): a subclass" in printed
    assert [type(model[name]) for name in "ac"] == [lt.LSTM, Own]
    assert type(model["b"][0]) is lt.LSTMCell
    assert all(value is before[name] for name, value in model.named_parameters())
    lt.accelerate(model)  # nothing left to do, and nothing to warn of
    lt.restore(model)
    assert type(model["a"]) is torch.nn.LSTM
    assert type(model["b"][0]) is torch.nn.LSTMCell


def test_accelerate_warns_when_there_is_nothing_to_swap():
    with pytest.warns(UserWarning, match=r"expected a torch\.nn\.LSTM"):
        lt.accelerate(torch.nn.Linear(1, 1))
    for function in (lt.accelerate, lt.restore):
        with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got int"):
            function(1)


class Sentence(torch.nn.Module):
    def __init__(self, lstm):
        super().__init__()
        self.lstm = lstm
        self.cell = torch.nn.LSTMCell(4, 4)
        self.after = torch.nn.Linear(4, 2)
        self.double()

    def forward(self, x):
        y, (hn, cn) = self.lstm(x)[:2]
        return self.after(y).sum(0) + self.cell(y[-1], (hn[0], cn[0]))[0].sum()


def test_a_graph_of_fx_can_be_accelerated():
    model = lt.accelerate(Sentence(torch.nn.LSTM(3, 4)))
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    wanted = model(x)
    traced = lt.accelerate(torch.fx.symbolic_trace(lt.restore(model)))
    lt.stats(reset=True)
    torch.testing.assert_close(traced(x), wanted)
    assert lt.stats() == {"native": {"LSTM": 1, "LSTMCell": 1}, "formula": {}, "fallback": {}}


def test_a_tracer_of_fx_that_takes_our_modules_as_they_are():
    """As the docstring of accelerate says; with what restore cannot take away."""

    class Tracer(torch.fx.Tracer):
        def is_leaf_module(self, module, name):
            return isinstance(module, torch.nn.LSTM) or super().is_leaf_module(module, name)

    model = Sentence(lt.LSTM(3, 4, return_cells=True))
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    traced = torch.fx.GraphModule(model, Tracer().trace(model))
    torch.testing.assert_close(traced(x), model(x))
    assert lt.stats() == {"native": {"LSTM": 2}, "formula": {}, "fallback": {}}


def test_reached_from_the_package():
    assert lf.torch is lt
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = lf.no_such_name


def test_threads_are_at_most_pytorchs(team):
    _, ours = pair(3, 4)
    before = torch.get_num_threads(), lf.get_num_threads()
    x = torch.randn(50, 8, 3, dtype=torch.float64)
    core = lf.config._core
    try:
        for pytorchs, own, used in ((1, 4, 1), (3, 2, 2), (2, 7, 2)):
            torch.set_num_threads(pytorchs)
            lf.set_num_threads(own)
            y = ours(x)[0]
            assert core.threads_used() == used
            y.sum().backward()
            assert core.threads_used() == used
    finally:
        torch.set_num_threads(before[0])
        lf.set_num_threads(before[1])
