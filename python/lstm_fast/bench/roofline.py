"""The bound of a layer on this machine: what one core could reach at best, from the FMA peak and the caches' rate.

The products of the whole sequence (input, and in training those of the weight gradients and of dx) can run at the FMA
peak. A step's product with W_hh cannot begin before the step is there, so that W_hh, and W_hr with a projection, are
read once a step: at the rate of the cache that holds them, or at the FMA peak where the rows of the batch make the
arithmetic take longer. Nothing else is counted, so no kernel that computes these products can be faster.
"""

from __future__ import annotations

import numpy as np

from .engines import TRAIN
from .problems import GATES, Problem


def recurrent_bytes(problem: Problem) -> int:
    """Bytes of W_hh and W_hr of one layer and direction."""
    return _recurrent_elements(problem) * np.dtype(problem.dtype).itemsize


def _recurrent_elements(problem: Problem) -> int:
    return problem.hidden * (GATES[problem.cell] * problem.outputs + problem.projection)


def bound(problem: Problem, which: str, peak: float, rate: float) -> float:
    """GFLOP/s of one core at best; ``peak``: its FMA peak in GFLOP/s, ``rate``: bytes/ns at ``recurrent_bytes``."""
    backward = which == TRAIN
    scans = problem.layers * problem.directions * (1 + backward)  # loops over the steps
    flops = problem.flops(backward=backward)
    recurrent = 2.0 * problem.valid * scans * _recurrent_elements(problem)
    reading = problem.steps * scans * recurrent_bytes(problem) / rate
    return flops / ((flops - recurrent) / peak + max(recurrent / peak, reading))
