"""The LSTM in PyTorch operations: differentiable any number of times, in both modes, and under torch.func.

Slow; for what the kernels do not do. Formulas: PyTorch's nn.LSTM.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._plan import Plan

Weights = Sequence[Tensor | None]  # w_ih, w_hh, b_ih, b_hh, w_hr


def stack(plan: Plan, x: Tensor, h0: Tensor, c0: Tensor, weights: Sequence[Weights]) -> tuple[Tensor, ...]:
    """Return y, hn, cn and the cells as the kernels do: x and states as for :func:`lstm_fast.torch._call.run`."""
    if plan.step:
        outputs_of_all = stack(plan._replace(step=False), x[None], h0[None], c0[None], weights)
        return tuple(output[0] for output in outputs_of_all)
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
    hn, cn = [], []
    for layer in range(plan.layers):
        outputs, cells = [], []
        for direction in range(plan.directions):
            at = layer * plan.directions + direction
            y, all_c, h, c = _direction(x, h0[at], c0[at], weights[at], lengths, reverse=direction == 1)
            outputs.append(y)
            cells.append(all_c)
            hn.append(h)
            cn.append(c)
        x = torch.cat(outputs, dim=-1) if len(outputs) > 1 else outputs[0]
        if plan.dropout > 0 and layer < plan.layers - 1:
            from . import _library  # noqa: F401  it makes the operator, and imports from here

            seed = torch.as_tensor(plan.seed, device="cpu")
            x = x * torch.ops.lstm_fast.dropout_scale(seed, layer, x.shape, plan.dropout, x.dtype)
    found = [x, torch.cat(cells, dim=-1)] if plan.cells else [x]
    if plan.batch_sizes is not None:
        found = [each[steps, rows] for each in found]
    return found[0], torch.stack(hn), torch.stack(cn), *found[1:]


def _places(batch_sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Step and row of every row of a packed sequence."""
    steps = torch.repeat_interleave(torch.arange(len(batch_sizes), device=batch_sizes.device), batch_sizes)
    firsts = torch.cumsum(batch_sizes, 0) - batch_sizes
    return steps, torch.arange(len(steps), device=steps.device) - firsts[steps]


def _direction(
    x: Tensor, h: Tensor, c: Tensor, weights: Weights, lengths: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y and c of all steps, and the last h and c."""
    w_ih, w_hh, b_ih, b_hh, w_hr = weights
    assert w_ih is not None
    assert w_hh is not None
    steps = x.shape[0]
    all_h: list[Tensor] = []
    all_c: list[Tensor] = []
    for t in reversed(range(steps)) if reverse else range(steps):
        a = torch.nn.functional.linear(x[t], w_ih, b_ih) + torch.nn.functional.linear(h, w_hh, b_hh)
        i, f, g, o = a.chunk(4, dim=-1)
        new_c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        new_h = torch.sigmoid(o) * torch.tanh(new_c)
        if w_hr is not None:
            new_h = torch.nn.functional.linear(new_h, w_hr)
        if lengths is None:
            h, c = new_h, new_c
            all_h.append(h)
            all_c.append(c)
        else:
            active = (lengths > t)[:, None]
            h, c = torch.where(active, new_h, h), torch.where(active, new_c, c)
            all_h.append(torch.where(active, new_h, 0.0))
            all_c.append(torch.where(active, new_c, 0.0))
    if reverse:
        all_h.reverse()
        all_c.reverse()
    return torch.stack(all_h), torch.stack(all_c), h, c
