"""The demos' pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..bench.chart import COLOURS
from ..bench.packages import require

if TYPE_CHECKING:
    from .stock import Days
    from .training import History

NEEDS = "--plot"


def _figure(columns: int) -> tuple[Any, Any]:
    """A figure of panels side by side that needs no display."""
    figure = require("matplotlib.figure", NEEDS).Figure(figsize=(5.5 * columns, 4.5), layout="constrained")
    panels = figure.subplots(1, columns, squeeze=False)[0]
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


def _smooth(values: Sequence[float], width: int) -> list[float]:
    """Mean of the last ``width`` values (of fewer at the beginning)."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(total))
    start = np.maximum(end - width, 0)
    return list((total[end] - total[start]) / (end - start))


def draw_text(curves: Sequence[Curve], path: Path) -> None:
    """Write the losses of language models over the tokens seen, a panel for each."""
    figure, panels = _figure(len(curves))
    for axes, curve in zip(panels, curves, strict=True):
        seen, losses = zip(*curve.history.training, strict=True)
        width = max(5, len(losses) // 50)
        axes.plot(seen, _smooth(losses, width), color=COLOURS[0], label=f"training (mean of {width} steps)")
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
    figure, panels = _figure(3)
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
