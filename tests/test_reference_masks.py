"""The masks of the reference's variants: where they stand, how often they drop, that no two streams share one."""

from __future__ import annotations

import itertools

import lstm_fast as lf
import numpy as np
import pytest
from judge import assert_all_same_bits, distance
from lstm_fast.reference import Stream, kept_units, philox
from reference_problems import draw_case

# (stream, seed, place): every stream; other seeds and places of one.
SOURCES = [(stream, 7, 1) for stream in Stream] + [(Stream.zoneout_h, 7, 2), (Stream.zoneout_h, 8, 1)]
SOURCES += [(Stream.zoneout_h, 7 + 2**32, 1)]


@pytest.mark.parametrize("stream", Stream)
def test_counter_layout(stream):
    kept = kept_units(stream, 99, 5, (3, 4, 7), 0.3)
    for t, row, unit in np.ndindex(3, 4, 7):
        word = philox(99, np.array([unit // 4, row, t, stream * 2**28 + 5]))[unit % 4]
        assert kept[t, row, unit] == (int(word) >= int(0.3 * 2**32))


def test_output_dropout_is_the_first_stream():
    kept = kept_units(Stream.output, 3, 2, (4, 5, 6), 0.25)
    np.testing.assert_array_equal(lf.reference.dropout_scale(3, 2, (4, 5, 6), 0.25), kept / 0.75)


@pytest.mark.parametrize("source", SOURCES, ids=str)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_rate(source, p):
    kept = kept_units(*source, (40, 50, 33), p)
    assert abs(kept.mean() - (1 - p)) < 5 * np.sqrt(p * (1 - p) / kept.size)  # 5 standard deviations


@pytest.mark.parametrize(("a", "b"), list(itertools.combinations(SOURCES, 2)), ids=str)
def test_streams_are_independent(a, b):
    first, second = (kept_units(*source, (40, 50, 33), 0.5) for source in (a, b))
    assert abs((first == second).mean() - 0.5) < 5 * 0.5 / np.sqrt(first.size)


@pytest.mark.parametrize("state", ["h", "c"])
@pytest.mark.parametrize("order", [{}, {"reverse": True}, {"lengths": [3, 0, 6], "reverse": True}])
@pytest.mark.parametrize("projection", [0, 5])
def test_zoneout_keeps_the_units_of_its_mask(state, order, projection):
    """t is the index in the caller's x, so a padded batch has the masks of the whole one."""
    rates = (0.4, 0.0) if state == "h" else (0.0, 0.4)
    case = draw_case("lstm", (6, 3, 2, 7), zoneout=rates, seed=3, place=2, projection=projection, **order)
    _, reserve = case.forward()
    width = projection if projection and state == "h" else 7
    kept = kept_units(Stream[f"zoneout_{state}"], 3, 2, (6, 3, width), 0.4)
    seen = 0
    for b, length in enumerate(order.get("lengths", [6] * 3)):
        block = reserve.blocks[b] if "lengths" in order else reserve.blocks[0]
        states = getattr(block, state)[:, 0 if "lengths" in order else b]
        for done, t in enumerate(range(length)[:: -1 if "reverse" in order else 1]):
            np.testing.assert_array_equal(states[done + 1] != states[done], kept[t, b])
            seen += width
    assert seen > 3 * width


def test_zoneout_in_h_sees_the_new_c_whatever_becomes_of_c():
    """h is that of the step without zoneout in c: zoneout is around the step."""
    zoned, _ = draw_case("lstm", (1, 3, 2, 7), zoneout=(0.0, 0.6)).forward()
    plain, _ = draw_case("lstm", (1, 3, 2, 7)).forward()
    np.testing.assert_array_equal(zoned["hn"], plain["hn"])
    assert (zoned["cn"] != plain["cn"]).any()


def test_evaluated_zoneout_is_the_mean_over_masks():
    case = draw_case("lstm", (1, 2, 2, 3), zoneout=(0.3, 0.6))
    draws = [case.optional(seed=seed).forward()[0] for seed in range(500)]
    evaluated, _ = case.optional(training=False).forward()
    for name, rate in (("hn", 0.3), ("cn", 0.6)):
        values = np.stack([each[name] for each in draws])
        spread = np.ptp(values, axis=0)  # between the two values that a unit takes
        bound = 5 * np.sqrt(rate * (1 - rate) / 500) * spread  # 5 standard deviations of the mean
        assert (np.abs(values.mean(axis=0) - evaluated[name]) <= bound).all(), name


def test_recurrent_dropout_is_one_mask_for_the_sequence():
    """For one row it is the plain LSTM with the columns of W_hh scaled."""
    case = draw_case("lstm", (6, 1, 2, 7), recurrent_dropout=0.4, seed=3, place=2)
    scale = kept_units(Stream.recurrent, 3, 2, (1, 1, 7), 0.4)[0] / 0.6
    assert 0 < np.count_nonzero(scale) < 7
    plain = draw_case("lstm", (6, 1, 2, 7), seed=3, place=2)
    scaled = plain.replace(w_hh=plain.arrays["w_hh"] * scale)
    (ours, grads), (theirs, their_grads) = case.solve(), scaled.solve()
    for name, value in ours.items():
        assert distance(value, theirs[name]) <= 1e-14, name  # h' is scaled instead of the weight
    assert distance(grads["w_hh"], their_grads["w_hh"] * scale) <= 1e-13


def test_drop_connect_is_the_plain_lstm_with_masked_weights():
    case = draw_case("lstm", (6, 3, 2, 7), drop_connect=0.4, seed=3, place=2)
    scale = kept_units(Stream.drop_connect, 3, 2, (1, 28, 7), 0.4)[0] / 0.6
    plain = draw_case("lstm", (6, 3, 2, 7), seed=3, place=2)
    (ours, grads), (theirs, their_grads) = case.solve(), plain.replace(w_hh=plain.arrays["w_hh"] * scale).solve()
    assert_all_same_bits(ours, theirs)
    assert distance(grads.pop("w_hh"), their_grads.pop("w_hh") * scale) <= 1e-13  # every step scaled, or the sum
    assert_all_same_bits(grads, their_grads)


@pytest.mark.parametrize("options", [{"zoneout": (0.3, 0.3)}, {"recurrent_dropout": 0.3}, {"drop_connect": 0.3}])
def test_masks_depend_on_seed_and_place_alone(options):
    case = draw_case("lstm", **options)
    first = case.forward()[0]["y"]
    np.testing.assert_array_equal(first, case.forward()[0]["y"])
    assert (first != case.optional(seed=1).forward()[0]["y"]).any()
    assert (first != case.optional(place=1).forward()[0]["y"]).any()
