"""What is going on, said while it goes on: a live line on a terminal, else a plain line now and then."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

PLAIN_WIDTH = 120
LINE_EVERY_S = 2.0
"""Where the output is a file or a pipe."""


class Step:
    """One step under way."""

    def __init__(self, console: Console, doing: str) -> None:
        self._console = console
        self._doing = doing
        self._begun = self._said_at = time.monotonic()
        self._detail = ""
        columns = (SpinnerColumn("line"), TextColumn("{task.description}"), BarColumn(24), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, transient=True)
        self._task = self._bar.add_task(doing, total=None)

    def begin(self) -> None:
        if self._console.is_terminal:
            self._bar.start()
        else:
            self._console.print(f"{self._doing} ...", markup=False)

    def tell(self, detail: str, share: float | None = None) -> None:
        """How far it is: in words, and as a share from 0 to 1 where that is known."""
        total = None if share is None else 1.0
        self._bar.update(self._task, description=f"{self._doing}: {detail}", total=total, completed=share or 0.0)
        now = time.monotonic()
        if not self._console.is_terminal and detail != self._detail and now - self._said_at >= LINE_EVERY_S:
            self._console.print(f"  {detail}", markup=False)
            self._said_at = now
        self._detail = detail

    def end(self, *, well: bool) -> None:
        self._bar.stop()
        words = ": ".join(filter(None, (self._doing, self._detail))) if self._console.is_terminal else self._detail
        took = f"{time.monotonic() - self._begun:.1f} s"
        said = "done" if well else "stopped"
        self._console.print(f"  {said} ({took}){': ' if words else ''}{words}", markup=False)


@contextmanager
def step(console: Console, doing: str) -> Iterator[Step]:
    """One step: said when it begins, while it runs and when it has ended."""
    made = Step(console, doing)
    made.begin()
    well = False
    try:
        yield made
        well = True
    finally:
        made.end(well=well)
