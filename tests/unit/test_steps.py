"""The register of named steps: complete, used, and inert unless a fault was asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node import steps
from dicom_node.errors import BadInput

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "dicom_node").rglob("*.py"))
DURABLE = {"fsync", "fdatasync", "rename", "replace", "unlink", "link", "rmtree", "rmdir"}
"""Calls that change what a power cut or a kill leaves behind."""
EDGES = ("spool.py", "durable.py", "retention.py", "integrity.py", "recover.py")
NOTES = {"step", "note", "note_all"}
# A read-modify-write that is a step's, found through what it calls.
NOTING = {"add_objects", "_end_claim", "_take", "_join_batch"}


def _functions(path: Path) -> Iterator[ast.FunctionDef]:
    yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef))


def _called(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            yield name, node


def _reached() -> dict[str, list[str]]:
    """Every name that the source passes to `reached`, with the files that do."""
    found: dict[str, list[str]] = {}
    for path in SOURCES:
        for name, call in _called(ast.parse(path.read_text())):
            if name == "reached" and call.args and isinstance(call.args[0], ast.Constant):
                found.setdefault(str(call.args[0].value), []).append(path.name)
    return found


def test_every_point_of_the_table_is_in_the_code() -> None:
    assert sorted(set(steps.POINTS) - set(_reached())) == []


def test_every_point_in_the_code_is_in_the_table() -> None:
    assert sorted(set(_reached()) - set(steps.POINTS)) == []


def test_every_name_is_there_once() -> None:
    assert len(steps.REGISTER) == len(set(steps.REGISTER))


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name in EDGES], ids=lambda path: path.name)
def test_whoever_changes_a_file_durably_says_where_it_is(path: Path) -> None:
    # What only forces bytes to the disk is named by who calls it.
    for function in _functions(path):
        called = {name for name, _ in _called(function)}
        if called & DURABLE and function.name not in ("fsync", "sync"):
            assert "reached" in called, f"{path.name}: {function.name} changes the disk and has no named step"


@pytest.mark.parametrize("path", sorted((ROOT / "dicom_node" / "ledger").glob("*.py")), ids=lambda path: path.name)
def test_every_transaction_of_the_ledger_takes_a_named_step(path: Path) -> None:
    for function in _functions(path):
        for node in ast.walk(function):
            if not isinstance(node, ast.With):
                continue
            writes = [call for item in node.items for name, call in _called(item.context_expr) if name == "write"]
            for call in writes:
                if call.args:
                    assert isinstance(call.args[0], ast.Constant)
                    assert call.args[0].value in steps.TOUCHED, f"{path.name}: {call.args[0].value} is not registered"
                else:
                    called = {name for body in node.body for name, _ in _called(body)}
                    assert called & (NOTES | NOTING), f"{path.name}: {function.name} writes without a named step"


def test_every_name_that_transactions_are_given_is_used() -> None:
    text = "".join(path.read_text() for path in SOURCES if path.name != "steps.py")
    assert [name for name in steps.TOUCHED if f'write("{name}")' not in text] == []


@pytest.fixture
def armed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No fault before and after; the folder of the marks."""
    monkeypatch.setattr(steps, "_faults", None)
    return tmp_path


def test_nothing_happens_at_a_step_that_nobody_asked_a_fault_for(armed: Path) -> None:
    steps.arm({})
    for name in steps.REGISTER:
        steps.reached(name)


def test_a_fault_happens_at_the_asked_time_and_once_in_all(armed: Path) -> None:
    asked = {steps.FAULT: "report.made:fail:2", steps.MARKS: str(armed)}
    steps.arm(asked)
    steps.reached("report.made")
    steps.reached("report.spooled")
    with pytest.raises(RuntimeError):
        steps.reached("report.made")
    steps.reached("report.made")
    # A process that was started again after it.
    steps.arm(asked)
    for _ in range(3):
        steps.reached("report.made")


@pytest.mark.parametrize(
    ("fault", "marks"),
    [
        ("report.made:fail", None),
        ("report.made:fail", "missing"),
        ("", "."),
        ("no.such.step:kill", "."),
        ("report.made:sing", "."),
        ("report.made:kill:x", "."),
        ("report.made", "."),
    ],
)
def test_a_fault_that_is_half_said_or_wrong_is_refused(armed: Path, fault: str, marks: str | None) -> None:
    environment = {steps.FAULT: fault} | ({} if marks is None else {steps.MARKS: str(armed / marks)})
    with pytest.raises(BadInput):
        steps.arm(environment)


@pytest.mark.parametrize(
    ("action", "code"),
    [("kill", -9), ("segfault", -11), ("exit", 70), ("oom", 3), ("nospace", 28), ("fail", 4), ("note", 0)],
)
def test_a_fault_is_what_it_says(tmp_path: Path, action: str, code: int) -> None:
    program = """
import os, sys
from dicom_node import steps
steps.arm(os.environ)
try:
    steps.reached("process.begun")
except MemoryError:
    sys.exit(3)
except OSError as fault:
    sys.exit(fault.errno)
except RuntimeError:
    sys.exit(4)
"""
    environment = {steps.FAULT: f"process.begun:{action}", steps.MARKS: str(tmp_path), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == code, done.stderr
    assert "FAULTS ARE INJECTED INTO THIS PROCESS" in done.stderr
    assert (tmp_path / "process.begun").exists()
