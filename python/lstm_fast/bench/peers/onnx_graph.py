"""A problem as an ONNX model, for the peers that run such models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..engines import UnsupportedError
from ..packages import require
from ..problems import Array, Arrays, Problem


def refuse(problem: Problem) -> None:
    """UnsupportedError for what ONNX's LSTM, or the kernels behind it, cannot do."""
    if problem.cell != "lstm":
        raise UnsupportedError("it is asked for an LSTM only")
    if problem.dtype != "float32":
        raise UnsupportedError(f"its LSTM computes in float32, not in {problem.dtype}")
    if problem.projection or problem.dropout:
        raise UnsupportedError("ONNX's LSTM has no projection and no dropout")
    if problem.shortest == 0:
        raise UnsupportedError("it gives 0, and not the initial state, as the final one of a row of length 0")


def lstm_model(problem: Problem, arrays: Arrays) -> bytes:
    """The serialized model: weights are constants, x, the states of every layer and ragged ``lengths`` are inputs."""
    onnx = require("onnx", "a model for ONNX Runtime and OpenVINO")
    make, one = onnx.helper, onnx.TensorProto.FLOAT
    steps, batch, hidden, directions = problem.steps, problem.batch, problem.hidden, problem.directions
    weights = problem.weights(arrays)

    def reordered(layer: int, kind: int) -> Array:  # ONNX orders the gates i, o, f, c; [D,4H,...]
        given = [w[kind] for w in weights[layer * directions : (layer + 1) * directions]]
        each = [array.reshape(4, hidden, -1)[[0, 3, 1, 2]].reshape(array.shape) for array in given if array is not None]
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


def model_inputs(problem: Problem, arrays: Arrays) -> Arrays:
    """The model's inputs by name."""
    inputs = {"x": arrays["x"]}
    for name in ("h0", "c0"):
        layers = arrays[name].reshape(problem.layers, problem.directions, problem.batch, problem.hidden)
        inputs |= {f"{name}_{layer}": state for layer, state in enumerate(layers)}
    if "lengths" in arrays:
        inputs["lengths"] = arrays["lengths"].astype(np.int32)
    return inputs


def engine_outputs(problem: Problem, results: Sequence[Array]) -> Sequence[Array]:
    """y, hn, cn from the model's outputs; views where there is one layer in one direction."""
    y, *states = results
    joined = y.swapaxes(1, 2).reshape(*y.shape[:1], y.shape[2], -1)
    if problem.single:
        return joined, states[0][0], states[1][0]
    return joined, np.concatenate(states[::2]), np.concatenate(states[1::2])
