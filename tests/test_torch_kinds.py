"""GRU, RNN and their cells in lstm_fast.torch beside torch.nn: values, gradients, ragged batches, errors, extras."""

from __future__ import annotations

import copy
import re

import lstm_fast as lf
import pytest

torch = pytest.importorskip("torch")

import lstm_fast.torch as lt  # noqa: E402
from lstm_fast import _lstm_fast_core as core  # noqa: E402
from torch.nn.utils import rnn  # noqa: E402
from torch_problems import (  # noqa: E402  # noqa: E402
    CELLS,
    STACKS,
    assert_close,
    built,
    drawn,
    leaves,
    make,
    native_only,
    normal,
    pair,
    solve,
    split,
)

STACKS = [kind for kind in STACKS if kind != "LSTM"]
CELLS = [kind for kind in CELLS if kind != "LSTMCell"]


@pytest.fixture(autouse=True)
def _every_call_is_seen():
    lt.stats(reset=True)


@pytest.mark.parametrize("kind", STACKS)
@pytest.mark.parametrize("seed", range(0, 70, 35))
def test_equals_torch_nn(seed, kind):
    """35 of 70 drawn: layers, directions, bias, batch_first, unbatched, packed, unsorted; float32 for some."""
    for each in range(seed, seed + 35):
        sizes, options, x, state, lengths = drawn(each, kind)
        theirs, ours = pair(*sizes, kind=kind, **options)
        wanted = solve(theirs, x, state, lengths)
        assert_close(solve(ours, x, state, lengths), wanted)
        if each % 10 == 0:  # errors of float32 sums of up to 40 terms over up to 36 steps, forth and back
            found = solve(ours.float(), x.float(), [s.float() for s in state], lengths)
            assert_close(found, {name: value.float() for name, value in wanted.items()}, 2e-5)
    native_only()


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("batch", [None, 1, 5, 9])
def test_a_step_equals_torch_nns(batch, kind):
    rows = () if batch is None else (batch,)
    for bias in (True, False):
        theirs, ours = pair(7, 19, bias, kind=kind)
        for given in (True, False):
            found = []
            for module in (theirs, ours):
                x, h = leaves(normal(*rows, 7), normal(*rows, 19))
                hn = module(x, h) if given else module(x)
                wanted = [x, *([h] if given else []), *module.parameters()]
                found.append([hn, *torch.autograd.grad((hn * normal(*hn.shape)).sum(), wanted)])
                with torch.no_grad():
                    assert torch.equal(module(x, h) if given else module(x), hn)
            assert_close(dict(enumerate(found[1])), dict(enumerate(found[0])), 1e-12)
    native_only()


@pytest.mark.parametrize("kind", CELLS)
def test_a_step_takes_any_tensor_and_keeps_what_backward_needs(kind):
    theirs, ours = pair(5, 9, kind=kind)
    x, h = normal(3, 5), normal(3, 9)
    negative = torch.complex(torch.zeros_like(h), -h).conj().imag  # its memory holds -h
    for given in (h.t().contiguous().t(), h[:1].expand(3, 9), negative, torch.stack([h, h], -1).flatten(1)[:, ::2]):
        torch.testing.assert_close(ours(x, given), theirs(x, given), rtol=1e-12, atol=1e-14)
    hn = ours(x, h.requires_grad_())
    with torch.no_grad():
        ours.weight_hh.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        hn.sum().backward()
    native_only()


@pytest.mark.parametrize("kind", STACKS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_lengths_of_a_padded_batch(batch_first, kind):
    """As packed, bit for bit; NaN in the padding reaches nothing, and a row of length 0 keeps its state."""
    module = make(5, 9, 2, kind=kind, bidirectional=True, batch_first=batch_first)
    lengths = [3, 7, 1, 7]
    x, state = normal(7, 4, 5), normal(4, 4, 9)
    beyond = torch.arange(7)[:, None] >= torch.tensor(lengths)
    x[beyond] = torch.nan
    x = x.transpose(0, 1) if batch_first else x
    packed = rnn.pack_padded_sequence(x, lengths, batch_first=batch_first, enforce_sorted=False)
    wanted, last = module(packed, state)
    leaf = x.clone().requires_grad_()
    y, hn = module(leaf, state, lengths=lengths)
    assert torch.equal(y, rnn.pad_packed_sequence(wanted, batch_first=batch_first)[0])
    assert torch.equal(hn, last)
    (gradient,) = torch.autograd.grad(y.square().sum(), leaf)
    gradient = gradient.transpose(0, 1) if batch_first else gradient
    assert (gradient[beyond] == 0).all()
    assert gradient[~beyond].isfinite().all()
    hn = module(x.nan_to_num(), state, lengths=[0, 7, 0, 7])[1]
    assert torch.equal(hn[:, ::2], state[:, ::2])
    native_only()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, hn = module.float()(x.float(), state.float(), lengths=[3, 7, 0, 7])
    assert torch.equal(hn[:, 2], state[:, 2].float().to(hn))
    assert (y.select(0 if batch_first else 1, 2) == 0).all()
    assert lt.stats()["fallback"] == {"autocast": 1}


def wrong_calls():
    x, h = torch.zeros(4, 3, 2, dtype=torch.float64), torch.zeros(1, 3, 5, dtype=torch.float64)
    packed = rnn.pack_padded_sequence(x, [4, 2, 1])
    return {
        "one dimension": (x[0, 0],),
        "four dimensions": (x[None],),
        "input size": (x[..., :1],),
        "dtype": (x.float(),),
        "half": (x.half(),),
        "hidden batch": (x, h[:, :2]),
        "hidden size": (x, h[..., :4]),
        "layers": (x, h.expand(2, 3, 5)),
        "state of an unbatched input": (x[:, 0], h),
        "unbatched state": (x, h[:, 0]),
        "dtype of the state": (x, h.float()),
        "no steps": (x[:0],),
        "packed input size": (packed._replace(data=packed.data[:, :1]),),
        "packed state": (packed, h[:, :2]),
        "pair": (x, (h, h)),
        "list": (x, [h]),
        "a number": (x, 3),
        "packed pair": (packed, (h, h)),
        "no input": (None, h),
    }


def same_error(theirs, ours, call):
    with pytest.raises(Exception) as wanted:  # noqa: PT011
        theirs(*call)
    with pytest.raises(type(wanted.value)) as found:
        ours(*call)
    assert str(found.value) == str(wanted.value)


@pytest.mark.parametrize("kind", STACKS)
@pytest.mark.parametrize("name", wrong_calls())
def test_errors_are_pytorchs(name, kind):
    same_error(*pair(2, 5, kind=kind), wrong_calls()[name])


@pytest.mark.parametrize("kind", CELLS)
def test_errors_of_cells_are_pytorchs(kind):
    theirs, ours = pair(2, 5, kind=kind, dtype=torch.float32)
    x, h = torch.zeros(3, 2), torch.zeros(3, 5)
    calls = [(x[None],), (torch.zeros(3, 4),), (x, h[:2]), (x, h[:, :4]), (x, h[None]), (x.double(),), (None, h)]
    for call in (*calls, (x, (h, h)), (x, (h,)), (x, 3)):
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                same_error(theirs, ours, call)
    if kind != "GRUCell":
        theirs.nonlinearity = ours.nonlinearity = "sine"
        same_error(theirs, ours, (x, h))
    assert not lt.stats()["fallback"]


@pytest.mark.parametrize("options", [{"proj_size": 2}, {"nonlinearity": "sine"}, {"hidden_size": -1}])
@pytest.mark.parametrize("kind", ["GRU", "RNN"])
def test_errors_of_constructors_are_pytorchs(kind, options):
    def make(place):
        return lambda: getattr(place, kind)(**{"input_size": 2, "hidden_size": 3} | options)

    same_error(make(torch.nn), make(lt), ())


@pytest.mark.parametrize(
    ("kind", "name", "shape", "wanted"),
    [
        ("GRU", "weight_ih_l1_reverse", (15, 5), (15, 10)),
        ("GRU", "bias_hh_l0", (15, 1), (15,)),
        ("RNN", "weight_hh_l1", (5, 4), (5, 5)),
        ("GRUCell", "weight_hh", (20, 5), (15, 5)),
        ("RNNCell", "bias_ih", (20,), (5,)),
    ],
)
def test_a_parameter_of_another_shape_is_named(kind, name, shape, wanted):
    cell = kind.endswith("Cell")
    module = built(lt, kind, 2, 5) if cell else built(lt, kind, 2, 5, 2, bidirectional=True)
    setattr(module, name, torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64)))
    message = re.escape(f"{name}: expected shape {wanted}, got {shape}")
    with pytest.raises(RuntimeError, match=f"^{message}$"):
        module(normal(3, 2) if cell else normal(4, 3, 2))


@pytest.mark.parametrize("kind", STACKS)
@pytest.mark.parametrize("way", ["batch", "packed", "lengths"])
def test_lean_has_the_bits_of_gates(way, kind):
    """Outputs and all gradients, over several chunks."""
    lengths = [70, 3, 1, 44, 70, 12, 69, 5, 30]
    results = []
    for save in ("gates", "lean"):
        module = make(3, 4, 2, kind=kind, save=save, bidirectional=True, dropout=0.5)
        (leaf,) = leaves(normal(70, 9, 3))
        source = rnn.pack_padded_sequence(leaf, lengths, enforce_sorted=False) if way == "packed" else leaf
        torch.manual_seed(7)
        y, hn = module(source, lengths=lengths if way == "lengths" else None)
        y = y.data if way == "packed" else y
        results.append([y, hn, *torch.autograd.grad(y.sin().sum() + hn.sum(), [leaf, *module.parameters()])])
    assert all(map(torch.equal, *results))
    assert "save=lean" in repr(module)
    native_only()


@pytest.mark.parametrize("kind", STACKS)
def test_a_learnt_initial_state(kind):
    torch.manual_seed(3)
    theirs = built(torch.nn, kind, 3, 4, 2)
    torch.manual_seed(3)
    module = built(lt, kind, 3, 4, 2, learn_initial_state=True)
    assert list(module.state_dict()) == [*theirs.state_dict(), "h_0"]
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in theirs.state_dict().items())
    assert (module.h_0 == 0).all()
    with torch.no_grad():
        module.h_0.copy_(normal(2, 4))
    for x in (normal(5, 3, 3), normal(5, 3), rnn.pack_padded_sequence(normal(5, 3, 3), [5, 4, 4])):
        state = module.h_0 if x[0].dim() == 1 else module.h_0[:, None].expand(2, 3, 4)
        hn = module(x)[1]
        assert torch.equal(hn, module(x, state)[1])
        (found,) = torch.autograd.grad(hn.sin().sum(), module.h_0)
        (wanted,) = torch.autograd.grad(module(x, state)[1].sin().sum(), module.h_0)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)
        assert (found != 0).any()
    module.reset_parameters()
    assert (copy.deepcopy(module).h_0 == 0).all()
    native_only()
    with pytest.warns(UserWarning, match=r"torch\.nn can compute, got learn_initial_state; it stays"):
        assert type(lt.restore(module)) is type(module)


@pytest.mark.parametrize("kind", STACKS)
def test_same_bits_for_any_number_of_threads(team, kind):
    module = make(5, 19, 2, kind=kind, bidirectional=True, dtype=torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            lf.set_num_threads(threads)
            (leaf,) = leaves(normal(60, 7, 5).float())
            y, hn = module(leaf)
            assert core.threads_used() == threads
            results.append([y, hn, *torch.autograd.grad(y.sin().sum(), [leaf, *module.parameters()])])
            assert core.threads_used() == threads
    finally:
        torch.set_num_threads(before)
    for each in results[1:]:
        assert all(map(torch.equal, each, results[0]))


def test_a_model_of_all_six_is_accelerated_and_restored():
    torch.manual_seed(0)
    kinds = ("LSTM", "GRU", "RNN", "RNN relu", "LSTMCell", "GRUCell", "RNNCell", "RNNCell relu")
    model = torch.nn.ModuleDict({kind: built(torch.nn, kind, 3, 4) for kind in kinds})
    classes = [type(module) for module in model.values()]
    torch.nn.utils.parametrizations.weight_norm(model["GRU"], "weight_hh_l0")
    parameters, x = dict(model.named_parameters()), normal(2, 2, 3)

    def outputs():
        return {kind: split(each(x[0] if "Cell" in kind else x)) for kind, each in model.items()}

    wanted = outputs()
    assert lt.accelerate(model) is model
    found = outputs()
    for kind, values in wanted.items():
        torch.testing.assert_close(found[kind], values, rtol=1e-12, atol=1e-14)
    names = {name: 1 + (name in ("RNN", "RNNCell")) for name in (each.__name__ for each in classes)}
    native = lt.stats()["native"]
    assert sum(native.values()) == len(kinds)
    assert {name: native[name] for name in names if name != "GRU"} == {k: v for k, v in names.items() if k != "GRU"}
    assert all(value is parameters[name] for name, value in model.named_parameters())
    native_only()
    lt.restore(model)
    assert all(isinstance(module, kind) for module, kind in zip(model.values(), classes, strict=True))
    assert not any(type(module).__module__.startswith("lstm_fast") for module in model.values())
    lt.stats(reset=True)
    outputs()
    assert not lt.stats()["native"]
