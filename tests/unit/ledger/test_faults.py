"""A ledger that can't be written says so in the node's own words, is never corrupted, and goes on once it can."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dicom_node.errors import DiskFull, LedgerUnavailable, RetryLater, StartLater, Stop
from dicom_node.ledger import Ledger, faults_in, turns
from dicom_node.ledger.turns import Turns
from dicom_node.records import Arrival
from tests.unit.ledger.test_ledger import COUNTER, PASSED, _admit, _arrive


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False) if os.geteuid() == 0 else None
    if mounted is None or mounted.returncode:
        pytest.skip("a file system can be mounted by root only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(disk: Path, leave: int) -> Path:
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - leave)))
    return ballast


def _again_and_again(attempt: Callable[[], object]) -> list[object]:
    """What each of the attempts gave until one raised that the disk is full."""
    done: list[object] = []

    def go_on() -> None:
        for _ in range(10_000):
            done.append(attempt())

    with pytest.raises(DiskFull, match=r"ledger\.sqlite: .*: make room on this disk"):
        go_on()
    return done


def test_a_full_disk_is_said_and_changes_nothing_and_the_ledger_goes_on_when_there_is_room(tiny_disk: Path) -> None:
    ledger = Ledger(tiny_disk / "ledger.sqlite")
    _admit(ledger, _arrive(ledger))
    claimed = ledger.instances.claim("worker", now=1, lease_s=10)
    assert claimed is not None
    ballast = _fill(tiny_disk, leave=100_000)
    acknowledged = _again_and_again(lambda: _arrive(ledger).id)
    for n in range(3):
        # However often it is tried, it is said in the same way. A smaller change may still find room in the log.
        _again_and_again(
            lambda n=n: ledger.association_opened(f"{n}-{next(COUNTER)}" + "x" * 9000, "l", "A", "B", now=2)
        )
        acknowledged += _again_and_again(lambda: _arrive(ledger).id)
    assert [row.id for row in ledger.instances.unread()] == acknowledged, "what was acknowledged is there, and no more"
    ballast.unlink()
    ledger.instances.decide(claimed, PASSED, [], now=3)
    later = _arrive(ledger).id
    ledger.sweep(lambda _name: True, now=3)
    ledger.close()
    assert faults_in(tiny_disk / "ledger.sqlite") == []
    again = Ledger(tiny_disk / "ledger.sqlite")
    assert [row.id for row in again.instances.unread()] == [*acknowledged, later]
    again.close()


def test_a_process_killed_on_a_full_disk_leaves_a_whole_ledger(tiny_disk: Path) -> None:
    ledger = Ledger(tiny_disk / "ledger.sqlite")
    _fill(tiny_disk, leave=60_000)
    acknowledged = _again_and_again(lambda: _arrive(ledger).id)
    # As a dead process leaves them: the file and its log.
    copy = tiny_disk.parent / "copy"
    copy.mkdir()
    for name in ("ledger.sqlite", "ledger.sqlite-wal"):
        shutil.copy(tiny_disk / name, copy / name)
    ledger.close()
    assert faults_in(copy / "ledger.sqlite") == []
    again = Ledger(copy / "ledger.sqlite")
    assert [row.id for row in again.instances.unread()] == acknowledged
    again.close()


def test_a_ledger_that_something_else_holds_is_waited_for_and_then_said(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger._store._db.execute("PRAGMA busy_timeout=20")
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerUnavailable, match="database is locked"):
            _arrive(ledger)
    _arrive(ledger)
    ledger.close()


def test_a_commit_that_fails_leaves_no_transaction_open(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")

    def dangle() -> None:
        with ledger._store.write() as db:
            # Only looked at when it is committed.
            db.execute("PRAGMA defer_foreign_keys=ON")
            db.execute("INSERT INTO commitment VALUES ('2.25.1', 404)")

    with pytest.raises(sqlite3.IntegrityError):
        dangle()
    assert not ledger._store._db.in_transaction
    _arrive(ledger)
    ledger.close()


def test_what_loops_wait_for_is_told_from_what_ends_a_process(tmp_path: Path) -> None:
    assert issubclass(DiskFull, RetryLater)
    assert issubclass(LedgerUnavailable, RetryLater)
    file = tmp_path / "ledger.sqlite"
    ledger = Ledger(file)
    for _ in range(50):
        _arrive(ledger)
    ledger.close()
    content = bytearray(file.read_bytes())
    content[4096 * 4 :] = b"\xa5" * (len(content) - 4096 * 4)
    file.write_bytes(content)

    def read() -> None:
        with closing(Ledger(file)) as damaged:
            damaged.instances.unread()

    with pytest.raises(Stop, match="restore"):
        read()


def test_a_row_that_can_not_be_leaves_no_transaction_open_and_gives_the_turn_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    first = _arrive(ledger)
    same = Arrival(
        sop_class_uid="1.2",
        sop_instance_uid="1.2.3",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        calling_ae="A",
        called_ae="B",
        association="a",
        path=first.path,
        size=1,
    )
    with pytest.raises(sqlite3.IntegrityError) as raised:
        ledger.instances.arrive_all([same], now=0)
    assert raised.value.__cause__ is None
    assert not ledger._store._db.in_transaction
    other = Turns(tmp_path / "ledger.sqlite")
    assert other._queue(), "the turn is to be had"
    other.close()
    _arrive(ledger)
    ledger.close()


def test_a_lock_that_can_not_be_given_back_makes_no_failure_of_what_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    lock = fcntl.flock

    def faulty(handle: int, how: int) -> None:
        lock(handle, how)
        if how == fcntl.LOCK_UN:
            raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(turns.fcntl, "flock", faulty)
    assert _arrive(ledger).id in [row.id for row in ledger.instances.unread()]
    ledger.close()


def test_a_start_on_a_full_disk_is_to_be_tried_again_and_one_without_rights_is_not(tiny_disk: Path) -> None:
    file = tiny_disk / "ledger.sqlite"
    ballast = _fill(tiny_disk, leave=8192)
    with pytest.raises(StartLater, match="can't be used now"):
        Ledger(file)
    ballast.unlink()
    Ledger(file).close()
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    with pytest.raises(Stop, match="check owner and rights") as refused:
        Ledger(file)
    assert not isinstance(refused.value, StartLater)


def test_a_transaction_that_could_not_be_undone_is_undone_before_the_next_one(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    db = ledger._store._db

    def no_rollback(action: int, what: str | None, *_rest: str | None) -> int:
        denied = (action, what) == (sqlite3.SQLITE_TRANSACTION, "ROLLBACK")
        return sqlite3.SQLITE_DENY if denied else sqlite3.SQLITE_OK

    def fail() -> None:
        with ledger._store.write() as writing:
            writing.execute("INSERT INTO mark VALUES ('half', '1')")
            raise MemoryError

    db.set_authorizer(no_rollback)
    with pytest.raises(MemoryError):
        fail()
    assert db.in_transaction
    db.set_authorizer(None)
    _arrive(ledger)
    assert ledger.upkeep.mark("half") is None
    ledger.close()
