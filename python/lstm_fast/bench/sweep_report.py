"""What ``lstm-fast bench`` prints and writes: table, paths, JSON, chart, the comparison with an earlier run."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from . import chart, machine
from .compare import Change, Old, faults
from .engines import PASSES, EngineClass
from .machine import describe
from .packages import require
from .peers import engine_version, missing_packages
from .problems import Problem
from .report import (
    busy,
    console,
    count,
    engine_line,
    geometric_mean,
    header,
    measurement_as_json,
    missing_line,
    progress,
    ratio_cell,
    ratios,
    row_as_json,
    write_json,
)
from .sweep import OURS, Row, Sweep, cost, run


def caption(sweep: Sweep, threads: int) -> str:
    """Heading of the chart: what was measured on what."""
    facts = describe()
    longest = max((row.problem for row in sweep.rows), key=lambda p: p.steps)
    kernel = " ".join([longest.cell, longest.dtype, *(v.replace(f"..{longest.steps}", "..T") for v in longest.variant)])
    lines = [
        f"lstm_fast {facts['lstm_fast']}, {kernel}, {facts['isa']}, {count(threads, 'thread')}, I = H",
        f"{facts['cpu']}, FMA peak {sweep.peak.gflops:.0f} GFLOP/s a core",
        busy(sweep),
    ]
    return "\n".join(filter(None, lines))


def _table(title: str) -> Any:
    """An empty rich table, narrow enough for 120 columns with every peer, ragged rows and threads."""
    box = require("rich.box", "bench").SIMPLE_HEAD
    layout = {"box": box, "padding": (0, 1, 0, 0), "pad_edge": False, "title_justify": "left"}
    return require("rich.table", "bench").Table(title=title, show_footer=True, **layout)


def table(sweep: Sweep, which: str, others: Sequence[str]) -> Any:
    """The rich table of one pass; the last line has the geometric mean of each ratio."""
    rows = [row for row in sweep.rows if row.which == which]
    made = _table(f"{which}, {sweep.peak.dtype}; over X: the time of X / ours")
    others = [name for name in others if any(name in row.engines for row in rows)]
    ragged = any(row.padded for row in rows)
    team = any(row.barrier_ns for row in rows)
    titles = ["T", "B", "H", *(["valid\n%"] if ragged else [])]
    titles += ["ns/step", "GFLOP\n/s", "% of\npeak", "% of\nbound"]
    titles += [*(["team", "barrier\nns"] if team else []), *(["over\nown\npadded"] if ragged else [])]
    for name in titles:
        made.add_column(name, footer="mean" if name == "T" else "", justify="right", no_wrap=True)
    for name in others:
        reached = ratios(rows, name)
        footer = f"{geometric_mean(reached):.2f}" if reached else "-"
        # Where the line would be too long, names are folded, and no figure is cut.
        made.add_column(f"over\n{name}", footer=footer, justify="right", overflow="fold")
    for index, row in enumerate(rows):
        p = row.problem
        following = rows[index + 1].problem if index + 1 < len(rows) else None
        last = following is None or (following.batch, following.hidden) != (p.batch, p.hidden)
        ours = ["[bold red]WRONG[/]", "-", "-", "-"]
        share, bound = sweep.peak_share(row), sweep.bound(row)
        if row.ns_per_step is not None and row.gflops is not None and share is not None and bound is not None:
            shares = [f"{100 * share:.0f}", f"{100 * row.gflops / bound:.0f}"]
            ours = [f"{row.ns_per_step:,.0f}", f"{row.gflops:.1f}", *shares]
        overhead = row.ragged_overhead
        cells = [str(p.steps), str(p.batch), str(p.hidden), *([f"{100 * p.valid_share:.0f}"] if ragged else []), *ours]
        cells += [str(row.threads_used), f"{row.barrier_ns:,.0f}"] if team else []
        cells += ["-" if overhead is None else f"{overhead:.2f}"] if ragged else []
        cells += [ratio_cell(row, name) for name in others]
        made.add_row(*cells, end_section=last)
    return made


def memory_table(sweep: Sweep) -> Any:
    """The rich table of the memory of our calls over T; a line for each size and pass."""
    made = _table("own memory, KiB: the most that a call of ours allocates beyond its inputs and outputs")
    made.show_footer = False
    steps = sorted({row.problem.steps for row in sweep.rows})
    made.add_column("pass", no_wrap=True)
    for name in ("B", "H", *(f"T {t}" for t in steps)):
        made.add_column(name, justify="right", no_wrap=True)
    lines: dict[tuple[str, int, int], dict[int, str]] = {}
    for row in sweep.rows:
        p = row.problem
        cell = "-" if row.own_bytes is None else f"{row.own_bytes / 1024:,.0f}"
        lines.setdefault((row.which, p.batch, p.hidden), {})[p.steps] = cell
    for (which, batch, hidden), cells in sorted(lines.items(), key=lambda line: PASSES.index(line[0][0])):
        made.add_row(which, str(batch), str(hidden), *(cells.get(t, "-") for t in steps))
    return made


def as_json(
    sweep: Sweep, classes: Sequence[EngineClass], missing: Sequence[EngineClass], threads: dict[str, str]
) -> Any:
    """Everything measured, as plain values: times in seconds, ratios above 1 where lstm_fast is faster.

    ``peak_share`` is of ``fma_peak_gflops``, one core's, times ``threads_used``; FLOPs count valid steps only.
    ``bound_gflops``: see roofline.py; of all ``threads_used``. ``read_rates``: bytes of W_hh -> bytes/ns of one core.
    ``own_bytes``: see memory.py.
    """
    rows = [
        row_as_json(row)
        | {"ns_per_step": row.ns_per_step, "gflops": row.gflops, "peak_share": sweep.peak_share(row)}
        | {"bound_gflops": sweep.bound(row), "own_bytes": row.own_bytes}
        | {"padded": row.padded and measurement_as_json(row.padded), "ragged_overhead": row.ragged_overhead}
        for row in sweep.rows
    ]
    return header(sweep.peak) | {
        "read_rates": {str(size): rate for size, rate in sweep.rates.items()},
        "engines": {
            made.name: {
                "version": engine_version(made),
                "settings": getattr(made, "settings", None),
                "threads": threads.get(made.name),
                "unsupported": sweep.unsupported.get(made.name),
            }
            for made in classes
        },
        "not_installed": [made.name for made in missing],
        "rows": rows,
    }


def explanations(sweep: Sweep, threads: int) -> list[str]:
    """What stands above the tables: what was measured besides, and what their columns mean."""
    peak = sweep.peak
    caches = ", ".join(f"{rate:.0f} at {size / 1024:,.0f} KiB" for size, rate in sorted(sweep.rates.items()))
    lines = [
        f"FMA peak of one core, measured in this run: {peak.gflops:.1f} GFLOP/s ({peak.dtype})",
        f"bytes/ns that one core reads again and again, at the sizes of W_hh: {caches}",
        "% of peak: of that peak times the threads that lstm_fast used; FLOPs of valid steps only",
        "% of bound: of what these two allow: all products at the peak, but W_hh read once in a step",
    ]
    if any(row.padded for row in sweep.rows):
        lines.append("lengths uniform in 10..T, one fixed draw")
        lines.append("over own padded: time / (valid share x own time padded)")
    if threads > 1:
        lines.append("team: the threads that lstm_fast used, since small problems run on fewer")
        lines.append("barrier: between them, measured beside each row; with more than 80 ns times are not their best")
    return [*lines, ""]


def path_lines(sweep: Sweep) -> list[str]:
    """What computed each engine's results, in its own words: a line for each path, with the passes where it was taken.

    With the points, too, if those are not all of the passes'.
    """
    taken: dict[tuple[str, str], list[Row]] = {}
    for row in sweep.rows:
        for name, measured in row.engines.items():
            if measured.path is not None:
                taken.setdefault((name, measured.path), []).append(row)
    lines = []
    for (name, path), rows in sorted(taken.items(), key=lambda item: item[0][0]):
        passes = [which for which in PASSES if any(row.which == which for row in rows)]
        all_of_them = [row for row in sweep.rows if row.which in passes and name in row.engines]
        where = ", ".join(passes)
        if len(rows) < len(all_of_them):
            where += f" at {len(rows)} of {len(all_of_them)} points: "
            sizes = ((row.problem.steps, row.problem.batch, row.problem.hidden) for row in rows)
            where += "; ".join(dict.fromkeys(f"T {t} B {b} H {h}" for t, b, h in sizes))
        lines.append(f"{name}: {path}  [{where}]")
    return lines


def comparison_table(changes: Sequence[Change], tolerance: float) -> Any:
    """The rich table of shares of the FMA peak then and now; the last line has the geometric mean of the changes.

    Where other programs took the CPU, then or now, it says busy.
    """
    judged = [change.ratio for change in changes if change.quiet]
    mean = f"{100 * (geometric_mean(judged) - 1):+.1f} %" if judged else "-"
    made = _table("share of each run's own FMA peak, %")
    for name in ("pass", "T", "B", "H", "then", "now", "change"):
        footer = {"pass": "mean", "change": mean}.get(name, "")
        made.add_column(name, footer=footer, justify="left" if name == "pass" else "right", no_wrap=True)
    for change in changes:
        p = change.row.problem
        colour = "bold red" if change.ratio < 1 - tolerance else "green" if change.ratio > 1 + tolerance else "default"
        shares = [f"{100 * share:.1f}" for share in (change.old, change.new)]
        moved = f"[{colour}]{100 * (change.ratio - 1):+.1f} %[/]" if change.quiet else "busy"
        made.add_row(change.row.which, str(p.steps), str(p.batch), str(p.hidden), *shares, moved)
    return made


def bench(
    problems: Sequence[Problem],
    listed: Sequence[EngineClass],
    threads: int,
    budget: float,
    json_path: Path,
    chart_path: Path,
    old: Old | None = None,
    tolerance: float = 0.0,
) -> tuple[list[str], list[str]]:
    """Check, time, print and draw; returns a line for every wrong result, and those of the comparison.

    ``listed``: engines, those that are not installed among them. ``budget``: see :func:`lstm_fast.bench.sweep.run`.
    ``old``: an earlier run to compare with; ``tolerance``: what part of a point's share of the peak may be lost since.
    """
    if old is not None:
        old.require_common(problems, PASSES, threads)
    missing = [made for made in listed if missing_packages(made)]
    classes = [made for made in listed if made not in missing]
    others = [made.name for made in classes if made.name != OURS]
    shown = console()
    say = functools.partial(shown.print, markup=False, soft_wrap=True)  # brackets in "lstm_fast[peers]" are no markup
    with machine.engine_threads(threads) as used:
        facts = describe()
        say(f"{facts['cpu']}, usable CPUs: {facts['usable_cpus']}")
        say(f"lstm_fast {__version__}, {facts['isa']}, {count(threads, 'thread')}, {facts['compiler']}; against")
        for made in classes[1:]:
            say(f"  {engine_line(made, used)}")
        for made in missing:
            say(f"  {missing_line(made)}")
        with progress(shown, sum(map(cost, problems))) as move:
            measured = run(problems, classes, threads, budget, move)
        content = as_json(measured, classes, missing, used)
    for line in explanations(measured, threads):
        say(line)
    for which in PASSES:
        shown.print(table(measured, which, others))
    shown.print(memory_table(measured))
    if busy(measured):
        say(f"{busy(measured)}. Times and shares of the peak are too bad, ratios rough: measure again.")
    for line in path_lines(measured):
        say(line)
    for name, reason in measured.unsupported.items():
        say(f"{name} sat out: {reason}")
    lost: list[str] = []
    if old is not None:
        changes = old.changes(measured)
        lost = faults(changes, tolerance)
        found = f"{len(changes)} of {count(len(measured.rows), 'point')} found there"
        say(f"beside {old.path}: lstm_fast {old.version} on {old.machine}; {found}")
        shown.print(comparison_table(changes, tolerance))
    write_json(json_path, content)
    chart.draw(measured, others, caption(measured, threads), chart_path)
    say(f"figures: {json_path}\nchart:   {chart_path}")
    return measured.failures, lost
