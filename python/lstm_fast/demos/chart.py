"""The demos' pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..bench.chart import COLOURS
from ..bench.packages import require

if TYPE_CHECKING:
    from .corpus import Tokens
    from .side_by_side import Lesson
    from .stock import Days
    from .topics import Cost, Epoch, Judgement
    from .training import History

NEEDS = "--plot"
SMOOTH = 15  # batches of demo digits


def figure_of(columns: int, rows: int = 1) -> tuple[Any, Any]:
    """A figure of panels, row by row, that needs no display."""
    figure = require("matplotlib.figure", NEEDS).Figure(figsize=(5.5 * columns, 4.5 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.grid(alpha=0.3)
    return figure, panels


class Curve(NamedTuple):
    """One panel of :func:`draw_text`."""

    title: str
    unit: str
    history: History
    guessing: float  # held-out loss of the unigram model
    target: float | None


def smooth(values: Sequence[float], width: int) -> list[float]:
    """Mean of the last ``width`` values (of fewer at the beginning)."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(total))
    start = np.maximum(end - width, 0)
    return list((total[end] - total[start]) / (end - start))


def draw_text(curves: Sequence[Curve], path: Path) -> None:
    """Write the losses of language models over the tokens seen, a panel for each."""
    figure, panels = figure_of(len(curves))
    for axes, curve in zip(panels, curves, strict=True):
        seen, losses = zip(*curve.history.training, strict=True)
        width = max(5, len(losses) // 50)
        axes.plot(seen, smooth(losses, width), color=COLOURS[0], label=f"training (mean of {width} steps)")
        axes.plot(*zip(*curve.history.held_out, strict=True), "o-", color=COLOURS[1], label="held out")
        axes.axhline(curve.guessing, color="grey", linestyle=":", label="guessing by frequency (held out)")
        if curve.target:
            axes.axhline(curve.target, color="black", linestyle="--", label=f"target {curve.target:g}")
        final = curve.history.held_out[-1]
        axes.annotate(f"{final[1]:.2f}", final, xytext=(0, 7), textcoords="offset points", ha="right", weight="bold")
        axes.set(title=curve.title, xlabel=f"{curve.unit}s seen", ylabel=f"loss, nats a {curve.unit}")
        axes.xaxis.set_major_formatter(require("matplotlib.ticker", NEEDS).EngFormatter())
        axes.set_xlim(left=0)
        axes.legend()
    figure.savefig(path, dpi=120)


def draw_stock(given: Days, learned: Days, losses: Sequence[float], path: Path) -> None:
    """Write both memories of both companies, for the given and for the trained weights, and the loss."""
    figure, panels = figure_of(3)
    day = np.arange(1, len(given.long_term) + 1)
    for axes, days, title in zip(panels, (given, learned), ("the given weights", "the trained weights"), strict=False):
        for company, name in enumerate("AB"):
            colour = COLOURS[company]
            axes.plot(day, days.long_term[:, company], "s--", color=colour, label=f"{name}: long-term memory")
            axes.plot(day, days.short_term[:, company], "o-", color=colour, label=f"{name}: short-term memory")
            axes.plot(5, company, "*", color=colour, markersize=14, label=f"{name}: truth of day 5")
        axes.set(title=title, xlabel="day", ylabel="memory after the day", xticks=range(1, 6))
        axes.legend(fontsize="small")
    panels[2].plot(losses, color="black")
    panels[2].set(title="training", xlabel="step", ylabel="loss: sum of the squared errors", yscale="log")
    figure.savefig(path, dpi=120)


def draw_topics(
    epochs: Sequence[Epoch],
    ours: Judgement,
    theirs: Judgement,
    targets: Tokens,
    cost: Cost,
    names: Sequence[str],
    path: Path,
) -> None:
    """Write the losses over the epochs, the share told right of each group, and the time of both kinds of batches."""
    figure, (losses, shares, times) = figure_of(3)
    number = np.arange(1, len(epochs) + 1)
    losses.plot(number, [epoch.training for epoch in epochs], "o-", color=COLOURS[0], label="training, with dropout")
    losses.plot(number, [epoch.held_out.loss for epoch in epochs], "s-", color=COLOURS[1], label="held out")
    losses.axhline(theirs.loss, color="black", linestyle="--", label="bag of words, held out")
    losses.axhline(np.log(len(names)), color="grey", linestyle=":", label="chance")
    losses.set(title="learning", xlabel="epoch", ylabel="loss, nats a sentence")
    losses.legend()

    place = np.arange(len(names))
    judged = (("LSTM", ours), ("bag of words", theirs))
    for which, (label, judgement) in enumerate(judged):
        right = [100 * np.mean(judgement.guesses[targets == k] == k) for k in place]
        label = f"{label}: {judgement.accuracy:.1%} of all"
        shares.barh(place + 0.4 * which - 0.2, right, 0.4, color=COLOURS[which], label=label)
    shares.axvline(100 / len(names), color="grey", linestyle=":", label="chance")
    shares.set(title="held-out sentences told right", xlabel="% of each group", xlim=(0, 100))
    shares.set_yticks(place, names)
    shares.invert_yaxis()
    shares.legend(loc="upper center", bbox_to_anchor=(0.4, -0.12), ncols=3, fontsize="small", frameon=False)

    bars = times.bar(["ragged", "padded"], [cost.ragged, cost.padded], 0.6, color=COLOURS[:2])
    times.bar_label(bars, fmt="%.3f s", padding=2)
    times.margins(y=0.1)
    times.set(title=f"gradients of one epoch: {cost.padded / cost.ragged:.2f}x", ylabel="seconds")
    times.set_xlabel(f"{cost.valid:.0%} of the padded steps are words")
    figure.savefig(path, dpi=120)


def draw_digits(lessons: Mapping[str, Lesson], path: Path) -> None:
    """Write, for whole and for cut digits, the losses and how far they are apart, and the time of a batch."""
    figure, panels = figure_of(3, 2)
    styles = (
        {"color": COLOURS[4], "linewidth": 4, "alpha": 0.7},
        {"color": COLOURS[0], "linewidth": 1.6},
        {"color": "black", "linewidth": 1, "linestyle": ":"},
    )
    for name, curves, apart in zip(lessons, panels[0:2], panels[3:5], strict=True):
        lesson = lessons[name]
        copies = {"plain": lesson.plain, "accelerated": lesson.accelerated, "control": lesson.control}
        number = np.arange(1, len(lesson.plain.losses) + 1)
        for (label, student), style in zip(copies.items(), styles, strict=True):
            label = f"{label}: {student.accuracies[-1]:.1%} of held-out digits right"
            curves.plot(number, smooth(student.losses, SMOOTH), label=label, **style)
        curves.axhline(np.log(10), color="grey", linestyle=":")
        curves.set(title=f"{name} digits", xlabel="batch", ylabel=f"loss, nats a digit (mean of {SMOOTH} batches)")
        curves.legend(fontsize="small")
        for (label, student), style in list(zip(copies.items(), styles, strict=True))[1:]:
            differences = np.maximum.accumulate(lesson.differences(student))
            apart.plot(number, differences, label=f"{label} - plain", **style)
        apart.set(title=f"{name} digits: how rounding grows", xlabel="batch", yscale="log")
        apart.set_ylabel("difference of a batch's losses, nats, largest so far")
        apart.legend(fontsize="small", loc="lower right")

    times, ratios = panels[2], panels[5]
    place = np.arange(len(lessons))
    for which, label in enumerate(("plain", "accelerated")):
        medians = [1e3 * float(np.median(getattr(lesson, label).seconds)) for lesson in lessons.values()]
        bars = times.bar(place + 0.4 * which - 0.2, medians, 0.38, color=styles[which]["color"], label=label)
        times.bar_label(bars, fmt="%.1f", padding=2)
    names = [f"{name}\n{lesson.ratio:.2f}x" for name, lesson in lessons.items()]
    times.set_xticks(place, names)
    times.margins(y=0.12)
    times.set(title="time of a batch: forward, backward, optimiser", ylabel="ms, median")
    times.legend()
    for which, (name, lesson) in enumerate(lessons.items()):
        values = np.divide(lesson.plain.seconds, lesson.accelerated.seconds)
        progress = np.linspace(0, 100, len(values))
        ratios.plot(progress, values, ".", markersize=3, color=COLOURS[2 * which + 1], label=name)
        ratios.axhline(lesson.ratio, color=COLOURS[2 * which + 1])
    ratios.axhline(1, color="black")
    ratios.set(title="plain / accelerated, each batch", xlabel="% of the batches", ylabel="ratio of the times")
    ratios.set_ylim(0, 2 * max(lesson.ratio for lesson in lessons.values()))
    ratios.legend(fontsize="small")
    figure.savefig(path, dpi=110)
