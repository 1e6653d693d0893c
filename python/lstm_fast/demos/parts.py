"""What the demos' networks are made of besides the layer: embedding, dropout, softmax loss, gates left open.

Shapes: V tokens in the vocabulary, E embedding size, H hidden size, N rows of whatever kind, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import GRU, LSTM
from .corpus import Tokens

Array = NDArray[Any]


def open_forget_gates(layer: LSTM) -> None:
    """Start every forget gate open (Jozefowicz et al., 2015): gradients reach far back from the first step on."""
    for name, parameter in layer.parameters.items():
        if name.startswith("bias_ih"):
            parameter[layer.hidden_size : 2 * layer.hidden_size] = 1.0


def chrono_biases(layer: LSTM | GRU, steps: int, draw: np.random.Generator) -> None:
    """Open the gates that keep the memory for 1 to ``steps`` steps, each unit's for another while, drawn by ``draw``.

    Tallec and Ollivier, 2018: the forget gate of an LSTM, or z of a GRU, starts with the bias log(U(1, steps - 1)), the
    LSTM's input gate with its negative; all other biases with 0.
    """
    units = layer.hidden_size
    for name, parameter in layer.parameters.items():
        if name.startswith("bias"):
            parameter[:] = 0
        if name.startswith("bias_ih"):
            keep = np.log(draw.uniform(1, steps - 1, units))
            parameter[units : 2 * units] = keep  # the second block of both
            if isinstance(layer, LSTM):
                parameter[:units] = -keep


def log_softmax(logits: Array) -> Array:
    """log(softmax) over the last axis, in place; the largest logit is subtracted first, so that no exp overflows."""
    logits -= logits.max(axis=-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return logits


def softmax_loss(logits: Array, targets: Tokens) -> tuple[float, Array]:
    """Mean nats of predicting ``targets`` [N], and the gradient with respect to ``logits`` [N, K], in their place."""
    scores = log_softmax(logits)
    hits = (np.arange(len(targets)), targets)
    loss = -float(scores[hits].mean(dtype=np.float64))
    # d loss / d logits = (softmax - one at the target) / N
    dlogits: Array = np.exp(scores, out=scores)
    dlogits[hits] -= 1
    dlogits /= len(targets)
    return loss, dlogits


def dropout_mask(shape: tuple[int, ...], rate: float, draw: np.random.Generator, dtype: DTypeLike) -> Array:
    """A mask of 0 and 1 / (1 - rate): thinned out while training, the same size on average."""
    mask: Array = (draw.random(shape, np.float32) >= rate).astype(dtype)
    mask /= 1 - rate
    return mask


def sum_by_token(rows: Array, tokens: Tokens, size: int) -> Array:
    """Add ``rows[n]`` [N, E] into row ``tokens[n]`` of a zero [size, E]; always in the same order."""
    total = np.zeros((size, rows.shape[1]), rows.dtype)
    order = np.argsort(tokens, kind="stable")
    present, starts = np.unique(tokens[order], return_index=True)
    total[present] = np.add.reduceat(rows[order], starts, axis=0)
    return total
