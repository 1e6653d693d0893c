"""lstm_fast.torch beside torch.nn in float64: values, gradients, shapes and errors, over everything nn.LSTM takes."""

from __future__ import annotations

import copy
import io
import pickle

import lstm_fast as lf
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import lstm_fast.torch as lt  # noqa: E402
from torch.nn.utils import rnn  # noqa: E402


@pytest.fixture(autouse=True)
def _every_call_is_seen():
    lt.stats(reset=True)


def native_only():
    found = lt.stats()
    assert found["native"]
    assert not found["formula"]
    assert not found["fallback"]


def pair(*sizes, **options):
    """The module of torch.nn and ours, with the same parameters."""
    options.setdefault("dtype", torch.float64)
    theirs = torch.nn.LSTM(*sizes, **options)
    ours = lt.LSTM(*sizes, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def leaves(*tensors):
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def solve(module, x, state, lengths=None, seed=0):
    """Outputs and gradients of a random combination of the outputs, packed if there are lengths."""
    x, *state = leaves(x, *state)
    module.zero_grad()
    if lengths is None:
        y, (hn, cn) = module(x, tuple(state))
    else:
        packed = rnn.pack_padded_sequence(x, lengths, batch_first=module.batch_first, enforce_sorted=False)
        output, (hn, cn) = module(packed, tuple(state))
        y, _ = rnn.pad_packed_sequence(output, batch_first=module.batch_first)
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.dtype) for t in (y, hn, cn)]
    sum((t * w).sum() for t, w in zip((y, hn, cn), weights, strict=True)).backward()
    found = {"y": y, "hn": hn, "cn": cn, "dx": x.grad, "dh0": state[0].grad, "dc0": state[1].grad}
    return found | {name: parameter.grad for name, parameter in module.named_parameters()}


def assert_close(found, wanted, relative=1e-10):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].shape == value.shape, name
        assert found[name].dtype == value.dtype, name
        error = (found[name] - value).abs().max() if value.numel() else 0
        scale = value.abs().max() if value.numel() else 1
        assert error <= relative * scale, f"{name}: {error} of {scale}"


def drawn(seed):
    """A random configuration, its input, states and lengths."""
    rng = np.random.default_rng(seed)
    layers, directions = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    inputs, hidden = int(rng.integers(1, 20)), int(rng.integers(2, 40))
    proj = int(rng.integers(1, hidden)) if rng.random() < 0.3 else 0
    steps, batch = int(rng.integers(1, 12)), int(rng.integers(1, 9))
    batch_first, unbatched = bool(rng.random() < 0.5), bool(rng.random() < 0.15)
    options = {"bias": bool(rng.random() < 0.7), "batch_first": batch_first, "bidirectional": directions == 2}
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    if unbatched:
        x, states = normal(steps, inputs), (layers * directions,)
    else:
        x = normal(batch, steps, inputs) if batch_first else normal(steps, batch, inputs)
        states = (layers * directions, batch)
    lengths = None
    if not unbatched and rng.random() < 0.5:
        lengths = rng.integers(1, steps + 1, batch)
        lengths[rng.integers(batch)] = steps  # pad_packed_sequence gives the longest back
    sizes = (inputs, hidden, layers)
    return sizes, options | {"proj_size": proj}, x, (normal(*states, proj or hidden), normal(*states, hidden)), lengths


@pytest.mark.parametrize("seed", range(0, 500, 25))
def test_equals_nn_lstm(seed):
    """25 of 500 drawn: layers, directions, projection, bias, batch_first, unbatched, packed, unsorted."""
    for each in range(seed, seed + 25):
        sizes, options, x, state, lengths = drawn(each)
        theirs, ours = pair(*sizes, **options)
        assert_close(solve(ours, x, state, lengths), solve(theirs, x, state, lengths))
    native_only()


@pytest.mark.parametrize("seed", range(500, 540))
def test_float32_equals_float64(seed):
    """The errors of float32 sums of up to 40 terms over up to 36 steps, forth and back."""
    sizes, options, x, state, lengths = drawn(seed)
    theirs, ours = pair(*sizes, **options)
    ours.float()
    found = solve(ours, x.float(), [s.float() for s in state], lengths)
    wanted = {name: value.float() for name, value in solve(theirs, x, state, lengths).items()}
    assert_close(found, wanted, 2e-5)
    native_only()


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_lengths_of_a_padded_batch(bidirectional, batch_first):
    """As packed, bit for bit; NaN in the padding reaches nothing, and a row of length 0 keeps its state."""
    _, ours = pair(5, 9, 2, bidirectional=bidirectional, batch_first=batch_first)
    lengths = [3, 7, 1, 7]
    x = torch.randn(7, 4, 5, dtype=torch.float64)
    beyond = torch.arange(7)[:, None] >= torch.tensor(lengths)
    x[beyond] = torch.nan
    x = x.transpose(0, 1) if batch_first else x
    packed = rnn.pack_padded_sequence(x, lengths, batch_first=batch_first, enforce_sorted=False)
    wanted, state = ours(packed)
    wanted, _ = rnn.pad_packed_sequence(wanted, batch_first=batch_first)
    for given in (lengths, torch.tensor(lengths), np.array(lengths)):
        leaf = x.clone().requires_grad_()
        y, found = ours(leaf, lengths=given)
        assert torch.equal(y, wanted)
        assert all(map(torch.equal, found, state))
        (gradient,) = torch.autograd.grad(y.square().sum(), leaf)
        gradient = gradient.transpose(0, 1) if batch_first else gradient
        assert (gradient[beyond] == 0).all()
        assert gradient[~beyond].isfinite().all()
    empty = [0, 7, 0, 7]
    states = tuple(torch.randn(2 * (1 + bidirectional), 4, 9, dtype=torch.float64) for _ in range(2))
    _, (hn, cn) = ours(x.nan_to_num(), states, lengths=empty)
    assert torch.equal(hn[:, ::2], states[0][:, ::2])
    assert torch.equal(cn[:, ::2], states[1][:, ::2])


@pytest.mark.parametrize(
    ("lengths", "error"),
    [([1, 2], ValueError), ([1, 2, 9], ValueError), ([1, -1, 2], ValueError), ([1.0, 2.0, 3.0], TypeError)],
)
def test_wrong_lengths(lengths, error):
    _, ours = pair(2, 3)
    with pytest.raises(error, match="lengths: expected"):
        ours(torch.zeros(4, 3, 2, dtype=torch.float64), lengths=lengths)
    packed = rnn.pack_padded_sequence(torch.zeros(4, 3, 2, dtype=torch.float64), [4, 4, 4])
    with pytest.raises(ValueError, match="lengths: expected None with a PackedSequence"):
        ours(packed, lengths=[4, 4, 4])


def wrong_calls():
    x = torch.zeros(4, 3, 2, dtype=torch.float64)
    h = torch.zeros(1, 3, 5, dtype=torch.float64)
    packed = rnn.pack_padded_sequence(x, [4, 2, 1])
    return {
        "one dimension": (x[0, 0],),
        "four dimensions": (x[None],),
        "input size": (x[..., :1],),
        "dtype": (x.float(),),
        "half": (x.half(),),
        "hidden batch": (x, (h[:, :2], h)),
        "cell batch": (x, (h, h[:, :2])),
        "hidden size": (x, (h[..., :4], h)),
        "layers": (x, (h.expand(2, 3, 5), h)),
        "state of an unbatched input": (x[:, 0], (h, h)),
        "unbatched state": (x, (h[:, 0], h[:, 0])),
        "dtype of the state": (x, (h.float(), h.float())),
        "no steps": (x[:0],),
        "packed input size": (packed._replace(data=packed.data[:, :1]),),
        "packed state": (packed, (h[:, :2], h[:, :2])),
    }


@pytest.mark.parametrize("name", wrong_calls())
def test_errors_are_pytorchs(name):
    theirs, ours = pair(2, 5)
    call = wrong_calls()[name]
    with pytest.raises(Exception) as wanted:  # noqa: PT011
        theirs(*call)
    with pytest.raises(type(wanted.value)) as found:
        ours(*call)
    assert str(found.value) == str(wanted.value)


def test_cell_equals_nn_lstm_cell():
    for bias in (True, False):
        theirs = torch.nn.LSTMCell(5, 9, bias, dtype=torch.float64)
        ours = lt.LSTMCell(5, 9, bias, dtype=torch.float64)
        ours.load_state_dict(theirs.state_dict())
        for lead in ((), (1,), (4,)):
            x, h, c = (torch.randn(*lead, width, dtype=torch.float64) for width in (5, 9, 9))
            for state in (None, (h, c)):
                results = []
                for module in (theirs, ours):
                    inputs = leaves(x, *(state or ()))
                    module.zero_grad()
                    hn, cn = module(inputs[0], tuple(inputs[1:]) or None)
                    (hn.sin().sum() + cn.square().sum()).backward()
                    results.append(
                        {"h": hn, "c": cn}
                        | {str(at): leaf.grad for at, leaf in enumerate(inputs)}
                        | {name: parameter.grad for name, parameter in module.named_parameters()}
                    )
                assert_close(results[1], results[0])
    native_only()


def test_errors_of_the_cell_are_pytorchs():
    theirs, ours = torch.nn.LSTMCell(2, 5), lt.LSTMCell(2, 5)
    h = torch.zeros(3, 5)
    calls = [
        (torch.zeros(1, 3, 2),),
        (torch.zeros(3, 4),),
        (torch.zeros(3, 2), (h[:2], h[:2])),
        (torch.zeros(3, 2), (h, h[:, :4])),
        (torch.zeros(3, 2), (h[None], h[None])),
        (torch.zeros(3, 2).double(),),
    ]
    for call in calls:
        with pytest.raises(Exception) as wanted:  # noqa: PT011
            theirs(*call)
        with pytest.raises(type(wanted.value)) as found:
            ours(*call)
        assert str(found.value) == str(wanted.value)


# --- the module as a module ---


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
        | {"d": torch.nn.GRU(3, 4), "e": torch.nn.Linear(3, 4)}
    )
    before = dict(model.named_parameters())
    assert lt.accelerate(model, report=True) is model
    printed = capsys.readouterr().out
    assert "swapped: 2" in printed
    assert "a: LSTM(3, 4)" in printed
    assert "b.0: LSTMCell(3, 4)" in printed
    assert "c: Own(3, 4): a subclass" in printed
    assert "d: GRU(3, 4): lstm_fast has no such cell" in printed
    assert [type(model[name]) for name in "acd"] == [lt.LSTM, Own, torch.nn.GRU]
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
