"""GRU, RNN and their cells of lstm_fast.torch in PyTorch's differentiation."""

from __future__ import annotations

import warnings

import pytest

torch = pytest.importorskip("torch")

import lstm_fast.torch as lt  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402
from torch.func import functional_call, grad, jvp, vmap  # noqa: E402
from torch.nn.utils import rnn  # noqa: E402
from torch_problems import CELLS, STACKS, leaves, make, native_only, normal, pair  # noqa: E402

STACKS = [kind for kind in STACKS if kind != "LSTM"]
CELLS = [kind for kind in CELLS if kind != "LSTMCell"]

# PyTorch's own uses of what it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def _every_call_is_seen():
    lt.stats(reset=True)


def assert_close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


FORMS = {
    "plain": {},
    "packed": {"num_layers": 2, "bidirectional": True},
    "no bias": {"bias": False, "batch_first": True},
    "dropout": {"num_layers": 2, "dropout": 0.5},
}


def problem(kind, form):
    """A function of x, h0 and the parameters, and its leaves."""
    module = make(2, 3, kind=kind, **FORMS[form])
    names = [name for name, _ in module.named_parameters()]

    def run(x, h0, *parameters):
        torch.manual_seed(1)  # the same masks
        if form == "packed":
            x = rnn.pack_padded_sequence(x, [2, 3], enforce_sorted=False)
        y, hn = functional_call(module, dict(zip(names, parameters, strict=True)), (x, h0))
        return y.data if form == "packed" else y, hn

    x = normal(2, 3, 2) if module.batch_first else normal(3, 2, 2)
    return run, leaves(x, normal(module.num_layers * (1 + module.bidirectional), 2, 3), *module.parameters())


@pytest.mark.parametrize("kind", STACKS)
@pytest.mark.parametrize("form", FORMS)
def test_gradcheck_twice(form, kind):
    function, inputs = problem(kind, form)
    assert torch.autograd.gradcheck(function, inputs)
    assert not lt.stats()["formula"]
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)
    assert set(lt.stats()["formula"]) == {"double backward"}
    assert not lt.stats()["fallback"]


@pytest.mark.parametrize("kind", CELLS)
def test_gradcheck_of_cells_twice(kind):
    module = make(2, 3, kind=kind)
    inputs = (*leaves(normal(2, 2), normal(2, 3)), *module.parameters())
    assert torch.autograd.gradcheck(lambda x, h, *_: module(x, h), inputs)
    assert torch.autograd.gradgradcheck(lambda x, h, *_: module(x, h), inputs, fast_mode=True)
    assert set(lt.stats()["formula"]) == {"double backward"}
    assert not lt.stats()["fallback"]


@pytest.mark.parametrize("kind", STACKS)
@pytest.mark.parametrize("form", ["packed", "no bias"])
def test_every_subset_of_leaves(form, kind):
    """Only what requires a gradient gets one, and it is the same."""
    function, inputs = problem(kind, form)

    def gradients(given):
        found = sum((t * normal(*t.shape)).sum() for t in function(*given))
        wanted = [leaf for leaf in given if leaf.requires_grad]
        return dict(zip(map(id, wanted), torch.autograd.grad(found, wanted), strict=True))

    whole = gradients(inputs)
    for alone in range(len(inputs)):
        given = [leaf if at == alone else leaf.detach() for at, leaf in enumerate(inputs)]
        assert torch.equal(gradients(given)[id(inputs[alone])], whole[id(inputs[alone])])
        given = [leaf.detach() if at == alone else leaf for at, leaf in enumerate(inputs)]
        assert all(torch.equal(value, whole[name]) for name, value in gradients(given).items())
    native_only()


@pytest.mark.parametrize("kind", STACKS)
def test_values_and_gradients_by_the_formula(kind):
    """With the masks of the kernels."""
    function, inputs = problem(kind, "dropout")
    plain = torch.autograd.grad(sum(t.square().sum() for t in function(*inputs)), inputs)
    again = torch.autograd.grad(sum(t.square().sum() for t in function(*inputs)), inputs, create_graph=True)
    assert any(g.requires_grad for g in again)
    assert_close(again, plain)
    assert_close(jvp(function, tuple(inputs), tuple(inputs))[0], function(*inputs))


@pytest.mark.parametrize("kind", [*STACKS, *CELLS])
def test_other_differentiations_are_those_of_torch_nn(kind):
    theirs, ours = pair(3, 4, kind=kind)
    x = normal(2, 3) if kind in CELLS else normal(5, 2, 3)

    def output(module):
        return (lambda x: module(x)) if kind in CELLS else (lambda x: module(x)[0])

    def dual(function):
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(function(forward_ad.make_dual(x, x.flip(0)))).tangent

    found, wanted = (
        (
            jvp(output(module), (x,), (x.flip(0),)),
            grad(lambda x: output(module)(x).square().sum())(x),  # noqa: B023
            dual(output(module)),
            torch.autograd.functional.hessian(lambda x: output(module)(x).square().sum(), x),  # noqa: B023
            torch.autograd.functional.jacobian(output(module), x, vectorize=True),
        )
        for module in (ours, theirs)
    )
    assert_close(found, wanted)
    reasons = {"a torch.func transform", "forward-mode differentiation", "double backward", "batched gradients"}
    assert set(lt.stats()["formula"]) == reasons
    assert not lt.stats()["fallback"]


@pytest.mark.parametrize("kind", STACKS)
def test_gradients_per_sample_and_lengths_per_sample(kind):
    module = make(2, 3, kind=kind)
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    x, lengths = normal(3, 4, 2, 2), torch.tensor([[4, 1], [0, 3], [2, 2]])

    def loss(given, sample, lengths):
        return functional_call(module, given, (sample,), {"lengths": lengths})[0].square().sum()

    each = vmap(grad(loss), (None, 0, 0))(parameters, x, lengths)
    for at in range(3):
        module.zero_grad()
        loss(dict(module.named_parameters()), x[at], lengths[at]).backward()
        for name, parameter in module.named_parameters():
            assert_close(each[name][at], parameter.grad)


@pytest.mark.parametrize("kind", STACKS)
def test_one_graph_in_all_its_uses(kind):
    """Used again, by hooks, in anomaly mode, without a graph, by inference, from one output alone."""
    module = make(2, 3, 2, kind=kind)
    x = normal(40, 8, 2)
    parameters = list(module.parameters())
    y, hn = module(x)
    loss = y.square().sum()
    wanted = torch.autograd.grad(loss, parameters, retain_graph=True)
    assert all(map(torch.equal, torch.autograd.grad(loss, parameters), wanted))
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, parameters)
    sizes = []

    def pack(tensor):
        sizes.append(tensor.numel() * tensor.element_size())
        return tensor.clone()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda packed: packed):
        loss = module(x)[0].square().sum()
    assert all(map(torch.equal, torch.autograd.grad(loss, parameters), wanted))
    assert sum(sizes) > 2 * 40 * 8 * 3 * 8  # at least a number of each unit and step
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of its own cost
        with torch.autograd.detect_anomaly(), pytest.raises(RuntimeError, match="returned nan"):
            (module(x)[1].sum() * torch.nan).backward()
    with torch.no_grad():
        assert torch.equal(module(x)[0], y)
    with torch.inference_mode():
        assert torch.equal(module(x)[1], hn)
        assert module(x)[0].is_inference()
    assert not module.requires_grad_(False)(x)[0].requires_grad
    native_only()


@pytest.mark.parametrize("spoil", ["y", "x", "weight"])
@pytest.mark.parametrize("kind", ["GRU", "RNN"])
def test_what_backward_needs_must_not_change(spoil, kind):
    module, x = make(2, 3, kind=kind), normal(4, 2, 2)
    y = module(x)[0]
    loss = y.square().sum()
    with torch.no_grad():
        {"y": y, "x": x, "weight": module.weight_hh_l0}[spoil].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("kind", [*STACKS, *CELLS])
def test_gradients_are_tensors_of_their_own(kind):
    """A change of one, as by clipping, is none of the other; those of the GRU's two biases are not equal."""
    module = make(3, 4, kind=kind)
    parameters = list(module.parameters())
    y = module(normal(2, 3)) if kind in CELLS else module(normal(5, 2, 3))[0]
    found = torch.autograd.grad(y.sum(), parameters)
    assert torch.equal(found[2], found[3]) != kind.startswith("GRU")
    before = [gradient.clone() for gradient in found]
    for at, gradient in enumerate(found):
        gradient.zero_()
        assert all(map(torch.equal, found[at + 1 :], before[at + 1 :]))


@pytest.mark.parametrize("kind", STACKS)
def test_dropout_follows_pytorchs_generator(kind):
    module, x = make(2, 30, 3, kind=kind, dropout=0.5), normal(6, 4, 2)
    torch.manual_seed(7)
    first = module(x)[0]
    assert not torch.equal(module(x)[0], first)
    torch.manual_seed(7)
    with torch.no_grad():
        assert torch.equal(module(x)[0], first)
    state = torch.get_rng_state()
    module.eval()
    assert torch.equal(module(x)[0], module(x)[0])
    assert torch.equal(torch.get_rng_state(), state)
    native_only()
