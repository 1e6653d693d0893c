"""lstm_fast.torch under torch.compile and torch.export, and its operators under PyTorch's own check."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import warnings

import pytest

torch = pytest.importorskip("torch")

import lstm_fast as lf  # noqa: E402
import lstm_fast.torch as lt  # noqa: E402
from lstm_fast.torch import _library  # noqa: E402, F401  makes the operators
from torch.nn.utils import rnn  # noqa: E402

# PyTorch's own uses of what it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


class Between(torch.nn.Module):
    """Linear, LSTM, Linear."""

    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        self.before = torch.nn.Linear(3, 4)
        self.lstm = lt.LSTM(4, 5, **options)
        self.after = torch.nn.Linear((1 + self.lstm.bidirectional) * (self.lstm.proj_size or 5), 2)
        self.double()

    def forward(self, x, lengths=None):
        y, (hn, cn) = self.lstm(self.before(x), lengths=lengths)
        return self.after(y) + hn.sum() + cn.square().sum()


@pytest.fixture(autouse=True)
def _fresh():
    torch.compiler.reset()
    lt.stats(reset=True)


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def gradients(function, module, x, *others):
    module.zero_grad()
    x = x.clone().requires_grad_()
    y = function(x, *others)
    y.square().sum().backward()
    return [y, x.grad, *(p.grad for p in module.parameters())]


def assert_close(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


OPTIONS = [{}, {"num_layers": 2, "bidirectional": True, "proj_size": 2}, {"bias": False, "batch_first": True}]


@pytest.mark.parametrize("options", OPTIONS)
def test_one_graph_for_all_sizes(options):
    """Values and gradients of a graph without a break, at several T and B, compiled at most twice."""
    module = Between(**options)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=False):
        for steps, batch in ((6, 2), (7, 3)):
            x = normal(steps, batch, 3)
            assert_close(gradients(compiled, module, x), gradients(module, module, x))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for steps, batch in ((9, 5), (4, 4), (30, 2)):
            x = normal(steps, batch, 3)
            assert_close(gradients(compiled, module, x), gradients(module, module, x))
    found = lt.stats()
    assert found["native"] == {"LSTM": 10}
    assert not found["fallback"]


def test_inductor():
    module = Between(num_layers=2)
    x = normal(6, 2, 3)
    with torch._inductor.config.patch(force_disable_caches=True):  # which may hold operators of another version
        assert_close(gradients(torch.compile(module, fullgraph=True), module, x), gradients(module, module, x))


def test_inference():
    module = Between().requires_grad_(False)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = normal(6, 2, 3)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), module(x))


def test_lengths():
    module = Between(bidirectional=True)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for lengths in ([6, 2], [1, 5]):
        x, given = normal(6, 2, 3), torch.tensor(lengths)
        assert_close(gradients(compiled, module, x, given), gradients(module, module, x, given))


@pytest.mark.parametrize("states", [True, False])
def test_packed(states):
    module = lt.LSTM(3, 4, 2, bidirectional=True, dtype=torch.float64)

    def run(data, batch_sizes):
        y, (hn, cn) = module(rnn.PackedSequence(data, batch_sizes))
        return y.data.sum() + (hn.square().sum() + cn.sin().sum() if states else 0.0)

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    x, batch_sizes = normal(7, 3), torch.tensor([3, 2, 2])
    assert_close(gradients(compiled, module, x, batch_sizes), gradients(run, module, x, batch_sizes))


def test_dropout_is_repeatable():
    module = lt.LSTM(3, 40, 2, dropout=0.5)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = torch.randn(6, 2, 3)
    torch.manual_seed(1)
    first = compiled(x)[0]
    assert not torch.equal(compiled(x)[0], first)
    torch.manual_seed(1)
    assert torch.equal(compiled(x)[0], first)
    torch.manual_seed(1)
    assert torch.equal(module(x)[0], first)


def test_cell():
    module = lt.LSTMCell(3, 4, dtype=torch.float64)

    def run(x):
        h, c = module(x)
        return h.square() + c

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    x = normal(5, 3)
    assert_close(gradients(compiled, module, x), gradients(run, module, x))


@pytest.mark.parametrize("strict", [False, True])
def test_export(strict):
    module = Between(num_layers=2)
    x = normal(6, 2, 3)
    sizes = {0: torch.export.Dim("steps", min=2, max=100), 1: torch.export.Dim("batch", min=2, max=100)}
    program = torch.export.export(module, (x,), dynamic_shapes={"x": sizes}, strict=strict)
    assert any("lstm_fast" in str(node.target) for node in program.graph.nodes)
    for shape in ((6, 2, 3), (9, 5, 3)):
        torch.testing.assert_close(program.module()(normal(*shape)), module(normal(*shape)))


def operator_calls():
    """Arguments of lstm_fast::lstm: plain, everything at once with lengths, packed."""
    torch.manual_seed(0)
    for layers, directions, proj, lengths, packed, dropout in (
        (1, 1, 0, None, False, 0.0),
        (2, 2, 2, [4, 0, 3], False, 0.5),
        (2, 1, 0, [3, 2, 1, 1], True, 0.0),
    ):
        module = torch.nn.LSTM(2, 5, layers, bidirectional=directions == 2, proj_size=proj, dtype=torch.float64)
        x = normal(7, 2) if packed else normal(4, 3, 2)
        states = normal(layers * directions, 3, proj or 5), normal(layers * directions, 3, 5)
        leaves = [t.clone().requires_grad_() for t in (x, *states)]
        seed = torch.tensor(5) if dropout else None
        lengths = None if lengths is None else torch.tensor(lengths)
        rest = (lengths, packed, layers, directions, True, proj > 0, dropout, True, layers > 1)
        yield (*leaves, list(module.parameters()), seed, *rest)


@pytest.mark.parametrize("at", range(3))
def test_operator_passes_pytorchs_check(at):
    call = list(operator_calls())[at]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.library.opcheck(torch.ops.lstm_fast.lstm.default, call)


def test_reserve_of_another_instruction_set():
    """A compiled forward and backward may stand apart: backward runs on the set that wrote the reserve."""
    isas = lf.config._core.isas_usable()
    call = next(operator_calls())
    found = []
    for one, other in ((isas[0], isas[0]), (isas[0], isas[-1]), (isas[-1], isas[0])):
        lf.set_isa(one)
        y, *_ = torch.ops.lstm_fast.lstm(*call)
        lf.set_isa(other)
        found.append(torch.autograd.grad(y.square().sum(), call[3]))
    for each in found[1:]:
        assert all(map(torch.equal, each, found[0]))


@pytest.mark.parametrize("first", ["torch._dynamo", "lstm_fast.torch"])
def test_compilers_are_let_in_whatever_is_imported_first(first):
    script = f"""
        import sys, torch
        import {first}
        if {first!r} == "lstm_fast.torch":
            assert "torch._dynamo" not in sys.modules, "which takes longer to import than PyTorch"
        import lstm_fast.torch, torch._dynamo
        print(torch._dynamo.config.allow_rnn)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "True", done.stderr
