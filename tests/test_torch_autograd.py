"""lstm_fast.torch in PyTorch's differentiation: subsets, twice, forward mode, torch.func, hooks, what it refuses."""

from __future__ import annotations

import warnings

import pytest

torch = pytest.importorskip("torch")

import lstm_fast.torch as lt  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402
from torch.nn.utils import rnn  # noqa: E402


@pytest.fixture(autouse=True)
def _every_call_is_seen():
    lt.stats(reset=True)


def make(*sizes, **options):
    torch.manual_seed(0)
    return lt.LSTM(*sizes, dtype=torch.float64, **options)


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


MODULES = [
    {"num_layers": 1},
    {"num_layers": 2, "bidirectional": True, "proj_size": 2},
    {"num_layers": 2, "bias": False, "batch_first": True},
]


def outputs_of(module, packed):
    """A function of x, h0, c0 and the parameters that gives y, hn and cn."""
    names = [name for name, _ in module.named_parameters()]

    def run(x, h0, c0, *parameters):
        if packed:
            x = rnn.pack_padded_sequence(x, [2, 3], batch_first=module.batch_first, enforce_sorted=False)
        given = dict(zip(names, parameters, strict=True))
        y, (hn, cn) = torch.func.functional_call(module, given, (x, (h0, c0)))
        return (y.data if packed else y), hn, cn

    return run


def inputs_of(module):
    count = module.num_layers * (1 + module.bidirectional)
    x = normal(2, 3, 2) if module.batch_first else normal(3, 2, 2)
    given = (x, normal(count, 2, module.proj_size or 3), normal(count, 2, 3))
    return tuple(t.detach().clone().requires_grad_() for t in (*given, *module.parameters()))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("options", MODULES)
def test_gradcheck_twice(options, packed):
    module = make(2, 3, **options)
    function, inputs = outputs_of(module, packed), inputs_of(module)
    assert torch.autograd.gradcheck(function, inputs)
    assert not lt.stats()["formula"]
    assert torch.autograd.gradgradcheck(function, inputs)
    assert set(lt.stats()["formula"]) == {"double backward"}
    assert not lt.stats()["fallback"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("options", MODULES)
def test_every_subset_of_leaves(options, packed):
    """Only what requires a gradient gets one, and it is the same."""
    module = make(2, 3, **options)
    function, inputs = outputs_of(module, packed), inputs_of(module)
    weights = [normal(*t.shape) for t in function(*inputs)]

    def gradients(leaves):
        found = sum((t * w).sum() for t, w in zip(function(*leaves), weights, strict=True))
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        return dict(zip(map(id, wanted), torch.autograd.grad(found, wanted), strict=True))

    whole = gradients(inputs)
    for alone in range(len(inputs)):
        leaves = [leaf if at == alone else leaf.detach() for at, leaf in enumerate(inputs)]
        assert torch.equal(gradients(leaves)[id(inputs[alone])], whole[id(inputs[alone])])
        leaves = [leaf.detach() if at == alone else leaf for at, leaf in enumerate(inputs)]
        assert all(torch.equal(value, whole[name]) for name, value in gradients(leaves).items())


@pytest.mark.parametrize("used", [(0,), (1,), (2,), (0, 2)])
def test_some_outputs_only(used):
    module, reference = make(2, 3, 2), torch.nn.LSTM(2, 3, 2, dtype=torch.float64)
    reference.load_state_dict(module.state_dict())
    x = normal(4, 2, 2)
    found = []
    for each in (module, reference):
        y, (hn, cn) = each(x)
        sum((y, hn, cn)[at].square().sum() for at in used).backward()
        found.append([p.grad for p in each.parameters()])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)


def test_no_graph_where_none_is_wanted():
    module = make(2, 3)
    x = normal(4, 2, 2)
    with torch.no_grad():
        assert not module(x)[0].requires_grad
    with torch.inference_mode():
        assert module(x)[0].is_inference()
    assert not module.requires_grad_(False)(x)[0].requires_grad
    assert module(x.requires_grad_())[0].requires_grad


def test_graph_can_be_used_again():
    module = make(2, 3)
    y = module(normal(4, 2, 2))[0].square().sum()
    first = torch.autograd.grad(y, list(module.parameters()), retain_graph=True)
    again = torch.autograd.grad(y, list(module.parameters()))
    assert all(map(torch.equal, first, again))
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(y, list(module.parameters()))


@pytest.mark.parametrize("spoil", ["y", "x", "weight"])
def test_what_backward_needs_must_not_change(spoil):
    module = make(2, 3)
    x = normal(4, 2, 2)
    y = module(x)[0]
    loss = y.square().sum()
    with torch.no_grad():
        {"y": y, "x": x, "weight": module.weight_hh_l0}[spoil].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_saved_tensor_hooks_see_everything():
    """All memory between forward and backward passes the hooks, and copies of it serve as well as the originals."""
    module = make(2, 3, 2)
    x = normal(40, 8, 2)
    wanted = torch.autograd.grad(module(x)[0].square().sum(), list(module.parameters()))
    sizes = []

    def pack(tensor):
        sizes.append(tensor.numel() * tensor.element_size())
        # One byte further: where a copy stands is not for us to say.
        raw = tensor.detach().contiguous().view(-1).view(torch.uint8)
        moved = torch.empty(raw.numel() + 1, dtype=torch.uint8)[1:] if tensor.dtype == torch.uint8 else None
        return (tensor.clone() if moved is None else moved.copy_(raw)), tensor.shape

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda packed: packed[0].view(packed[1])):
        y = module(x)[0].square().sum()
    found = torch.autograd.grad(y, list(module.parameters()))
    assert all(map(torch.equal, found, wanted))
    # Gates and cell states of two layers, at the least.
    assert sum(sizes) > 2 * 40 * 8 * (4 * 3 + 3) * 8


def test_checkpoint():
    from torch.utils.checkpoint import checkpoint

    module = make(2, 3, 2, dropout=0.5)
    x = normal(4, 2, 2).requires_grad_()
    torch.manual_seed(5)
    (wanted,) = torch.autograd.grad(module(x)[0].square().sum(), x)
    torch.manual_seed(5)
    y = checkpoint(lambda t: module(t)[0], x, use_reentrant=False)
    (found,) = torch.autograd.grad(y.square().sum(), x)
    assert torch.equal(found, wanted)


def test_anomaly_mode():
    module = make(2, 3)
    x = normal(4, 2, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of its own cost
        with torch.autograd.detect_anomaly():
            module(x)[0].sum().backward()
        with torch.autograd.detect_anomaly(), pytest.raises(RuntimeError, match="returned nan"):
            module(x * torch.nan)[0].sum().backward()


# --- what the kernels do not do ---


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # PyTorch's own use of it
def test_forward_mode():
    module = make(2, 3, 2, bidirectional=True)
    x, tangent = normal(4, 2, 2), normal(4, 2, 2).flip(0)
    y, slope = torch.func.jvp(lambda t: module(t)[0], (x,), (tangent,))
    assert torch.allclose(y, module(x)[0], rtol=1e-12, atol=1e-14)
    small = 1e-6
    difference = (module(x + small * tangent)[0] - module(x - small * tangent)[0]) / (2 * small)
    assert torch.allclose(slope, difference, atol=1e-8)  # small^2 times a third derivative of order 1, and rounding
    with forward_ad.dual_level():
        dual = module(forward_ad.make_dual(x, tangent))[0]
        assert torch.allclose(forward_ad.unpack_dual(dual).tangent, slope)
    assert set(lt.stats()["formula"]) == {"a torch.func transform", "forward-mode differentiation"}


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # PyTorch's own use of it
def test_transforms_take_lengths_as_tensors():
    """Around the transform, as an argument, and of each sample."""
    module, x, lengths = make(3, 4), normal(5, 3, 3), torch.tensor([2, 5, 0])
    leaf = x.clone().requires_grad_()

    def loss(x, lengths):
        return module(x, lengths=lengths)[0].square().sum()

    (wanted,) = torch.autograd.grad(loss(leaf, lengths), leaf)
    both, others = torch.stack([x, x]), torch.stack([lengths, lengths.flip(0)])
    torch.testing.assert_close(torch.func.grad(lambda x: loss(x, lengths))(x), wanted)
    torch.testing.assert_close(torch.func.grad(loss)(x, lengths), wanted)
    slope = torch.func.jvp(lambda x: loss(x, lengths), (x,), (x,))[1]
    torch.testing.assert_close(slope, (wanted * x).sum())
    each = torch.func.vmap(torch.func.grad(loss))(both, others)
    torch.testing.assert_close(each[0], wanted)
    torch.testing.assert_close(each[1], torch.func.grad(loss)(x, others[1]))
    with pytest.raises(ValueError, match=r"^lengths: expected shape \(3,\), got \(2,\)"):
        torch.func.grad(loss)(x, lengths[:2])
    with pytest.raises(TypeError, match=r"^lengths: expected integers, got dtype torch.float32"):
        torch.func.grad(loss)(x, lengths.float())


def test_functional_gradient_and_per_sample_gradients():
    module = make(2, 3)
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    x = normal(5, 4, 2)  # 5 samples of 4 steps

    def loss(given, sample):
        return torch.func.functional_call(module, given, (sample,))[0].square().sum()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    for at in range(5):
        module.zero_grad()
        module(x[at])[0].square().sum().backward()
        for name, parameter in module.named_parameters():
            assert torch.allclose(each[name][at], parameter.grad, rtol=1e-10, atol=1e-13)


# --- dropout ---


def test_dropout_follows_pytorchs_generator():
    module = make(2, 30, 3, dropout=0.5)
    x = normal(6, 4, 2)
    torch.manual_seed(7)
    first = module(x)[0]
    assert not torch.equal(module(x)[0], first)
    torch.manual_seed(7)
    assert torch.equal(module(x)[0], first)
    state = torch.get_rng_state()
    module.eval()
    assert torch.equal(module(x)[0], module(x)[0])
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(module(x)[0], first)


def test_dropout_needs_no_graph():
    """A training module drops under no_grad, too, with the same masks: reentrant checkpoints rely on it."""
    module = make(2, 30, 2, dropout=0.5)
    x = normal(6, 4, 2)
    torch.manual_seed(7)
    wanted = module(x)[0]
    for run in (module, torch.compile(module, fullgraph=True, backend="aot_eager")):
        torch.manual_seed(7)
        with torch.no_grad():
            assert torch.equal(run(x)[0], wanted)


@pytest.mark.parametrize("packed", [False, True])
def test_dropout_has_one_mask_for_values_and_all_gradients(packed):
    """The formula, with the same seed, gives the same values and gradients."""
    module = make(2, 3, 2, dropout=0.5, bidirectional=True)
    function, inputs = outputs_of(module, packed), inputs_of(module)

    def run():
        torch.manual_seed(11)
        y, hn, cn = function(*inputs)
        return y.square().sum() + hn.sum() + cn.sin().sum()

    plain = torch.autograd.grad(run(), inputs)
    differentiable = torch.autograd.grad(run(), inputs, create_graph=True)
    assert any(g.requires_grad for g in differentiable)
    for one, other in zip(plain, differentiable, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-13)


def test_all_dropped():
    module = make(2, 3, 2, dropout=1.0)
    x = normal(4, 2, 2).requires_grad_()
    module(x)[0].sum().backward()
    assert (x.grad == 0).all()


# --- what is left to torch.nn, and said ---


def test_fallbacks_are_counted_with_their_reason(caplog, monkeypatch):
    monkeypatch.setenv("LSTM_FAST_VERBOSE", "1")
    module = lt.LSTM(2, 3)
    x = torch.zeros(4, 2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        module(x)
        module(x)
    meta = lt.LSTM(2, 3, device="meta")
    assert meta(x.to("meta"))[0].device.type == "meta"
    assert lt.stats() == {"native": {}, "formula": {}, "fallback": {"autocast": 2, "a tensor on meta": 1}}
    said = [record.getMessage() for record in caplog.records]
    assert [text for text in said if "autocast" in text] == ["a call was left to torch.nn: autocast"]


def test_traced():
    module = lt.LSTM(2, 3)
    x = torch.randn(4, 2, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, (x,))
    assert torch.allclose(traced(2 * x)[0], module(2 * x)[0], atol=1e-6)


def test_gradients_are_tensors_of_their_own():
    """Those of the two biases are equal, but a change of one, as by clipping, is none of the other."""
    for module, outputs in (
        (lt.LSTM(3, 4), lambda module: module(torch.ones(2, 1, 3))[0]),
        (lt.LSTMCell(3, 4), lambda module: module(torch.ones(1, 3))[0]),
    ):
        parameters = list(module.parameters())
        found = torch.autograd.grad(outputs(module).sum(), parameters)
        before = [gradient.clone() for gradient in found]
        for at, gradient in enumerate(found):
            gradient.zero_()
            for later, expected in zip(found[at + 1 :], before[at + 1 :], strict=True):
                assert torch.equal(later, expected)
