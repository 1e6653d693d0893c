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
    batch: int = 32
    chunk: int = 64  # steps of back-propagation through time
    rate: float = 4e-3  # Adam's highest learning rate
    dropout: float = 0.0
    max_norm: float = 1.0  # the gradient of all parameters together is clipped to this


@dataclass
class History:
    """What a run went through: (tokens seen, nats a token) for both losses; ``seconds`` with everything."""

    training: list[tuple[int, float]] = field(default_factory=list)  # each step
    held_out: list[tuple[int, float]] = field(default_factory=list)  # each evaluation
    steps: int = 0
    seconds: float = 0.0
    cut_short: bool = False  # fewer steps than the recipe's, for want of time


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
    """Share of the highest learning rate: a linear rise, then half a cosine down to a fiftieth."""
    rise = min(1.0, (step + 1) / WARM_UP)
    return rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


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

    The number of steps decides everything but the time: the same seed and the same number give the same bits. When the
    first steps show that the recipe's number would take too long, a smaller one is planned and reported.
    """
    begin = time.perf_counter()
    draw = np.random.default_rng(seed)
    adam = Adam(model.parameters)
    history = History()
    state = model.zero_state(recipe.batch)
    steps, step, recent = recipe.steps, 0, math.nan
    with Progress(title, steps) as bar:
        for chunk, anew in streams(tokens, recipe.batch, recipe.chunk, draw):
            if anew:
                state = model.zero_state(recipe.batch)
            loss, state, gradients = model.gradients(chunk, state, recipe.dropout, draw)
            clip_grad_norm(gradients, recipe.max_norm)
            adam.step(gradients.parameters, recipe.rate * schedule(step, steps))
            step += 1

            seen = step * recipe.batch * recipe.chunk
            elapsed = time.perf_counter() - begin
            recent = loss if step == 1 else 0.95 * recent + 0.05 * loss
            history.training.append((seen, loss))
            bar.move(step, f"loss {recent:.3f}  {seen / elapsed:,.0f} {unit}s/s")
            if step == WARM_UP and elapsed / step * steps > 0.9 * seconds:
                steps = bar.total = max(step + 1, int(0.9 * seconds / elapsed * step))
                bar.note(f"{recipe.steps} steps would take {elapsed / step * recipe.steps:.0f} s: planning {steps}")
            out_of_time = elapsed > seconds
            if step == steps or out_of_time or step % max(1, steps // EVALUATIONS) == 0:
                history.held_out.append((seen, model.held_out_loss(held_out)))
                bar.note(
                    f"  {seen:>10,} {unit}s  loss {recent:.3f}  held out {history.held_out[-1][1]:.3f}"
                    f"  {elapsed:5.1f} s"
                )
            if step == steps or out_of_time:
                break
    history.steps = step
    history.cut_short = step < recipe.steps
    history.seconds = time.perf_counter() - begin
    return history
