"""Threads that share out the hidden units of every step, forced and proven: the same bits for any number of them."""

from __future__ import annotations

import lstm_fast as lf
import numpy as np
import pytest
from judge import assert_all_same_bits, assert_same_bits
from lstm_fast import _lstm_fast_core as core
from stacks import Sizes, draw_stack, infer_stack, name_of, solve_stack

THREADS = [1, 2, 3, 7]

# Units of one block and of many, of whole blocks and lines or not, in both passes.
UNIT_STACKS = [
    Sizes(7, 1, 3, 130),
    Sizes(5, 2, 5, 64, 0, 2, 2),
    Sizes(9, 3, 7, 17, 0, 2, 1),
    Sizes(250, 2, 4, 70, 0, 1, 2),
    Sizes(1, 2, 3, 40, 0, 2, 1),
    Sizes(6, 2, 3, 40, 9, 1, 1),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lengths", [None, "ragged", "with zeros"])
@pytest.mark.parametrize("sizes", UNIT_STACKS, ids=name_of)
def test_bits(sizes, lengths, dtype, isa, team):
    zeros = [sizes.steps * row % (sizes.steps + 1) for row in range(sizes.batch)]
    given = zeros if lengths == "with zeros" else lengths
    stack = draw_stack(sizes, dtype, lengths=given, seed=43).padded_with(np.nan)
    core.set_split(core.Split.units)
    expected = None
    for threads in THREADS:
        lf.set_num_threads(threads)
        inferred = infer_stack(stack)
        assert core.threads_used() == threads
        shared = threads // sizes.directions > 1 and sizes.steps > 1 and not sizes.proj
        shared = shared and (stack.lengths is None or max(stack.lengths) > 0)
        assert core.units_used() == shared
        lean = solve_stack(stack, save="lean")
        assert core.units_used() == shared
        result = solve_stack(stack)
        assert core.units_used() == shared
        expected = expected or result
        assert_all_same_bits(result, expected, f"with {threads} threads")
        assert_all_same_bits(lean, expected, f"lean, {threads} threads")
        assert_all_same_bits(inferred, {name: expected[name] for name in inferred}, f"inference, {threads} threads")


@pytest.mark.parametrize("save", ["gates", "lean"])
def test_all_cell_states(save, isa, team):
    """They go to the caller by rows, while the next step writes by units."""
    torch = pytest.importorskip("torch")
    lt = pytest.importorskip("lstm_fast.torch")
    module = lt.LSTM(5, 70, return_cells=True, save=save, dtype=torch.float64)
    x = torch.randn(250, 3, 5, dtype=torch.float64)
    before = torch.get_num_threads()
    found = []
    try:
        for threads, split in ((1, core.Split.rows), (2, core.Split.units), (3, core.Split.units)):
            core.set_split(split)
            lf.set_num_threads(threads)
            torch.set_num_threads(threads)
            y, _, cells = module(x)
            assert core.units_used() == (threads > 1)
            gradient = torch.autograd.grad((y.sum() + cells.square().sum()), list(module.parameters()))
            assert core.units_used() == (threads > 1)
            found.append([tensor.detach().numpy() for tensor in (y, cells, *gradient)])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        for at, (one, expected) in enumerate(zip(other, found[0], strict=True)):
            assert_same_bits(one, expected, str(at))
