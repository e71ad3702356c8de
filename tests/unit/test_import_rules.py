"""The house plan: imports go downwards only, each package touches only what it may, each file says what it owns."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGINE_USERS = {"engine_image", "process", "references", "demo"}
SQL_USERS = {"ledger"}

# From the bottom up. Files of one row don't import each other; a folder is one entry and free inside.
ROWS: tuple[frozenset[str], ...] = (
    frozenset(
        {
            "__init__",
            "errors",
            "exits",
            "marks",
            "records",
            "settings",
            "settings_file",
            "settings_peers",
            "settings_reference",
            "settings_types",
            "states",
            "status",
            "steps",
            "syntaxes",
        }
    ),
    frozenset(
        {
            "addresses",
            "arithmetic",
            "assembly",
            "bounded",
            "callers",
            "complaints",
            "headcount",
            "memory",
            "outage",
            "part10",
            "retry",
            "routing",
            "tls_faults",
            "upper_layer",
        }
    ),
    frozenset({"display", "durable", "quiet", "stream", "tls", "tolerant"}),
    frozenset({"codecs", "dicomweb", "engine_image", "greyscale", "held_socket", "incoming"}),
    frozenset(
        {
            "audit_trail",
            "child",
            "destinations",
            "handover",
            "header",
            "ledger",
            "liveness",
            "logs",
            "pictures",
            "pixels",
            "probe",
            "results",
            "service_manager",
            "spool",
            "stopping",
            "watchdog",
        }
    ),
    frozenset({"arrivals", "health", "metrics", "sources"}),
    frozenset(
        {
            "admit",
            "auditing",
            "confirm",
            "endpoint",
            "integrity",
            "keeping",
            "process",
            "pull",
            "receive",
            "recover",
            "references",
            "report",
            "retention",
            "sending",
        }
    ),
    frozenset({"deliver", "listen", "replay", "supervise", "upkeep", "worker"}),
    frozenset({"commands"}),
    frozenset({"demo"}),
    frozenset({"cli", "receiver"}),
    frozenset({"__main__"}),
)
# Words may use words: settings raise errors.
BOTTOM = ROWS[0]


def _files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _entry(path: Path) -> str:
    return path.relative_to(ROOT / "dicom_node").parts[0].removesuffix(".py")


def _imports(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _row(entry: str) -> int:
    return next(n for n, row in enumerate(ROWS) if entry in row)


def _used(path: Path) -> set[str]:
    """The entries of the node that a file of the node imports."""
    known = set().union(*ROWS)
    parts = (name.split(".") for name in _imports(path) if name.startswith("dicom_node."))
    return {part[1] for part in parts if part[1] in known}


@pytest.mark.parametrize("path", _files("dicom_node"), ids=_name)
def test_every_file_of_the_node_has_its_row(path: Path) -> None:
    assert any(_entry(path) in row for row in ROWS), f"{path.name} stands in no row of the house plan"


@pytest.mark.parametrize("path", _files("dicom_node"), ids=_name)
def test_imports_go_downwards_only(path: Path) -> None:
    here = _entry(path)
    for used in _used(path) - {here}:
        allowed = _row(used) < _row(here) or (here in BOTTOM and used in BOTTOM)
        assert allowed, f"{here} must not import {used}"


@pytest.mark.parametrize("path", _files("engine"), ids=_name)
def test_the_engine_imports_nothing_of_the_node_or_of_dicom(path: Path) -> None:
    forbidden = {"dicom_node", "pydicom", "pynetdicom", "highdicom", "time", "datetime", "socket", "urllib"}
    if path.parent.name == "training":
        # A training script is a program: it may say how long it took. Nothing imports it.
        forbidden -= {"time", "datetime"}
    assert not forbidden & {name.split(".")[0] for name in _imports(path)}


@pytest.mark.parametrize("path", _files("engine"), ids=_name)
def test_nothing_imports_a_training_script(path: Path) -> None:
    if path.parent.name != "training":
        assert not [name for name in _imports(path) if name.startswith("engine.training")]


@pytest.mark.parametrize("path", _files("dicom_node"), ids=_name)
def test_only_the_named_steps_know_the_engine_and_only_its_public_names(path: Path) -> None:
    named = [name for name in _imports(path) if name.split(".")[0] == "engine"]
    if _entry(path) not in ENGINE_USERS:
        assert not named
    inside = [name for name in named if name.count(".") > 1 and not name.startswith("engine.phantom.")]
    assert not inside, "only the engine's public names may be used"


@pytest.mark.parametrize("path", _files("dicom_node"), ids=_name)
def test_sql_is_in_the_ledger_alone(path: Path) -> None:
    if _entry(path) not in SQL_USERS:
        assert "sqlite3" not in set(_imports(path))


@pytest.mark.parametrize("path", [*_files("dicom_node"), *_files("engine")], ids=_name)
def test_a_file_says_what_it_owns_and_stays_readable(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "the first line says what the file owns"
    assert text.count("\n") <= 420
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines"


def test_the_top_level_holds_only_what_the_plan_names() -> None:
    allowed = {"dicom_node", "engine", "tests", "deploy", "configs", "pyproject.toml", "README.md"}
    allowed |= {"Makefile", "LICENSE", "CHANGELOG.md"}
    made = {"build", "evenray.egg-info", "evenray-demo", "evenray-state"}
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert found - made <= allowed
