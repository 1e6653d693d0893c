"""ONNX Runtime on its CPU provider."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..packages import require
from ..problems import Arrays, Problem
from .onnx_graph import engine_outputs, lstm_model, model_inputs, refuse


class OnnxRuntime:
    """ONNX Runtime's LSTM nodes on its CPU provider; inference only. Weights are constants, so it packs them once."""

    name = "onnxruntime"
    requires = ("onnxruntime", "onnx")
    settings = "CPUExecutionProvider; weights constant, packed once; ragged: sequence_lens"

    def __init__(self, problem: Problem, arrays: Arrays, threads: int) -> None:
        refuse(problem)
        ort = require("onnxruntime", "the ONNX Runtime peer")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._problem = problem
        self._session = ort.InferenceSession(lstm_model(problem, arrays), options, providers=["CPUExecutionProvider"])
        self._inputs = model_inputs(problem, arrays)

    def forward(self) -> Sequence[Any]:
        return engine_outputs(self._problem, self._session.run(None, self._inputs))

    def path(self, which: str) -> str:
        """The session was given one provider, and that has one LSTM kernel for float32, over MLAS's products."""
        return f"MLAS, LSTM node of {self._session.get_providers()[0]}"
