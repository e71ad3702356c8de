"""What is shown is what a name says, not what it could do to a terminal."""

from __future__ import annotations

from contextlib import redirect_stderr
from io import StringIO

from rich.console import Console

from dicom_node.commands.screen import cell, progress, table


def test_names_are_neither_markup_nor_control_codes() -> None:
    shown = table("", "file")
    shown.add_row(cell("[red]x[/red]\x1b[2J.dcm"))
    out = StringIO()
    Console(file=out, width=80).print(shown)
    assert "[red]x[/red]?[2J.dcm" in out.getvalue()


def test_nothing_is_drawn_where_nobody_looks() -> None:
    out = StringIO()
    with redirect_stderr(out), progress("working", 2) as step:
        step()
        step()
    assert out.getvalue() == ""
