"""The references of GRU and RNN: PyTorch, ONNX Runtime, finite differences, and products that can be written down."""

from __future__ import annotations

import itertools

import lstm_fast as lf
import numpy as np
import pytest
from judge import assert_all_same_bits, distance, tolerance
from onnx_problems import onnx_outputs
from reference_problems import assert_gradients_are_numeric, draw_case

SHAPES = [(1, 1, 1, 1), (4, 3, 2, 5), (9, 4, 8, 17)]
LENGTHS = {(1, 1, 1, 1): [1], (4, 3, 2, 5): [2, 4, 1], (9, 4, 8, 17): [3, 9, 1, 7]}
BIAS = [("b_ih", "b_hh"), (), ("b_ih",), ("b_hh",)]
KINDS = [("gru", {}), ("gru", {"reset_after": False})]
KINDS += [("rnn", {"nonlinearity": name}) for name in ("tanh", "relu", "sigmoid", "identity")]
IN_PYTORCH = [("gru", {}), ("rnn", {"nonlinearity": "tanh"}), ("rnn", {"nonlinearity": "relu"})]


def torch_solution(case, lengths, reverse):
    """Values and gradients of torch.nn.GRU or RNN in float64; the second direction of two where ``reverse``."""
    torch = pytest.importorskip("torch", reason="PyTorch is the second opinion on the reference")
    inputs, hidden = case.arrays["w_ih"].shape[1], case.arrays["w_hh"].shape[1]
    made = {"gru": torch.nn.GRU, "rnn": torch.nn.RNN}[case.cell]
    module = made(inputs, hidden, bidirectional=reverse, dtype=torch.float64, **case.options)
    names = {
        short: f"weight_{short[2:]}_l0" if short[0] == "w" else f"bias_{short[2:]}_l0"
        for short in ("w_ih", "w_hh", "b_ih", "b_hh")
    }
    parameters = {short: getattr(module, name + "_reverse" * reverse) for short, name in names.items()}
    with torch.no_grad():
        for short, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(case.arrays.get(short, np.zeros(parameter.shape))))
    x, h0 = (torch.from_numpy(case.arrays[name]).requires_grad_() for name in ("x", "h0"))
    start = torch.stack([torch.zeros_like(h0), h0]) if reverse else h0[None]
    if lengths is None:
        y, hn = module(x, start)
    else:
        rnn = torch.nn.utils.rnn
        y, hn = module(rnn.pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False), start)
        y, _ = rnn.pad_packed_sequence(y, total_length=len(x))
    y, hn = y[..., -hidden:], hn[-1]
    torch.autograd.backward([y, hn], [torch.from_numpy(case.upstream[name]) for name in ("dy", "dhn")])
    grads = {"x": x, "h0": h0} | {short: parameters[short] for short in parameters if short in case.arrays}
    return {"y": y.detach().numpy(), "hn": hn.detach().numpy()}, {
        name: each.grad.numpy() for name, each in grads.items()
    }


@pytest.mark.parametrize(("cell", "options"), IN_PYTORCH)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", BIAS)
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_values_and_gradients_are_those_of_pytorch(cell, options, shape, bias, ragged, reverse):
    case = draw_case(cell, shape, bias=bias, scale=shape[3] ** -0.5, **options)
    lengths = LENGTHS[shape] if ragged else None
    truth = torch_solution(case, lengths, reverse)
    ours = case.optional(lengths=lengths, reverse=reverse).solve()
    for found, wanted in zip(ours, truth, strict=True):
        assert set(found) == set(wanted)
        for name, value in found.items():
            assert distance(value, wanted[name]) <= 1e-13, name  # float64, other sum orders


@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, [3, 9, 1, 7]])
def test_gru_is_that_of_onnx_runtime(reset_after, reverse, lengths):
    shape = (9, 4, 8, 17)
    case = draw_case("gru", shape, scale=17**-0.5, reset_after=reset_after, lengths=lengths, reverse=reverse)
    theirs = onnx_outputs(case, lengths=lengths, reverse=reverse, linear_before_reset=int(reset_after))
    outputs, _ = case.forward()
    for (name, ours), other in zip(outputs.items(), theirs, strict=True):
        # ONNX Runtime computes in float32: the tolerance of our own kernels of that dtype.
        assert distance(other, ours) <= tolerance(*shape, "float32", backward=False), name


@pytest.mark.parametrize(("cell", "options"), KINDS)
@pytest.mark.parametrize("bias", BIAS)
def test_gradients_are_those_of_finite_differences(cell, options, bias):
    assert_gradients_are_numeric(draw_case(cell, bias=bias, **options))


@pytest.mark.parametrize(("cell", "options"), KINDS)
def test_ragged_and_reverse_gradients_are_those_of_finite_differences(cell, options):
    assert_gradients_are_numeric(draw_case(cell, lengths=[3, 0, 5], reverse=True, **options))


@pytest.mark.parametrize(("cell", "options"), KINDS)
def test_a_ragged_row_is_computed_as_if_alone(cell, options):
    case = draw_case(cell, (6, 3, 2, 4), reverse=True, **options)
    outputs, grads = case.optional(lengths=[4, 0, 6]).solve()
    np.testing.assert_array_equal(outputs["hn"][1], case.arrays["h0"][1])
    np.testing.assert_array_equal(grads["h0"][1], case.upstream["dhn"][1])
    for row, length in enumerate([4, 0, 6]):
        assert not outputs["y"][length:, row].any()
        assert not grads["x"][length:, row].any()
        if length:
            alone, _ = case.replace(x=case.arrays["x"][:length, [row]], h0=case.arrays["h0"][[row]]).forward()
            assert distance(outputs["y"][:length, [row]], alone["y"]) <= 1e-15 * 10  # BLAS may sum in another order


@pytest.mark.parametrize(("cell", "options"), KINDS)
def test_cell_is_one_step(cell, options):
    case = draw_case(cell, (1, 3, 4, 5), **options)
    outputs, _ = case.forward()
    arrays = dict(case.arrays)
    x, h = arrays.pop("x")[0], arrays.pop("h0")
    found = getattr(lf.reference, f"{cell}_cell")(x, h, **arrays, **options)
    np.testing.assert_array_equal(found, outputs["hn"])
    np.testing.assert_array_equal(found, outputs["y"][0])


@pytest.mark.parametrize(("cell", "options"), KINDS)
def test_missing_gradients_are_zero_and_backward_can_be_called_again(cell, options):
    case = draw_case(cell, **options)
    _, reserve = case.forward()
    backward = getattr(lf.reference, f"{cell}_backward")
    assert all(not value.any() for value in backward(reserve).values())
    assert_all_same_bits(case.gradients(reserve), case.gradients(reserve))
    parts = [case.gradients(reserve, **{name: value}) for name, value in case.upstream.items()]
    for name, value in case.gradients(reserve).items():
        assert distance(sum(part[name] for part in parts), value) <= 1e-13  # the order of the sums


@pytest.mark.parametrize(("cell", "options"), KINDS)
def test_inference_keeps_no_reserve_and_float32_stays_float32(cell, options):
    case = draw_case(cell, **options)
    single, reserve = case.forward(save=None, dtype=np.float32)
    assert reserve is None
    double, reserve = case.forward()
    _, narrow = case.forward(dtype=np.float32)
    for name, value in single.items():
        assert value.dtype == np.float32
        assert distance(value, double[name]) <= tolerance(5, 3, 2, 4, "float32", backward=False)
    wide = case.gradients(reserve)
    for name, value in case.gradients(narrow).items():
        assert value.dtype == np.float32
        assert distance(value, wide[name]) <= tolerance(5, 3, 2, 4, "float32", backward=True), name


def test_only_a_reset_after_the_product_tells_the_biases_apart():
    for reset_after in (True, False):
        _, grads = draw_case("gru", reset_after=reset_after).solve()
        (r_ih, z_ih, n_ih), (r_hh, z_hh, n_hh) = (np.split(grads[name], 3) for name in ("b_ih", "b_hh"))
        np.testing.assert_array_equal([r_ih, z_ih], [r_hh, z_hh])
        assert (n_ih == n_hh).all() != reset_after


def test_relu_passes_no_gradient_at_zero():
    arrays = {"x": np.zeros((1, 1, 1)), "h0": np.zeros((1, 1)), "w_ih": np.ones((1, 1)), "w_hh": np.ones((1, 1))}
    y, _, reserve = lf.reference.rnn_forward(**arrays, nonlinearity="relu")
    assert y == 0
    assert all(not value.any() for value in lf.reference.rnn_backward(reserve, dy=np.ones((1, 1, 1))).values())


@pytest.mark.parametrize("weight", [2.0, 0.5])
def test_gradient_over_50_steps_of_the_identity_is_a_power(weight):
    steps = 51
    arrays = {"x": np.ones((steps, 1, 1)), "h0": np.zeros((1, 1)), "w_ih": np.ones((1, 1)), "w_hh": [[weight]]}
    *_, reserve = lf.reference.rnn_forward(**arrays, nonlinearity="identity")
    dx = lf.reference.rnn_backward(reserve, dhn=np.ones((1, 1)))["x"][:, 0, 0]
    np.testing.assert_array_equal(dx, weight ** np.arange(steps - 1, -1, -1.0))


def test_gradient_of_a_sigmoid_is_the_product_of_jacobians():
    case = draw_case("rnn", (12, 1, 2, 5), nonlinearity="sigmoid", bias=())
    outputs, reserve = case.forward()
    h, w_ih, w_hh = outputs["y"][:, 0], case.arrays["w_ih"], case.arrays["w_hh"]
    jacobians = [np.diag(each * (1 - each)) for each in h]
    for unit, k in itertools.product(range(5), range(12)):
        product = np.eye(5)[unit] @ jacobians[-1]
        for jacobian in jacobians[k:-1][::-1]:
            product = product @ w_hh @ jacobian
        found = case.gradients(reserve, dhn=np.eye(5)[[unit]])["x"][k, 0]
        np.testing.assert_allclose(found, product @ w_ih, rtol=1e-10, atol=0)
