"""A recurrent node of ONNX, computed by ONNX Runtime: a second opinion that is neither ours nor PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from judge import Array
from reference_problems import Case

# Where the blocks of ONNX stand in ours: iofc in ifgo and zrh in rzn, and the peepholes i, o, f in i, f, o.
BLOCKS = {"lstm": [0, 3, 1, 2], "gru": [1, 0, 2]}
PEEPHOLES = [0, 2, 1]


def onnx_outputs(case: Case, *, lengths: Array | None = None, reverse: bool = False, **attributes: Any) -> Any:
    """y and the final states that ONNX Runtime computes, in float32, with these attributes of the node."""
    onnx = pytest.importorskip("onnx", reason="ONNX Runtime judges what PyTorch does not compute")
    runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime judges what PyTorch does not compute")
    arrays = {name: value.astype(np.float32) for name, value in case.arrays.items()}
    hidden = arrays["w_hh"].shape[1]

    def ordered(value: Array) -> Array:
        return value.reshape(-1, hidden, *value.shape[1:])[BLOCKS[case.cell]].reshape(value.shape)[None]

    inputs = {"X": arrays["x"], "W": ordered(arrays["w_ih"]), "R": ordered(arrays["w_hh"])}
    inputs["B"] = np.concatenate([ordered(arrays["b_ih"]), ordered(arrays["b_hh"])], axis=1)
    if lengths is not None:
        inputs["sequence_lens"] = np.asarray(lengths, np.int32)
    inputs |= {f"initial_{name[0]}": arrays[name][None] for name in ("h0", "c0") if name in arrays}
    if "peephole" in arrays:
        inputs["P"] = arrays["peephole"][PEEPHOLES].reshape(1, -1)
    order = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]
    outputs = ["Y", "Y_h", "Y_c"] if case.cell == "lstm" else ["Y", "Y_h"]
    make = onnx.helper
    node = make.make_node(
        case.cell.upper(),
        [name if name in inputs else "" for name in order[: 8 if case.cell == "lstm" else 6]],
        outputs,
        hidden_size=hidden,
        direction="reverse" if reverse else "forward",
        **attributes,
    )
    types = {name: onnx.helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in inputs.items()}
    graph = make.make_graph(
        [node],
        "recurrence",
        [make.make_tensor_value_info(name, types[name], value.shape) for name, value in inputs.items()],
        [make.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 14)], ir_version=8)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [
        value[:, 0] if name == "Y" else value[0] for name, value in zip(outputs, session.run(None, inputs), strict=True)
    ]
