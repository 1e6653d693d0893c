"""``lstm-fast demo stock``: one LSTM unit, followed by hand day by day, then trained from random weights."""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import LSTM
from .adam import Adam
from .arguments import picture, positive_int
from .chart import draw_stock

Array = NDArray[Any]

COMPANIES = ("A", "B")
PRICES = np.array([[0.0, 1.0], [0.5, 0.5], [0.25, 0.25], [1.0, 1.0]])  # [day, company]
DAY_5 = np.array([0.0, 1.0])  # [company]: what the unit should predict
CLOSE_ENOUGH = 0.1  # of both predictions, where training stops

# Gate: (weight of the input, weight of the short-term memory, bias); the rows of the layer's weights in their order.
WORKED = {
    "input": (1.65, 2.00, 0.62),
    "forget": (1.63, 2.70, 1.62),
    "candidate": (0.94, 1.41, -0.32),
    "output": (-0.19, 4.38, 0.59),
}

RATE = 0.1  # Adam's learning rate
LONGEST = 5000  # steps

INTRODUCTION = """\
One LSTM unit, followed by hand
===============================
The share prices of two companies over four days (on a scale from 0 to 1), and one question: what comes on day 5?
A's and B's prices differ on day 1 only, so whoever answers has to remember day 1 until the end.

The unit carries two numbers from day to day. Each day it reads the price and its own short-term memory, and
  1. keeps a percentage of its long-term memory                                             (forget gate),
  2. makes up a potential memory, and adds a percentage of that to the long-term memory     (input gate),
  3. lets out a percentage of the long-term memory, squashed by tanh: the short-term memory (output gate).
The short-term memory after day 4 is its prediction for day 5."""

EXPLANATION = """\
Look at day 1: B's price of 1 puts 0.5 into the long-term memory, A's price of 0 makes it slightly negative. From day 2
on the prices are the same, but the percentages depend on the short-term memory too: B keeps more, adds more and lets
out more each day, and so the difference of day 1 grows until it is the answer."""

TRAINING = """\
The same unit learns it by itself
=================================
Now forget those weights: start from random ones ({count} numbers, seed {seed}), predict, measure how wrong both
predictions are (loss: the sum of the squared errors), let the layer's backward pass say in which direction each weight
has to move, move it a little, and repeat until both predictions are within {close} of the truth."""


class Days(NamedTuple):
    """What happens inside the unit; each array is [day, company]."""

    remembered: Array  # forget gate: share of the long-term memory kept
    potential: Array  # candidate
    admitted: Array  # input gate: share of the potential memory added
    long_term: Array  # c after the day
    let_out: Array  # output gate: share of tanh(long-term memory) let out
    short_term: Array  # h after the day


def worked_unit() -> LSTM:
    """The unit with the published weights, in float64."""
    unit = LSTM(1, 1, dtype=np.float64, seed=0)
    weights = np.array(list(WORKED.values()))
    unit.parameters["weight_ih_l0"][:, 0] = weights[:, 0]
    unit.parameters["weight_hh_l0"][:, 0] = weights[:, 1]
    unit.parameters["bias_ih_l0"][:] = weights[:, 2]
    unit.parameters["bias_hh_l0"][:] = 0.0
    return unit


def follow(unit: LSTM) -> Days:
    """Run both companies through the unit from empty memories, and look inside."""
    y, _, reserve = unit.forward(PRICES[:, :, None])
    inside = reserve.states()
    return Days(*(a[:, :, 0] for a in (inside.f, inside.g, inside.i, inside.c, inside.o, y)))


class Lesson(NamedTuple):
    """A training run: loss before each step and after the last, [steps + 1], and the predictions then, [company]."""

    losses: list[float]
    predictions: Array

    @property
    def learned(self) -> bool:
        """Whether both predictions are close enough."""
        return bool(np.all(np.abs(self.predictions - DAY_5) <= CLOSE_ENOUGH))


def learn(unit: LSTM, longest: int = LONGEST) -> Lesson:
    """Train ``unit`` in place until both predictions are close enough, or for ``longest`` steps."""
    x = PRICES[:, :, None]
    adam = Adam(unit.parameters)
    losses: list[float] = []
    while True:
        y, _, reserve = unit.forward(x)
        error = y[-1, :, 0] - DAY_5
        losses.append(float(error @ error))
        lesson = Lesson(losses, y[-1, :, 0].copy())
        if lesson.learned or len(losses) > longest:
            return lesson
        # Only the last short-term memory is judged: its gradient enters as that of the final state (dh, dc).
        dh = 2 * error[None, :, None]
        gradients = unit.backward(reserve, None, (dh, np.zeros_like(dh)))
        adam.step(gradients.parameters, RATE)


def table(days: Days, company: int) -> str:
    """The four days of one company as lines of text."""
    lines = [
        f"Company {COMPANIES[company]}",
        "             long-term   potential     of it      long-term      of it     short-term",
        "day   price  memory kept   memory      added        memory      let out      memory",
    ]
    for day, prices in enumerate(PRICES):
        f, g, i, c, o, h = (float(a[day, company]) for a in days)
        gates = f"{f:>9.1%}   {g:>9.3f}  {i:>9.1%}"
        lines.append(f"{day + 1:>3}   {prices[company]:>5.2f}  {gates}  {c:>13.6f}  {o:>9.1%}  {h:>13.6f}")
    return "\n".join(lines)


def predictions(values: Array) -> str:
    """What the unit says of day 5, a line for each company; ``values`` is [company]."""
    return "\n".join(
        f"  company {name}: {value:9.6f}   (truth: {truth:.0f})"
        for name, value, truth in zip(COMPANIES, values, DAY_5, strict=True)
    )


def _progress_lines(losses: list[float]) -> str:
    """About ten of the losses, evenly spaced, the last one included."""
    last = len(losses) - 1
    shown = sorted({round(k * last / 10) for k in range(11)})
    return "\n".join(f"  step {k:>4}   loss {losses[k]:9.6f}  {'#' * round(30 * losses[k])}" for k in shown)


def main(argv: list[str]) -> int:
    """Show and train; 1 if the training did not get both predictions close enough."""
    parser = argparse.ArgumentParser(prog="lstm-fast demo stock", description="One LSTM unit, followed by hand.")
    add = parser.add_argument
    add("--seed", type=int, default=1, help="of the random weights that training starts from; default 1")
    add("--steps", type=positive_int, default=LONGEST, help="give up after so many; default %(default)s")
    add("--plot", type=picture, metavar="F.png", help="draw the memories and the loss (needs matplotlib)")
    options = parser.parse_args(argv)

    given = follow(worked_unit())
    print(INTRODUCTION, end="\n\n")
    for company in range(len(COMPANIES)):
        print(table(given, company), end="\n\n")
    print(f"Predictions for day 5:\n{predictions(given.short_term[-1])}\n\n{EXPLANATION}\n\n")

    unit = LSTM(1, 1, dtype=np.float64, seed=options.seed)
    count = sum(p.size for p in unit.parameters.values())
    print(TRAINING.format(count=count, seed=options.seed, close=CLOSE_ENOUGH), end="\n\n")
    print(f"Predictions for day 5 before training:\n{predictions(follow(unit).short_term[-1])}\n")
    lesson = learn(unit, options.steps)
    print(_progress_lines(lesson.losses), end="\n\n")
    steps = len(lesson.losses) - 1
    print(f"Predictions for day 5 after {steps} steps:\n{predictions(lesson.predictions)}")
    if options.plot:
        draw_stock(given, follow(unit), lesson.losses, options.plot)
        print(f"picture: {options.plot}")
    if not lesson.learned:
        print(f"NOT LEARNED: a prediction is still more than {CLOSE_ENOUGH} off; try another --seed or more --steps")
        return 1
    print(f"Learned: both are within {CLOSE_ENOUGH}.")
    return 0
