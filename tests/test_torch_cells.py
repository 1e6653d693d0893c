"""return_cells of lstm_fast.torch.LSTM: c after every step of the last layer, and gradients through it."""

from __future__ import annotations

import lstm_fast as lf
import pytest
from lstm_fast import _lstm_fast_core as core

torch = pytest.importorskip("torch")

import lstm_fast.torch as lt  # noqa: E402
from torch.nn.utils import rnn  # noqa: E402
from torch_problems import STACK, assert_close, leaves, make, native_only, normal  # noqa: E402


@pytest.fixture(autouse=True)
def _every_call_is_seen():
    lt.stats(reset=True)


def step_by_step(module, x, h0, c0, lengths):
    """Outputs for x [T,B,I] by calls of torch.nn.LSTM with one step of one row each; lists of one tensor a row."""
    found = {"y": [], "hn": [], "cn": [], "cells": []}
    one = {}
    for name, parameter in module.named_parameters():
        one.setdefault(name.partition("_l")[2], {})[name.partition("_l")[0] + "_l0"] = parameter
    for b, length in enumerate(lengths):
        y, hn, cn = x[:length, b], [], []
        for layer in range(module.num_layers):
            hs, cells = [], []
            for direction in range(1 + module.bidirectional):
                weights = one[f"{layer}{'_reverse' * direction}"]
                sizes = (y.shape[1], module.hidden_size, 1, module.bias)
                step = torch.nn.LSTM(*sizes, proj_size=module.proj_size, dtype=torch.float64)
                h, c = (state[len(hn), b][None] for state in (h0, c0))
                steps = []
                for t in reversed(range(length)) if direction else range(length):
                    _, (h, c) = torch.func.functional_call(step, weights, (y[t : t + 1], (h, c)))
                    steps.append((h, c))
                steps = steps[::-1] if direction else steps
                hs.append(torch.cat([h[:0], *(each for each, _ in steps)]))
                cells.append(torch.cat([c[:0], *(each for _, each in steps)]))
                hn.append(h[0])
                cn.append(c[0])
            y = torch.cat(hs, dim=1)
        for name, value in zip(found, (y, torch.stack(hn), torch.stack(cn), torch.cat(cells, dim=1)), strict=True):
            found[name].append(value)
    return found


def rows_of(module, outputs, lengths):
    """Valid rows of the outputs of a call, as step_by_step gives them."""
    y, (hn, cn), cells = outputs
    assert type(y) is type(cells)
    if isinstance(y, rnn.PackedSequence):
        y, cells = (rnn.pad_packed_sequence(each, batch_first=module.batch_first)[0] for each in (y, cells))
    if y.dim() == 2:
        y, hn, cn, cells = (each[:, None] for each in (y, hn, cn, cells))
    elif module.batch_first:
        y, cells = y.transpose(0, 1), cells.transpose(0, 1)
    for each in (y, cells):
        assert all((each[length:, b] == 0).all() for b, length in enumerate(lengths))
    rows = enumerate(lengths)
    return {
        "y": [y[:length, b] for b, length in rows],
        "hn": list(hn.unbind(1)),
        "cn": list(cn.unbind(1)),
        "cells": [cells[:length, b] for b, length in enumerate(lengths)],
    }


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("kind", ["batch", "unbatched", "packed", "lengths", "one step", "several chunks"])
@pytest.mark.parametrize("options", [{}, STACK, {"num_layers": 2, "bias": False}, {"bidirectional": True}])
def test_cells_equal_those_of_single_steps(options, kind):
    """Values, and gradients from all outputs and from the cells alone."""
    module = make(3, 9, return_cells=True, **options)
    lengths = {
        "packed": [2, 6, 4, 6],
        "lengths": [2, 0, 6, 4],
        "unbatched": [6],
        "one step": [1] * 2,
        "several chunks": [70] * 4,
    }.get(kind, [6] * 4)
    count = module.num_layers * (1 + module.bidirectional)
    leaves = [normal(max(lengths), len(lengths), 3), normal(count, len(lengths), module.proj_size or 9)]
    leaves = [leaf.requires_grad_() for leaf in (*leaves, normal(count, len(lengths), 9, seed=5))]

    def ours(x, h0, c0):
        if kind == "unbatched":
            return module(x[:, 0], (h0[:, 0], c0[:, 0]))
        x = x.transpose(0, 1) if module.batch_first else x
        if kind == "packed":
            x = rnn.pack_padded_sequence(x, lengths, batch_first=module.batch_first, enforce_sorted=False)
        return module(x, (h0, c0), lengths=lengths if kind == "lengths" else None)

    found = rows_of(module, ours(*leaves), lengths)
    wanted = step_by_step(module, *leaves, lengths)
    inputs = leaves + list(module.parameters())
    for used in (wanted, ["cells"]):
        gradients = []
        for outputs in (found, wanted):
            loss = sum((each * normal(*each.shape, seed=9)).sum() for name in used for each in outputs[name])
            gradients.append(torch.autograd.grad(loss, inputs, retain_graph=True, materialize_grads=True))
        assert_close(*(dict(enumerate(each)) for each in gradients))
    for name in wanted:
        assert_close(dict(enumerate(found[name])), dict(enumerate(wanted[name])))
    native_only()


MODULES = [{}, STACK, {"num_layers": 2, "dropout": 0.5}]


def function_of(module, packed):
    """A function of x, h0, c0 and the parameters that gives y, hn, cn and the cells, and its arguments."""
    names = [name for name, _ in module.named_parameters()]

    def run(x, h0, c0, *parameters):
        torch.manual_seed(1)  # the same masks
        if packed:
            x = rnn.PackedSequence(x, torch.tensor([2, 2, 1]))
        given = dict(zip(names, parameters, strict=True))
        y, (hn, cn), cells = torch.func.functional_call(module, given, (x, (h0, c0)))
        return (y.data, hn, cn, cells.data) if packed else (y, hn, cn, cells)

    count = module.num_layers * (1 + module.bidirectional)
    x = normal(5, 2) if packed else normal(2, 3, 2) if module.batch_first else normal(3, 2, 2)
    return run, leaves(x, normal(count, 2, module.proj_size or 3), normal(count, 2, 3), *module.parameters())


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("options", MODULES)
def test_gradcheck_twice(options, packed):
    function, inputs = function_of(make(2, 3, return_cells=True, **options), packed)
    assert torch.autograd.gradcheck(function, inputs)
    assert not lt.stats()["formula"]
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)
    assert set(lt.stats()["formula"]) == {"double backward"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own use of torch.jit
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("options", MODULES)
def test_other_differentiations(options, packed):
    """Without a graph, by the formula, forward mode and vmap."""
    module = make(2, 3, return_cells=True, **options)
    function, inputs = function_of(module, packed)
    wanted = function(*inputs)
    with torch.no_grad():
        assert all(map(torch.equal, function(*inputs), wanted))
    tangents = [normal(*t.shape, seed=3) for t in inputs]
    found, slopes = torch.func.jvp(function, tuple(inputs), tuple(tangents))
    assert_close(dict(enumerate(found)), dict(enumerate(wanted)))
    weights = [normal(*t.shape, seed=4) for t in wanted]
    gradients = torch.autograd.grad(wanted, inputs, weights)
    one = sum((g * t).sum() for g, t in zip(gradients, tangents, strict=True))
    other = sum((w * s).sum() for w, s in zip(weights, slopes, strict=True))
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_vmap():
    module = make(2, 3, return_cells=True)
    x = normal(5, 4, 2)
    found = torch.func.vmap(lambda sample: module(sample)[2])(x)
    assert_close({"cells": found}, {"cells": torch.stack([module(each)[2] for each in x])})


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # PyTorch's own uses
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("options", MODULES)
def test_compiled(options, packed):
    torch.compiler.reset()
    module = make(2, 3, return_cells=True, **options)
    x, batch_sizes = normal(*((5, 2) if packed else (4, 2, 2))), torch.tensor([2, 2, 1])

    def run(x):
        return module(rnn.PackedSequence(x, batch_sizes) if packed else x)

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    results = []
    for function in (run, compiled):
        found = []
        for used in (slice(4), slice(3, 4), slice(3)):
            (leaf,) = leaves(x)
            torch.manual_seed(2)
            y, (hn, cn), cells = function(leaf)
            outputs = (y.data, hn, cn, cells.data) if packed else (y, hn, cn, cells)
            loss = sum(each.sin().sum() for each in outputs[used])
            found += [*outputs, *torch.autograd.grad(loss, [leaf, *module.parameters()])]
        with torch.no_grad():
            torch.manual_seed(2)
            found.append(function(x)[2].data)
        results.append(dict(enumerate(found)))
    assert_close(results[1], results[0])
    native_only()


@pytest.mark.parametrize("lengths", [None, [60, 3, 0, 41, 60, 17, 9]])
def test_same_bits_for_any_number_of_threads(team, lengths):
    module = make(5, 19, 2, bidirectional=True, proj_size=7, return_cells=True, dtype=torch.float32)
    x, dcells = normal(60, 7, 5).float(), normal(60, 7, 38).float()
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            lf.set_num_threads(threads)
            (leaf,) = leaves(x)
            y, _, cells = module(leaf, lengths=lengths)
            assert core.threads_used() == threads
            results.append((y, cells, *torch.autograd.grad(cells, [leaf, *module.parameters()], dcells)))
            assert core.threads_used() == threads
    finally:
        torch.set_num_threads(before)
    for each in results[1:]:
        assert all(map(torch.equal, each, results[0]))


def test_what_stands_in_the_padding_of_the_gradient_reaches_nothing():
    module = make(3, 9, 2, bidirectional=True, return_cells=True)
    lengths = torch.tensor([2, 0, 6, 4])
    (x,) = leaves(normal(6, 4, 3))
    cells = module(x, lengths=lengths)[2]
    given = normal(*cells.shape)
    beyond = torch.arange(6)[:, None] >= lengths
    wanted, found = (
        torch.autograd.grad(cells, [x, *module.parameters()], given.masked_fill(beyond[..., None], value), True)
        for value in (0.0, torch.nan)
    )
    assert all(map(torch.equal, found, wanted))
    assert (wanted[0][~beyond] != 0).all()


@pytest.mark.parametrize("options", MODULES)
def test_the_other_outputs_keep_their_bits(options):
    results = []
    for cells in (False, True):
        module = make(3, 9, return_cells=cells, **options)
        (x,) = leaves(normal(5, 5, 3))
        torch.manual_seed(1)
        y, state, *_ = module(x)
        results.append((y, *state, *torch.autograd.grad(y.sin().sum() + state[1].sum(), [x, *module.parameters()])))
    assert all(map(torch.equal, *results))


def test_errors():
    module = make(3, 4, return_cells=True)
    with pytest.raises(NotImplementedError, match=r"^return_cells: expected .* got dtype torch\.bfloat16"):
        module.bfloat16()(torch.zeros(5, 2, 3, dtype=torch.bfloat16))
    for wrong in (torch.zeros(5, 2, 3), torch.zeros(0, 2, 3, dtype=torch.bfloat16)):
        with pytest.raises((RuntimeError, ValueError)) as found:
            module(wrong)
        with pytest.raises(type(found.value)) as wanted:
            torch.nn.LSTM(3, 4, dtype=torch.bfloat16)(wrong)
        assert str(found.value) == str(wanted.value)
    assert not lt.stats()["fallback"]
