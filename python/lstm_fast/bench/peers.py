"""The peers that lstm_fast is compared with; see :mod:`lstm_fast.bench.engines` for what an engine has to offer."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .engines import EngineClass, LstmFast, NumpyBaseline, UnsupportedError
from .packages import installed, require, version
from .problems import Array, Arrays, Problem


class PyTorch:
    """``torch.nn.LSTM`` on the CPU: inference_mode forward, autograd for the training pass."""

    name = "torch"
    requires = ("torch",)
    settings = "nn.LSTM; forward in eval() and inference_mode"

    def __init__(self, problem: Problem, arrays: Arrays, threads: int) -> None:
        torch = require("torch", "the PyTorch peer")
        tensors = {name: torch.tensor(array) for name, array in arrays.items()}
        self._torch = torch
        self._x = tensors["x"].requires_grad_()
        self._state = tensors["h0"], tensors["c0"]
        self._layer_state = tensors["h0"][None], tensors["c0"][None]
        self._dy = tensors["dy"]
        dtype = getattr(torch, problem.dtype)
        self._layer = torch.nn.LSTM(problem.inputs, problem.hidden, dtype=dtype)
        self._cell = torch.nn.LSTMCell(problem.inputs, problem.hidden, dtype=dtype)
        weights = [tensors[n] for n in ("w_ih", "w_hh", "b_ih", "b_hh")]
        with torch.no_grad():
            for module in (self._layer, self._cell):
                for parameter, value in zip(module.parameters(), weights, strict=True):
                    parameter.copy_(value)

    def forward(self) -> Sequence[Any]:
        with self._torch.inference_mode():
            y, state = self._layer.eval()(self._x, self._layer_state)
        return y, state[0][0], state[1][0]

    def train(self) -> Mapping[str, Any]:
        y, _ = self._layer.train()(self._x, self._layer_state)
        wanted = (self._x, *self._layer.parameters())
        grads = self._torch.autograd.grad(y, wanted, self._dy)
        return dict(zip(("x", "w_ih", "w_hh", "b_ih", "b_hh"), grads, strict=True))

    def step(self) -> Sequence[Any]:
        with self._torch.inference_mode():
            states: Sequence[Any] = self._cell(self._x[0], self._state)
        return states


class OnnxRuntime:
    """ONNX Runtime's LSTM node on its CPU provider; inference only. Weights are constants, so it packs them once."""

    name = "onnxruntime"
    requires = ("onnxruntime", "onnx")
    settings = "CPUExecutionProvider; weights constant, packed once"

    def __init__(self, problem: Problem, arrays: Arrays, threads: int) -> None:
        if problem.dtype != "float32":
            raise UnsupportedError(f"no {problem.dtype} LSTM on its CPU provider")
        ort = require("onnxruntime", "the ONNX Runtime peer")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        model = self._model(problem, arrays)
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._inputs = {"x": arrays["x"], "h0": arrays["h0"][None], "c0": arrays["c0"][None]}

    @staticmethod
    def _model(problem: Problem, arrays: Arrays) -> bytes:
        onnx = require("onnx", "the ONNX Runtime peer")
        make = onnx.helper

        def reordered(name: str) -> Array:  # ONNX orders the gates i, o, f, c
            return arrays[name].reshape(4, problem.hidden, -1)[[0, 3, 1, 2]].reshape(1, *arrays[name].shape)

        bias = np.concatenate([reordered("b_ih"), reordered("b_hh")], axis=1)
        constants = {"w": reordered("w_ih"), "r": reordered("w_hh"), "b": bias}
        one = onnx.TensorProto.FLOAT
        state = [1, problem.batch, problem.hidden]
        shapes = {"x": [problem.steps, problem.batch, problem.inputs], "h0": state, "c0": state}
        results = {"y": [problem.steps, 1, problem.batch, problem.hidden], "hn": state, "cn": state}
        node = make.make_node(
            "LSTM", ["x", "w", "r", "b", "", "h0", "c0"], ["y", "hn", "cn"], hidden_size=problem.hidden
        )
        graph = make.make_graph(
            [node],
            "lstm",
            [make.make_tensor_value_info(n, one, s) for n, s in shapes.items()],
            [make.make_tensor_value_info(n, one, s) for n, s in results.items()],
            [onnx.numpy_helper.from_array(np.ascontiguousarray(v), n) for n, v in constants.items()],
        )
        # Opset 14 and IR 8 are the oldest with this node: every ONNX Runtime of the last years reads them.
        model = make.make_model(graph, opset_imports=[make.make_opsetid("", 14)], ir_version=8)
        serialized: bytes = model.SerializeToString()
        return serialized

    def forward(self) -> Sequence[Any]:
        y, hn, cn = self._session.run(None, self._inputs)
        return y[:, 0], hn[0], cn[0]


OWN: tuple[EngineClass, ...] = (LstmFast, NumpyBaseline)
PEERS: tuple[EngineClass, ...] = (PyTorch, OnnxRuntime)


def missing_packages(engine: EngineClass) -> list[str]:
    """Import names that the engine requires and that are not installed."""
    return [name for name in getattr(engine, "requires", ()) if not installed(name)]


def engine_version(engine: EngineClass) -> str | None:
    """The class's ``version``, else that of its first requirement; None for a user's peer that names neither."""
    requires: Sequence[str] = getattr(engine, "requires", ())
    stated: str | None = getattr(engine, "version", None)
    return stated or (version(requires[0]) if requires else None)


def load_peer(spec: str) -> EngineClass:
    """The class behind "module:Class"; the working directory is searched too. ValueError says what is wrong."""
    module_name, _, class_name = spec.partition(":")
    if not module_name or not class_name:
        raise ValueError(f"--peer: expected module:Class, got {spec!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = getattr(importlib.import_module(module_name), class_name)
    except ModuleNotFoundError as problem:
        raise ValueError(f"--peer {spec}: {problem}") from problem
    except AttributeError:
        raise ValueError(f"--peer {spec}: module {module_name!r} has no {class_name!r}") from None
    for attribute in ("name", "forward"):
        if not hasattr(found, attribute):
            raise ValueError(f"--peer {spec}: {class_name} has no {attribute!r}; see lstm_fast.bench.engines")
    engine: EngineClass = found
    return engine


def all_engines(extra: Iterable[EngineClass] = ()) -> tuple[EngineClass, ...]:
    """lstm_fast first, then the NumPy baseline, the peers, and the user's own."""
    engines = (*OWN, *PEERS, *extra)
    names = [e.name for e in engines]
    if len(set(names)) != len(names):
        raise ValueError(f"--peer: two engines have the same name; got {', '.join(names)}")
    return engines
