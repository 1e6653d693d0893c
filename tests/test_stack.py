"""Stacked, bidirectional, projected and ragged layers: values and all gradients against PyTorch and the reference."""

from __future__ import annotations

import importlib.util
import itertools
import random

import lstm_fast as lf
import numpy as np
import pytest
from judge import assert_all_same_bits, assert_close, assert_same_bits, distance, tolerance
from lstm_fast import _lstm_fast_core as core
from stacks import (
    BY_ROW,
    Sizes,
    compose,
    directions_of,
    draw_stack,
    infer_stack,
    layer_of,
    name_of,
    reference_stack,
    solve_stack,
    torch_stack,
)

DTYPES = ["float32", "float64"]
# Both sides of every tile height (1..6), vector length (4, 8, 16) and of their multiples; 50 steps cross chunks.
STEPS, BATCHES = (1, 2, 3, 5, 9, 24, 50), (1, 2, 3, 5, 6, 7, 8, 12, 13, 17)
INPUTS, HIDDEN = (1, 2, 3, 7, 8, 9, 16, 17, 33), (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33)
# layers, directions, bias, projected, batch_first, ragged, dtype
OPTIONS = list(itertools.product((1, 2, 3), (1, 2), (True, False), (False, True), (False, True), (False, True), DTYPES))


def sweep():
    """Every combination of options with three random sizes: 576 configurations."""
    generator = random.Random(2014)
    cases = []
    for turn, (layers, directions, bias, projected, batch_first, ragged, dtype) in itertools.product(range(3), OPTIONS):
        steps, batch, inputs = (generator.choice(sizes) for sizes in (STEPS, BATCHES, INPUTS))
        hidden = generator.choice(HIDDEN[1:] if projected else HIDDEN)
        proj = generator.choice((1, (hidden + 1) // 2, hidden - 1)) if projected else 0
        sizes = Sizes(steps, batch, inputs, hidden, proj, layers, directions, bias)
        cases.append((sizes, batch_first, ragged, dtype, turn))
    return cases


SWEEP = sweep()
FEW = [
    Sizes(5, 4, 3, 7, 0, 2, 2),
    Sizes(9, 7, 5, 17, 8, 3, 1),
    Sizes(24, 13, 8, 16, 15, 2, 2, False),
    Sizes(50, 6, 1, 33, 0, 3, 2),
]


def test_sweep_is_what_it_says():
    assert len(SWEEP) >= 500
    for at, values in enumerate((STEPS, BATCHES, INPUTS, HIDDEN)):
        assert {case[0][at] for case in SWEEP} == set(values)
    seen = {(s.layers, s.directions, s.bias, s.proj > 0, *rest[:-1]) for s, *rest in SWEEP}
    assert seen == set(OPTIONS)


@pytest.mark.parametrize("case", SWEEP, ids=name_of)
def test_values_and_gradients(case):
    """On every instruction set: the same bits, near PyTorch (or, without it, the reference), NaN in the padding."""
    sizes, batch_first, ragged, dtype, seed = case
    stack = draw_stack(sizes, dtype, lengths="ragged" if ragged else None, seed=seed)
    truth = torch_stack(stack, batch_first=batch_first) if importlib.util.find_spec("torch") else reference_stack(stack)
    first = None
    for name in core.isas_usable():
        lf.set_isa(name)
        result = solve_stack(stack.padded_with(np.nan), batch_first=batch_first)
        if first is None:
            first = result
            assert_close(result, truth, sizes.judged_as, dtype)
        assert_all_same_bits(result, first, f"on {name}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", FEW, ids=name_of)
def test_reference_agrees_with_pytorch(sizes, dtype):
    """So that what only the reference can judge (lengths of 0, dropout) has a judge that was judged."""
    pytest.importorskip("torch", reason="PyTorch is the other judge")
    for lengths in (None, "ragged"):
        stack = draw_stack(sizes, dtype, lengths=lengths)
        assert_close(reference_stack(stack), torch_stack(stack), sizes.judged_as, "float64")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", FEW, ids=name_of)
def test_stack_is_its_layers_one_by_one(sizes, dtype, isa):
    """One call for all gives the bits of ops calls for each layer and direction: reverse, lengths and w_hr there."""
    for lengths in (None, "ragged"):
        stack = draw_stack(sizes, dtype, lengths=lengths, seed=1)
        assert_all_same_bits(solve_stack(stack), compose(stack, lf.ops), "layer by layer")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", FEW, ids=name_of)
def test_inference_has_the_bits_of_training(sizes, dtype, isa):
    for lengths in (None, "ragged"):
        stack = draw_stack(sizes, dtype, lengths=lengths, seed=2)
        trained = solve_stack(stack)
        assert_all_same_bits(infer_stack(stack), {name: trained[name] for name in ("y", "hn", "cn")}, "inference")


@pytest.mark.parametrize("sizes", FEW, ids=name_of)
def test_row_alone_is_row_in_batch(sizes, isa):
    stack = draw_stack(sizes, "float32", lengths=None, seed=3)
    whole = solve_stack(stack)
    for rows in ([0], [sizes.batch - 1], [1, 0], list(range(sizes.batch))[::-1]):
        part = solve_stack(stack.rows(rows))
        for name in BY_ROW:
            assert_same_bits(part[name], whole[name][:, rows], f"{name} of rows {rows}")


@pytest.mark.parametrize("sizes", [s for s in FEW if s.directions == 1] + [Sizes(50, 6, 3, 9, 4, 2)], ids=name_of)
def test_pieces_are_the_whole(sizes, isa):
    stack = draw_stack(sizes, "float32", lengths=None, seed=4)
    whole, layer = solve_stack(stack), layer_of(stack)
    for cut in sorted({1, sizes.steps // 2, sizes.steps - 1}):
        y1, state, reserve1 = layer.forward(stack.x[:cut], (stack.h0, stack.c0))
        y2, (hn, cn), reserve2 = layer.forward(stack.x[cut:], state)
        second = layer.backward(reserve2, stack.dy[cut:], (stack.dhn, stack.dcn))
        first = layer.backward(reserve1, stack.dy[:cut], second.state)
        pieces = {"y": np.concatenate([y1, y2]), "hn": hn, "cn": cn, "dx": np.concatenate([first.x, second.x])}
        pieces |= {"dh0": first.state[0], "dc0": first.state[1]}
        for name, value in pieces.items():
            assert_same_bits(value, whole[name], f"{name}, cut at {cut}")


@pytest.mark.parametrize("sizes", FEW[:2], ids=name_of)
def test_each_gradient_alone(sizes, isa):
    stack = draw_stack(sizes, "float32", seed=5)
    layer = layer_of(stack)
    _, _, reserve = layer.forward(stack.x, (stack.h0, stack.c0), lengths=stack.lengths)
    for name, dy, dstate in [
        ("dy", stack.dy, None),
        ("dhn", None, (stack.dhn, None)),
        ("dcn", None, (None, stack.dcn)),
        ("none", None, (None, None)),
    ]:
        grads = layer.backward(reserve, dy, dstate)
        zeros = {other: np.zeros_like(getattr(stack, other)) for other in ("dy", "dhn", "dcn") if other != name}
        truth = reference_stack(stack.replace(**zeros))
        result = {"dx": grads.x, "dh0": grads.state[0], "dc0": grads.state[1]}
        result |= {f"d{parameter}": value for parameter, value in grads.parameters.items()}
        assert_close(result, {k: v for k, v in truth.items() if k[0] == "d"}, sizes.judged_as, "float32")


@pytest.mark.parametrize("sizes", FEW, ids=name_of)
def test_gradients_are_arrays_of_their_own(sizes):
    stack = draw_stack(sizes)
    layer = layer_of(stack)
    grads = layer.backward(layer.forward(stack.x)[2], stack.dy)
    assert list(grads.parameters) == list(layer.parameters)
    every = [grads.x, *grads.state, *grads.parameters.values()]
    for one, other in itertools.combinations(every, 2):
        assert not np.shares_memory(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", FEW, ids=name_of)
def test_states_of_every_layer_and_direction(sizes, dtype, isa):
    stack = draw_stack(sizes, dtype, seed=6)
    _, _, reserve = layer_of(stack).forward(stack.x, (stack.h0, stack.c0), lengths=stack.lengths)
    wide = stack.astype(np.float64)
    bound = tolerance(*sizes.judged_as, dtype, backward=False)
    inputs = wide.x
    for layer, directions in enumerate(directions_of(wide)):
        parts = []
        for direction, arguments in enumerate(directions):
            arguments.pop("index")
            y, _, _, truth = lf.reference.lstm_forward(inputs, **arguments)
            parts.append(y)
            seen = reserve.states(layer, reverse=direction == 1)
            for row, block in enumerate(truth.blocks):
                length = stack.lengths[row]
                order = slice(None, None, -1) if direction else slice(None)
                expected = {name: block.gates[order, k, 0] for k, name in enumerate("ifgo")}
                expected["c"] = block.c[1:][order, 0]
                for name, value in expected.items():
                    measured = getattr(seen, name)
                    assert (measured.shape, measured.dtype) == (
                        (sizes.steps, sizes.batch, sizes.hidden),
                        np.dtype(dtype),
                    )
                    assert distance(measured[:length, row], value) <= bound, name
                    assert not measured[length:, row].any(), name
        inputs = np.concatenate(parts, axis=-1)


def test_states_of_what_is_not_there():
    stack = draw_stack(Sizes(3, 2, 4, 5, 0, 2, 1))
    _, _, reserve = layer_of(stack).forward(stack.x)
    for layer, reverse in [(2, False), (-1, False), (0, True), (1, True)]:
        with pytest.raises(ValueError, match="layer"):
            reserve.states(layer, reverse)


@pytest.mark.parametrize("sizes", FEW, ids=name_of)
def test_unbatched_is_a_batch_of_one(sizes, isa):
    stack = draw_stack(sizes._replace(batch=1), lengths=(max(1, sizes.steps - 2),), seed=7)
    layer = layer_of(stack)
    y, (hn, cn), reserve = layer.forward(stack.x[:, 0], (stack.h0[:, 0], stack.c0[:, 0]), lengths=stack.lengths)
    grads = layer.backward(reserve, stack.dy[:, 0], (stack.dhn[:, 0], stack.dcn[:, 0]))
    found = {"y": y, "hn": hn, "cn": cn, "dx": grads.x, "dh0": grads.state[0], "dc0": grads.state[1]}
    whole = solve_stack(stack)
    for name, value in found.items():
        assert_same_bits(value, whole[name][:, 0], name)
    for name, value in grads.parameters.items():
        assert_same_bits(value, whole[f"d{name}"], name)


@pytest.mark.parametrize("sizes", FEW[:3], ids=name_of)
def test_directional_derivative(sizes, isa):
    """<dy, J v> = <J^T dy, v> for a random v of all inputs and parameters at once, J v by central differences."""
    stack, direction = draw_stack(sizes, "float64", seed=8), draw_stack(sizes, "float64", seed=9)
    grads = solve_stack(stack)

    def loss(step):
        moved = {name: getattr(stack, name) + step * getattr(direction, name) for name in ("x", "h0", "c0")}
        parameters = {name: value + step * direction.parameters[name] for name, value in stack.parameters.items()}
        result = infer_stack(stack.replace(**moved, parameters=parameters))
        return sum((result[name] * getattr(stack, f"d{name}")).sum() for name in ("y", "hn", "cn"))

    step = 1e-5
    numeric = (loss(step) - loss(-step)) / (2 * step)
    exact = sum((grads[f"d{name}"] * getattr(direction, name)).sum() for name in ("x", "h0", "c0"))
    exact += sum((grads[f"d{name}"] * value).sum() for name, value in direction.parameters.items())
    assert numeric == pytest.approx(exact, rel=1e-7, abs=1e-6)
