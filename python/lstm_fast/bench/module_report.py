"""What ``lstm-fast bench --torch`` prints and writes: tables, JSON, chart."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from . import chart, machine, report
from .engines import PASSES
from .module_sweep import NUMPY, LstmFastTorch, TorchNn, run
from .modules import FULL, PURPOSE, QUICK
from .packages import installed, pip_command, require, version
from .peers import engine_version
from .sweep import OURS, Measurement, Row, Sweep


def overhead(row: Row) -> float | None:
    """Seconds that our module takes beyond the NumPy call of the same problem; None where that was not timed."""
    module, call = row.engines[OURS], row.engines.get(NUMPY)
    return module.seconds - call.seconds if call is not None and call.samples and module.samples else None


def _digits(value: float) -> str:
    """Three significant digits, none lost before the point."""
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"


def _milliseconds(measured: Measurement) -> str:
    return _digits(measured.seconds * 1e3) if measured.samples else "[bold red]WRONG[/]"


def by_case(rows: Sequence[Row]) -> list[Sequence[Row]]:
    """The rows of each case, one for each of ``PASSES``."""
    return [rows[at : at + len(PASSES)] for at in range(0, len(rows), len(PASSES))]


def table(sweep: Sweep) -> Any:
    """The rich table: a line for each case; the last has the geometric mean of the ratios."""
    box = require("rich.box", PURPOSE).SIMPLE_HEAD
    title = "torch.nn beside lstm_fast.torch, ms; ratio: the time of torch.nn / ours"
    made = require("rich.table", PURPOSE).Table(title=title, title_justify="left", box=box, show_footer=True)
    made.add_column("\ncase", footer="mean", no_wrap=True)
    for name in ("T", "B", "H", "dtype"):
        made.add_column(f"\n{name}", justify="right", no_wrap=True)
    for at, which in enumerate(("forward", "training")):
        reached = report.ratios(sweep.rows[at :: len(PASSES)], TorchNn.name)
        mean = f"{report.geometric_mean(reached):.2f}" if reached else "-"
        for above, name, footer in ((which, "torch", ""), ("", "ours", ""), ("", "ratio", mean)):
            made.add_column(f"{above}\n{name}", footer=footer, justify="right", no_wrap=True)
    for rows in by_case(sweep.rows):
        p = rows[0].problem
        cells = [rows[0].case, str(p.steps), str(p.batch), str(p.hidden), p.dtype]
        for row in rows:
            cells += [_milliseconds(row.engines[name]) for name in (TorchNn.name, OURS)]
            cells.append(report.ratio_cell(row, TorchNn.name))
        made.add_row(*cells)
    return made


def overhead_table(rows: Sequence[Row]) -> Any:
    """The rich table of what our modules take beyond the NumPy call of the same problem."""
    box = require("rich.box", PURPOSE).SIMPLE_HEAD
    title = "overhead of our modules over lf.ops on the same arrays, us"
    made = require("rich.table", PURPOSE).Table(title=title, title_justify="left", box=box)
    made.add_column("case", no_wrap=True)
    for name in ("T", "B", "H", "pass", "module", "NumPy", "overhead"):
        made.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        beyond, p = overhead(row), row.problem
        if beyond is not None:
            times = (row.engines[OURS].seconds, row.engines[NUMPY].seconds, beyond)
            made.add_row(
                row.case, str(p.steps), str(p.batch), str(p.hidden), row.which, *(f"{t * 1e6:.1f}" for t in times)
            )
    return made


def as_json(sweep: Sweep, threads: dict[str, str]) -> Any:
    """Everything measured, as plain values, under the names that ``bench`` without --torch has; the peak is float32's.

    ``overhead_seconds``: see :func:`overhead`.
    """
    engines = {
        made.name: {"version": engine_version(made), "settings": made.settings, "threads": threads[made.name]}
        for made in (LstmFastTorch, TorchNn)
    }
    rows = [{"case": row.case} | report.row_as_json(row) | {"overhead_seconds": overhead(row)} for row in sweep.rows]
    return report.header(sweep.peak) | {"engines": engines, "rows": rows}


def caption(sweep: Sweep, threads: int) -> str:
    """Heading of the chart: what was measured on what."""
    facts = machine.describe()
    lines = [
        f"lstm_fast.torch {__version__} beside torch.nn {version('torch')}, {report.count(threads, 'thread')}",
        f"{facts['cpu']}, {facts['isa']}",
        report.busy(sweep),
    ]
    return "\n".join(filter(None, lines))


def bench(quick: bool, threads: int, budget: float, json_path: Path, chart_path: Path) -> list[str]:
    """Check, time, print and draw; returns a line for every wrong result. ``budget``: see :func:`run`."""
    require("torch", PURPOSE)
    console = report.console()
    say = functools.partial(console.print, markup=False, soft_wrap=True)
    cases = QUICK if quick else FULL
    with machine.engine_threads(threads) as used:
        facts = machine.describe()
        say(f"{facts['cpu']}, usable CPUs: {facts['usable_cpus']}, {facts['isa']}, {facts['compiler']}")
        for made in (LstmFastTorch, TorchNn):
            say(f"  {report.engine_line(made, used)}")
        with report.progress(console, len(cases)) as move:
            measured = run(cases, threads, budget, move)
        content = as_json(measured, used)
    say(f"FMA peak of one core, measured in this run: {measured.peak.gflops:.1f} GFLOP/s ({measured.peak.dtype})")
    say("")
    console.print(table(measured))
    console.print(overhead_table(measured.rows))
    if report.busy(measured):
        say(f"{report.busy(measured)}. Times are too long, ratios rough: measure again.")
    report.write_json(json_path, content)
    say(f"figures: {json_path}")
    if installed("matplotlib"):
        chart.draw_cases(by_case(measured.rows), TorchNn.name, caption(measured, threads), chart_path)
        say(f"chart:   {chart_path}")
    else:
        say(f"no chart: matplotlib is not installed ({pip_command('matplotlib')})")
    return measured.failures
