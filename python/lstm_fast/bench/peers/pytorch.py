"""PyTorch on the CPU."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from ..engines import STEP, UnsupportedError, trained
from ..packages import require
from ..problems import STATES, Arrays, Problem


def _with_weights(torch: Any, module: Any, problem: Problem, arrays: Arrays) -> Any:
    names = zip(module.state_dict(), problem.parameter_names, strict=True)
    module.load_state_dict({theirs: torch.from_numpy(arrays[ours]) for theirs, ours in names})
    return module


def nn_layers(torch: Any, problem: Problem, arrays: Arrays) -> Any:
    """``torch.nn.LSTM``, ``GRU`` or ``RNN`` with a problem's weights."""
    layer = getattr(torch.nn, problem.cell.upper())(
        problem.inputs,
        problem.hidden,
        problem.layers,
        bidirectional=problem.directions == 2,
        dtype=getattr(torch, problem.dtype),
        **({"proj_size": problem.projection} if problem.projection else {}),
    )
    if problem.projection:  # PyTorch says once that this is not its fast path
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layer(torch.zeros(1, 1, problem.inputs, dtype=getattr(torch, problem.dtype)))
    return _with_weights(torch, layer, problem, arrays)


def nn_cell(torch: Any, problem: Problem, arrays: Arrays) -> Any:
    """``torch.nn.LSTMCell``, ``GRUCell`` or ``RNNCell`` with the weights of one layer."""
    kind = getattr(torch.nn, f"{problem.cell.upper()}Cell")
    cell = kind(problem.inputs, problem.hidden, dtype=getattr(torch, problem.dtype))
    return _with_weights(torch, cell, problem, arrays)


class PyTorch:
    """``torch.nn.LSTM``, ``GRU`` or ``RNN`` on the CPU: inference_mode forward, autograd for the training pass.

    A ragged batch comes padded and leaves padded, as from any loader, so packing and padding are in its time.
    """

    name = "torch"
    requires = ("torch",)
    settings = "layers of torch.nn; forward in eval() and inference_mode; ragged: packing and padding timed"

    def __init__(self, problem: Problem, arrays: Arrays, threads: int) -> None:
        if problem.dropout:
            raise UnsupportedError("its dropout masks are its own")
        torch = require("torch", "the PyTorch peer")
        tensors = {name: torch.tensor(array) for name, array in arrays.items()}
        self._torch, self._problem = torch, problem
        self._x = tensors["x"].requires_grad_()
        self._lengths = tensors.get("lengths")
        self._names = STATES[problem.cell]
        self._state = self._whole([tensors[f"{name}0"] for name in self._names])
        rows = [tensors[f"{name}0"][None] if problem.single else tensors[f"{name}0"] for name in self._names]
        self._layer_state = self._whole(rows)
        self._dy = tensors["dy"]
        self._layer = nn_layers(torch, problem, arrays)
        self._cell: Any = None if problem.variant else nn_cell(torch, problem, arrays)

    def _whole(self, states: Sequence[Any]) -> Any:
        return tuple(states) if len(self._names) > 1 else states[0]

    def _parts(self, state: Any) -> Sequence[Any]:
        return state if len(self._names) > 1 else (state,)

    def _run(self) -> tuple[Any, Any]:
        if self._lengths is None:
            y, state = self._layer(self._x, self._layer_state)
            return y, state
        rnn = self._torch.nn.utils.rnn
        packed = rnn.pack_padded_sequence(self._x, self._lengths, enforce_sorted=False)
        y, state = self._layer(packed, self._layer_state)
        return rnn.pad_packed_sequence(y, total_length=self._problem.steps)[0], state

    def forward(self) -> Sequence[Any]:
        self._layer.eval()
        with self._torch.inference_mode():
            y, state = self._run()
        return y, *(s[0] if self._problem.single else s for s in self._parts(state))

    def train(self) -> Mapping[str, Any]:
        self._layer.train()
        y, _ = self._run()
        wanted = (self._x, *self._layer.parameters())
        grads = self._torch.autograd.grad(y, wanted, self._dy)
        return dict(zip(trained(self._problem), grads, strict=True))

    def step(self) -> Sequence[Any]:
        with self._torch.inference_mode():
            return self._parts(self._cell(self._x[0], self._state))

    def path(self, which: str) -> str:
        """By the conditions of ``use_mkldnn`` and ``lstm`` in PyTorch's RNN.cpp.

        torch.profiler shows ``aten::mkldnn_rnn_layer`` where this says oneDNN, and nowhere else; a test asks it.
        """
        onednn = self._torch.backends.mkldnn
        if which == STEP:
            return f"ATen, {self._problem.cell}_cell"
        reasons = [
            *([self._problem.cell.upper()] if self._problem.cell != "lstm" else []),
            *(["packed"] if self._lengths is not None else []),
            *(["projection"] if self._problem.projection else []),
            *([self._problem.dtype] if self._problem.dtype != "float32" else []),
            *(["oneDNN is off"] if not (onednn.is_available() and onednn.enabled) else []),
        ]
        return f"ATen, loop over steps ({', '.join(reasons)})" if reasons else "oneDNN fused (mkldnn_rnn_layer)"
