"""lstm_fast.torch beside torch.nn in float64: values, gradients, shapes and errors, over everything nn.LSTM takes."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import lstm_fast.torch as lt  # noqa: E402
from torch.nn.utils import rnn  # noqa: E402
from torch_problems import assert_close, drawn, leaves, native_only, pair, solve  # noqa: E402


@pytest.fixture(autouse=True)
def _every_call_is_seen():
    lt.stats(reset=True)


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
        "three states": (x, (h, h, h)),
        "one state": (x, (h,)),
        "no tuple": (x, h),
        "a number": (x, 3),
        "three packed states": (packed, (h, h, h)),
    }


def same_error(theirs, ours, call):
    with pytest.raises(Exception) as wanted:  # noqa: PT011
        theirs(*call)
    with pytest.raises(type(wanted.value)) as found:
        ours(*call)
    assert str(found.value) == str(wanted.value)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("name", wrong_calls())
def test_errors_are_pytorchs(name, grad):
    theirs, ours = pair(2, 5)
    with torch.set_grad_enabled(grad):
        same_error(theirs, ours, wrong_calls()[name])


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [
        ("weight_ih_l0", (20, 3), (20, 2)),
        ("weight_ih_l0", (40,), (20, 2)),
        ("weight_ih_l1_reverse", (20, 5), (20, 6)),
        ("weight_hh_l0_reverse", (20, 5), (20, 3)),
        ("weight_hr_l1", (3, 4), (3, 5)),
        ("bias_hh_l1", (20, 1), (20,)),
    ],
)
def test_a_parameter_of_another_shape_is_named(name, shape, wanted):
    """PyTorch's type, and in place of "mat1 and mat2" the parameter."""
    x = torch.zeros(4, 3, 2, dtype=torch.float64)
    message = re.escape(f"{name}: expected shape {wanted}, got {shape}")
    theirs, ours = pair(2, 5, 2, bidirectional=True, proj_size=3)
    for module in (theirs, ours):
        setattr(module, name, torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64)))
    with pytest.raises(RuntimeError):
        theirs(x)
    calls = x, x[:, 0], rnn.pack_padded_sequence(x, [4, 2, 1])
    for call, grad in itertools.product(calls, (True, False)):
        with torch.set_grad_enabled(grad), pytest.raises(RuntimeError, match=f"^{message}$"):
            ours(call)
    with pytest.raises(Exception, match=message):  # of dynamo, around ours
        torch.compile(ours, fullgraph=True, backend="eager")(x)


@pytest.mark.parametrize(("name", "shape", "wanted"), [("weight_ih", (20, 3), (20, 2)), ("bias_hh", (19,), (20,))])
def test_a_parameter_of_a_cell_is_named(name, shape, wanted):
    ours = lt.LSTMCell(2, 5)
    setattr(ours, name, torch.nn.Parameter(torch.zeros(shape)))
    message = re.escape(f"{name}: expected shape {wanted}, got {shape}")
    for state, grad in itertools.product((None, (torch.zeros(3, 5),) * 2), (True, False)):
        with torch.set_grad_enabled(grad), pytest.raises(RuntimeError, match=f"^{message}$"):
            ours(torch.zeros(3, 2), state)


def test_parameters_of_a_module_of_another_size():
    """All of them together would be right, but for other states."""
    ours = lt.LSTM(2, 5)
    for name, value in lt.LSTM(2, 6).named_parameters():
        setattr(ours, name, value)
    with pytest.raises(RuntimeError, match=r"^weight_ih_l0: expected shape \(20, 2\), got \(24, 2\)$"):
        ours(torch.zeros(4, 3, 2))


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
        (torch.zeros(3, 2), (None, None)),
        (torch.zeros(3, 2), (h, None)),
        (torch.zeros(3, 2), (h, h, h)),
        (torch.zeros(3, 2), (h,)),
        (torch.zeros(3, 2), torch.zeros(2, 3, 5)),
        (None, (h, h)),
    ]
    for call, grad in itertools.product(calls, (True, False)):
        with torch.set_grad_enabled(grad):
            same_error(theirs, ours, call)


def cell_tensors(dtype):
    """The same values of (x, h, c) as dense tensors, and as those that a step cannot take as they stand."""
    x, h, c = (torch.randn(3, width, dtype=dtype) for width in (5, 9, 9))
    negative = torch.complex(torch.zeros_like(h), -h).conj().imag  # its memory holds -h
    assert negative.is_neg()
    inside = torch.cat([c, c, c])[3:6]  # at an offset in its storage
    return {
        "dense": (x, h, c),
        "transposed": (x.t().contiguous().t(), h.t().contiguous().t(), c),
        "every other column": (torch.stack([x, x], -1).flatten(1)[:, ::2], h, c),
        "one row for all": (x, h[:1].expand(3, 9), inside),
        "negative bit": (x, negative, c),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
def test_cell_without_a_graph_takes_any_tensor(bias, dtype):
    ours = lt.LSTMCell(5, 9, bias, dtype=dtype)
    theirs = torch.nn.LSTMCell(5, 9, bias, dtype=dtype)
    theirs.load_state_dict(ours.state_dict())
    for name, (x, h, c) in cell_tensors(dtype).items():
        dense = ours(x.clone(), (h.resolve_neg().clone(memory_format=torch.contiguous_format), c.clone()))
        with torch.no_grad():
            found = ours(x, (h, c))
            expected = theirs(x, (h, c))
        for one, other, truth in zip(found, dense, expected, strict=True):
            assert torch.equal(one, other), name
            assert one.is_contiguous()
            assert not one.requires_grad
            torch.testing.assert_close(one, truth)
    transposed = {name: value.detach().t().contiguous().t() for name, value in ours.named_parameters()}
    with torch.no_grad():
        assert torch.equal(torch.func.functional_call(ours, transposed, (x, (h, c)))[0], dense[0])
    native_only()


def test_results_of_a_step_outlive_everything_else():
    ours = lt.LSTMCell(4, 6)
    x, state = torch.randn(2, 4), (torch.randn(2, 6), torch.randn(2, 6))
    with torch.no_grad():
        first = ours(x, state)
        kept = [value.clone() for value in first]
        for _ in range(50):
            state = ours(x, state)
        first[0].add_(1)  # results can be written to
    assert torch.equal(first[0], kept[0] + 1)
    assert torch.equal(first[1], kept[1])


def test_weights_of_a_step_must_not_change_before_backward():
    for module in (torch.nn.LSTMCell(3, 4), lt.LSTMCell(3, 4)):
        hn, _ = module(torch.randn(2, 3), (torch.randn(2, 4, requires_grad=True), torch.randn(2, 4)))
        with torch.no_grad():
            module.weight_hh.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            hn.sum().backward()
