"""The pictures: of a sweep, speed-up over every engine and share of the FMA peak, over log2 T; of cases, bars."""

from __future__ import annotations

from collections.abc import Sequence
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


def _size(problem: Problem) -> tuple[int, int]:
    return problem.batch, problem.hidden


def _lines(axes: Any, rows: Sequence[Row], styles: dict[tuple[int, int], dict[str, Any]], value: Any) -> None:
    for size, style in styles.items():
        points = [(row.problem.steps, value(row)) for row in rows if _size(row.problem) == size]
        points = [(t, v) for t, v in points if v is not None]
        if points:
            axes.plot(*zip(*points, strict=True), **style)


def _speedup(
    axes: Any,
    rows: Sequence[Row],
    styles: dict[tuple[int, int], dict[str, Any]],
    engine: str,
    limits: tuple[float, float],
) -> None:
    _lines(axes, rows, styles, lambda row: row.ratio(engine))
    low, high = limits
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.set_yticks([t for t in TICKS if low <= t <= high], [f"{t:g}x" for t in TICKS if low <= t <= high])
    axes.minorticks_off()
    axes.axhline(1, color="black", linewidth=1.2, zorder=1)
    axes.axhspan(low, 1, color="black", alpha=0.06, zorder=0)
    axes.text(0.98, low * 1.04, f"{engine} faster", ha="right", va="bottom", transform=axes.get_yaxis_transform())


def _share_of_peak(axes: Any, rows: Sequence[Row], styles: dict[tuple[int, int], dict[str, Any]], share: Any) -> None:
    _lines(axes, rows, styles, lambda row: row.gflops and 100 * share(row))
    axes.set_ylim(0, 105)
    axes.set_yticks(range(0, 101, 20), [f"{p} %" for p in range(0, 101, 20)])
    axes.axhline(100, color="black", linewidth=1.2, zorder=1)


def draw(sweep: Sweep, others: Sequence[str], caption: str, path: Path) -> None:
    """Write the chart: a row of panels for each pass; a column for each of ``others`` and one for the FMA peak."""
    matplotlib = require("matplotlib.figure", "the chart of bench")
    others = [name for name in others if ratios(sweep.rows, name)]
    styles: dict[tuple[int, int], dict[str, Any]] = {}
    for row in sweep.rows:
        index = len(styles) % len(COLOURS)
        styles.setdefault(
            _size(row.problem),
            {"color": COLOURS[index], "marker": MARKERS[index], "linestyle": DASHES[index], "linewidth": 1.8}
            | {"markersize": 5, "label": f"B {row.problem.batch}, H {row.problem.hidden}"},
        )
    columns = len(others) + 1
    figure = matplotlib.Figure(figsize=(3.7 * columns, 7.6), layout="constrained")
    grid = figure.subplots(len(PASSES), columns, squeeze=False)
    reached = [ratio for name in others for ratio in ratios(sweep.rows, name)]
    limits = min([0.7, *reached]) / 1.15, max([2.5, *reached]) * 1.15  # one scale, so that panels compare at a glance
    steps = sorted({row.problem.steps for row in sweep.rows})
    for which, line in zip(PASSES, grid, strict=True):
        rows = [row for row in sweep.rows if row.which == which]
        for engine, axes in zip((*others, None), line, strict=True):
            if engine is not None and not ratios(rows, engine):
                axes.axis("off")
                axes.text(0.5, 0.5, f"{engine}:\nno {which}", ha="center", va="center", transform=axes.transAxes)
                continue
            if engine is None:
                _share_of_peak(axes, rows, styles, sweep.peak_share)
                axes.set_title(f"{which}: share of FMA peak", fontsize=10)
            else:
                _speedup(axes, rows, styles, engine, limits)
                axes.set_title(f"{which}: speed-up over {engine}", fontsize=10)
            axes.set_xscale("log", base=2)
            axes.set_xticks(steps, [str(t) for t in steps])
            axes.set_xlabel("T (steps)")
            axes.grid(True, linewidth=0.5, alpha=0.5)
    handles, labels = grid[0][-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, handlelength=4)
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
