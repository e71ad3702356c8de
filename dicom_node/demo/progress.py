"""What is going on, said while it goes on: a live line on a terminal, else a plain line now and then."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
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
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (SpinnerColumn("line"), TextColumn("{task.description}"), BarColumn(24), TimeElapsedColumn())
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task(escape(doing), total=None)
            self._bar.start()
        else:
            console.print(f"{doing} ...", markup=False)

    def tell(self, detail: str, share: float | None = None) -> None:
        """How far it is: in words, and as a share from 0 to 1 where that is known."""
        now = time.monotonic()
        if self._bar is not None:
            total = None if share is None else 1.0
            said = escape(f"{self._doing}: {detail}")
            self._bar.update(self._task, description=said, total=total, completed=share or 0.0)
        elif detail != self._detail and now - self._said_at >= LINE_EVERY_S:
            self._console.print(f"  {detail}", markup=False)
            self._said_at = now
        self._detail = detail

    def end(self, *, well: bool) -> None:
        """Say how it ended and how long it took."""
        took = f"{time.monotonic() - self._begun:.1f} s"
        ended = "done" if well else "stopped"
        if self._bar is not None:
            self._bar.stop()
            words = ": ".join(filter(None, (self._doing, self._detail)))
            self._console.print(f"{words} [{ended}, {took}]", markup=False)
        else:
            words = ", ".join(filter(None, (ended, took, self._detail)))
            self._console.print(f"  {words}", markup=False)


@contextmanager
def step(console: Console, doing: str) -> Iterator[Step]:
    """One step: said when it begins, while it runs and when it has ended."""
    made = Step(console, doing)
    well = False
    try:
        yield made
        well = True
    finally:
        made.end(well=well)
