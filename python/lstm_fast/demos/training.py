"""Training a language model: parallel streams of text, carried state, a schedule, a limit on the time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from .. import clip_grad_norm
from .adam import Adam
from .corpus import Tokens
from .language_model import LanguageModel
from .progress import Progress

WARM_UP = 20  # steps in which the learning rate rises; in these the speed is measured, too
EVALUATIONS = 10  # of the held-out loss in a run, evenly spaced


@dataclass(frozen=True)
class Recipe:
    """Sizes and rates of a run."""

    steps: int
    hidden: int
    embedding: int
    layers: int = 1
    batch: int = 32
    chunk: int = 64  # steps of back-propagation through time
    rate: float = 4e-3  # Adam's highest learning rate
    dropout: float = 0.0  # of the embeddings and of the last layer's outputs
    between: float = 0.0  # dropout between the layers
    max_norm: float = 1.0  # the gradient of all parameters together is clipped to this


@dataclass
class History:
    """What a run went through: (tokens seen, nats a token) for both losses; ``seconds`` with everything."""

    training: list[tuple[int, float]] = field(default_factory=list)  # each step
    held_out: list[tuple[int, float]] = field(default_factory=list)  # each evaluation
    planned: int = 0  # steps; fewer than the recipe's when these would have taken too long
    seconds: float = 0.0
    judging: float = 0.0  # of the seconds, those of the evaluations

    @property
    def steps(self) -> int:
        """Steps done; fewer than planned when the time was over before."""
        return len(self.training)

    @property
    def speed(self) -> float:
        """Tokens a second while learning."""
        return self.training[-1][0] / (self.seconds - self.judging)


def streams(tokens: Tokens, batch: int, chunk: int, draw: np.random.Generator) -> Iterator[tuple[Tokens, bool]]:
    """Endless chunks [chunk + 1, batch] of ``batch`` continuous readings of the text, and whether these start anew.

    Each chunk starts with the last token of the one before. After each pass through the text the readings start anew
    at other places.
    """
    length = (len(tokens) - 1) // batch
    chunks = (length - 1) // chunk
    if chunks < 1:
        raise ValueError(f"{len(tokens)} tokens do not fill one chunk of {chunk} x {batch}; the text is too short")
    while True:
        turned = np.roll(tokens, -int(draw.integers(len(tokens))))
        readings = turned[: batch * length].reshape(batch, length).T
        for k in range(chunks):
            yield readings[k * chunk : (k + 1) * chunk + 1], k == 0


def schedule(step: int, steps: int) -> float:
    """Share of the highest learning rate: a linear rise, whatever ``steps``, then half a cosine to a fiftieth."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    return 0.51 + 0.49 * math.cos(math.pi * (step - WARM_UP) / (steps - WARM_UP))


def train(
    model: LanguageModel,
    tokens: Tokens,
    held_out: Tokens,
    recipe: Recipe,
    *,
    seconds: float,
    seed: int,
    title: str,
    unit: str,
) -> History:
    """Train ``model`` in place for ``recipe.steps`` steps, or for as many as ``seconds`` allow.

    The number of steps decides everything but the time: the same seed and number give the same bits (as far as
    NumPy's matrix products do, which may change with its BLAS, the machine and the number of threads). When the
    first steps show that the recipe's number would take too long, a smaller one is planned and reported.
    """
    begin = time.perf_counter()
    draw = np.random.default_rng([seed, 2])  # another stream than the model's
    adam = Adam(model.parameters)
    history = History(planned=recipe.steps)
    state = model.zero_state(recipe.batch)
    recent = math.nan
    with Progress(title, recipe.steps) as bar:
        for step, (chunk, anew) in enumerate(streams(tokens, recipe.batch, recipe.chunk, draw)):
            if anew:
                state = model.zero_state(recipe.batch)
            loss, state, gradients = model.gradients(chunk, state, recipe.dropout, draw)
            clip_grad_norm(gradients, recipe.max_norm)
            adam.step(gradients.parameters, recipe.rate * schedule(step, history.planned))

            done = step + 1
            seen = done * recipe.batch * recipe.chunk
            history.training.append((seen, loss))
            history.seconds = time.perf_counter() - begin
            recent = loss if step == 0 else 0.95 * recent + 0.05 * loss
            bar.move(done, f"loss {recent:.3f}  {history.speed:,.0f} {unit}s/s")
            if done == WARM_UP and history.seconds / done * recipe.steps > 0.9 * seconds:
                history.planned = bar.total = max(done + 1, int(0.9 * seconds / history.seconds * done))
                bar.note(f"{recipe.steps} steps would take too long: {history.planned} are planned now")
            over = done == history.planned or history.seconds > seconds
            if over or done % max(1, history.planned // EVALUATIONS) == 0:
                history.held_out.append((seen, model.held_out_loss(held_out)))
                now = time.perf_counter() - begin
                history.judging += now - history.seconds
                history.seconds = now
                report = f"training loss {recent:.3f}  held-out loss {history.held_out[-1][1]:.3f}"
                bar.note(f"  {seen:>10,} {unit}s  {report}  {now:5.1f} s")
            if over:
                break
    return history
