"""Dropout between layers: masks by Philox4x32-10, functions of (seed, layer, step, original row, unit) alone."""

from __future__ import annotations

import copy
import pickle

import lstm_fast as lf
import numpy as np
import pytest
from judge import assert_all_same_bits, assert_close, assert_same_bits
from lstm_fast import _lstm_fast_core as core
from stacks import Sizes, blank_layer, draw_stack, infer_stack, layer_of, name_of, reference_stack, solve_stack

DTYPES = ["float32", "float64"]
# Widths of the output that are and are not multiples of the four words of one block, and of a vector.
STACKS = [
    Sizes(5, 4, 3, 7, 0, 2, 1),
    Sizes(6, 5, 2, 9, 3, 3, 2),
    Sizes(11, 7, 4, 16, 0, 2, 2),
    Sizes(40, 6, 3, 5, 0, 3),
]
SEEDS = [0, 1, 2**32 - 1, 2**32, 0x9E3779B97F4A7C15, 2**64 - 1]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_known_answers(counter, key, expected):
    """The vectors that Random123 publishes for philox4x32 with 10 rounds."""
    low, high = (int(word, 16) for word in key.split())
    words = lf.reference.philox(high << 32 | low, np.array([int(word, 16) for word in counter.split()]))
    assert words.dtype == np.uint32
    assert [f"{word:08x}" for word in words] == expected.split()


def masks(seed, p, *, steps=6, batch=5, width=7, layers=2, lengths=None, dtype="float64"):
    """Which outputs of every layer but the last are kept, 1 or 0, seen from outside.

    All units of layer 0 have the same output, not 0; in those above only the gate g sees the input, each unit its own,
    so that g is 0 where the unit below was dropped.
    """
    sizes = Sizes(steps, batch, 1, width, 0, layers)
    layer = blank_layer(sizes, dtype, dropout=p)
    for parameter in layer.parameters.values():
        parameter[...] = 0
    layer.parameters["bias_ih_l0"][...] = 1.0
    for above in range(1, layers):
        layer.parameters[f"weight_ih_l{above}"][2 * width : 3 * width] = np.eye(width)
    x = np.zeros((steps, batch, 1), dtype)
    _, _, reserve = layer.forward(x, lengths=lengths, dropout_seed=seed)
    seen = []
    for above in range(1, layers):
        g = reserve.states(above).g
        seen.append(np.where(np.abs(g) > 0, 1, 0))
    return seen


def test_kept_units_are_those_of_the_reference(isa):
    """Word by word: seeds of 64 bits, layers, steps, rows and units all count."""
    for seed in SEEDS:
        for layer, kept in enumerate(masks(seed, 0.4, layers=3)):
            expected = lf.reference.dropout_scale(seed, layer, kept.shape, 0.4) > 0
            if layer == 1:  # its own input was dropped already
                expected &= kept_above(seed, kept.shape)
            np.testing.assert_array_equal(kept, expected, err_msg=f"seed {seed}, layer {layer}")


def kept_above(seed, shape):
    """Units of layer 1 whose output is not 0 from the beginning: c keeps what came in at any earlier step."""
    first = lf.reference.dropout_scale(seed, 0, shape, 0.4) > 0
    return np.maximum.accumulate(first, axis=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("sizes", STACKS, ids=name_of)
def test_values_and_gradients_with_the_masks_of_the_reference(sizes, p, dtype, isa):
    for seed, lengths in zip(SEEDS, (None, "ragged", [0, *[sizes.steps] * (sizes.batch - 1)]), strict=False):
        stack = draw_stack(sizes, dtype, lengths=lengths, seed=30)
        result = solve_stack(stack.padded_with(np.nan), dropout=p, seed=seed)
        assert_close(result, reference_stack(stack, dropout=p, seed=seed), sizes.judged_as, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", STACKS, ids=name_of)
def test_rate_zero_is_no_dropout(sizes, dtype, isa):
    stack = draw_stack(sizes, dtype, seed=31)
    assert_all_same_bits(solve_stack(stack, dropout=0.0, seed=5), solve_stack(stack), "p = 0")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", STACKS, ids=name_of)
def test_rate_one_gives_zeros(sizes, dtype, isa):
    """Layers see zeros; nothing but their own bias, state and recurrence is left; only the last gets a gradient."""
    stack = draw_stack(sizes, dtype, seed=32)
    result = solve_stack(stack, dropout=1.0, seed=5)
    assert_close(result, reference_stack(stack, dropout=1.0, seed=5), sizes.judged_as, dtype)
    without = stack.replace(dhn=np.zeros_like(stack.dhn), dcn=np.zeros_like(stack.dcn))
    result = solve_stack(without, dropout=1.0, seed=5)
    assert all(np.isfinite(value).all() for value in result.values())
    assert not result["dx"].any()
    last = f"_l{sizes.layers - 1}"
    assert not any(value.any() for name, value in result.items() if "_l" in name and last not in name)
    assert not result[f"dweight_ih{last}"].any()
    assert result[f"dweight_hh{last}"].any()


def test_rates_next_to_the_ends(isa):
    """2^-33 is below the threshold's resolution: all are kept; the last number below 1 keeps one in 2^32."""
    (kept,) = masks(3, 2.0**-33)
    assert kept.all()
    (kept,) = masks(3, np.nextafter(1.0, 0.0))
    assert not kept.any()


def test_dropped_infinities_and_nans_are_zeros(isa):
    """A mask selects; it does not multiply by 0."""
    stack = draw_stack(Sizes(4, 3, 2, 8, 0, 2), lengths=None, seed=33)
    stack.x[0, 1, 0] = np.nan
    result = solve_stack(stack, dropout=1.0, seed=0)
    assert np.isfinite(result["y"]).all()
    assert np.isnan(result["hn"][0, 1]).all()


@pytest.mark.parametrize("sizes", STACKS, ids=name_of)
def test_no_dropout_after_the_last_layer_and_in_inference(sizes, isa):
    stack = draw_stack(sizes, seed=34)
    plain = infer_stack(stack)
    assert_all_same_bits(infer_stack(stack, dropout=0.5), plain, "inference")
    single = draw_stack(sizes._replace(layers=1), seed=34)
    with pytest.warns(UserWarning, match="dropout"):
        layer = layer_of(single, dropout=0.5)
    expected = solve_stack(single)
    y, (hn, cn), reserve = layer.forward(single.x, (single.h0, single.c0), lengths=single.lengths, dropout_seed=1)
    assert_all_same_bits({"y": y, "hn": hn, "cn": cn}, {n: expected[n] for n in ("y", "hn", "cn")}, "one layer")
    grads = layer.backward(reserve, single.dy, (single.dhn, single.dcn))
    assert_same_bits(grads.x, expected["dx"], "one layer")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", STACKS, ids=name_of)
def test_bits_do_not_depend_on_set_or_threads(sizes, dtype, team):
    stack = draw_stack(sizes, dtype, seed=35)
    expected = None
    for name in core.isas_usable():
        lf.set_isa(name)
        for threads in (1, 2, 3, 7):
            lf.set_num_threads(threads)
            result = solve_stack(stack, dropout=0.3, seed=2**63 + 1)
            assert core.threads_used() == threads
            expected = expected or result
            assert_all_same_bits(result, expected, f"{name}, {threads} threads")


def test_mask_belongs_to_the_row_where_it_stands(isa):
    """Of the user's batch, not of the sorted one: neither its own length nor another row's moves it."""
    full = masks(7, 0.5)[0]
    for lengths in ([6, 6, 6, 6, 6], [1, 6, 2, 5, 3], [0, 0, 6, 0, 4]):
        kept = masks(7, 0.5, lengths=lengths)[0]
        for row, length in enumerate(lengths):
            np.testing.assert_array_equal(kept[:length, row], full[:length, row])


def test_masks_differ_between_seeds_layers_steps_and_rows():
    shape = (8, 8, 16)
    scales = [lf.reference.dropout_scale(seed, layer, shape, 0.5) for seed in (0, 1, 2**32) for layer in (0, 1)]
    scales += [scales[0][::-1], scales[0][:, ::-1], scales[0][..., ::-1]]
    for at, one in enumerate(scales):
        for other in scales[:at]:
            assert 0.4 < (one == other).mean() < 0.6


@pytest.mark.parametrize("p", [0.01, 0.25, 0.5, 0.875])
def test_share_of_dropped_units(p):
    """Within five standard deviations, and each kept one scaled by 1 / (1 - p)."""
    scale = lf.reference.dropout_scale(11, 0, (50, 20, 33), p)
    dropped = (scale == 0).mean()
    assert abs(dropped - p) <= 5 * np.sqrt(p * (1 - p) / scale.size)
    assert set(np.unique(scale)) == {0.0, 1 / (1 - p)}


def test_rows_above_4_words_and_many_units(isa):
    (kept,) = masks(12, 0.5, steps=3, batch=2, width=130)
    np.testing.assert_array_equal(kept, lf.reference.dropout_scale(12, 0, (3, 2, 130), 0.5) > 0)


# --- seeds ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stack():
    return draw_stack(STACKS[1], seed=36)


def run(layer, stack, **options):
    y, _, reserve = layer.forward(stack.x, (stack.h0, stack.c0), lengths=stack.lengths, **options)
    return y, reserve


def test_seed_is_kept_and_repeats_the_call(stack):
    layer = layer_of(stack, dropout=0.5)
    y, reserve = run(layer, stack)
    other, second = run(layer, stack)
    assert reserve.dropout_seed != second.dropout_seed
    assert not np.array_equal(y, other)
    again, repeated = run(layer, stack, dropout_seed=reserve.dropout_seed)
    assert repeated.dropout_seed == reserve.dropout_seed
    assert_same_bits(again, y, "with the seed that was drawn")
    one, two = (layer.backward(kept, stack.dy) for kept in (reserve, repeated))
    assert_all_same_bits(one.parameters, two.parameters, "with the seed that was drawn")


def test_drawn_seeds_follow_from_the_seed_of_the_layer(stack):
    def seeds(layer):
        return [run(layer, stack)[1].dropout_seed for _ in range(3)]

    first = seeds(blank_layer(stack.sizes, stack.dtype, dropout=0.5, seed=1))
    assert first == seeds(blank_layer(stack.sizes, stack.dtype, dropout=0.5, seed=1))
    assert first != seeds(blank_layer(stack.sizes, stack.dtype, dropout=0.5, seed=2))
    assert len(set(first)) == 3
    assert all(0 <= seed < 2**64 for seed in first)


def test_a_given_seed_draws_none(stack):
    one, two = (blank_layer(stack.sizes, stack.dtype, dropout=0.5, seed=1) for _ in range(2))
    run(one, stack, dropout_seed=9)
    assert run(one, stack)[1].dropout_seed == run(two, stack)[1].dropout_seed


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_go_on_with_the_same_seeds(twin_of, stack):
    layer = layer_of(stack, dropout=0.5)
    run(layer, stack)
    twin = twin_of(layer)
    assert_same_bits(run(twin, stack)[0], run(layer, stack)[0], "the copy")


def test_no_seed_without_dropout(stack):
    assert run(layer_of(stack), stack)[1].dropout_seed is None
    assert run(layer_of(stack), stack, dropout_seed=3)[1].dropout_seed is None


def test_numpy_integers_are_seeds(stack):
    layer = layer_of(stack, dropout=0.5)
    assert_same_bits(run(layer, stack, dropout_seed=np.uint64(2**63))[0], run(layer, stack, dropout_seed=2**63)[0])


@pytest.mark.parametrize("seed", [-1, 2**64, np.int64(-5)])
def test_seed_out_of_range(seed, stack):
    with pytest.raises(ValueError, match="dropout_seed"):
        run(layer_of(stack, dropout=0.5), stack, dropout_seed=seed)


@pytest.mark.parametrize("seed", [1.0, "1", True, np.float64(1), [1]])
def test_seed_of_a_wrong_type(seed, stack):
    with pytest.raises(TypeError, match="dropout_seed"):
        run(layer_of(stack, dropout=0.5), stack, dropout_seed=seed)


def test_changing_the_rate_after_forward_changes_nothing_in_backward(stack):
    layer = layer_of(stack, dropout=0.5)
    _, reserve = run(layer, stack, dropout_seed=4)
    before = layer.backward(reserve, stack.dy).parameters
    layer.dropout = 0.1
    assert_all_same_bits(layer.backward(reserve, stack.dy).parameters, before, "another rate")
