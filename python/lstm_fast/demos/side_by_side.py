"""Copies of one PyTorch model learn from the same batches, one of them accelerated: losses, accuracies, seconds.

Many to one: pixels -> LSTM -> its last hidden state -> linear -> scores of the digits.
Shapes: T pixels of a digit, B digits in a batch, N digits in all, H hidden size, K = 10 classes.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from ..torch import accelerate, restore, stats
from .progress import Progress

CLASSES = 10


@dataclass(frozen=True)
class Recipe:
    """Sizes and rates of a run."""

    epochs: int = 16
    ragged_epochs: int = 6
    hidden: int = 64
    batch: int = 32
    rate: float = 5e-3  # Adam's learning rate
    max_norm: float = 1.0  # the gradient of all parameters together is clipped to this


QUICK = Recipe(epochs=3, ragged_epochs=2, hidden=32, rate=1e-2)


class Reader(torch.nn.Module):
    """Tells the digit from its pixels, one after the other."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(1, hidden)
        self.head = torch.nn.Linear(hidden, CLASSES)
        with torch.no_grad():  # open forget gates: gradients reach the first pixels from the first step on
            self.lstm.get_parameter("bias_ih_l0")[hidden : 2 * hidden] = 1.0

    def forward(self, pixels: Tensor | PackedSequence) -> Tensor:
        """Scores [B, K] of digits: pixels [T, B, 1], or a PackedSequence of them."""
        _, (hn, _) = self.lstm(pixels)
        return self.head(hn[-1])  # type: ignore[no-any-return]


class Digits(NamedTuple):
    """Digits as sequences of pixels."""

    pixels: Tensor  # [T, N, 1], from 0 to 1
    truth: Tensor  # [N]
    lengths: Tensor | None  # [N]: only so many pixels of each are read; None: all

    def chosen(self, which: Tensor) -> tuple[Tensor | PackedSequence, Tensor]:
        """The pixels of a batch as the model takes them, and the truth [B]."""
        pixels, truth = self.pixels[:, which], self.truth[which]
        if self.lengths is None:
            return pixels, truth
        return pack_padded_sequence(pixels, self.lengths[which], enforce_sorted=False), truth

    def batches(self, size: int, draw: np.random.Generator) -> Iterator[tuple[Tensor | PackedSequence, Tensor]]:
        """One epoch: all digits in random order, ``size`` at a time."""
        order = torch.from_numpy(draw.permutation(len(self.truth)))
        for begin in range(0, len(order), size):
            yield self.chosen(order[begin : begin + size])


class Student:
    """A model with its optimiser and what it went through."""

    def __init__(self, model: Reader, recipe: Recipe) -> None:
        self.model = model
        self.max_norm = recipe.max_norm
        self.adam = torch.optim.Adam(model.parameters(), recipe.rate)
        self.losses: list[float] = []  # of each batch, nats a digit
        self.seconds: list[float] = []  # of each batch: forward, backward, clipping and the optimiser's step
        self.accuracies: list[float] = []  # of each epoch, on held-out digits

    def learn(self, pixels: Tensor | PackedSequence, truth: Tensor) -> None:
        """One step of training."""
        begin = time.perf_counter()
        self.adam.zero_grad()
        loss = torch.nn.functional.cross_entropy(self.model(pixels), truth)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.max_norm)
        self.adam.step()
        self.seconds.append(time.perf_counter() - begin)
        self.losses.append(loss.item())

    def judge(self, held_out: Digits) -> None:
        """Note the share of the held-out digits told right."""
        with torch.no_grad():
            pixels, truth = held_out.chosen(torch.arange(len(held_out.truth)))
            self.accuracies.append(float((self.model(pixels).argmax(dim=1) == truth).float().mean()))


class Lesson(NamedTuple):
    """What the copies went through on the same batches."""

    plain: Student
    accelerated: Student
    control: Student  # plain, from weights one unit in the last place off
    epoch: int  # batches in one
    calls: dict[str, dict[str, int]]  # what lstm_fast.torch counted of the accelerated copy
    native_only: bool  # whether these are one native call for each batch and each judgement, and nothing else

    @property
    def ratio(self) -> float:
        """Median seconds of a batch, plain / accelerated."""
        return float(np.median(self.plain.seconds) / np.median(self.accelerated.seconds))

    def differences(self, other: Student) -> NDArray[np.float64]:
        """How far the loss of each batch is from the plain copy's."""
        difference: NDArray[np.float64] = np.abs(np.subtract(other.losses, self.plain.losses))
        return difference

    def together(self, other: Student, close: float) -> int:
        """Batches before the first whose loss is more than ``close`` nats from the plain one; NaN is."""
        apart = ~(self.differences(other) <= close)
        return int(apart.argmax()) if apart.any() else len(apart)

    def curve_difference(self, other: Student) -> float:
        """Largest difference of the mean losses of an epoch."""
        means = [np.reshape(student.losses, (-1, self.epoch)).mean(axis=1) for student in (other, self.plain)]
        return float(np.abs(means[0] - means[1]).max())


def copies(model: Reader) -> tuple[Reader, Reader, Reader]:
    """A plain, an accelerated and a control copy; ``model`` stays as it is."""
    plain, ours, control = (restore(copy.deepcopy(model)) for _ in range(3))
    with torch.no_grad():
        for parameter in control.parameters():
            parameter.copy_(torch.nextafter(parameter, torch.full_like(parameter, torch.inf)))
    return plain, accelerate(ours), control


def study(
    model: Reader, learned: Digits, held_out: Digits, recipe: Recipe, *, epochs: int, seed: int, title: str
) -> Lesson:
    """Train three copies of ``model`` batch by batch in turn, so that what else the machine does hits all of them."""
    plain, ours, control = (Student(made, recipe) for made in copies(model))
    draw = np.random.default_rng([seed, 2])  # another stream than the images'
    epoch = -(-len(learned.truth) // recipe.batch)
    lesson = Lesson(plain, ours, control, epoch, {}, False)
    order = [plain, ours, control]
    stats(reset=True)
    with Progress(title, epochs * epoch) as bar:
        for number in range(1, epochs + 1):
            for pixels, truth in learned.batches(recipe.batch, draw):
                for student in order:
                    student.learn(pixels, truth)
                order.reverse()
                bar.move(len(plain.losses), f"loss {plain.losses[-1]:.3f}")
            for student in order:
                student.judge(held_out)
            losses = "".join(f"{np.mean(s.losses[-epoch:]):>9.4f}" for s in (plain, ours, control))
            right = "".join(f"{s.accuracies[-1]:>8.1%}" for s in (plain, ours, control))
            bar.note(f"{number:>5}  {losses}   {right}   {lesson.ratio:>6.2f}")
    calls = stats()
    expected = {"native": {type(ours.model.lstm).__name__: epochs * (epoch + 1)}, "formula": {}, "fallback": {}}
    return lesson._replace(calls=calls, native_only=calls == expected)
