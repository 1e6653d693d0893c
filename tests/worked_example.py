"""The published unit of docs and demos: one unit, one input; numbers in float64 to 1e-6."""

from __future__ import annotations

import numpy as np
from judge import Array

# Rows i, f, g, o.
W_IH = np.array([[1.65], [1.63], [0.94], [-0.19]])
W_HH = np.array([[2.00], [2.70], [1.41], [4.38]])
BIAS = np.array([0.62, 1.62, -0.32, 0.59])
WEIGHTS = (W_IH, W_HH, BIAS)

# The single step: long-term memory 2, short-term memory 1, input 1.
X, H0, C0 = np.array([[1.0]]), np.array([[1.0]]), np.array([[2.0]])

# After each day: short-term h, long-term c.
DAYS = {
    "A": np.array([[-0.127755, -0.201247], [-0.096522, -0.202193], [-0.166218, -0.324621], [0.006393, 0.015270]]),
    "B": np.array([[0.276438, 0.499521], [0.611733, 0.913569], [0.867005, 1.480604], [0.969393, 2.409093]]),
}
INPUTS = {"A": (0, 0.5, 0.25, 1), "B": (1, 0.5, 0.25, 1)}
PREDICTIONS = {"A": 0, "B": 1}


def sequence_problem(name: str, dtype: str = "float64") -> dict[str, Array]:
    """Arguments of lstm_forward for sequence A or B, from zeros."""
    x = np.array(INPUTS[name], dtype).reshape(4, 1, 1)
    weights = {"w_ih": W_IH.astype(dtype), "w_hh": W_HH.astype(dtype), "b_ih": BIAS.astype(dtype)}
    return {"x": x, "h0": np.zeros((1, 1), dtype), "c0": np.zeros((1, 1), dtype), **weights}
