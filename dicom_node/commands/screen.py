"""What commands put on the terminal: tables, cells that can't be mistaken for markup, a bar. Knows no command."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 200
"""Columns where the output is no terminal: wide enough that file names and sentences stay on their line."""
PATIENCE_S = 2.0
"""A bar for less would only flicker."""


def console() -> Console:
    """Standard output."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)


def table(title: str, *columns: str) -> Table:
    """A table whose cells are folded rather than cut."""
    made = Table(title=title, title_justify="left")
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def cell(value: object, style: str = "") -> Text:
    """Text as it is: neither rich's markup nor a terminal's control codes in names and headers take effect."""
    return Text("".join(c if c.isprintable() else "?" for c in str(value)), style=style)


@contextmanager
def progress(label: str, total: int | None) -> Iterator[Callable[[], None]]:
    """Call what is given once per finished item; a bar shows on a terminal once it takes long."""
    shown = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=shown, transient=True)
    task = bar.add_task(label, total=total)
    begun = time.monotonic()

    def step() -> None:
        bar.advance(task)
        if shown.is_terminal and not bar.live.is_started and time.monotonic() - begun > PATIENCE_S:
            bar.start()

    try:
        yield step
    finally:
        # Stopping a bar that was never shown would print an empty line.
        if bar.live.is_started:
            bar.stop()
