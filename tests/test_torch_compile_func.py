"""lstm_fast.torch in what torch.compile traces together with torch.func, forward mode, or PyTorch's own computation."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap

import pytest

torch = pytest.importorskip("torch")

import lstm_fast.torch as lt  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap  # noqa: E402
from torch.nn.utils import rnn  # noqa: E402
from torch_problems import STACK, make, normal, pair  # noqa: E402

# PyTorch's own uses of what it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(autouse=True)
def _fresh():
    torch.compiler.reset()
    lt.stats(reset=True)


def compiled(function):
    return torch.compile(function, fullgraph=True, backend="aot_eager")


def assert_close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def dual(function, x):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(function(forward_ad.make_dual(x, x.flip(0)))).tangent


def pulled_back(function, x):
    y, pull = vjp(function, x)
    return pull(y)


TRANSFORMS = {
    "grad": lambda f, x: grad(lambda x: f(x).square().sum())(x),
    "grad of grad": lambda f, x: grad(lambda x: grad(lambda x: f(x).square().sum())(x).sin().sum())(x),
    "vjp": pulled_back,
    "jvp": lambda f, x: jvp(f, (x,), (x.flip(0),)),
    "jacrev": lambda f, x: jacrev(lambda x: f(x).sum(0))(x),
    "jacfwd": lambda f, x: jacfwd(lambda x: f(x).sum(0))(x),
    "hessian": lambda f, x: hessian(lambda x: f(x).square().sum())(x),
    "dual numbers": dual,
}


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        *((*each, {}) for each in itertools.product(TRANSFORMS, ("LSTM", "LSTMCell"))),
        *((*each, {}) for each in itertools.product(("grad", "jvp"), ("GRU", "RNN", "RNN relu", "GRUCell"))),
        ("grad", "LSTM", STACK),
        ("jvp", "LSTM", STACK),
    ],
)
def test_transforms(name, kind, options):
    """In one graph, as torch.nn's: the values are those of torch.nn without a compiler."""
    theirs, ours = pair(3, 4, kind=kind, **options)
    x = normal(2, 3) if "Cell" in kind else normal(2, 2, 3)  # few steps: the graph has all of them
    transform = TRANSFORMS[name]
    found = compiled(lambda x: transform(lambda x: ours(x)[0], x))(x)
    assert_close(found, transform(lambda x: theirs(x)[0], x))
    counted = lt.stats()
    assert counted["formula"]
    assert not counted["native"]
    assert not counted["fallback"]


def test_rows_by_vmap():
    """torch.nn.LSTM has no rule for vmap: one row after the other."""
    theirs, ours = pair(3, 4, 2)
    x = normal(2, 3, 3)
    parameters = {name: value.detach() for name, value in ours.named_parameters()}

    def loss(given, row):
        return functional_call(ours, given, (row,))[0].square().sum()

    assert_close(compiled(vmap(lambda row: ours(row)[0], 1, 1))(x), theirs(x)[0])
    found = compiled(vmap(grad(loss), (None, 1)))(parameters, x)
    for at in range(3):
        theirs.zero_grad()
        theirs(x[:, at])[0].square().sum().backward()
        assert_close(
            {name: value[at] for name, value in found.items()}, {n: p.grad for n, p in theirs.named_parameters()}
        )


def test_ragged_batches():
    theirs, ours = pair(3, 4, bidirectional=True)
    x, lengths = normal(3, 3, 3), torch.tensor([3, 2, 1])
    packed = rnn.pack_padded_sequence(x, lengths)

    def loss(module, data):
        return module(rnn.PackedSequence(data, packed.batch_sizes))[0].data.square().sum()

    leaf = packed.data.requires_grad_()
    (wanted,) = torch.autograd.grad(loss(theirs, leaf), leaf)
    assert_close(compiled(grad(lambda data: loss(ours, data)))(packed.data), wanted)
    found = compiled(grad(lambda x: ours(x, lengths=lengths)[0].square().sum()))(x)
    assert_close(rnn.pack_padded_sequence(found, lengths).data, wanted)


def autocast(function):
    def call(*arguments):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return function(*arguments)

    return call


@pytest.mark.parametrize("way", [lambda function: function, grad, autocast], ids=["kernels", "formula", "PyTorch"])
@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (torch.tensor([3.0, 2.0, 1.0]), "integers, got dtype torch.float32"),
        (torch.tensor([True, True, False]), "integers, got dtype torch.bool"),
    ],
    ids=["float", "bool"],
)
def test_lengths_of_another_dtype(lengths, message, way):
    module = make(3, 4)
    function = compiled(way(lambda x, lengths: module(x, lengths=lengths)[0].sum()))
    with pytest.raises(Exception, match=f"lengths: expected {message}"):  # of dynamo, around ours
        function(normal(3, 3, 3), lengths)


def test_too_few_lengths_for_the_formula():
    module = make(3, 4)
    function = compiled(grad(lambda x, lengths: module(x, lengths=lengths)[0].sum()))
    with pytest.raises(Exception, match=r"lengths: expected shape \(3,\), got \(1,\)"):  # of dynamo, around ours
        function(normal(3, 3, 3), torch.tensor([3]))


def test_transformed_and_plain_in_one_graph():
    _, ours = pair(3, 4)
    x = normal(5, 2, 3)

    def both(x):
        return ours(x)[0], jvp(lambda x: ours(x)[0], (x,), (x,))[1], ours(2 * x)[0]

    wanted = both(x)
    lt.stats(reset=True)
    function = compiled(both)
    for _ in range(2):
        assert_close(function(x), wanted)
    # Calls of the kernels, but graphs without them.
    assert lt.stats() == {"native": {"LSTM": 4}, "formula": {"a torch.func transform": 1}, "fallback": {}}


@pytest.mark.parametrize("kind", ["layer", "cell"])
def test_a_graph_made_before_does_not_serve_dual_numbers(kind):
    """Of frozen modules: with gradients, PyTorch itself refuses to differentiate a compiled call that way."""
    theirs, ours = pair(3, 4) if kind == "layer" else [each(3, 4).double() for each in (torch.nn.LSTMCell, lt.LSTMCell)]
    ours.load_state_dict(theirs.state_dict())
    ours.requires_grad_(False)
    x = normal(*((5, 2, 3) if kind == "layer" else (2, 3)))
    function = compiled(lambda x: ours(x)[0])
    for _ in range(2):
        assert_close(function(x), theirs(x)[0])
        assert_close(dual(function, x), dual(lambda x: theirs(x)[0], x))


def test_nor_without_assertions():
    """Under python -O, where an assert would be no guard."""
    script = """
        import torch
        import lstm_fast.torch as lt
        from torch.autograd import forward_ad

        module = lt.LSTM(3, 4).requires_grad_(False)
        function = torch.compile(lambda x: module(x)[0], fullgraph=True, backend="aot_eager")
        x = torch.ones(2, 1, 3)
        function(x)
        with forward_ad.dual_level():
            print(forward_ad.unpack_dual(function(forward_ad.make_dual(x, x))).tangent is not None)
    """
    command = [sys.executable, "-O", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout == "True\n", done.stderr


def test_dropout_has_the_masks_of_a_plain_call():
    module = make(3, 20, 3, dropout=0.5)
    x = normal(2, 2, 3)

    def run(x):
        return module(x)[0].square().sum()

    torch.manual_seed(1)
    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(run(leaf), leaf)
    for function in (grad(run), compiled(grad(run))):
        torch.manual_seed(1)
        found = function(x)
        assert_close(found, wanted)
        assert not torch.allclose(function(x), found)


def test_dropout_of_rows_by_vmap():
    module = make(3, 20, 2, dropout=0.5)
    x = normal(5, 1, 3).expand(5, 3, 3)
    rows = {random: vmap(lambda row: module(row)[0], 1, randomness=random)(x) for random in ("same", "different")}
    assert torch.equal(rows["same"][0], rows["same"][1])
    assert not torch.allclose(rows["different"][0], rows["different"][1])
    with pytest.raises(RuntimeError, match="randomness"):
        vmap(lambda row: module(row)[0], 1)(x)


@pytest.mark.parametrize("kind", ["layer", "cell"])
def test_what_is_left_to_pytorch_compiles_once(kind):
    module = lt.LSTM(3, 4) if kind == "layer" else lt.LSTMCell(3, 4)
    module.bfloat16().requires_grad_(False)
    function = compiled(module)
    x = normal(*((5, 2, 3) if kind == "layer" else (2, 3))).bfloat16()
    wanted = module(x)[0]
    lt.stats(reset=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            torch.testing.assert_close(function(x)[0], wanted, rtol=0.02, atol=0.02)  # roundings of bfloat16
    assert lt.stats()["fallback"] == {"dtype torch.bfloat16": 1}
