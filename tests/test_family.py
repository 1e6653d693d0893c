"""GRU and RNN: values and gradients against the reference and PyTorch, and the same bits however they come about."""

from __future__ import annotations

import lstm_fast as lf
import numpy as np
import pytest
from family import (
    CELLS,
    DTYPES,
    compose,
    draw_case,
    functions_of,
    infer,
    layer_of,
    solve,
    solve_reference,
    solve_torch,
    states,
)
from judge import assert_all_same_bits, assert_close, distance, tolerance
from lstm_fast import _lstm_fast_core as core
from stacks import Sizes, name_of

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis draws the problems")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

THREADS = (1, 2, 3, 7)
# Both sides of tile heights and vector lengths; 70 steps cross chunks; one step of few and of many rows packs nothing.
STEPS, BATCHES = (0, 1, 1, 2, 5, 9, 70), (0, 1, 2, 5, 6, 7, 13, 30)
INPUTS, HIDDEN = (0, 1, 3, 8, 17), (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33)
FEW = [
    Sizes(5, 4, 3, 7, 0, 2, 2),
    Sizes(9, 7, 5, 17, 0, 3, 1),
    Sizes(60, 13, 8, 16, 0, 2, 2, False),
    Sizes(1, 9, 5, 33, 0, 2, 2),
    Sizes(1, 2, 70, 33),
    Sizes(250, 2, 3, 40),
]


@st.composite
def drawn_cases(draw_from):
    steps, batch = draw_from(st.sampled_from(STEPS)), draw_from(st.sampled_from(BATCHES))
    layers = draw_from(st.sampled_from([1, 2, 3]))
    sizes = Sizes(
        steps,
        batch,
        draw_from(st.sampled_from(INPUTS)),
        draw_from(st.sampled_from(HIDDEN)),
        0,
        layers,
        draw_from(st.sampled_from([1, 2])),
        draw_from(st.booleans()),
    )
    rows = st.lists(st.integers(0, steps), min_size=batch, max_size=batch)
    lengths = draw_from(st.none() | rows) if batch else None
    dropout = draw_from(st.sampled_from([0.0, 0.3, 1.0])) if layers > 1 else 0.0
    cell, dtype = draw_from(st.sampled_from(CELLS)), draw_from(st.sampled_from(DTYPES))
    case = draw_case(cell, sizes, dtype, lengths=lengths, seed=draw_from(st.integers(0, 99)))
    return (
        case,
        dropout,
        draw_from(st.sampled_from(THREADS)),
        draw_from(st.sampled_from([core.Split.rows, core.Split.units])),
    )


@settings(max_examples=150)
@given(drawn_cases())
def test_drawn_stacks(drawn):
    """Near the reference; the same bits on every set, with any threads, lean, and with NaN in the padding."""
    case, dropout, threads, split = drawn
    lf.set_num_threads(1)
    expected = solve(case, dropout=dropout, seed=0)
    judged_as = case.sizes._replace(steps=max(1, case.sizes.steps)).judged_as
    assert_close(expected, solve_reference(case, dropout=dropout), judged_as, case.dtype)
    shown = states(case, dropout=dropout)
    core.use_team_always(True)
    try:
        lf.set_num_threads(threads)
        core.set_split(split)
        for name in core.isas_usable():
            lf.set_isa(name)
            for save in ("gates", "lean"):
                found = solve(case.padded_with(np.nan), dropout=dropout, save=save)
                assert_all_same_bits(found, expected, f"{save} on {name}")
                assert_all_same_bits(states(case, dropout=dropout, save=save), shown, f"{save} on {name}")
    finally:
        core.use_team_always(False)


@settings(max_examples=60)
@given(drawn_cases(), st.data())
def test_special_values_have_the_same_bits_everywhere(drawn, data):
    case = drawn[0]
    arrays = [getattr(case, name) for name in case.ARRAYS] + list(case.parameters.values())
    for array in (array for array in arrays if array.size):
        if data.draw(st.booleans()):
            value = data.draw(st.sampled_from([np.nan, np.inf, -np.inf, -0.0, 1e-310, -1e-42, 3e38, 88.5, -104.0]))
            array.flat[data.draw(st.integers(0, array.size - 1))] = value
    expected = solve(case)
    for name in core.isas_usable():
        lf.set_isa(name)
        assert_all_same_bits(solve(case, save="lean"), expected, f"lean on {name}")
        assert_all_same_bits(infer(case), {key: expected[key] for key in ("y", "hn")}, f"inference on {name}")


@pytest.mark.parametrize("lengths", [None, [9, 1, 4, 9, 2, 7, 3]], ids=["full", "ragged"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cell", ["gru", "rnn_tanh", "rnn_relu"])
def test_pytorch_agrees(cell, bias, lengths):
    pytest.importorskip("torch", reason="PyTorch is the judge")
    case = draw_case(cell, Sizes(9, 7, 5, 17, 0, 2, 2, bias), "float64", lengths=lengths, seed=1)
    assert_close(solve(case), solve_torch(case), case.sizes.judged_as, "float64")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bias", ["b_ih", "b_hh"])
def test_one_bias_alone(bias, cell, dtype, isa):
    """The GRU's biases are not the same: b_hh of n is multiplied by r."""
    case = draw_case(cell, Sizes(9, 5, 3, 17), dtype, seed=2)
    weights = {name: case.parameters[f"{long}_l0"] for name, long in {"w_ih": "weight_ih", "w_hh": "weight_hh"}.items()}
    weights[bias] = case.parameters["bias_ih_l0"]
    results = []
    for module in (lf.ops, lf.reference):
        forward, backward, _ = functions_of(cell, module)
        y, hn, reserve = forward(case.x, case.h0[0], **weights)
        grads = backward(reserve, case.dy, case.dhn[0])
        results.append({"y": y, "hn": hn} | {f"d{name}": value for name, value in grads.items()})
    assert_close(*results, case.sizes.judged_as, dtype)


@pytest.mark.parametrize("sizes", FEW, ids=name_of)
@pytest.mark.parametrize("cell", CELLS)
def test_stack_is_its_layers_one_by_one(cell, sizes, isa):
    """One call for all has the bits of ops calls for each layer and direction, gates or lean."""
    case = draw_case(cell, sizes, lengths="ragged", seed=3)
    expected = solve(case)
    for save in ("gates", "lean"):
        assert_all_same_bits(compose(case, lf.ops, save=save), expected, save)


@pytest.mark.parametrize("cell", CELLS)
def test_states_are_those_of_the_reference(cell, isa):
    case = draw_case(cell, Sizes(9, 5, 3, 17), "float32", seed=4)
    weights = [case.parameters[f"{name}_l0"].astype("f8") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    *_, reserve = functions_of(cell, lf.reference).forward(case.x, case.h0[0], *weights)
    seen = states(case)
    assert [name.partition(" ")[0] for name in seen] == (["r", "z", "n"] if cell == "gru" else ["h"])
    bound = tolerance(*case.sizes.judged_as, "float32", backward=False)
    for gate, (name, value) in enumerate(seen.items()):
        assert distance(value, reserve.blocks[0].gates[:, gate]) <= bound, name


@pytest.mark.parametrize("cell", CELLS)
def test_directional_derivative(cell, isa):
    """<dy, J v> = <J^T dy, v> for a random v of all inputs and parameters at once, J v by central differences."""
    case, direction = (draw_case(cell, FEW[0], "float64", seed=seed) for seed in (5, 6))
    grads, step = solve(case), 1e-6

    def loss(by):
        moved = {name: getattr(case, name) + by * getattr(direction, name) for name in ("x", "h0")}
        parameters = {name: value + by * direction.parameters[name] for name, value in case.parameters.items()}
        result = infer(case.replace(**moved, parameters=parameters))
        return (result["y"] * case.dy).sum() + (result["hn"] * case.dhn).sum()

    numeric = (loss(step) - loss(-step)) / (2 * step)
    exact = sum((grads[f"d{name}"] * getattr(direction, name)).sum() for name in ("x", "h0"))
    exact += sum((grads[f"d{name}"] * value).sum() for name, value in direction.parameters.items())
    # Rounding is 1e-16 / step of the loss, and the omitted term step^2 of it.
    assert numeric == pytest.approx(exact, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_frozen(cell, dtype, isa, team):
    for sizes in FEW:
        case = draw_case(cell, sizes, dtype, lengths="ragged", seed=7)
        expected, layer = solve(case), layer_of(case)
        layer.freeze()
        for threads in (1, 3):
            lf.set_num_threads(threads)
            assert_all_same_bits(solve(case, layer), expected, f"{sizes}, {threads} threads")
            assert_all_same_bits(infer(case, layer), {n: expected[n] for n in ("y", "hn")}, f"{sizes}")
