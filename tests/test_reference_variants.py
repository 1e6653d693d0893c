"""The variants of the reference's LSTM, alone and combined: PyTorch's autograd, ONNX Runtime, finite differences."""

from __future__ import annotations

import random

import numpy as np
import pytest
from judge import assert_all_same_bits, distance, tolerance
from onnx_problems import onnx_outputs
from reference_problems import LAYER_NORM, assert_gradients_are_numeric, draw_case
from reference_torch import torch_steps

VARIANTS = {
    "peephole": {"peephole": True},
    "f=1-i": {"coupled": "f=1-i"},
    "i=1-f": {"coupled": "i=1-f"},
    "layer_norm": {"layer_norm": True},
    "zoneout_h": {"zoneout": (0.4, 0.0)},
    "zoneout_c": {"zoneout": (0.0, 0.3)},
    "zoneout": {"zoneout": (0.4, 0.3)},
    "zoneout_evaluated": {"zoneout": (0.4, 0.3), "training": False},
    "recurrent_dropout": {"recurrent_dropout": 0.4},
    "drop_connect": {"drop_connect": 0.4},
    "clip": {"clip": 0.6},
    "cell_clip": {"cell_clip": 0.5},
}
AIDS = {"truncate": 2, "grad_clip": 0.5, "resets": np.random.default_rng(0).random((5, 3)) < 0.2}
MASKED = ("zoneout_h", "zoneout_c", "zoneout", "recurrent_dropout", "drop_connect")


def combination(seed):
    """Some of the variants, a shape, an order, and what else a call may have."""
    chosen = random.Random(seed)
    options = {"seed": seed, "place": chosen.randrange(4), "projection": chosen.choice([0, 2])}
    for variant in chosen.sample(list(VARIANTS), chosen.randint(2, 7)):
        options |= VARIANTS[variant]
    options |= chosen.choice([{}, {"reverse": True}, {"lengths": [3, 0, 5]}, {"lengths": [5, 2, 4], "reverse": True}])
    return options


EVERY = {"plain": {}} | VARIANTS
EVERY |= {f"projected {name}": variant | {"projection": 2} for name, variant in EVERY.items()}
EVERY |= {f"combination {seed}": combination(seed) for seed in range(24)}
# Finite differences are slow.
SOME = ["projected plain", *VARIANTS, *(f"combination {seed}" for seed in range(10))]


def assert_agrees_with_autograd(case):
    for found, wanted in zip(case.solve(), torch_steps(case), strict=True):
        assert set(found) == set(wanted)
        for name, value in found.items():
            # float64, other sum orders; layer norm divides by deviations as small as sqrt(1e-5).
            assert distance(value, wanted[name]) <= (1e-11 if "g_x" in case.arrays else 1e-13), name


@pytest.mark.parametrize("name", EVERY)
def test_values_and_gradients_are_those_of_autograd(name):
    assert_agrees_with_autograd(draw_case("lstm", **EVERY[name]))


@pytest.mark.parametrize("seed", range(24, 48))
def test_variants_and_aids_together_are_those_of_autograd(seed):
    assert_agrees_with_autograd(draw_case("lstm", **combination(seed), **AIDS))


@pytest.mark.parametrize("name", SOME)
def test_gradients_are_those_of_finite_differences(name):
    assert_gradients_are_numeric(draw_case("lstm", (5, 3, 1, 3), bias=("b_ih",), **EVERY[name]))


@pytest.mark.parametrize("bias", [(), ("b_ih",), ("b_hh",)])
def test_variants_need_no_bias(bias):
    options = {"peephole": True, "layer_norm": True, "coupled": "f=1-i", "clip": 0.8}
    assert_gradients_are_numeric(draw_case("lstm", (3, 2, 1, 3), bias=bias, **options))


@pytest.mark.parametrize("coupled", [None, "f=1-i"])
@pytest.mark.parametrize("peephole", [False, True])
@pytest.mark.parametrize("clip", [None, 0.4])
@pytest.mark.parametrize("order", [{}, {"lengths": [3, 9, 1, 7], "reverse": True}])
def test_peephole_coupled_and_clip_are_those_of_onnx_runtime(coupled, peephole, clip, order):
    shape = (9, 4, 8, 17)
    options = ({"coupled": coupled} if coupled else {}) | ({"clip": clip} if clip else {})
    case = draw_case("lstm", shape, scale=17**-0.5, peephole=peephole, **options, **order)
    outputs, _ = case.forward()
    whole = case
    if coupled:  # ONNX has rows for f, too, which must not matter
        rows = {"peephole": 1} | dict.fromkeys(("w_ih", "w_hh", "b_ih", "b_hh"), 17)
        given = {name: case.arrays[name] for name in rows if name in case.arrays}
        f = {name: np.full_like(value[: rows[name]], 0.7) for name, value in given.items()}
        joined = {n: np.concatenate([v[: rows[n]], f[n], v[rows[n] :]]) for n, v in given.items()}
        whole = case.replace(**joined)
    attributes = ({"input_forget": 1} if coupled else {}) | ({"clip": clip} if clip else {})
    theirs = onnx_outputs(whole, **order, **attributes)
    for (name, ours), other in zip(outputs.items(), theirs, strict=True):
        # ONNX Runtime computes in float32: the tolerance of our own kernels of that dtype.
        assert distance(other, ours) <= tolerance(*shape, "float32", backward=False), name


def test_the_two_couplings_mirror_each_other():
    """s(-a) = 1 - s(a): i = 1 - s(a_f) is s(-a_f), so the other coupling with negated rows is the same LSTM."""
    case = draw_case("lstm", coupled="i=1-f", peephole=True)
    negated = {}
    for name in ("w_ih", "w_hh", "b_ih", "b_hh", "peephole"):
        hidden = 1 if name == "peephole" else 4
        negated[name] = case.arrays[name].copy()
        negated[name][:hidden] *= -1
    outputs, _ = case.forward()
    mirrored, _ = case.replace(**negated).optional(coupled="f=1-i").forward()
    for name, value in outputs.items():
        assert distance(value, mirrored[name]) <= 1e-14, name  # rounding of s(-a) and of 1 - s(a)


@pytest.mark.parametrize("name", ["clip", "cell_clip"])
def test_a_clip_that_never_acts_changes_no_bit(name):
    for found, wanted in zip(draw_case("lstm", **{name: 1e6}).solve(), draw_case("lstm").solve(), strict=True):
        assert_all_same_bits(found, wanted)


def test_no_gradient_passes_a_clip_that_acts_and_all_of_it_one_at_its_bound():
    case = draw_case("lstm", (1, 1, 1, 1))
    c = case.forward()[0]["cn"].item()
    for bound, stopped in ((abs(c), False), (np.nextafter(abs(c), 0), True)):
        outputs, reserve = case.optional(cell_clip=bound).forward()
        assert abs(outputs["cn"]) == bound
        grads = case.gradients(reserve, dcn=np.ones((1, 1)))
        assert (grads["c0"] == 0) == stopped


@pytest.mark.parametrize("variant", MASKED)
def test_a_rate_of_zero_or_evaluation_without_zoneout_is_the_plain_lstm(variant):
    rates = VARIANTS[variant]
    off = {name: (0.0, 0.0) if name == "zoneout" else 0.0 for name in rates}
    plain = draw_case("lstm").solve()
    for options in [off] + ([rates | {"training": False}] if "zoneout" not in rates else []):
        for found, wanted in zip(draw_case("lstm", **options).solve(), plain, strict=True):
            assert_all_same_bits(found, wanted)


@pytest.mark.parametrize("name", EVERY)
def test_float32_stays_float32(name):
    case = draw_case("lstm", **EVERY[name])
    (wide, _), (narrow, reserve) = case.forward(), case.forward(dtype=np.float32)
    for output, value in narrow.items():
        assert value.dtype == np.float32
        # 2e-4 is the cap of the tolerance for float32; layer norm may divide by sqrt(1e-5).
        assert distance(value, wide[output]) <= 2e-4
    assert all(value.dtype == np.float32 for value in case.gradients(reserve).values())


def test_nothing_is_written_into_arguments_and_backward_can_be_called_again():
    options = VARIANTS["peephole"] | VARIANTS["layer_norm"] | VARIANTS["zoneout"] | VARIANTS["clip"] | AIDS
    case = draw_case("lstm", projection=2, **options)
    before = {name: value.copy() for name, value in case.arrays.items()}
    _, reserve = case.forward()
    assert_all_same_bits(case.gradients(reserve), case.gradients(reserve))
    assert_all_same_bits(case.arrays, before)
    assert set(LAYER_NORM) | {"peephole", "w_hr"} < set(before)
