"""One call of a stack through the kernels, with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, from_numpy
from torch.autograd import forward_ad
from torch.utils.dlpack import to_dlpack  # type: ignore[attr-defined]

from .. import _lstm_fast_core as _core
from . import _counters, _formula
from ._plan import Plan

KINDS = 5  # weights of a layer and direction: w_ih, w_hh, b_ih, b_hh, w_hr

PLAIN = (Tensor, torch.nn.Parameter)  # other types may stand for anything

Outputs = _formula.Outputs

# PyTorch 2.10 and later let the kernels' side look into tensors; before, each is handed over in a capsule.
_looked_into = _core.set_exchange(getattr(Tensor, "__dlpack_c_exchange_api__", None))


def run(name: str, plan: Plan, x: Tensor, h0: Tensor, c0: Tensor | None, weights: Sequence[Tensor | None]) -> Outputs:
    """Return the outputs of a stack, through whatever can compute what is asked for.

    ``name`` is that of the module's class, for :func:`stats`. x [T,B,I], or [N,I] if the plan is packed; states
    [L*D,B,.]; of a step x [B,I] and states [B,H]; c0 None if the cell has no c. Weights one after the other, KINDS for
    each layer and direction.
    """
    if torch.compiler.is_compiling():
        from . import _library, _traced  # operators are made at import, which nobody else should pay for

        reason = _traced.unsupported()
        # Read in the open, it is a guard: called where dual numbers are, the kernels would lose their tangents. No
        # assert, which python -O would drop, and the guard with it.
        if not reason and forward_ad._current_level >= 0:
            reason = "forward-mode differentiation"
        if not reason:
            if not plan.step:
                return _library.call(plan, x, h0, c0, weights)
            return _formula.as_step(_library.call, plan, x, h0, c0, weights)
    else:
        reason = unsupported()
    if reason:
        _counters.note("formula", reason)
        return _formula.stack(plan, x, h0, c0, grouped(weights))
    _counters.native[name] += 1
    if needs_graph(x, h0, c0, *weights):
        return _Stack.apply(plan, x, h0, c0, *weights)  # type: ignore[no-any-return, no-untyped-call]
    outputs, _, _ = forward(plan, x, h0, c0, weights, save=plan.needs_reserve())
    return outputs


def needs_graph(*tensors: Tensor | None) -> bool:
    """Whether a gradient of any of them may be asked for."""
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return False


def unsupported() -> str | None:
    """Why the kernels cannot be asked, if so."""
    if torch._C._are_functorch_transforms_active():
        return "a torch.func transform"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation"
    return None


def recorded() -> str | None:
    """What wants to see PyTorch's own operations, if anything does."""
    if not torch.compiler.is_compiling() and torch._C._len_torch_dispatch_stack():
        return "a mode that sees every operation"
    if torch.is_autocast_enabled("cpu"):
        return "autocast"
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return "tracing"
    return None


def grouped(weights: Sequence[Any]) -> list[tuple[Any, ...]]:
    return [tuple(weights[at : at + KINDS]) for at in range(0, len(weights), KINDS)]


def array(tensor: Tensor | None) -> Any:
    """The same memory as a NumPy array to read.

    Not by Tensor.numpy(), after which the storage can never be resized: fully_shard frees parameters that way.
    """
    return arrays((tensor,))[0]


def arrays(tensors: Sequence[Tensor | None]) -> list[Any]:
    take = _core.array_of_dlpack
    return [None if t is None else take(to_dlpack(t.resolve_neg() if t.is_neg() else t)) for t in tensors]


def forward(
    plan: Plan,
    x: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weights: Sequence[Tensor | None],
    save: bool,
    block: Tensor | None = None,
) -> tuple[Outputs, Any, Any]:
    """Outputs and, if ``save``, the reserve and the block that it has released: the given one if there is one."""
    packed = plan.batch_sizes is not None
    inputs = arrays((x, h0) if c0 is h0 else (x, h0, c0))
    y, hn, cn, cells, reserve = plan.cell.forward(
        inputs[0],
        inputs[1],
        inputs[-1],
        grouped(arrays(weights)),
        array(plan.batch_sizes) if packed else plan.lengths,
        plan.layers,
        plan.directions,
        False,
        _core.Save[plan.save] if save else None,
        plan.dropout,
        int(plan.seed),
        _core.Form.packed if packed else _core.Form.cell if plan.step else _core.Form.stack,
        torch.get_num_threads(),
        None if block is None else block.numpy(),
        plan.cells,
    )
    saved = None
    if reserve is not None:
        _, y, saved = reserve.release()
    outputs = (from_numpy(y), from_numpy(hn), None if cn is None else from_numpy(cn))
    return outputs if cells is None else (*outputs, from_numpy(cells)), reserve, saved


def backward(
    reserve: Any, gradients: Sequence[Tensor | None], wanted: Sequence[bool], saved: Sequence[Any]
) -> list[Tensor | None]:
    """Gradients of x, h0, c0 and the weights, None where none is wanted.

    ``gradients`` are those of the outputs; ``saved``: x, y, the block and, of a step, the weights, as arrays.
    """
    dy, dhn, dcn, *dcells = map(array, gradients)
    groups = grouped(wanted[3:])
    kinds = [(w_ih, w_hh, b_ih or b_hh, w_hr) for w_ih, w_hh, b_ih, b_hh, w_hr in groups]
    dx, dh0, dc0, found = _core.backward(
        reserve,
        dy,
        dhn,
        dcn,
        (wanted[0], wanted[1], wanted[2], kinds),
        tuple(saved),
        torch.get_num_threads(),
        *dcells,
    )
    parameters = []
    for (_, _, b_ih, b_hh, _), (dw_ih, dw_hh, db, dw_hr, db_hh) in zip(groups, found, strict=True):
        if db_hh is None and b_hh:  # the two biases have equal gradients, in tensors of their own
            db_hh = db.copy() if b_ih else db
        parameters += [dw_ih, dw_hh, db if b_ih else None, db_hh if b_hh else None, dw_hr]
    return [None if g is None else from_numpy(g) for g in (dx, dh0, dc0, *parameters)]


def infer(
    x: Tensor,
    hx: Any,
    weights: Sequence[Tensor | None],
    inputs: int,
    hidden: int,
    proj: int = 0,
    layers: int = 1,
    directions: int = 1,
    batch_first: bool = False,
    cell: bool = False,
) -> Any:
    """y, hn, cn of LSTM layers, h and c of an LSTM cell, past NumPy, without a graph; None if it is not that simple.

    x [T,B,I], [B,T,I] if batch_first, or [B,I] for a cell; y alike. hx a pair of states, or None; weights as in `run`.
    The sizes are those of the module, which the tensors may not have.
    """
    if hx is None:
        h0 = c0 = None
    elif type(hx) is tuple and len(hx) == 2 and hx[0] is not None and hx[1] is not None:
        h0, c0 = hx
    else:
        return None
    tensors = (x, h0, c0, *weights)
    grad = torch.is_grad_enabled()
    for tensor in tensors:
        if tensor is not None and (type(tensor) not in PLAIN or (grad and tensor.requires_grad) or tensor.is_neg()):
            return None
    if unsupported() or recorded():
        return None
    given: tuple[Any, ...] = tensors
    if not _looked_into:
        try:
            given = tuple(None if tensor is None else to_dlpack(tensor) for tensor in tensors)
        except (BufferError, RuntimeError):  # no memory that could be handed over
            return None
    threads = torch.get_num_threads()
    found = _core.lstm_infer(given, inputs, hidden, proj, layers, directions, batch_first, cell, threads)
    return found if _looked_into or found is None else tuple(map(from_numpy, found))


class _Stack(torch.autograd.Function):
    """y, hn, cn[, cells] = f(x, h0, c0, *weights)."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, x: Tensor, h0: Tensor, c0: Tensor | None, *weights: Tensor | None) -> Outputs:
        outputs, ctx.reserve, block = forward(plan, x, h0, c0, weights, save=True)
        ctx.plan = plan
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, h0, c0, outputs[0], from_numpy(block), *weights)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        x, h0, c0, y, block, *weights = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1:]
        if all(gradient is None for gradient in gradients):
            return (None,) * (1 + len(wanted))
        reason = "double backward" if torch.is_grad_enabled() else unsupported() or _batched(gradients)
        if reason:
            _counters.note("formula", reason)
            return (None, *_differentiable_backward(ctx.plan, wanted, gradients, x, h0, c0, weights))
        saved = arrays((x, y, block))
        if ctx.plan.step:
            saved.append(grouped(arrays(weights)))
        return (None, *backward(ctx.reserve, gradients, wanted, saved))


def _batched(gradients: Sequence[Tensor | None]) -> str | None:
    """Whether each is one of several, as torch.autograd.grad(is_grads_batched=True) asks for."""
    return None if all(g is None or torch._C._has_storage(g) for g in gradients) else "batched gradients"


def _differentiable_backward(
    plan: Plan,
    wanted: Sequence[bool],
    gradients: Sequence[Tensor | None],
    x: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weights: Sequence[Tensor | None],
) -> tuple[Tensor | None, ...]:
    """The gradients by the formula, so that they can be differentiated again, or be several at once."""
    with torch.enable_grad():
        # Views: their history leads to the saved tensors, and they are no leaves of another graph.
        inputs = [None if t is None else t.view_as(t) for t in (x, h0, c0, *weights)]
        outputs = _formula.stack(plan, inputs[0], inputs[1], inputs[2], grouped(inputs[3:]))  # type: ignore[arg-type]
        chosen = [t for t, want in zip(inputs, wanted, strict=True) if want]
        given = [(o, g) for o, g in zip(outputs, gradients, strict=True) if g is not None and o.requires_grad]
        if not given:
            return (None,) * len(wanted)
        found = iter(
            torch.autograd.grad(
                [o for o, _ in given],
                chosen,  # type: ignore[arg-type]
                [g for _, g in given],
                create_graph=True,
                allow_unused=True,
            )
        )
    return tuple(next(found) if want else None for want in wanted)
