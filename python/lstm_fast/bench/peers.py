"""The peers that lstm_fast is compared with; see :mod:`lstm_fast.bench.engines` for what an engine has to offer."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .baseline import NumpyBaseline
from .engines import EngineClass, LstmFast, Named, UnsupportedError, trained
from .packages import installed, require, version
from .problems import Array, Arrays, Problem


def _with_weights(torch: Any, module: Any, problem: Problem, arrays: Arrays) -> Any:
    names = zip(module.state_dict(), problem.parameter_names, strict=True)
    module.load_state_dict({theirs: torch.from_numpy(arrays[ours]) for theirs, ours in names})
    return module


def nn_lstm(torch: Any, problem: Problem, arrays: Arrays) -> Any:
    """``torch.nn.LSTM`` with a problem's weights."""
    layer = torch.nn.LSTM(
        problem.inputs,
        problem.hidden,
        problem.layers,
        bidirectional=problem.directions == 2,
        proj_size=problem.projection,
        dtype=getattr(torch, problem.dtype),
    )
    if problem.projection:  # PyTorch says once that this is not its fast path
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layer(torch.zeros(1, 1, problem.inputs, dtype=getattr(torch, problem.dtype)))
    return _with_weights(torch, layer, problem, arrays)


def nn_lstm_cell(torch: Any, problem: Problem, arrays: Arrays) -> Any:
    """``torch.nn.LSTMCell`` with the weights of one layer."""
    cell = torch.nn.LSTMCell(problem.inputs, problem.hidden, dtype=getattr(torch, problem.dtype))
    return _with_weights(torch, cell, problem, arrays)


class PyTorch:
    """``torch.nn.LSTM`` on the CPU: inference_mode forward, autograd for the training pass.

    A ragged batch comes padded and leaves padded, as from any loader, so packing and padding are in its time.
    """

    name = "torch"
    requires = ("torch",)
    settings = "nn.LSTM; forward in eval() and inference_mode; ragged: packing and padding timed"

    def __init__(self, problem: Problem, arrays: Arrays, threads: int) -> None:
        if problem.dropout:
            raise UnsupportedError("its dropout masks are its own")
        torch = require("torch", "the PyTorch peer")
        tensors = {name: torch.tensor(array) for name, array in arrays.items()}
        self._torch, self._problem = torch, problem
        self._x = tensors["x"].requires_grad_()
        self._lengths = tensors.get("lengths")
        self._state = tensors["h0"], tensors["c0"]
        self._layer_state = tuple(state[None] if problem.single else state for state in self._state)
        self._dy = tensors["dy"]
        self._layer = nn_lstm(torch, problem, arrays)
        self._cell: Any = None if problem.variant else nn_lstm_cell(torch, problem, arrays)

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
        return y, *((s[0] for s in state) if self._problem.single else state)

    def train(self) -> Mapping[str, Any]:
        self._layer.train()
        y, _ = self._run()
        wanted = (self._x, *self._layer.parameters())
        grads = self._torch.autograd.grad(y, wanted, self._dy)
        return dict(zip(trained(self._problem), grads, strict=True))

    def step(self) -> Sequence[Any]:
        with self._torch.inference_mode():
            states: Sequence[Any] = self._cell(self._x[0], self._state)
        return states


class OnnxRuntime:
    """ONNX Runtime's LSTM nodes on its CPU provider; inference only. Weights are constants, so it packs them once."""

    name = "onnxruntime"
    requires = ("onnxruntime", "onnx")
    settings = "CPUExecutionProvider; weights constant, packed once; ragged: sequence_lens"

    def __init__(self, problem: Problem, arrays: Arrays, threads: int) -> None:
        if problem.dtype != "float32":
            raise UnsupportedError(f"no {problem.dtype} LSTM on its CPU provider")
        if problem.projection or problem.dropout:
            raise UnsupportedError("its LSTM has no projection and no dropout")
        ort = require("onnxruntime", "the ONNX Runtime peer")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        model = self._model(problem, arrays)
        self._problem = problem
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._inputs = {"x": arrays["x"]}
        for name in ("h0", "c0"):
            layers = arrays[name].reshape(problem.layers, problem.directions, problem.batch, problem.hidden)
            self._inputs |= {f"{name}_{layer}": state for layer, state in enumerate(layers)}
        if "lengths" in arrays:
            self._inputs["lengths"] = arrays["lengths"].astype(np.int32)

    @staticmethod
    def _model(problem: Problem, arrays: Arrays) -> bytes:
        onnx = require("onnx", "the ONNX Runtime peer")
        make, one = onnx.helper, onnx.TensorProto.FLOAT
        steps, batch, hidden, directions = problem.steps, problem.batch, problem.hidden, problem.directions
        weights = problem.weights(arrays)

        def reordered(layer: int, kind: int) -> Array:  # ONNX orders the gates i, o, f, c; [D,4H,...]
            given = [w[kind] for w in weights[layer * directions : (layer + 1) * directions]]
            each = [
                array.reshape(4, hidden, -1)[[0, 3, 1, 2]].reshape(array.shape) for array in given if array is not None
            ]
            return np.stack(each)

        state = [directions, batch, hidden]
        shapes = {"x": [steps, batch, problem.inputs]}
        results: dict[str, list[int]] = {}
        constants: dict[str, Array] = {"joined": np.array([0, 0, -1])}
        nodes = []
        source = "x"
        for layer in range(problem.layers):
            bias = np.concatenate([reordered(layer, 2), reordered(layer, 3)], axis=1)
            own = {f"w_{layer}": reordered(layer, 0), f"r_{layer}": reordered(layer, 1), f"b_{layer}": bias}
            states = [f"h0_{layer}", f"c0_{layer}"]
            finals = [f"hn_{layer}", f"cn_{layer}"]
            lengths = "lengths" if problem.shortest is not None else ""
            nodes.append(
                make.make_node(
                    "LSTM",
                    [source, *own, lengths, *states],
                    [f"y_{layer}", *finals],
                    hidden_size=hidden,
                    direction="bidirectional" if directions == 2 else "forward",
                )
            )
            constants |= own
            shapes |= dict.fromkeys(states, state)
            results |= dict.fromkeys(finals, state)
            if layer < problem.layers - 1:  # [T,D,B,H] to [T,B,D*H]
                nodes.append(make.make_node("Transpose", [f"y_{layer}"], [f"t_{layer}"], perm=[0, 2, 1, 3]))
                nodes.append(make.make_node("Reshape", [f"t_{layer}", "joined"], [f"x_{layer + 1}"]))
                source = f"x_{layer + 1}"
        results = {f"y_{problem.layers - 1}": [steps, directions, batch, hidden], **results}
        inputs = [make.make_tensor_value_info(n, one, s) for n, s in shapes.items()]
        if problem.shortest is not None:
            inputs.append(make.make_tensor_value_info("lengths", onnx.TensorProto.INT32, [batch]))
        graph = make.make_graph(
            nodes,
            "lstm",
            inputs,
            [make.make_tensor_value_info(n, one, s) for n, s in results.items()],
            [onnx.numpy_helper.from_array(np.ascontiguousarray(v), n) for n, v in constants.items()],
        )
        # Opset 14 and IR 8 are the oldest with this node: every ONNX Runtime of the last years reads them.
        model = make.make_model(graph, opset_imports=[make.make_opsetid("", 14)], ir_version=8)
        serialized: bytes = model.SerializeToString()
        return serialized

    def forward(self) -> Sequence[Any]:
        y, *states = self._session.run(None, self._inputs)
        joined = y.swapaxes(1, 2).reshape(*y.shape[:1], y.shape[2], -1)  # a view in one direction
        if self._problem.single:
            return joined, states[0][0], states[1][0]
        return joined, np.concatenate(states[::2]), np.concatenate(states[1::2])


OWN: tuple[EngineClass, ...] = (LstmFast, NumpyBaseline)
PEERS: tuple[EngineClass, ...] = (PyTorch, OnnxRuntime)


def missing_packages(engine: EngineClass) -> list[str]:
    """Import names that the engine requires and that are not installed."""
    return [name for name in getattr(engine, "requires", ()) if not installed(name)]


def engine_version(engine: Named) -> str | None:
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
