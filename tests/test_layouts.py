"""Every memory layout is accepted, and gives the bits of its contiguous copy."""

from __future__ import annotations

import numpy as np
import pytest
from judge import assert_all_same_bits, assert_same_bits
from problems import PARAMETER_NAMES, draw, make_layer, solve, solve_layer

ARRAYS = ("x", "h0", "c0", "w_ih", "w_hh", "b_ih", "b_hh", "dy", "dhn", "dcn")


@pytest.fixture(params=["float32", "float64"])
def problem(request):
    return draw(3, 4, 5, 7, request.param, seed=41)


def strided(value):
    wide = np.full([2 * size for size in value.shape], np.nan, value.dtype)
    view = wide[tuple(np.s_[::2] for _ in value.shape)]
    view[...] = value
    return view


def negative(value):
    every = tuple(np.s_[::-1] for _ in value.shape)
    return np.ascontiguousarray(value[every])[every]


def misaligned(value):
    room = np.zeros(value.nbytes + 1, np.uint8)
    view = room[1:].view(value.dtype).reshape(value.shape)
    view[...] = value
    assert not view.flags.aligned
    return view


def read_only(value):
    view = value.copy()
    view.setflags(write=False)
    return view


def last_axis_first(value):
    return np.ascontiguousarray(np.moveaxis(value, -1, 0)).transpose(*range(1, value.ndim), 0)


class Subclass(np.ndarray):
    pass


LAYOUTS = {
    "strided": strided,
    "fortran": np.asfortranarray,
    "negative": negative,
    "misaligned": misaligned,
    "read-only": read_only,
    "last axis first": last_axis_first,
    "part of rows": lambda value: np.concatenate([value, value], axis=-1)[..., : value.shape[-1]],
    "subclass": lambda value: value.copy().view(Subclass),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ARRAYS)
def test_layout(name, layout, problem, isa):
    given = LAYOUTS[layout](problem.arrays[name])
    before = given.copy()
    np.testing.assert_array_equal(given, problem.arrays[name])
    assert_all_same_bits(solve(problem.replace(**{name: given})), solve(problem), f"with {name} {layout}")
    assert_same_bits(given, before)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_argument_in_a_layout(layout, problem, isa):
    given = problem.replace(**{name: LAYOUTS[layout](value) for name, value in problem.arrays.items()})
    result = solve(given)
    assert_all_same_bits(result, solve(problem), layout)
    assert all(type(value) is np.ndarray for value in result.values())


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_zero_strides(axis, problem, isa):
    """One step, row or column for all: np.broadcast_to makes strides of 0."""
    shape = problem.x.shape
    x = np.broadcast_to(problem.x.take([0], axis), shape)
    dy = np.broadcast_to(problem.dy.take([0], axis), problem.dy.shape)
    assert 0 in x.strides
    repeated = problem.replace(x=x, dy=dy)
    assert_all_same_bits(solve(repeated), solve(repeated.copy()), "with strides of 0")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_layouts_through_the_layer(layout, batch_first, problem):
    given = problem.replace(**{name: LAYOUTS[layout](getattr(problem, name)) for name in ("x", "dy")})
    expected = solve_layer(problem, batch_first=batch_first)
    layer = make_layer(problem, batch_first=batch_first)
    turn = (1, 0, 2) if batch_first else (0, 1, 2)
    y, _, reserve = layer.forward(given.x.transpose(turn), (problem.h0[None], problem.c0[None]))
    grads = layer.backward(reserve, given.dy.transpose(turn), (problem.dhn[None], problem.dcn[None]))
    assert_same_bits(np.asarray(y).transpose(turn), expected["y"], "y")
    assert_same_bits(grads.x.transpose(turn), expected["dx"], "dx")
    for short, name in PARAMETER_NAMES.items():
        assert_same_bits(grads.parameters[name], expected[f"d{short}"], name)
