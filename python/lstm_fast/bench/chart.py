"""The pictures: of a sweep, lines over log2 T: speed-ups, GFLOP/s below the roofline, ns per step; of cases, bars."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .engines import PASSES
from .packages import require
from .problems import Problem
from .report import ratios
from .sweep import Row, Sweep

# Okabe and Ito's colours, told apart by colour-blind readers too; marker and dashes repeat the difference in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
HATCHES = ("", "///")  # of the bars, by pass
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)

Styles = dict[tuple[int, int], dict[str, Any]]  # (B, H) -> of its line
Value = Callable[[Row], float | None]
Panel = tuple[str, Callable[[Any], None]]  # title; draws on the axes


def _size(problem: Problem) -> tuple[int, int]:
    return problem.batch, problem.hidden


def _lines(axes: Any, rows: Sequence[Row], styles: Styles, value: Value, **other: Any) -> None:
    for size, style in styles.items():
        points = [(row.problem.steps, value(row)) for row in rows if _size(row.problem) == size]
        points = [(t, v) for t, v in points if v is not None]
        if points:
            axes.plot(*zip(*points, strict=True), **style | other)


def _speedup(axes: Any, rows: Sequence[Row], styles: Styles, engine: str, limits: tuple[float, float]) -> None:
    _lines(axes, rows, styles, lambda row: row.ratio(engine))
    low, high = limits
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.set_yticks([t for t in TICKS if low <= t <= high], [f"{t:g}x" for t in TICKS if low <= t <= high])
    axes.minorticks_off()
    axes.axhline(1, color="black", linewidth=1.2, zorder=1)
    axes.axhspan(low, 1, color="black", alpha=0.06, zorder=0)
    axes.text(0.98, low * 1.04, f"{engine} faster", ha="right", va="bottom", transform=axes.get_yaxis_transform())


def _roofline(axes: Any, rows: Sequence[Row], styles: Styles, sweep: Sweep) -> None:
    """What one core reached, below the bound of each size and the FMA peak of all."""
    thin = {"marker": "", "linestyle": "-", "linewidth": 0.9, "alpha": 0.75, "zorder": 1}
    _lines(axes, rows, styles, lambda row: (of := sweep.bound(row)) and of / row.threads_used, **thin)
    _lines(axes, rows, styles, lambda row: row.gflops and row.gflops / row.threads_used)
    peak = sweep.peak.gflops
    axes.axhline(peak, color="black", linewidth=1.2, zorder=2)
    axes.text(0.02, peak * 1.01, "FMA peak", ha="left", va="bottom", transform=axes.get_yaxis_transform())
    axes.text(0.98, 0.02, "thin: bound of the size", ha="right", va="bottom", transform=axes.transAxes)
    axes.set_ylim(0, peak * 1.12)


def _cost(axes: Any, rows: Sequence[Row], styles: Styles) -> None:
    """A flat line: time is linear in T."""
    _lines(axes, rows, styles, lambda row: row.ns_per_step)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(low / 2, high * 2)  # so that a single line does not fill the panel with its noise


def _panels(sweep: Sweep, others: Sequence[str], styles: Styles) -> tuple[list[Panel], list[Panel]]:
    """Titles and drawers: of the speed-ups over the other engines, and of what we reach by ourselves."""
    reached = [ratio for name in others for ratio in ratios(sweep.rows, name)]
    limits = min([0.7, *reached]) / 1.15, max([2.5, *reached]) * 1.15  # one scale, so that panels compare at a glance
    speedups: list[Panel] = []
    own: list[Panel] = []
    for which in PASSES:
        rows = [row for row in sweep.rows if row.which == which]
        speedups += [
            (
                f"{which}: speed-up over {engine}",
                functools.partial(_speedup, rows=rows, styles=styles, engine=engine, limits=limits),
            )
            for engine in others
            if ratios(rows, engine)
        ]
        own += [
            (f"{which}: GFLOP/s a core", functools.partial(_roofline, rows=rows, styles=styles, sweep=sweep)),
            (f"{which}: ns per step", functools.partial(_cost, rows=rows, styles=styles)),
        ]
    return speedups, own


def draw(sweep: Sweep, others: Sequence[str], caption: str, path: Path) -> None:
    """Write the chart, all over T: speed-up over each of ``others``, GFLOP/s below the roofline, ns per step."""
    matplotlib, marked = (require(f"matplotlib.{name}", "the chart of bench") for name in ("figure", "lines"))
    styles: Styles = {}
    for row in sweep.rows:
        turn, index = divmod(len(styles), len(COLOURS))
        marker = MARKERS[(index + turn) % len(MARKERS)]  # another for the colour's next line
        styles.setdefault(
            _size(row.problem),
            {"color": COLOURS[index], "marker": marker, "linestyle": DASHES[index], "linewidth": 1.8}
            | {"markersize": 5, "label": f"B {row.problem.batch}, H {row.problem.hidden}"},
        )
    speedups, own = _panels(sweep, others, styles)
    columns = 2 if len(speedups) <= 2 else 4
    lines = [panels[at : at + columns] for panels in (speedups, own) for at in range(0, len(panels), columns)]
    figure = matplotlib.Figure(figsize=(4.2 * columns, 1.1 + 3.3 * len(lines)), layout="constrained")
    grid = figure.subplots(len(lines), columns, squeeze=False)
    steps = sorted({row.problem.steps for row in sweep.rows})
    for line, panels in zip(grid, lines, strict=True):
        for axes in line[len(panels) :]:
            axes.axis("off")
        for axes, (title, fill) in zip(line, panels, strict=False):
            fill(axes)
            axes.set_title(title, fontsize=10)
            axes.set_xscale("log", base=2)
            axes.set_xticks(steps, [str(t) for t in steps])
            axes.set_xlabel("T (steps)")
            axes.grid(True, linewidth=0.5, alpha=0.5)
    marks = [marked.Line2D([], [], **style) for style in styles.values()]
    figure.legend(handles=marks, loc="outside lower center", ncols=min(len(marks), 6), frameon=False, handlelength=4)
    figure.suptitle(caption, fontsize=11)
    figure.savefig(path, dpi=110)


def _case(row: Row) -> str:
    p = row.problem
    return f"{row.case}\nT {p.steps}  B {p.batch}  H {p.hidden}"


def draw_cases(cases: Sequence[Sequence[Row]], engine: str, caption: str, path: Path) -> None:
    """Write the chart of modules: for each case a bar of the ratio for each pass, from 1 on a logarithmic axis."""
    matplotlib = require("matplotlib.figure", "the chart of bench")
    figure = matplotlib.Figure(figsize=(9, 1.8 + 0.55 * len(cases)), layout="constrained")
    axes = figure.subplots()
    reached = [ratio for rows in cases for ratio in ratios(rows, engine)]
    low, high = min([0.62, *reached]) / 1.25, max([2.5, *reached]) * 1.25
    height = 0.8 / len(PASSES)
    for at, which in enumerate(PASSES):
        values = [rows[at].ratio(engine) for rows in cases]
        places = [index + (at - (len(PASSES) - 1) / 2) * height for index in range(len(cases))]
        lengths = [(value or 1) - 1 for value in values]
        style = {"color": COLOURS[at], "hatch": HATCHES[at], "edgecolor": "white", "label": which, "zorder": 2}
        bars = axes.barh(places, lengths, height, left=1, **style)
        axes.bar_label(bars, [f"{value:.2f}" if value else "wrong" for value in values], padding=4, fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xticks([t for t in TICKS if low <= t <= high], [f"{t:g}x" for t in TICKS if low <= t <= high])
    axes.minorticks_off()
    axes.set_yticks(range(len(cases)), [_case(rows[0]) for rows in cases], fontsize=9)
    axes.set_ylim(len(cases) - 0.4, -0.6)
    axes.axvline(1, color="black", linewidth=1.2, zorder=3)
    axes.axvspan(low, 1, color="black", alpha=0.06, zorder=0)
    axes.text(low * 1.02, -0.5, f"{engine} faster", ha="left", va="top", fontsize=9)
    axes.grid(True, axis="x", linewidth=0.5, alpha=0.5, zorder=1)
    axes.set_xlabel(f"time of {engine} / time of lstm_fast")
    figure.get_layout_engine().set(w_pad=0.1)
    figure.legend(loc="outside lower center", ncols=len(PASSES), frameon=False)
    figure.suptitle(caption, fontsize=11)
    figure.savefig(path, dpi=110)
