"""How far a result may be from the float64 reference: oneDNN benchdnn's form.

error = max|a - b| / max(1, max|b|)  <=  min(4 (1 + bwd) ceil(log2(n T)) eps, cap), where n is the length of the longest
sum: I + H + 1 forward, times max(4H, B) backward; I is that of the widest layer. With L layers the longest path takes
T + L - 1 steps. Valid on weights of PyTorch's scale, 1/sqrt(H). Never loosen it.
"""

from __future__ import annotations

import math

import numpy as np

from .problems import GATES, Array, Problem

CAPS = {"float32": 2e-4, "float64": 1e-9}


def bound(problem: Problem, *, backward: bool) -> float:
    """Largest allowed error of one array of the problem's outputs (or gradients)."""
    terms = max(map(problem.layer_inputs, range(problem.layers))) + problem.hidden + 1
    if backward:
        terms *= max(GATES[problem.cell] * problem.hidden, problem.batch)
    path = problem.steps + problem.layers - 1
    limit = 4 * (1 + backward) * math.ceil(math.log2(terms * path)) * float(np.finfo(problem.dtype).eps)
    return min(limit, CAPS[problem.dtype])


def error(result: Array, expected: Array) -> float:
    """max|result - expected| / max(1, max|expected|); infinite if the shapes differ or a number is not finite."""
    if result.shape != expected.shape:
        return math.inf
    if expected.size == 0:
        return 0.0
    worst = float(np.max(np.abs(result - expected))) / max(1.0, float(np.max(np.abs(expected))))
    return worst if math.isfinite(worst) else math.inf
