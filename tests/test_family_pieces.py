"""GRU and RNN: a row alone, a piece of the sequence, one step at a time have the bits of the whole."""

from __future__ import annotations

import lstm_fast as lf
import numpy as np
import pytest
from family import BY_ROW, CELLS, DTYPES, draw_case, functions_of, infer, layer_of, make_layer, solve
from judge import assert_all_same_bits, assert_same_bits
from lstm_fast import _lstm_fast_core as core
from stacks import Sizes, name_of

STACKS = [Sizes(9, 7, 5, 17, 0, 1, 2), Sizes(70, 5, 3, 8, 0, 2, 1), Sizes(12, 13, 4, 33, 0, 3, 2, False)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", STACKS, ids=name_of)
@pytest.mark.parametrize("cell", CELLS)
def test_row_is_the_row_alone(cell, sizes, dtype, isa):
    """Of its own length and with no padding there; beyond it all is +0."""
    case = draw_case(cell, sizes, dtype, lengths="ragged", seed=20)
    whole = solve(case.padded_with(np.nan))
    for row, length in enumerate(case.lengths):
        alone = solve(case.rows([row]).cut(length))
        for name in BY_ROW:
            found = whole[name][:, [row]]
            if name in ("y", "dx"):
                assert_same_bits(found[length:], np.zeros_like(found[length:]), f"{name} beyond row {row}")
                found = found[:length]
            assert_same_bits(found, alone[name], f"{name} of row {row}")


@pytest.mark.parametrize("cell", CELLS)
def test_row_without_steps_keeps_its_state(cell, isa):
    case = draw_case(cell, Sizes(6, 3, 4, 9, 0, 2, 2), lengths=[6, 0, 2], seed=21)
    result = solve(case)
    assert_same_bits(result["hn"][:, 1], case.h0[:, 1], "hn")
    assert_same_bits(result["dh0"][:, 1], case.dhn[:, 1], "dh0")


@pytest.mark.parametrize("sizes", [Sizes(70, 5, 3, 8, 0, 2, 1), Sizes(300, 2, 7, 33)], ids=name_of)
@pytest.mark.parametrize("cell", CELLS)
def test_pieces_are_the_whole(cell, sizes, isa):
    case = draw_case(cell, sizes, seed=22)
    whole, layer = solve(case), layer_of(case)
    for cut in (1, sizes.steps // 2, sizes.steps - 1):
        y1, state, reserve1 = layer.forward(case.x[:cut], case.h0)
        y2, hn, reserve2 = layer.forward(case.x[cut:], state, save="lean")
        second = layer.backward(reserve2, case.dy[cut:], case.dhn)
        first = layer.backward(reserve1, case.dy[:cut], second.state)
        pieces = {"y": np.concatenate([y1, y2]), "hn": hn, "dx": np.concatenate([first.x, second.x])}
        pieces["dh0"] = first.state
        for name, value in pieces.items():
            assert_same_bits(value, whole[name], f"{name}, cut at {cut}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 2, 6, 7, 20])
@pytest.mark.parametrize("cell", CELLS)
def test_single_steps_have_the_bits_of_packed_weights(cell, batch, dtype, isa, team):
    """One step packs no weights as a whole; two steps in which every row has length 1 do."""
    for inputs, hidden, bias in [(1, 1, True), (3, 17, False), (17, 16, True), (64, 33, True)]:
        case = draw_case(cell, Sizes(2, batch, inputs, hidden, 0, 2, 2, bias), dtype, lengths=[1] * batch, seed=23)
        expected = solve(case)
        for threads in (1, 3):
            lf.set_num_threads(threads)
            found = solve(case.cut(1))
            for name, value in expected.items():
                value = value[:1] if name in ("y", "dx") else value
                assert_same_bits(found[name], value, f"{name}, {inputs} to {hidden}, {threads} threads")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 6, 20])
@pytest.mark.parametrize("cell", CELLS)
def test_cell_is_a_step_of_forward(cell, batch, dtype, isa):
    case = draw_case(cell, Sizes(4, batch, 5, 17), dtype, seed=24)
    weights = list(case.parameters.values())
    functions, h = functions_of(cell), case.h0[0]
    y, _, _ = functions.forward(case.x, h, *weights)
    for step, x in enumerate(case.x):
        h = functions.cell(x, h, *weights)
        assert_same_bits(h, y[step], f"step {step}")


@pytest.mark.parametrize("cell", CELLS)
def test_backward_of_a_cell(cell, isa):
    """It reads the weights themselves; a layer's reads the copy that forward made."""
    for batch in (2, 9):
        case = draw_case(cell, Sizes(1, batch, 5, 17), seed=25)
        weights = [(*case.parameters.values(), None)]
        forward = getattr(core, f"{cell}_forward")
        given = (case.x[0], case.h0[0], None, weights, None, 1, 1, False, core.Save.gates, 0.0, 0, core.Form.cell)
        dx, dh, dc, [(dw_ih, dw_hh, db_ih, _, db_hh)] = core.backward(
            forward(*given)[-1], case.dy[0], case.dhn[0], None
        )
        assert dc is None
        found = {"dx": dx[None], "dh0": dh[None], "dweight_ih_l0": dw_ih, "dweight_hh_l0": dw_hh, "dbias_ih_l0": db_ih}
        found["dbias_hh_l0"] = db_ih if db_hh is None else db_hh
        expected = solve(case)
        assert_all_same_bits(found, {name: expected[name] for name in found}, f"{batch} rows")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "sizes", [(1, 1, 1, 1), (3, 17, 1, 1), (5, 16, 3, 2), (64, 130, 1, 1), (9, 40, 2, 14)], ids=str
)
@pytest.mark.parametrize("cell", CELLS)
def test_stream_has_the_bits_of_the_whole_sequence(cell, sizes, dtype, isa, team):
    inputs, hidden, layers, batch = sizes
    case = draw_case(cell, Sizes(6, batch, inputs, hidden, 0, layers), dtype, seed=26)
    layer, expected = layer_of(case), infer(case)
    for threads in (1, 2, 3):
        lf.set_num_threads(threads)
        stream = layer.stream(batch)
        stream.state = case.h0
        out = np.empty((batch, hidden), dtype)
        for step, x in enumerate(case.x):
            assert stream.step(x, out) is out
            assert_same_bits(out, expected["y"][step], f"step {step}, {threads} threads")
        assert_same_bits(stream.state, expected["hn"], "h")


def test_state_of_a_stream():
    layer = make_layer("gru", 4, 6, 2, seed=1)
    stream = layer.stream(3)
    state = np.arange(36, dtype=np.float32).reshape(2, 3, 6)
    stream.state = state.tolist()
    stream.reset([True, False, True])
    state[:, ::2] = 0
    assert_same_bits(stream.state, state, "h")
    with pytest.raises(TypeError, match=r"state: expected h alone, .* got a tuple of 2"):
        stream.state = state, state
    with pytest.raises(ValueError, match=r"h: expected shape \(2, 3, 6\), got \(2, 3, 5\)"):
        stream.state = state[..., 1:]
    assert_same_bits(stream.state, state, "h after the errors")
    stream.reset()
    assert not stream.state.any()
