"""What every run of bench prints and writes: progress bar, lines on engines, ratios, JSON."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .engines import PASSES, EngineClass, Named
from .machine import command_line, describe
from .packages import pip_command, require
from .peers import engine_version, missing_packages
from .sweep import OURS, Measurement, Row, Sweep
from .timing import FmaPeak

FORMAT = 1  # of the JSON file; raised when a reader would have to change

QUIET = 0.9  # share of a CPU that a measuring thread has when nobody else computes


def console() -> Any:
    """rich's console on standard output; wide enough for the tables when that is a file or a pipe."""
    wide = None if sys.stdout.isatty() else 120
    return require("rich.console", "bench").Console(highlight=False, width=wide)


@contextlib.contextmanager
def progress(console: Any, total: float) -> Iterator[Callable[[str, float], None]]:
    """A progress bar up to ``total``; yields the function that moves it."""
    rich = require("rich.progress", "bench")
    columns = (
        rich.BarColumn(),
        rich.TaskProgressColumn(),
        rich.TimeElapsedColumn(),
        rich.TextColumn("{task.description}"),
    )
    with rich.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)

        def move(line: str, done: float) -> None:
            bar.update(task, description=line, completed=done)

        yield move


def engine_line(made: Named, threads: dict[str, str]) -> str:
    """An engine that takes part: version, threads, what is run."""
    parts = [f"{made.name} {engine_version(made) or '(version unknown)'}"]
    if made.name in threads:
        parts.append(f"threads: {threads[made.name]}")
    if hasattr(made, "settings"):
        parts.append(made.settings)
    return "; ".join(parts)


def missing_line(made: EngineClass) -> str:
    """Why a peer is not in the table, and how to get it."""
    missing = missing_packages(made)
    return f"without {made.name}: {', '.join(missing)} not installed ({pip_command(*missing)})"


def count(number: int, noun: str) -> str:
    """ "1 thread", "2 threads"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def busy(sweep: Sweep) -> str:
    """Says so if other programs took the CPU while we measured; empty on a quiet machine."""
    if sweep.cpu_share >= QUIET:
        return ""
    return f"busy machine: the measuring thread had {100 * sweep.cpu_share:.0f} % of a CPU at the worst point"


def geometric_mean(values: Sequence[float]) -> float:
    """Geometric mean; the fair mean of ratios."""
    return math.exp(sum(map(math.log, values)) / len(values))


def ratios(rows: Sequence[Row], engine: str) -> list[float]:
    """The ratios of one engine over the rows where it has one."""
    return [r for r in (row.ratio(engine) for row in rows) if r is not None]


def ratio_cell(row: Row, engine: str) -> str:
    """The ratio for rich, in a colour that says who is faster."""
    measured = row.engines.get(engine)
    if measured is None:
        return "-"
    if not measured.ok:
        return "[bold red]WRONG[/]"
    value = row.ratio(engine)
    return "-" if value is None else f"[{'green' if value >= 1 else 'red'}]{value:.2f}[/]"


def measurement_as_json(measured: Measurement) -> dict[str, Any]:
    return {
        "correct": measured.ok,
        "path": measured.path,
        "error": measured.error if math.isfinite(measured.error) else None,
        "bound": measured.bound,
        "seconds": measured.seconds if measured.samples else None,
        "samples": measured.samples,
    }


def header(peak: FmaPeak) -> dict[str, Any]:
    """The first lines of the JSON file: what the figures depend on."""
    return {
        "format": FORMAT,
        "command": command_line(),
        "machine": describe(),
        "fma_peak_gflops": peak.gflops,
        "passes": list(PASSES),
    }


def row_as_json(row: Row) -> dict[str, Any]:
    """A row's problem and measurements; ratios above 1 where lstm_fast is faster."""
    p = row.problem
    shape = {"T": p.steps, "B": p.batch, "I": p.inputs, "H": p.hidden, "P": p.projection}
    kind = {"layers": p.layers, "directions": p.directions, "valid_share": p.valid_share}
    return (
        {"cell": p.cell, "dtype": p.dtype, **shape, **kind, "pass": row.which}
        | {"cpu_share": row.cpu_share, "threads_used": row.threads_used, "barrier_ns": row.barrier_ns}
        | {"ratios": {name: row.ratio(name) for name in row.engines if name != OURS}}
        | {"engines": {name: measurement_as_json(measured) for name, measured in row.engines.items()}}
    )


def write_json(path: Path, content: Any) -> None:
    """Write the JSON file; NaN and infinity are not allowed in it."""
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
