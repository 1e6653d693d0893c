"""Gradient clipping, in place, over ``Gradients.parameters``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ._arguments import limit as checked_limit

if TYPE_CHECKING:
    from ._results import Gradients


def clip_grad_norm(grads: Gradients[Any], max_norm: float) -> float:
    """Scale all parameter gradients so that their joint 2-norm is at most ``max_norm``; returns the norm before.

    As ``torch.nn.utils.clip_grad_norm_``: the factor is min(1, max_norm / (norm + 1e-6)), so a NaN norm makes every
    gradient NaN and is never hidden. TypeError or ValueError if ``max_norm`` is not a number >= 0.
    """
    bound = checked_limit(max_norm, "max_norm")
    arrays = list(grads.parameters.values())
    norm = math.sqrt(sum(float(np.sum(np.square(g, dtype=np.float64))) for g in arrays))
    factor = bound / (norm + 1e-6)
    if not factor >= 1:
        for g in arrays:
            g *= factor
    return norm


def clip_grad_value(grads: Gradients[Any], limit: float) -> None:
    """Limit every element of all parameter gradients to [-limit, limit]; NaN stays.

    TypeError or ValueError if ``limit`` is not a number >= 0.
    """
    bound = checked_limit(limit, "limit")
    for g in grads.parameters.values():
        np.clip(g, -bound, bound, out=g)
