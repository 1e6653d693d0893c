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
from torch_problems import CELLS, STACKS, built  # noqa: E402

# PyTorch's own uses of what it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


class Between(torch.nn.Module):
    """Linear, LSTM or another kind, Linear."""

    def __init__(self, kind="LSTM", **options):
        super().__init__()
        torch.manual_seed(0)
        self.before = torch.nn.Linear(3, 4)
        self.stack = built(lt, kind, 4, 5, **options)
        self.after = torch.nn.Linear((1 + self.stack.bidirectional) * (self.stack.proj_size or 5), 2)
        self.double()

    def forward(self, x, lengths=None):
        y, state = self.stack(self.before(x), lengths=lengths)
        return self.after(y) + of_state(state)


def of_state(state):
    """A number that depends on all of it."""
    return state[0].sum() + state[1].square().sum() if isinstance(state, tuple) else state.sin().sum()


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


TWO_WAYS = {"num_layers": 2, "bidirectional": True}
OPTIONS = [("LSTM", {}), ("LSTM", TWO_WAYS | {"proj_size": 2}), ("LSTM", {"bias": False, "batch_first": True})]
OPTIONS += [("GRU", TWO_WAYS), ("RNN", {"bias": False, "batch_first": True}), ("RNN relu", {})]


@pytest.mark.parametrize(("kind", "options"), OPTIONS)
def test_one_graph_for_all_sizes(kind, options):
    """Values and gradients of a graph without a break, at several T and B, compiled at most twice."""
    module = Between(kind, **options)
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
    assert found["native"] == {kind.split()[0]: 10}
    assert not found["fallback"]


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_inductor(kind):
    module = Between(kind, num_layers=2)
    x = normal(6, 2, 3)
    with torch._inductor.config.patch(force_disable_caches=True):  # which may hold operators of another version
        assert_close(gradients(torch.compile(module, fullgraph=True), module, x), gradients(module, module, x))


@pytest.mark.parametrize("kind", STACKS)
def test_inference(kind):
    module = Between(kind).requires_grad_(False)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = normal(6, 2, 3)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), module(x))


@pytest.mark.parametrize("kind", STACKS)
def test_lengths(kind):
    module = Between(kind, bidirectional=True)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for lengths in ([6, 2], [1, 5]):
        x, given = normal(6, 2, 3), torch.tensor(lengths)
        assert_close(gradients(compiled, module, x, given), gradients(module, module, x, given))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("states", [True, False])
def test_packed(states, kind):
    module = built(lt, kind, 3, 4, 2, bidirectional=True)

    def run(data, batch_sizes):
        y, state = module(rnn.PackedSequence(data, batch_sizes))
        return y.data.sum() + (of_state(state) if states else 0.0)

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    x, batch_sizes = normal(7, 3), torch.tensor([3, 2, 2])
    assert_close(gradients(compiled, module, x, batch_sizes), gradients(run, module, x, batch_sizes))


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_dropout_is_repeatable(kind):
    module = built(lt, kind, 3, 40, 2, dropout=0.5, dtype=torch.float32)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = torch.randn(6, 2, 3)
    torch.manual_seed(1)
    first = compiled(x)[0]
    assert not torch.equal(compiled(x)[0], first)
    torch.manual_seed(1)
    assert torch.equal(compiled(x)[0], first)
    torch.manual_seed(1)
    assert torch.equal(module(x)[0], first)


@pytest.mark.parametrize("kind", CELLS)
def test_cell(kind):
    module = built(lt, kind, 3, 4)

    def run(x):
        return of_state(module(x))

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    x = normal(5, 3)
    assert_close(gradients(compiled, module, x), gradients(run, module, x))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("strict", [False, True])
def test_export(strict, kind):
    module = Between(kind, num_layers=2)
    x = normal(6, 2, 3)
    sizes = {0: torch.export.Dim("steps", min=2, max=100), 1: torch.export.Dim("batch", min=2, max=100)}
    program = torch.export.export(module, (x,), dynamic_shapes={"x": sizes}, strict=strict)
    assert any("lstm_fast" in str(node.target) for node in program.graph.nodes)
    for shape in ((6, 2, 3), (9, 5, 3)):
        torch.testing.assert_close(program.module()(normal(*shape)), module(normal(*shape)))


def operator_calls(kind="LSTM"):
    """Arguments of lstm_fast::stack: plain, everything at once with lengths, packed."""
    torch.manual_seed(0)
    name = {"RNN": "rnn_tanh"}.get(kind, kind.lower().replace(" ", "_"))
    for layers, directions, proj, lengths, packed, dropout in (
        (1, 1, 0, None, False, 0.0),
        (2, 2, 2, [4, 0, 3], False, 0.5),
        (2, 1, 0, [3, 2, 1, 1], True, 0.0),
    ):
        lstm = kind == "LSTM"
        width = proj if lstm and proj else 5
        options = {"proj_size": proj} if lstm else {}
        module = built(torch.nn, kind, 2, 5, layers, bidirectional=directions == 2, **options)
        x = normal(7, 2) if packed else normal(4, 3, 2)
        states = normal(layers * directions, 3, width), normal(layers * directions, 3, 5)
        leaves = [t.clone().requires_grad_() for t in (x, *states)]
        leaves[2:] = leaves[2:] if lstm else [None]
        seed = torch.tensor(5) if dropout else None
        lengths = None if lengths is None else torch.tensor(lengths)
        rest = (lengths, name, packed, layers, directions, True, width != 5, dropout, True, lstm and layers > 1)
        yield (*leaves, list(module.parameters()), seed, *rest)


@pytest.mark.parametrize("kind", STACKS)
@pytest.mark.parametrize("at", range(3))
def test_operator_passes_pytorchs_check(at, kind):
    call = list(operator_calls(kind))[at]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.library.opcheck(torch.ops.lstm_fast.stack.default, call)


@pytest.mark.parametrize("kind", STACKS)
def test_the_block_holds_the_reserve(kind, isa):
    """Of sizes at which what is rounded up is little: the kernels refuse a block that is too small."""
    module, x = built(lt, kind, 64, 64, 2, bidirectional=True), normal(20, 8, 64)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    found, wanted = (
        torch.autograd.grad(function(x)[0].square().sum(), list(module.parameters())) for function in (compiled, module)
    )
    assert_close(found, wanted)
    assert lt.stats()["native"] == {kind.split()[0]: 2}


def test_reserve_of_another_instruction_set():
    """A compiled forward and backward may stand apart: backward runs on the set that wrote the reserve."""
    isas = lf.config._core.isas_usable()
    call = next(operator_calls())
    found = []
    for one, other in ((isas[0], isas[0]), (isas[0], isas[-1]), (isas[-1], isas[0])):
        lf.set_isa(one)
        y, *_ = torch.ops.lstm_fast.stack(*call)
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
