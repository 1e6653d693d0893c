"""Swap the class of modules in place, and back."""

from __future__ import annotations

import warnings
from typing import TypeVar

import torch
from torch.nn.utils import parametrize

from .cell import GRUCell, LSTMCell, RNNCell
from .lstm import LSTM
from .modules import BEYOND_TORCH, GRU, RNN

Model = TypeVar("Model", bound=torch.nn.Module)

_OURS: dict[type[torch.nn.Module], type[torch.nn.Module]] = {
    torch.nn.LSTM: LSTM,
    torch.nn.GRU: GRU,
    torch.nn.RNN: RNN,
    torch.nn.LSTMCell: LSTMCell,
    torch.nn.GRUCell: GRUCell,
    torch.nn.RNNCell: RNNCell,
}
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}


def accelerate(model: Model, report: bool = False) -> Model:
    """Let every ``torch.nn.LSTM``, ``GRU``, ``RNN`` and their cells in the model compute with lstm_fast; returns it.

    In place: the modules change their class and keep their parameters, parametrizations, hooks and state. Subclasses,
    and modules whose ``forward`` was replaced, are left alone, since their forward is their own. ``report=True`` prints
    what was swapped and what was left, and why. Warns when there was nothing to swap. TypeError if model is not a
    module.

    ``torch.fx`` looks into every module that is not of ``torch.nn``, and does not get far in these. So trace first,
    and accelerate the graph: ``accelerate(torch.fx.symbolic_trace(restore(model)))``. For a module that cannot be
    restored, trace with a Tracer that takes it as it is::

        class Tracer(torch.fx.Tracer):
            def is_leaf_module(self, module, name):
                return isinstance(module, torch.nn.RNNBase) or super().is_leaf_module(module, name)

        traced = torch.fx.GraphModule(model, Tracer().trace(model))
    """
    _require_module(model)
    swapped, left = [], []
    for name, module in model.named_modules():
        ours = _OURS.get(_kind(module))
        if ours is not None and "forward" not in vars(module):
            _become(module, ours)
            swapped.append(f"{name or 'the model itself'}: {module}")
        elif isinstance(module, (torch.nn.RNNBase, torch.nn.RNNCellBase)) and _kind(module) not in _THEIRS:
            replaced = "forward" in vars(module)
            why = "its forward has been replaced" if replaced else "a subclass, whose forward is its own"
            left.append(f"{name or 'the model itself'}: {module}: {why}")
    if not swapped and not any(_kind(module) in _THEIRS for module in model.modules()):
        warnings.warn(
            "model: expected a torch.nn.LSTM, GRU, RNN or a cell of theirs in it, found none; nothing was changed",
            stacklevel=2,
        )
    if report:
        for title, lines in (("swapped", swapped), ("left", left)):
            print(f"{title}: {len(lines)}", *lines, sep="\n  ")
    return model


def restore(model: Model) -> Model:
    """Undo :func:`accelerate`, before ONNX export, scripting, quantization or ``torch.fx``; returns the model.

    A module that computes what ``torch.nn`` cannot, with ``return_cells`` or ``learn_initial_state``, and one of a
    class derived from ours stay as they are, and a warning names them. ``forget_bias`` is no such extra, since its
    values stand in the parameters. TypeError if model is not a module.
    """
    _require_module(model)
    for name, module in model.named_modules():
        theirs = _THEIRS.get(_kind(module))
        beyond = [extra for extra in BEYOND_TORCH if getattr(module, extra, False)]
        if theirs is None and isinstance(module, tuple(_THEIRS)):
            beyond = [f"class {type(module).__name__}"]
        if beyond:
            text = f"{name or 'the model itself'}: expected what torch.nn can compute, got {', '.join(beyond)}"
            warnings.warn(f"{text}; it stays as it is", stacklevel=2)
        elif theirs is not None:
            _become(module, theirs)
    return model


def _require_module(model: object) -> None:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")


def _kind(module: torch.nn.Module) -> type[torch.nn.Module]:
    """The module's class, or the one that torch.nn.utils.parametrize has derived one from for this module alone."""
    kind = type(module)
    return kind.__bases__[0] if parametrize.is_parametrized(module) else kind


def _become(module: torch.nn.Module, kind: type[torch.nn.Module]) -> None:
    if parametrize.is_parametrized(module):
        # A copy, since copies of a module share the class.
        body = {name: value for name, value in vars(type(module)).items() if name not in ("__dict__", "__weakref__")}
        kind = type(type(module).__name__, (kind,), body)
    module.__class__ = kind
