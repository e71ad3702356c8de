"""What is said while a step runs."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from dicom_node.demo import progress
from dicom_node.demo.progress import step


def test_a_pipe_gets_plain_lines_and_the_end_with_its_detail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    out = StringIO()
    with step(Console(file=out, width=120), "sending [x]") as sending:
        sending.tell("1 of 2", 0.5)
        sending.tell("1 of 2", 0.5)
        sending.tell("2 of 2", 1.0)
    lines = out.getvalue().splitlines()
    assert lines[:3] == ["sending [x] ...", "  1 of 2", "  2 of 2"]
    assert lines[3].startswith("  done, ")
    assert lines[3].endswith(", 2 of 2")


def test_a_step_that_fails_says_that_it_stopped() -> None:
    out = StringIO()
    with pytest.raises(KeyboardInterrupt), step(Console(file=out, width=120), "sending"):
        raise KeyboardInterrupt
    assert "stopped" in out.getvalue()


def test_a_terminal_gets_one_line_in_the_end() -> None:
    out = StringIO()
    with step(Console(file=out, width=120, force_terminal=True, highlight=False), "sending [x]") as sending:
        sending.tell("2 of 2", 1.0)
    assert "sending [x]: 2 of 2 [done, " in out.getvalue()
