"""The kernels as operators of torch.library, for torch.compile and torch.export: no graph break, any T and B.

Eager calls do not come here: an operator of this kind costs several times the call itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _lstm_fast_core as _core
from .. import reference
from . import _counters
from ._call import Outputs, array, backward, forward, needs_graph
from ._cells import CELLS, Cell
from ._plan import Plan

# What both operators know of a call beside its tensors. biased, projected: which of the KINDS of weights there are.
_OPTIONS = (
    "Tensor? lengths, str cell, bool packed, int layers, int directions, bool biased, bool projected, float dropout"
)

torch.library.define(
    "lstm_fast::stack",
    f"(Tensor x, Tensor h0, Tensor? c0, Tensor[] weights, Tensor? seed, {_OPTIONS}, bool save, bool cells)"
    " -> (Tensor y, Tensor hn, Tensor cn, Tensor cells, Tensor block)",
)
torch.library.define(
    "lstm_fast::stack_backward",
    "(Tensor? dy, Tensor? dhn, Tensor? dcn, Tensor? dcells, Tensor x, Tensor y, Tensor block, Tensor[] weights,"
    f" Tensor? seed, {_OPTIONS}, SymInt batch, bool[] wanted) -> Tensor[]",
)
# What the formula multiplies the output of a layer by. An operator, since the seed is known when it runs, not before.
torch.library.define(
    "lstm_fast::dropout_scale", "(Tensor seed, int layer, SymInt[] shape, float dropout, ScalarType dtype) -> Tensor"
)


def call(plan: Plan, x: Tensor, h0: Tensor, c0: Tensor | None, weights: Sequence[Tensor | None]) -> Outputs:
    """As :func:`lstm_fast.torch._call.run`, under the compiler."""
    lengths = plan.lengths if plan.batch_sizes is None else plan.batch_sizes
    given = [weight for weight in weights if weight is not None]
    y, hn, cn, cells, _ = torch.ops.lstm_fast.stack(
        x,
        h0,
        c0,
        given,
        plan.seed if isinstance(plan.seed, Tensor) else None,
        lengths,
        plan.cell.name,
        plan.batch_sizes is not None,
        plan.layers,
        plan.directions,
        weights[2] is not None,
        weights[4] is not None,
        plan.dropout,
        needs_graph(x, h0, c0, *given) or plan.needs_reserve(),
        plan.cells,
    )
    outputs = y, hn, cn if plan.cell.has_c else None
    return (*outputs, cells) if plan.cells else outputs


def _spread(weights: Sequence[Any], biased: bool, projected: bool, missing: Any = None) -> list[Any]:
    """All KINDS for each layer and direction, ``missing`` where there is none."""
    there = (True, True, biased, biased, projected)
    left = iter(weights)
    return [next(left) if has else missing for _ in range(len(weights) // sum(there)) for has in there]


_ISA_BYTES = 64  # behind the reserve, for the name of its instruction set
_LINE = 64  # bytes of a cache line, and of the widest vector


def _block_bytes(
    cell: Cell,
    x: Tensor,
    weights: Sequence[Tensor],
    batch: Any,
    layers: int,
    directions: int,
    projected: bool,
    dropout: bool,
) -> Any:
    """Enough for the reserve of every instruction set, whatever the lengths; symbolic where the sizes are.

    An upper bound of what StackReserve in csrc takes, with every size that it rounds up taken a line larger. Compiled
    graphs are cached on disk under the operators' names, with this number in them: to change it, change the names.
    """
    line = _LINE // x.element_size()
    rows = x.shape[0] if x.dim() == 2 else x.shape[0] * x.shape[1]
    hidden, width = weights[1].shape[0] // cell.gates, weights[1].shape[1]
    elements = (layers - 1) * (2 if dropout else 1) * (rows * directions * width + line)
    for layer in range(layers):
        inputs = x.shape[-1] if layer == 0 else directions * width
        kept = rows * (cell.kept * (hidden + line) + 2 * line) + batch * (hidden + line + width)
        matrices = cell.gates * hidden * (inputs + width + 2 * line)
        projection = width * (hidden + line) + line if projected else 0
        elements = elements + directions * (kept + matrices + projection + 5 * line)
    return elements * x.element_size() + _ISA_BYTES


def _output(x: Tensor, state: Tensor, directions: int) -> Tensor:
    return x.new_empty(*x.shape[:-1], directions * state.shape[-1])


class Forward(NamedTuple):
    """Arguments of lstm_fast::stack."""

    x: Tensor
    h0: Tensor
    c0: Tensor | None
    weights: Sequence[Tensor]
    seed: Tensor | None
    lengths: Tensor | None
    cell: str
    packed: bool
    layers: int
    directions: int
    biased: bool
    projected: bool
    dropout: float
    save: bool
    cells: bool

    def block_bytes(self) -> Any:
        if not self.save:
            return 0
        shape = self.h0.shape[1], self.layers, self.directions
        return _block_bytes(CELLS[self.cell], self.x, self.weights, *shape, self.projected, self.dropout > 0)


class Backward(NamedTuple):
    """Arguments of lstm_fast::stack_backward."""

    dy: Tensor | None
    dhn: Tensor | None
    dcn: Tensor | None
    dcells: Tensor | None
    x: Tensor
    y: Tensor
    block: Tensor
    weights: Sequence[Tensor]
    seed: Tensor | None
    lengths: Tensor | None
    cell: str
    packed: bool
    layers: int
    directions: int
    biased: bool
    projected: bool
    dropout: float
    batch: int
    wanted: Sequence[bool]

    @property
    def sizes(self) -> tuple[int, int]:
        """H, and the width of h."""
        return self.weights[1].shape[0] // CELLS[self.cell].gates, self.weights[1].shape[1]


@torch.library.impl("lstm_fast::stack", "CPU")
def _stack(*arguments: Any) -> tuple[Tensor, ...]:
    a = Forward(*arguments)
    plan = Plan(
        CELLS[a.cell],
        a.layers,
        a.directions,
        a.dropout,
        0 if a.seed is None else int(a.seed),
        None if a.packed else array(a.lengths),
        a.lengths if a.packed else None,
        a.cells,
    )
    _counters.native[plan.cell.title] += 1
    spread = _spread(a.weights, a.biased, a.projected)
    block = torch.zeros(a.block_bytes(), dtype=torch.uint8)  # an operator's outputs are defined to the last byte
    (y, hn, cn, *cells), reserve, _ = forward(plan, a.x, a.h0, a.c0, spread, a.save, block if a.save else None)
    if a.save:
        block[-_ISA_BYTES:] = torch.tensor(list(reserve.isa.encode().ljust(_ISA_BYTES)), dtype=torch.uint8)
    return y, hn, a.x.new_empty(0) if cn is None else cn, cells[0] if cells else a.x.new_empty(0), block


@torch.library.register_fake("lstm_fast::stack")  # type: ignore[untyped-decorator]
def _stack_fake(*arguments: Any) -> tuple[Tensor, ...]:
    a = Forward(*arguments)
    return (
        _output(a.x, a.h0, a.directions),
        a.h0.new_empty(a.h0.shape),
        a.x.new_empty(0) if a.c0 is None else a.c0.new_empty(a.c0.shape),
        a.x.new_empty(0) if a.c0 is None or not a.cells else _output(a.x, a.c0, a.directions),
        a.x.new_empty(a.block_bytes(), dtype=torch.uint8),
    )


@torch.library.impl("lstm_fast::stack_backward", "CPU")
def _backward(*arguments: Any) -> list[Tensor]:
    a = Backward(*arguments)
    hidden, width = a.sizes
    reserve = _core.describe_reserve(
        a.cell,
        bytes(a.block[-_ISA_BYTES:].tolist()).decode().strip(),
        "f" if a.x.dtype == torch.float32 else "d",
        a.x.shape[0],
        a.batch,
        a.x.shape[-1],
        hidden,
        width if a.projected else 0,
        a.layers,
        a.directions,
        array(a.lengths),
        a.packed,
        a.dropout,
        0 if a.seed is None else int(a.seed),
        a.biased,
    )
    wanted = [*a.wanted[:3], *_spread(a.wanted[3:], a.biased, a.projected, missing=False)]
    there = [True] * 3 + _spread([True] * len(a.weights), a.biased, a.projected, missing=False)
    found = backward(reserve, (a.dy, a.dhn, a.dcn, a.dcells), wanted, [array(a.x), array(a.y), array(a.block)])
    given = (gradient for gradient, has in zip(found, there, strict=True) if has)
    return [a.x.new_empty(0) if gradient is None else gradient for gradient in given]


@torch.library.register_fake("lstm_fast::stack_backward")  # type: ignore[untyped-decorator]
def _backward_fake(*arguments: Any) -> list[Tensor]:
    a = Backward(*arguments)
    hidden, width = a.sizes
    states = a.layers * a.directions
    shapes = [(states, a.batch, width), (states, a.batch, hidden), *(tuple(w.shape) for w in a.weights)]
    shapes.insert(0, tuple(a.x.shape))
    return [a.x.new_empty(shape if want else (0,)) for want, shape in zip(a.wanted, shapes, strict=True)]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, h0, c0, weights, seed, lengths, *options, _, has_cells = inputs
    y, _, cn, cells, block = output
    ctx.count = len(weights)
    ctx.options = (*options, h0.shape[1])
    ctx.has = (seed is not None, lengths is not None)
    ctx.mark_non_differentiable(*(() if c0 is not None else (cn,)), *(() if has_cells else (cells,)), block)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, y, block, *weights, *(t for t in (seed, lengths) if t is not None))


def _autograd(ctx: Any, *incoming: Tensor | None) -> tuple[Any, ...]:
    x, y, block, *rest = ctx.saved_tensors
    weights, others = rest[: ctx.count], iter(rest[ctx.count :])
    seed, lengths = (next(others) if has else None for has in ctx.has)
    need = ctx.needs_input_grad
    wanted = [need[0], need[1], need[2], *(need[3] if isinstance(need[3], (list, tuple)) else [need[3]] * ctx.count)]
    found = torch.ops.lstm_fast.stack_backward(
        *incoming[:-1], x, y, block, weights, seed, lengths, *ctx.options, wanted
    )
    gradients = [g if want else None for g, want in zip(found, wanted, strict=True)]
    return (*gradients[:3], gradients[3:], *[None] * (3 + len(ctx.options)))


torch.library.register_autograd("lstm_fast::stack", _autograd, setup_context=_setup)


@torch.library.impl("lstm_fast::dropout_scale", "CPU")
def _dropout_scale(seed: Tensor, layer: int, shape: tuple[int, int, int], dropout: float, dtype: torch.dtype) -> Tensor:
    return torch.as_tensor(reference.dropout_scale(int(seed), layer, shape, dropout), dtype=dtype)


@torch.library.register_fake("lstm_fast::dropout_scale")  # type: ignore[untyped-decorator]
def _dropout_scale_fake(seed: Tensor, layer: int, shape: Sequence[int], dropout: float, dtype: torch.dtype) -> Tensor:
    return seed.new_empty(shape, dtype=dtype)


def _dropout_scale_vmap(info: Any, in_dims: Any, seeds: Tensor, *others: Any) -> tuple[Tensor, int]:
    # of randomness="different"
    return torch.stack([torch.ops.lstm_fast.dropout_scale(seed, *others) for seed in seeds.unbind(in_dims[0])]), 0


if hasattr(torch.library, "register_vmap"):  # in PyTorch 2.4 a loop of its own does the same, and warns of its cost
    torch.library.register_vmap("lstm_fast::dropout_scale", _dropout_scale_vmap)
