"""A progress bar: rich's where it is installed, else one plain line; in a file or a pipe only the notes."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from ..bench.packages import installed, require

WIDTH = 30  # of the plain bar


class Progress:
    """Use as a context manager; the line is gone afterwards, the notes stay."""

    def __init__(self, title: str, total: int) -> None:
        self.title = title
        self.total = total
        self._live = sys.stdout.isatty()
        self._rich: Any = None
        if self._live and installed("rich"):
            rich = require("rich.progress", "the progress bar")
            columns = ("{task.fields[title]}", rich.BarColumn(), rich.TaskProgressColumn(), "{task.description}")
            self._rich = rich.Progress(*columns, rich.TimeRemainingColumn(), transient=True)
            self._task = self._rich.add_task("", total=total, title=title)

    def __enter__(self) -> Progress:
        if self._rich:
            self._rich.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._rich:
            self._rich.stop()
        elif self._live:
            print("\r\x1b[K", end="", flush=True)

    def move(self, done: int, message: str) -> None:
        """Show that ``done`` of the total is done."""
        if self._rich:
            self._rich.update(self._task, completed=done, total=self.total, description=message)
        elif self._live:
            filled = WIDTH * done // self.total
            bar = "#" * filled + "." * (WIDTH - filled)
            print(f"\r\x1b[K{self.title} [{bar}] {100 * done // self.total:>3} % {message}", end="", flush=True)

    def note(self, line: str) -> None:
        """Print a line that stays, above the bar."""
        if self._rich:
            self._rich.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(("\r\x1b[K" if self._live else "") + line, flush=True)
