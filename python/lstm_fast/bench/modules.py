"""Module against module: ``torch.nn`` beside ``lstm_fast.torch``: what is called, how, and at which sizes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from .engines import FORWARD, PASSES, STEP, TRAIN
from .packages import require
from .peers.pytorch import nn_cell, nn_layers
from .problems import STATES, Arrays, Problem

PURPOSE = "bench --torch"  # asks for packages


def grad_mode(which: str) -> Any:
    """The context in which a pass is run: inference without gradients. Not in the call, whose time it would be."""
    return require("torch", PURPOSE).set_grad_enabled(which == TRAIN)


def parts(state: Any) -> tuple[Any, ...]:
    """h, and c of an LSTM."""
    return state if isinstance(state, tuple) else (state,)


class Layer:
    """``nn.LSTM``, ``GRU`` or ``RNN`` on a padded batch, with a problem's weights, inputs and initial states.

    ``call`` returns the outputs, named by ``outputs``; ``seeds`` are the gradients of the first of them.
    """

    numpy_passes: ClassVar = {which: which for which in PASSES}  # pass -> that of LstmFast which does the same

    def __init__(self, problem: Problem, arrays: Arrays) -> None:
        self._torch = require("torch", PURPOSE)
        tensors = {name: self._torch.from_numpy(array) for name, array in arrays.items()}
        self.seeds: tuple[Any, ...] = (tensors["dy"],)
        self.x = tensors["x"].requires_grad_()
        states = (tensors[f"{s}0"] for s in STATES[problem.cell])
        self._take_states(state[None] if problem.single else state for state in states)
        self.outputs: tuple[str, ...] = problem.output_names
        self._build(problem, arrays, tensors)

    def _take_states(self, states: Iterable[Any]) -> None:
        h, *c = states
        self.state = (h, *c) if c else h

    def _build(self, problem: Problem, arrays: Arrays, tensors: Mapping[str, Any]) -> None:
        self.model = nn_layers(self._torch, problem, arrays)

    def call(self) -> tuple[Any, ...]:
        y, state = self.model(self.x, self.state)
        return y, *parts(state)

    def pass_call(self, which: str) -> Callable[[], Any]:
        """What is timed, under :func:`grad_mode`. Puts the module into the mode of the pass, in which it stays."""
        self.model.train(which == TRAIN)
        if which == FORWARD:
            return self.call
        return functools.partial(self._train, (self.x, *self.model.parameters()))

    def _train(self, wanted: Sequence[Any]) -> tuple[Any, ...]:
        outputs = self.call()[: len(self.seeds)]
        gradients: tuple[Any, ...] = self._torch.autograd.grad(outputs, wanted, self.seeds)
        return gradients

    def results(self, which: str) -> Arrays:
        """Run a pass once: outputs or gradients by name."""
        with grad_mode(which):
            found = self.pass_call(which)()
        names = self.outputs if which == FORWARD else ("x", *(name for name, _ in self.model.named_parameters()))
        return {name: tensor.numpy() for name, tensor in zip(names, found, strict=True)}


class PackedLayer(Layer):
    """The same on a PackedSequence of unsorted rows, packed beforehand."""

    def _build(self, problem: Problem, arrays: Arrays, tensors: Mapping[str, Any]) -> None:
        super()._build(problem, arrays, tensors)
        rnn = require("torch.nn.utils.rnn", PURPOSE)
        pack = functools.partial(rnn.pack_padded_sequence, lengths=tensors["lengths"], enforce_sorted=False)
        packed = pack(tensors["x"].detach())
        self.x = packed.data.requires_grad_()
        self._sequence = packed._replace(data=self.x)
        self.seeds = (pack(tensors["dy"]).data,)

    def call(self) -> tuple[Any, ...]:
        y, state = self.model(self._sequence, self.state)
        return y.data, *parts(state)


class LayerBetweenLinears(Layer):
    """Linear, ``nn.LSTM``, Linear: after each operator PyTorch's own threads spin."""

    def _build(self, problem: Problem, arrays: Arrays, tensors: Mapping[str, Any]) -> None:
        torch = self._torch
        self.outputs = ("y",)
        width = problem.directions * problem.outputs
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # in float32, so that a module in float64 has the same weights
            first, last = torch.nn.Linear(problem.inputs, problem.inputs), torch.nn.Linear(width, width)
        dtype = getattr(torch, problem.dtype)
        self.model = torch.nn.ModuleList([first.to(dtype), nn_layers(torch, problem, arrays), last.to(dtype)])

    def call(self) -> tuple[Any, ...]:
        first, lstm, last = self.model
        y, _ = lstm(first(self.x), self.state)
        return (last(y),)


class Cell(Layer):
    """``nn.LSTMCell``, ``GRUCell`` or ``RNNCell``: one step."""

    numpy_passes: ClassVar = {FORWARD: STEP}

    def _build(self, problem: Problem, arrays: Arrays, tensors: Mapping[str, Any]) -> None:
        self.model = nn_cell(self._torch, problem, arrays)
        self.outputs = STATES[problem.cell]
        self.x = tensors["x"][0].detach().requires_grad_()
        self._take_states(tensors[f"{s}0"] for s in self.outputs)
        self.seeds = tuple(tensors[name] for name in problem.state_gradient_names)

    def call(self) -> tuple[Any, ...]:
        return parts(self.model(self.x, self.state))


class Case(NamedTuple):
    """What is called: its name in the report, the kind of module, the problem.

    ``overhead``: the NumPy call of the same problem is timed beside it.
    """

    name: str
    kind: type[Layer]
    problem: Problem
    overhead: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


def every_kind(*shapes: tuple[int, int, int]) -> tuple[Case, ...]:
    """Every kind of case, for three (T, B, H): one that is all overhead, one of a row alone, and a batch."""
    tiny, row, batch = (Problem("lstm", "float32", *shape) for shape in shapes)
    changed = functools.partial(dataclasses.replace, batch)
    lengths = {"shortest": max(1, batch.steps // 25)}
    both = {"layers": 2, "directions": 2}
    return (
        Case("padded", Layer, tiny, overhead=True),
        Case("padded", Layer, row),
        Case("padded", Layer, batch),
        Case("float64", Layer, changed(dtype="float64")),
        Case("packed", PackedLayer, changed(**lengths)),
        Case("projection", Layer, changed(projection=batch.hidden // 2)),
        Case("bidirectional, 2 layers", Layer, changed(**both)),
        Case("bidirectional, 2 layers, packed", PackedLayer, changed(**both, **lengths)),
        Case("Linear, LSTM, Linear", LayerBetweenLinears, batch),
        Case("cell", Cell, dataclasses.replace(tiny, steps=1), overhead=True),
        Case("cell", Cell, changed(steps=1)),
        Case("GRU", Layer, changed(cell="gru")),
        Case("GRU, packed", PackedLayer, changed(cell="gru", **lengths)),
        Case("GRU cell", Cell, changed(cell="gru", steps=1)),
        Case("RNN", Layer, changed(cell="rnn")),
        Case("RNN, packed", PackedLayer, changed(cell="rnn", **lengths)),
        Case("RNN cell", Cell, changed(cell="rnn", steps=1)),
    )


QUICK = every_kind((16, 1, 8), (128, 1, 128), (64, 16, 128))
FULL = (
    *every_kind((16, 1, 8), (256, 1, 128), (256, 16, 128)),
    Case("padded, large", Layer, Problem("lstm", "float32", 128, 64, 512)),
    Case("packed, large", PackedLayer, Problem("lstm", "float32", 128, 64, 512, shortest=5)),
    Case("cell, large", Cell, Problem("lstm", "float32", 1, 64, 512)),
)
