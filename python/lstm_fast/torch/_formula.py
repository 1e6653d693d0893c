"""All cells in PyTorch operations: differentiable any number of times, in both modes, and under torch.func.

Slow; for what the kernels do not do. Formulas: those of torch.nn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ._cells import Cell
from ._plan import Plan

Weights = Sequence[Tensor | None]  # w_ih, w_hh, b_ih, b_hh, w_hr
Outputs = tuple[Any, ...]  # y, hn, cn (None if the cell has no c), and the cells if the plan has them


def stack(plan: Plan, x: Tensor, h0: Tensor, c0: Tensor | None, weights: Sequence[Weights]) -> Outputs:
    """The outputs as the kernels give them: x and states as for :func:`lstm_fast.torch._call.run`."""
    if plan.step:
        return as_step(stack, plan, x, h0, c0, weights)
    lengths: Tensor | None
    if plan.batch_sizes is not None:
        steps, rows = _places(plan.batch_sizes)
        padded = x.new_zeros(len(plan.batch_sizes), int(plan.batch_sizes[0]), x.shape[-1])
        x = padded.index_put((steps, rows), x)
        lengths = torch.bincount(rows)
    else:
        lengths = None if plan.lengths is None else torch.as_tensor(plan.lengths, device=x.device)
        if lengths is not None:
            # Of a compiled call nobody has looked at it before, and at the values nobody can.
            if lengths.shape != (x.shape[1],):
                raise ValueError(f"lengths: expected shape ({x.shape[1]},), got {tuple(lengths.shape)}")
            # Whatever stands in the padding must not reach a gradient.
            x = torch.where((torch.arange(x.shape[0], device=x.device)[:, None] < lengths)[..., None], x, 0.0)
    starts = (h0,) if c0 is None else (h0, c0)
    last = []
    for layer in range(plan.layers):
        found = []
        for direction in range(plan.directions):
            at = layer * plan.directions + direction
            start = tuple(state[at] for state in starts)
            sequences, end = _direction(plan.cell, x, start, weights[at], lengths, reverse=direction == 1)
            found.append(sequences)
            last.append(end)
        x, *cells = [torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0] for parts in zip(*found, strict=True)]
        if plan.dropout > 0 and layer < plan.layers - 1:
            from . import _library  # noqa: F401  it makes the operator, and imports from here

            seed = torch.as_tensor(plan.seed, device="cpu")
            x = x * torch.ops.lstm_fast.dropout_scale(seed, layer, x.shape, plan.dropout, x.dtype)
    outputs = [x, *cells] if plan.cells else [x]
    if plan.batch_sizes is not None:
        outputs = [each[steps, rows] for each in outputs]
    hn, *cn = [torch.stack(states) for states in zip(*last, strict=True)]
    return outputs[0], hn, cn[0] if cn else None, *outputs[1:]


def as_step(
    of_stack: Callable[..., Outputs], plan: Plan, x: Tensor, h0: Tensor, c0: Tensor | None, weights: Sequence[object]
) -> Outputs:
    """The outputs of a plan's single step by what computes a stack of layers."""
    outputs = of_stack(plan._replace(step=False), x[None], h0[None], None if c0 is None else c0[None], weights)
    return tuple(None if output is None else output[0] for output in outputs)


def _places(batch_sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Step and row of every row of a packed sequence."""
    steps = torch.repeat_interleave(torch.arange(len(batch_sizes), device=batch_sizes.device), batch_sizes)
    firsts = torch.cumsum(batch_sizes, 0) - batch_sizes
    return steps, torch.arange(len(steps), device=steps.device) - firsts[steps]


def _direction(
    cell: Cell, x: Tensor, states: tuple[Tensor, ...], weights: Weights, lengths: Tensor | None, reverse: bool
) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """h and, if the cell has one, c: after all steps, and the last."""
    w_ih, w_hh, b_ih, b_hh, w_hr = weights
    assert w_ih is not None
    assert w_hh is not None
    steps = x.shape[0]
    after: list[tuple[Tensor, ...]] = []
    for t in reversed(range(steps)) if reverse else range(steps):
        a_x = torch.nn.functional.linear(x[t], w_ih, b_ih)
        a_h = torch.nn.functional.linear(states[0], w_hh, b_hh)
        found = cell.equations(a_x, a_h, *states)
        if w_hr is not None:
            found = (torch.nn.functional.linear(found[0], w_hr), *found[1:])
        if lengths is None:
            states = found
        else:
            active = (lengths > t)[:, None]
            states = tuple(torch.where(active, new, old) for new, old in zip(found, states, strict=True))
            found = tuple(torch.where(active, new, 0.0) for new in found)
        after.append(found)
    if reverse:
        after.reverse()
    return [torch.stack(each) for each in zip(*after, strict=True)], states
