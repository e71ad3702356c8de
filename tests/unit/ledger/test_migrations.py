"""Ledgers of every released version are brought up to date whole, once, with a copy; newer ones stay untouched."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dicom_node.errors import Stop
from dicom_node.ledger import Ledger, NewObject, faults_in
from dicom_node.ledger.migrations import STEPS
from dicom_node.ledger.schema import SCHEMA_VERSION
from dicom_node.records import Decision, Outcome, ResultKind
from dicom_node.states import Batch, Instance

RELEASED = {int(path.stem[1:]): path for path in Path(__file__).parent.glob("v*.sql")}
TABLES = ("association", "batch", "instance", "object", "delivery", "commitment", "fence", "history")


def _made(version: int, file: Path) -> Path:
    """A ledger as a program of that version left it."""
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript(RELEASED[version].read_text())
    return file


def _schema(file: Path) -> dict[str, str]:
    with closing(sqlite3.connect(file)) as db:
        found = db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        # Spaces and line ends are of no meaning.
        return {name: re.sub(r"\s+", " ", re.sub(r"\s*([(),])\s*", r"\1", sql)) for name, sql in found}


def _rows(file: Path, columns: dict[str, list[str]]) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(file)) as db:
        # When the report on a commitment is due was not known to version 1.
        hidden = {"delivery": "next_try"}
        return {
            table: db.execute(
                f"SELECT {', '.join(name for name in names if name != hidden.get(table))} FROM {table} ORDER BY rowid"
            ).fetchall()
            for table, names in columns.items()
        }


def _columns(file: Path) -> dict[str, list[str]]:
    with closing(sqlite3.connect(file)) as db:
        return {table: [row[1] for row in db.execute(f"PRAGMA table_info({table})")] for table in TABLES}


def _copies(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if re.search(r"\.v\d+-", path.name))


@pytest.fixture(params=sorted(RELEASED))
def old(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[int, Path]:
    return request.param, _made(request.param, tmp_path / "ledger.sqlite")


def test_every_released_version_has_its_ledger_here_and_its_step() -> None:
    assert sorted(RELEASED) == sorted(STEPS) == list(range(1, SCHEMA_VERSION))


def test_an_old_ledger_becomes_one_like_a_new_one(old: tuple[int, Path], tmp_path: Path) -> None:
    _, file = old
    Ledger(file).close()
    Ledger(tmp_path / "new.sqlite").close()
    assert _schema(file) == _schema(tmp_path / "new.sqlite")
    assert faults_in(file) == []


def test_every_row_of_an_old_ledger_survives(old: tuple[int, Path]) -> None:
    _, file = old
    columns = _columns(file)
    before = _rows(file, columns)
    assert all(before.values()), "there is a row in every table"
    Ledger(file).close()
    assert _rows(file, columns) == before


def test_an_old_ledger_with_rows_in_every_state_is_read_and_worked_on(old: tuple[int, Path]) -> None:
    _, file = old
    with closing(sqlite3.connect(file)) as db:
        states = {
            table: {row[0] for row in db.execute(f"SELECT state FROM {table}")} for table in ("batch", "delivery")
        }
        waiting = db.execute(
            "SELECT b.id, count(*) FROM batch b JOIN instance i ON i.batch = b.id"
            " WHERE i.state IN ('waiting', 'claimed') GROUP BY 1"
        ).fetchall()
    assert len(states["batch"]) >= 6
    assert len(states["delivery"]) >= 6
    ledger = Ledger(file)
    now = 1_800_000_000.0
    found = ledger._store.read("SELECT id, undecided FROM batch WHERE undecided > 0")
    assert [(row["id"], row["undecided"]) for row in found] == waiting
    # Whoever held something is gone; everything that can go on goes on to its end.
    ledger.sweep(lambda _name: False, now=now)
    for batch, _ in ledger.batches.open():
        ledger.batches.close(batch, "quiet", now=now)
    while (row := ledger.instances.claim("worker", now=now, lease_s=60)) is not None:
        ledger.instances.decide(row, Decision(outcome=Outcome.PASSED, reason="test"), [], now=now)
    reported = 0
    while (batch := ledger.batches.claim("worker", now=now, lease_s=60)) is not None:
        reported += 1
        named = [row.id for row in ledger.instances.of_batch(batch.id) if row.state is Instance.DECIDED]
        report = NewObject(ResultKind.STRUCTURED_REPORT, "1.2", f"7.{reported}", f"results/7.{reported}", ["pacs"])
        ledger.batches.report(batch, named, report, now=now)
    counts = ledger.counts()
    assert reported == 5
    assert counts["batch"] | {"reported": 0, "void": 0, "parked": 0} == dict.fromkeys(map(str, Batch), 0)
    for name in ledger.deliveries.destinations():
        for delivery in ledger.deliveries.claim(name, "sender", now=now, lease_s=60, limit=100):
            ledger.deliveries.stored(delivery, 0, "stored", commitment=False, now=now)
    assert ledger.counts()["delivery"]["pending"] == 0
    assert ledger.deliveries.overdue("pacs", now=now, limit=9), "what was asked for is asked for again"
    ledger.close()


def test_the_ledger_is_copied_as_it_was_before_it_is_changed(
    old: tuple[int, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    version, file = old
    columns = _columns(file)
    before, schema = _rows(file, columns), _schema(file)
    with caplog.at_level(logging.WARNING):
        Ledger(file).close()
    (copy,) = _copies(tmp_path)
    assert (_rows(copy, columns), _schema(copy)) == (before, schema)
    assert f"version {version} becomes {SCHEMA_VERSION}; as it was: {copy.name}" in caplog.text
    Ledger(file).close()
    assert _copies(tmp_path) == [copy], "the second start finds it done"


def test_of_processes_that_start_at_once_exactly_one_brings_it_up_to_date(
    old: tuple[int, Path], tmp_path: Path
) -> None:
    _, file = old
    script = f"""
        import sys, time
        from pathlib import Path
        from dicom_node.ledger import Ledger
        while not Path({str(tmp_path / "go")!r}).exists():
            pass
        Ledger(Path({str(file)!r})).close()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    starting = [subprocess.Popen(command) for _ in range(4)]
    (tmp_path / "go").touch()
    assert [process.wait(timeout=60) for process in starting] == [0] * 4
    assert len(_copies(tmp_path)) == 1
    assert faults_in(file) == []


def test_a_process_that_dies_in_the_middle_leaves_the_old_ledger_whole(old: tuple[int, Path], tmp_path: Path) -> None:
    version, file = old
    script = f"""
        import os, signal
        from pathlib import Path
        from dicom_node.ledger import Ledger, store
        made = store.migrate
        def die(db, path, version):
            made(db, path, version)
            os.kill(os.getpid(), signal.SIGKILL)
        store.migrate = die
        Ledger(Path({str(file)!r}))
    """
    columns = _columns(file)
    before = _rows(file, columns)
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -9
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == version
    Ledger(file).close()
    assert _rows(file, columns) == before


def _content(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """A ledger of a program that does not exist yet, as one that was killed left it: its last step is in the log."""
    folder = tmp_path / "state"
    folder.mkdir()
    file = tmp_path / "made.sqlite"
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE wonder (id INTEGER PRIMARY KEY)")
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
        for name in ("made.sqlite", "made.sqlite-wal"):
            shutil.copy(tmp_path / name, folder / name.replace("made", "ledger"))
    return folder / "ledger.sqlite"


def test_a_ledger_of_a_newer_version_is_refused_clearly_and_untouched(newer: Path) -> None:
    before = _content(newer.parent)
    with pytest.raises(Stop, match=f"ledger of version {SCHEMA_VERSION + 1}, this program knows {SCHEMA_VERSION}"):
        Ledger(newer)
    after = _content(newer.parent)
    assert {name: after[name] for name in before} == before
    assert faults_in(newer) == [f"of version {SCHEMA_VERSION + 1}, this program knows {SCHEMA_VERSION}"]


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that can't be written, not even by root."""
    folder = tmp_path / "frozen"
    folder.mkdir()
    mounted = os.geteuid() == 0 and not _mount(folder, "size=16m").returncode
    if not mounted:
        pytest.skip("a file system can be mounted by root only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mount(folder: Path, options: str) -> subprocess.CompletedProcess[bytes]:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False)


@pytest.mark.parametrize("there", ["nothing", "a ledger", "an old ledger"])
def test_a_folder_that_can_not_be_written_is_said_with_its_path_and_a_remedy(read_only: Path, there: str) -> None:
    file = read_only / "ledger.sqlite"
    if there == "a ledger":
        Ledger(file).close()
    elif there == "an old ledger":
        _made(1, file)
    _mount(read_only, "remount,ro")
    with pytest.raises(Stop, match=f"{re.escape(str(file))}: can't be used as the ledger .*: check owner and rights"):
        Ledger(file)


def test_without_room_for_the_copy_nothing_is_changed_and_the_room_is_named(read_only: Path) -> None:
    file = _made(1, read_only / "ledger.sqlite")
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    columns = _columns(file)
    before = _rows(file, columns)
    room = shutil.disk_usage(read_only).free
    (read_only / "full").write_bytes(bytes(room - 200_000))
    with pytest.raises(Stop, match=r"no copy of this older ledger .* make room \(\d+ MiB\)"):
        Ledger(file)
    assert _copies(read_only) == []
    assert _rows(file, columns) == before
    (read_only / "full").unlink()
    Ledger(file).close()
    assert len(_copies(read_only)) == 1
