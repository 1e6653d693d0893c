"""OpenVINO on its CPU device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..packages import require
from ..problems import Arrays, Problem
from .onnx_graph import engine_outputs, lstm_model, model_inputs, refuse

# Of the nodes that can compute an LSTM, as the compiled model names them. That RNNSeq and RNNCell are oneDNN's
# primitive (they call themselves ref_any) was seen with ONEDNN_VERBOSE=1 in OpenVINO 2026.4: rnn,brgemm:avx512_core.
NODES = {
    "RNNSeq": "oneDNN, RNNSeq node",
    "RNNCell": "oneDNN, RNNCell node",
    "TensorIterator": "loop over steps (TensorIterator)",
}


class OpenVino:
    """OpenVINO's LSTMSequence, read from the same ONNX model as ONNX Runtime's; inference in float32 only.

    Inputs and outputs stay in OpenVINO's tensors, which share memory with ours: nothing is copied in a timed call.
    """

    name = "openvino"
    requires = ("openvino", "onnx")
    settings = "CPU, latency hint, one stream, inference precision f32, not pinned; weights constant, packed once"

    def __init__(self, problem: Problem, arrays: Arrays, threads: int) -> None:
        refuse(problem)
        openvino = require("openvino", "the OpenVINO peer")
        core = openvino.Core()
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",  # left to itself it may choose bf16 where the CPU has it
            "ENABLE_CPU_PINNING": False,  # the other engines' threads are placed by the system, too
        }
        self._problem = problem
        self._compiled = core.compile_model(core.read_model(lstm_model(problem, arrays), b""), "CPU", options)
        self._request = self._compiled.create_infer_request()
        self._inputs = model_inputs(problem, arrays)  # the tensors do not keep them
        for name, array in self._inputs.items():
            self._request.set_tensor(name, openvino.Tensor(array, shared_memory=True))

    def forward(self) -> Sequence[Any]:
        return engine_outputs(self._problem, self._request.infer(share_outputs=True).to_tuple())

    def path(self, which: str) -> str:
        """From the nodes and the precisions of the compiled model itself."""
        facts = [node.get_rt_info() for node in self._compiled.get_runtime_model().get_ordered_ops()]
        kinds = Counter(
            (fact["layerType"].astype(str), fact["runtimePrecision"].astype(str))
            for fact in facts
            if fact["layerType"].astype(str) in NODES
        )
        return ", ".join(f"{NODES[kind]} in {precision}" for kind, precision in sorted(kinds)) or "unknown nodes"
