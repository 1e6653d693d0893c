"""This run beside an earlier one's JSON file: each point's share of the FMA peak of the machine that it ran on.

Shares and not times, so that the file may come from another machine, or from a day with another clock.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .problems import Problem
from .report import FORMAT, QUIET, count
from .sweep import Row, Sweep

# What two rows have to have in common, as the JSON file names it.
Key = tuple[Any, ...]
KEY = ("cell", "dtype", "T", "B", "I", "H", "P", "layers", "directions", "valid_share", "pass")


class Change(NamedTuple):
    """A point of both runs: our shares of the FMA peak, 0..1, then and now.

    quiet: no other program took the CPU, neither then nor now. Else the point says nothing.
    """

    row: Row
    old: float
    new: float
    quiet: bool

    @property
    def ratio(self) -> float:
        """Above 1: faster now."""
        return self.new / self.old

    def __str__(self) -> str:
        moved = 100 * (self.ratio - 1)
        return f"{self.row}: {100 * self.old:.1f} % of the peak then, {100 * self.new:.1f} % now, {moved:+.1f} %"


def _key(problem: Problem, which: str) -> Key:
    sizes = (problem.steps, problem.batch, problem.inputs, problem.hidden, problem.projection)
    kind = (problem.layers, problem.directions, problem.valid_share)
    return (problem.cell, problem.dtype, *sizes, *kind, which)


def _refuse(constant: str) -> Any:
    """No NaN and no infinity: neither is JSON, and no share would be below them."""
    raise ValueError(constant)


class Old:
    """An earlier run's file; ValueError says what is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        except OSError as error:
            raise ValueError(f"--compare: cannot read {path}: {error.strerror}") from error
        except ValueError:
            raise ValueError(f"--compare: expected a JSON file of lstm-fast bench, got {path}: no JSON") from None
        if not isinstance(content, dict) or not {"format", "rows", "machine"} <= content.keys():
            raise ValueError(f"--compare: expected a JSON file of lstm-fast bench, got {path}: other JSON")
        if content["format"] != FORMAT:
            raise ValueError(f"--compare: expected a file of format {FORMAT}, got {path} of format {content['format']}")
        try:
            self._rows = {
                tuple(row[name] for name in KEY): (float(row["peak_share"] or 0), row["cpu_share"] >= QUIET)
                for row in content["rows"]
            }
            self.threads: int = content["machine"]["threads"]
            self.machine = f"{content['machine']['cpu']}, {content['machine']['isa']}"
            self.version: str = content["machine"]["lstm_fast"]
        except (KeyError, TypeError, ValueError):
            raise ValueError(
                f"--compare: expected a file of lstm-fast bench without --torch, got {path}: its rows are others"
            ) from None

    def require_common(self, problems: Sequence[Problem], passes: Sequence[str], threads: int) -> None:
        """ValueError unless a run of these problems has a point in common with the file."""
        if threads != self.threads:
            theirs = count(self.threads, "thread")
            raise ValueError(f"--compare: expected a file of {count(threads, 'thread')}, got {self.path} of {theirs}")
        if not any(_key(problem, which) in self._rows for problem in problems for which in passes):
            raise ValueError(f"--compare: {self.path} has no point of this run: cell, dtype, T, B, H, layers, lengths")

    def changes(self, sweep: Sweep) -> list[Change]:
        """The points that both have and that were right in both."""
        found = []
        for row in sweep.rows:
            old, quiet = self._rows.get(_key(row.problem, row.which), (0.0, False))
            new = sweep.peak_share(row)
            if old and new:
                found.append(Change(row, old, new, quiet and row.cpu_share >= QUIET))
        return found


def faults(changes: Sequence[Change], tolerance: float) -> list[str]:
    """A line for every quiet point whose share fell by more than ``tolerance``, 0..1, of what it was.

    Or one that says so if there is no quiet point: then nothing has been shown.
    """
    if not any(change.quiet for change in changes):
        return ["NOT JUDGED: no point of both runs is right and from a quiet machine, then and now"]
    return [f"SLOWER: {change}" for change in changes if change.quiet and change.ratio < 1 - tolerance]
