"""truncate, grad_clip and resets of the reference, for every cell."""

from __future__ import annotations

import numpy as np
import pytest
from judge import assert_all_same_bits, distance
from reference_problems import assert_gradients_are_numeric, draw_case
from reference_torch import torch_steps

KINDS = [("lstm", {}), ("gru", {}), ("rnn", {}), ("rnn", {"nonlinearity": "relu"})]
EVERY = [*KINDS, ("gru", {"reset_after": False}), ("lstm", {"projection": 2}), ("lstm", {"layer_norm": True})]
RESETS = np.random.default_rng(0).random((7, 3)) < 0.3
AIDS = [{"truncate": k} for k in (1, 2, 3, 6, 7)]
AIDS += [{"grad_clip": 0.3}, {"resets": RESETS}, {"truncate": 2, "grad_clip": 0.5, "resets": RESETS}]

ORDERS = [{}, {"reverse": True}, {"lengths": [3, 0, 7]}, {"lengths": [6, 7, 2], "reverse": True}]


@pytest.mark.parametrize(("cell", "options"), KINDS)
@pytest.mark.parametrize("aids", AIDS, ids=lambda aids: "-".join(aids))
@pytest.mark.parametrize("order", ORDERS)
def test_values_and_gradients_are_those_of_autograd(cell, options, aids, order):
    case = draw_case(cell, (7, 3, 2, 4), **options, **aids, **order)
    for found, wanted in zip(case.solve(), torch_steps(case), strict=True):
        assert set(found) == set(wanted)
        for name, value in found.items():
            assert distance(value, wanted[name]) <= 1e-13, name  # float64, other sum orders


@pytest.mark.parametrize(("cell", "options"), EVERY)
@pytest.mark.parametrize("k", [1, 3])
def test_truncated_gradients_are_those_of_the_segments(cell, options, k):
    """The forward pass is that of the whole; every segment is differentiated with its first state as a constant."""
    case = draw_case(cell, (7, 3, 2, 4), **options)
    _, reserve = case.forward()
    outputs, truncated = case.optional(truncate=k).solve()
    assert_all_same_bits(outputs, case.forward()[0])
    states = reserve.blocks[0].states
    total = {}
    for start in range(0, 7, k):
        segment = case.replace(x=case.arrays["x"][start : start + k])
        segment = segment.replace(**{f"{s}0": each[start] for s, each in zip("hc", states, strict=False)})
        upstream = {"dy": case.upstream["dy"][start : start + k]}
        if start + k >= 7:
            upstream = case.upstream | upstream
        grads = segment.gradients(segment.forward()[1], **upstream)
        assert distance(truncated["x"][start : start + k], grads.pop("x")) <= 1e-13
        for state in ("h0", "c0"):
            if start:
                grads.pop(state, None)
        total = {name: total.get(name, 0) + value for name, value in grads.items()}
    for name, value in total.items():
        assert distance(truncated[name], value) <= 1e-13, name  # the order of the sums


@pytest.mark.parametrize(("cell", "options"), EVERY)
def test_a_gradient_clip_bounds_what_arrives_at_a_step(cell, options):
    case = draw_case(cell, (1, 3, 2, 4), **options)
    arriving = case.upstream["dy"][0] + case.upstream["dhn"]
    assert (np.abs(arriving) > 0.4).any()
    assert (np.abs(arriving) < 0.4).any()
    _, clipped = case.optional(grad_clip=0.4).solve()
    others = {name: value for name, value in case.upstream.items() if name == "dcn"}
    bounded = case.gradients(case.forward()[1], dy=np.clip(arriving, -0.4, 0.4)[None], **others)
    for name, value in clipped.items():
        assert distance(value, bounded[name]) <= 1e-15, name


@pytest.mark.parametrize(("cell", "options"), EVERY)
def test_an_aid_that_never_acts_changes_no_bit(cell, options):
    case = draw_case(cell, (7, 3, 2, 4), **options)
    idle = case.optional(truncate=7, grad_clip=1e9, resets=np.zeros((7, 3), bool))
    for found, wanted in zip(idle.solve(), case.solve(), strict=True):
        assert_all_same_bits(found, wanted)


@pytest.mark.parametrize(("cell", "options"), EVERY)
@pytest.mark.parametrize("order", [{}, {"lengths": [3, 0, 7], "reverse": True}])
def test_gradients_with_resets_are_those_of_finite_differences(cell, options, order):
    assert_gradients_are_numeric(draw_case(cell, (7, 3, 1, 3), bias=("b_ih",), resets=RESETS, **options, **order))


@pytest.mark.parametrize(("cell", "options"), EVERY)
@pytest.mark.parametrize("reverse", [False, True])
def test_a_row_begins_anew_at_a_reset(cell, options, reverse):
    """From x[4] on (reverse: from x[4] down) row 1 is as from a state of zeros; the other rows are as ever."""
    case = draw_case(cell, (7, 3, 2, 4), reverse=reverse, **options)
    resets = np.zeros((7, 3), bool)
    resets[4, 1] = True
    outputs, reserve = case.optional(resets=resets).forward()
    plain, _ = case.forward()
    after, before = (slice(None, 5), slice(5, None)) if reverse else (slice(4, None), slice(None, 4))
    zeros = {name: np.zeros_like(case.arrays[name]) for name in ("h0", "c0") if name in case.arrays}
    fresh, _ = case.replace(x=case.arrays["x"][after], **zeros).forward()
    np.testing.assert_array_equal(outputs["y"][after, 1], fresh["y"][:, 1])
    np.testing.assert_array_equal(outputs["hn"][1], fresh["hn"][1])
    np.testing.assert_array_equal(outputs["y"][before], plain["y"][before])
    np.testing.assert_array_equal(outputs["y"][:, [0, 2]], plain["y"][:, [0, 2]])
    late = np.zeros_like(case.upstream["dy"])
    late[after] = case.upstream["dy"][after]
    grads = case.gradients(reserve, dy=late)
    assert not grads["x"][before, 1].any()
    assert not grads["h0"][1].any()
    assert grads["x"][before][:, [0, 2]].any()


def test_a_truncated_gradient_does_not_reach_beyond_its_segment():
    case = draw_case("lstm", (7, 3, 2, 4), truncate=3)
    _, reserve = case.forward()
    dx = case.gradients(reserve, dhn=case.upstream["dhn"], dcn=case.upstream["dcn"])["x"]
    assert not dx[:6].any()
    assert dx[6].all()
