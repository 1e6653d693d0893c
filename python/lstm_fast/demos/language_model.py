"""A recurrent language model: embedding -> LSTM -> softmax over the next token. Generic over what a token is.

Shapes: V tokens in the vocabulary, E embedding size, L layers of H units, T steps, B texts side by side.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import LSTM, Gradients
from .corpus import UNKNOWN, Tokens
from .parts import dropout_mask, log_softmax, open_forget_gates, softmax_loss, sum_by_token

Array = NDArray[Any]
State = tuple[Array, Array]  # (h, c), each [L, B, H]


class Step(NamedTuple):
    """What one chunk of text gives."""

    loss: float  # mean over the chunk's predictions, nats
    state: State  # after the chunk
    gradients: Gradients[tuple[Array, Array]]  # .parameters has the names of LanguageModel.parameters


class Memories(NamedTuple):
    """What the last layer did at each of N tokens, [N, H]: gates, candidate, both memories after the step."""

    i: Array
    f: Array
    g: Array
    o: Array
    c: Array
    h: Array


class LanguageModel:
    """Predicts each token from those before it; ``parameters`` maps names to writable arrays."""

    def __init__(
        self,
        vocabulary: int,
        embedding: int,
        hidden: int,
        layers: int = 1,
        *,
        between: float = 0.0,
        dtype: DTypeLike = np.float32,
        seed: int = 0,
    ) -> None:
        """V, E, H and L; ``between``: share of the outputs between two layers set to zero while training."""
        draw = np.random.default_rng([seed, 1])  # another stream than the layer's
        between = between if layers > 1 else 0.0
        self.layer = LSTM(embedding, hidden, layers, dropout=between, dtype=dtype, seed=seed)
        self.embedding: Array = draw.standard_normal((vocabulary, embedding)).astype(dtype)
        self.weight: Array = (draw.standard_normal((vocabulary, hidden)) / hidden**0.5).astype(dtype)
        self.bias: Array = np.zeros(vocabulary, dtype)
        open_forget_gates(self.layer)
        self.parameters = dict(self.layer.parameters)
        self.parameters |= {"embedding": self.embedding, "softmax_weight": self.weight, "softmax_bias": self.bias}

    @property
    def size(self) -> int:
        """Number of weights."""
        return sum(p.size for p in self.parameters.values())

    def zero_state(self, batch: int) -> State:
        """Empty memories for ``batch`` texts."""
        zeros = np.zeros((self.layer.num_layers, batch, self.layer.hidden_size), self.weight.dtype)
        return zeros, zeros.copy()

    def log_probabilities(self, tokens: Tokens, state: State) -> tuple[Array, State]:
        """Log-probabilities [T, B, V] of what follows each of ``tokens`` [T, B], and the state after them."""
        y, state = self.layer(self.embedding[tokens], state)
        return log_softmax(y @ self.weight.T + self.bias), state

    def loss(self, tokens: Tokens, state: State) -> tuple[float, State]:
        """Mean nats of predicting ``tokens[1:]`` from ``tokens[:-1]`` [T+1, B], and the state after them."""
        scores, state = self.log_probabilities(tokens[:-1], state)
        hits = np.take_along_axis(scores, tokens[1:, :, None], axis=-1)
        return -float(hits.mean(dtype=np.float64)), state

    def gradients(self, tokens: Tokens, state: State, dropout: float = 0.0, draw: Any = None) -> Step:
        """Loss of a chunk [T+1, B] and its gradient with respect to every parameter.

        The gradient stops at ``state``, which the chunk starts from (truncated back-propagation through time).
        ``dropout``: share of the embedding's and of the last layer's outputs set to zero, drawn from the generator
        ``draw``.
        """
        steps, batch = tokens.shape[0] - 1, tokens.shape[1]
        count, (vocabulary, hidden) = steps * batch, self.weight.shape
        x = self.embedding[tokens[:-1]]
        if dropout:
            x_mask = dropout_mask(x.shape, dropout, draw, x.dtype)
            x *= x_mask
        y, state, reserve = self.layer.forward(x, state)
        if dropout:
            y_mask = dropout_mask(y.shape, dropout, draw, y.dtype)
            y = y * y_mask
        flat = y.reshape(count, hidden)

        logits = flat @ self.weight.T
        logits += self.bias
        loss, dlogits = softmax_loss(logits, tokens[1:].reshape(count))
        dy = (dlogits @ self.weight).reshape(y.shape)
        if dropout:
            dy *= y_mask
        gradients = self.layer.backward(reserve, dy)
        dx = gradients.x
        if dropout:
            dx = dx * x_mask
        gradients.parameters.update(
            embedding=sum_by_token(dx.reshape(count, -1), tokens[:-1].reshape(count), vocabulary),
            softmax_weight=dlogits.T @ flat,
            softmax_bias=dlogits.sum(axis=0),
        )
        return Step(loss, state, gradients)

    def held_out_loss(self, tokens: Tokens, batch: int = 16, chunk: int = 64) -> float:
        """Mean nats a token over a whole text [N], cut into ``batch`` pieces that are read side by side.

        Every token but the first is predicted once (fewer than ``batch`` at the end are left out); each piece starts
        from empty memories, which makes the figure a little worse than reading in one go.
        """
        length = (len(tokens) - 1) // batch
        starts = np.arange(batch) * length
        pieces = tokens[starts + np.arange(length + 1)[:, None]]
        state, total = self.zero_state(batch), 0.0
        for begin in range(0, length, chunk):
            part = pieces[begin : begin + chunk + 1]
            loss, state = self.loss(part, state)
            total += loss * (len(part) - 1)
        return total / length

    def next_tokens(self, tokens: Tokens, count: int) -> list[tuple[int, float]]:
        """The ``count`` likeliest successors of a text [N] with their probabilities, likeliest first."""
        scores, _ = self.log_probabilities(tokens[:, None], self.zero_state(1))
        p = np.exp(scores[-1, 0].astype(np.float64))
        p[UNKNOWN] = 0.0
        best = np.argsort(-p, kind="stable")[:count]
        return [(int(token), float(p[token])) for token in best]

    def memories(self, tokens: Tokens) -> Memories:
        """Look inside the last layer while it reads a text [N] from empty memories; no dropout."""
        calm = copy.copy(self.layer)  # with the same parameters
        calm.dropout = 0.0
        h, _, reserve = calm.forward(self.embedding[tokens])
        return Memories(*reserve.states(calm.num_layers - 1), h)

    def generate(self, tokens: Tokens, count: int, temperature: float, draw: np.random.Generator) -> list[int]:
        """Continue a text [N] by ``count`` tokens, each drawn from the model's own prediction; never UNKNOWN.

        ``temperature`` below 1 prefers the likely ones, 0 always takes the likeliest, above 1 is adventurous.
        """
        scores, state = self.log_probabilities(tokens[:, None], self.zero_state(1))
        text: list[int] = []
        for _ in range(count):
            row = scores[-1, 0].astype(np.float64)
            row[UNKNOWN] = -np.inf
            if temperature:
                row = np.exp((row - row.max()) / temperature)
                token = int(np.searchsorted(np.cumsum(row), draw.random() * row.sum(), side="right"))
                token = min(token, len(row) - 1)  # rounding in the sum
            else:
                token = int(np.argmax(row))
            text.append(token)
            scores, state = self.log_probabilities(np.array([[token]]), state)
        return text
