"""What the classifier has to beat: a softmax over which words a sentence holds, whatever their order.

Shapes: V words in the vocabulary, N sentences, K groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .adam import Adam
from .corpus import UNKNOWN, Tokens, Vocabulary
from .parts import log_softmax, softmax_loss

Array = NDArray[Any]

FOLDS = 3  # of the training part, to choose the strength of the regularisation
STRENGTHS = (3e-4, 1e-3, 3e-3, 1e-2)
STEPS, RATE = 150, 0.05  # of Adam over all sentences at once; more steps change no figure


def presence(sentences: Sequence[Sequence[str]], vocabulary: Vocabulary) -> Array:
    """1 where a sentence holds a word, else 0, [N, V]; unknown words are left out."""
    rows = np.zeros((len(sentences), len(vocabulary)), np.float32)
    for row, sentence in zip(rows, sentences, strict=True):
        row[vocabulary.encode(sentence)] = 1
    rows[:, UNKNOWN] = 0
    return rows


class BagOfWords:
    """A softmax regression with squared weights as penalty.

    Words count for more the fewer sentences hold them (inverse document frequency), and every sentence counts the same
    (rows of equal norm): in cross-validation better than numbers of words, their logarithms or mere presence.
    """

    def __init__(self, rows: Array, targets: Tokens, classes: int, strength: float) -> None:
        """Train on ``rows`` [N, V] from :func:`presence` and ``targets`` [N]."""
        self.importance: Array = (np.log((1 + len(rows)) / (1 + rows.sum(axis=0))) + 1).astype(rows.dtype)
        self.strength = strength
        self.weight: Array = np.zeros((classes, rows.shape[1]), rows.dtype)
        self.bias: Array = np.zeros(classes, rows.dtype)
        adam = Adam({"weight": self.weight, "bias": self.bias})
        scaled = self._scaled(rows)
        for step in range(STEPS):
            _, dlogits = softmax_loss(scaled @ self.weight.T + self.bias, targets)
            gradients = {"weight": dlogits.T @ scaled + strength * self.weight, "bias": dlogits.sum(axis=0)}
            adam.step(gradients, RATE * (1 - step / STEPS))

    def _scaled(self, rows: Array) -> Array:
        scaled = rows * self.importance
        norms = np.linalg.norm(scaled, axis=1, keepdims=True)
        scaled *= 4 / np.maximum(norms, 1e-6)  # 4: about the words that tell something; weights stay near 1
        return scaled

    def log_probabilities(self, rows: Array) -> Array:
        """Log-probabilities [N, K] of the groups."""
        return log_softmax(self._scaled(rows) @ self.weight.T + self.bias)


def tuned(rows: Array, targets: Tokens, classes: int, strengths: Sequence[float] = STRENGTHS) -> BagOfWords:
    """Trained with the strength that tells most of the sentences right that it has not seen, in cross-validation."""
    if len(strengths) == 1:
        return BagOfWords(rows, targets, classes, strengths[0])
    fold = np.random.default_rng(0).permutation(len(rows)) % FOLDS
    right = []
    for strength in strengths:
        right.append(0)
        for k in range(FOLDS):
            model = BagOfWords(rows[fold != k], targets[fold != k], classes, strength)
            guesses = model.log_probabilities(rows[fold == k]).argmax(axis=1)
            right[-1] += int(np.sum(guesses == targets[fold == k]))
    return BagOfWords(rows, targets, classes, strengths[int(np.argmax(right))])
