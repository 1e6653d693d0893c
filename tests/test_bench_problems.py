"""What is checked and timed: kernels, shapes, arrays, lengths, FLOPs, the points of a sweep."""

from __future__ import annotations

import hashlib

import lstm_fast as lf
import numpy as np
import pytest
from lstm_fast.bench.points import FULL, QUICK, grid_problems
from lstm_fast.bench.problems import KERNELS, Problem


@pytest.mark.parametrize("kernel", KERNELS, ids="-".join)
def test_every_listed_kernel_has_its_functions_and_reference(kernel):
    for module in (lf.ops, lf.reference):
        for suffix in ("forward", "backward", "cell"):
            assert callable(getattr(module, f"{kernel.cell}_{suffix}"))


def test_problem_arrays_are_the_same_bits_everywhere():
    digest = hashlib.sha256()
    for array in Problem("lstm", "float64", steps=5, batch=2, hidden=3).arrays().values():
        digest.update(array.astype("<f8").tobytes())
    assert digest.hexdigest() == "9e647d0400656f539021bb00ab89d11cef18118725ea8488495ad5c4eb95bb88"
    assert Problem("lstm", "float32", 256, 32, 128, shortest=10).valid == 4025


def test_lengths_are_uniform_between_the_shortest_and_all_steps():
    lengths = Problem("lstm", "float32", steps=20, batch=5000, hidden=1, shortest=10).lengths()
    assert (lengths.min(), lengths.max()) == (10, 20)
    assert np.bincount(lengths)[10:].min() > 0.8 * 5000 / 11
    assert (Problem("lstm", "float32", 3, 50, 1, shortest=0).lengths() == 0).any()


def test_ragged_problem_has_the_arrays_of_the_padded_one():
    ragged = Problem("lstm", "float32", 12, 4, 5, layers=2, shortest=2)
    arrays, padded = ragged.arrays(), ragged.padded().arrays()
    assert arrays.keys() - padded.keys() == {"lengths"}
    assert all(np.array_equal(arrays[name], value) for name, value in padded.items())


def test_problem_names_its_variant():
    problem = Problem("lstm", "float64", 12, 4, 5, 3, layers=2, directions=2, projection=3, shortest=2, dropout=0.5)
    assert str(problem) == "lstm float64 T 12 B 4 I 3 H 5 L 2 bidirectional P 3 ragged 2..12 dropout 0.5"


def test_problem_arrays_are_centred_and_weights_on_pytorchs_scale():
    arrays = Problem("lstm", "float32", steps=50, batch=8, hidden=64).arrays()
    assert {a.dtype for a in arrays.values()} == {np.dtype("float32")}
    assert 0.95 < np.abs(arrays["x"]).max() <= 1
    assert abs(arrays["x"].mean()) < 0.02
    assert 0.95 / 8 < np.abs(arrays["w_hh"]).max() <= 1 / 8


def test_flops_count_the_matrix_products():
    problem = Problem("lstm", "float32", steps=5, batch=2, hidden=3, inputs=4)
    assert problem.flops(backward=False) == 8 * 5 * 2 * 3 * (4 + 3)
    assert problem.flops(backward=True) == 3 * problem.flops(backward=False)


def test_flops_count_valid_steps_layers_directions_and_the_projection():
    problem = Problem("lstm", "float32", steps=5, batch=2, hidden=6, inputs=4, layers=2, directions=2, projection=3)
    layers = [8 * 6 * (inputs + 3) + 2 * 6 * 3 for inputs in (4, 2 * 3)]
    assert problem.flops(backward=False) == 2 * 5 * 2 * sum(layers)
    ragged = Problem("lstm", "float32", steps=50, batch=20, hidden=6, shortest=1)
    assert ragged.flops(backward=True) == 3 * 8 * ragged.lengths().sum() * 6 * 12
    assert ragged.valid_share == ragged.lengths().sum() / 1000


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"hidden": -1},
        {"dtype": "float16"},
        {"cell": "gru9"},
        {"directions": 3},
        {"projection": 5},
        {"shortest": 7},
    ],
)
def test_impossible_problem_is_refused(wrong):
    with pytest.raises(ValueError, match="|".join(map(str, wrong.values()))):
        Problem(**({"cell": "lstm", "dtype": "float32", "steps": 1, "batch": 1, "hidden": 1} | wrong))


def test_default_sweep_runs_from_16_to_4096():
    assert (min(FULL.steps), max(FULL.steps)) == (16, 4096)
    assert set(QUICK.sizes) <= set(FULL.sizes)
    assert len(grid_problems(KERNELS[0], FULL)) == len(FULL.steps) * len(FULL.sizes)
