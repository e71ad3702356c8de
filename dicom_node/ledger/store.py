"""The SQLite file: connection, schema, transactions, and the one way in which a state changes.

Knows no meaning of any row. `synchronous=FULL` with WAL: a committed row survives a power cut.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dicom_node.durable import fsync
from dicom_node.errors import DiskFull, IllegalStep, LedgerUnavailable, LostClaim, StartLater, Stop
from dicom_node.ledger.migrations import migrate, statements
from dicom_node.ledger.schema import SCHEMA, SCHEMA_VERSION
from dicom_node.ledger.turns import Turns
from dicom_node.states import Batch, Delivery, Instance, Object, Promise, State, after
from dicom_node.steps import of_row, reached

BUSY_S = 20.0
"""How long SQLite's own lock is waited for: only a program that was stopped, or queues for no turn, holds it for long.
A sender waits as long for its answer."""
LONG_LOG_PAGES = 1000
"""A log (WAL) of this many pages, 4 MB, is worth a turn to begin it anew."""
LONGEST_LOG_PAGES = 8000
"""A log that reached 32 MB because nobody tends it is moved by whoever commits next, while all wait."""
LOG_KEPT_BYTES = 64 << 20
"""A longer log gives its room back; a shorter one keeps it, since writing over it is quicker than growing it."""

LOG_ROOM_BYTES = 30 << 20
"""Room that the log is given on the disk before it is needed, a little less than LONGEST_LOG_PAGES."""

_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PROTOCOL,
}
_FOR_A_WHILE = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PROTOCOL,
}
"""What a process that could not start because of it is started again for."""
_TABLES: Mapping[type, str] = {
    Instance: "instance",
    Batch: "batch",
    Delivery: "delivery",
    Promise: "promise",
    Object: "object",
}


class Store:
    """One connection to the ledger, shared by the threads of a process under a lock."""

    def __init__(self, path: Path) -> None:
        """Raises Stop where the file is no ledger, is damaged, of a newer version, or can't be written.

        Raises StartLater where the disk is full, or something holds the ledger.
        """
        self._lock = threading.RLock()
        self._taken: dict[str, None] = {}
        self._left_open = False
        self._path = path
        with ExitStack() as opened:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                _refuse_newer(path)
                self._turns = opened.enter_context(closing(Turns(path)))
                self._db = opened.enter_context(closing(_connect(path)))
                self._prepare()
            except (sqlite3.Error, OSError, LedgerUnavailable, DiskFull) as fault:
                if _passes(fault):
                    raise StartLater(f"{path}: the ledger can't be used now ({fault})") from fault
                raise Stop(
                    f"{path}: can't be used as the ledger ({fault}): check owner and rights of it and its folder; if "
                    "it is damaged, restore it (evenray restore BACKUP --ledger-only), or make a new one from the "
                    "originals in the spool (evenray restore --from-spool)"
                ) from fault
            except Stop as fault:
                # No room to bring an older ledger up to date.
                if _passes(fault):
                    raise StartLater(str(fault)) from fault
                raise
            self._open = opened.pop_all()

    def _prepare(self) -> None:
        with self._turns.mine():
            self._db.execute("PRAGMA journal_mode=WAL")
        # Of processes that start at once, the first makes or migrates it and the others find it done.
        with self.write("ledger.make") as db:
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if version == 0:
                for statement in statements(SCHEMA):
                    db.execute(statement)
                if _holds_files(self._path.parent / "spool" / "originals"):
                    # Those of a ledger that was lost: this one does not speak for them, whatever the clock says.
                    db.execute("UPDATE mark SET value = 'inf' WHERE name = 'born'")
                db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            elif version != SCHEMA_VERSION:
                migrate(db, self._path, version)

    def close(self) -> None:
        with self._lock:
            self._open.close()

    @contextmanager
    def write(self, touched: str = "") -> Iterator[sqlite3.Connection]:
        """A transaction that is committed at the end, or changes nothing when anything in it raises.

        `touched` names one that may take no step of the state table, for the register of steps.
        Raises DiskFull, LedgerUnavailable.
        """
        with self._lock:
            try:
                with self._turns.mine():
                    if self._left_open:
                        self._roll_back()
                    self._db.execute("BEGIN IMMEDIATE")
                    self._taken = {touched: None} if touched else {}
                    try:
                        yield self._db
                        self._reached("begun")
                        self._db.execute("COMMIT")
                    except BaseException:
                        self._roll_back()
                        raise
            except (sqlite3.Error, OSError) as fault:
                told = _in_our_words(fault, self._path)
                if told is fault:
                    raise
                raise told from fault
            self._reached("done")

    def _roll_back(self) -> None:
        # On a full or failing disk SQLite has done it already.
        if self._db.in_transaction:
            with suppress(sqlite3.Error, MemoryError):
                self._db.execute("ROLLBACK")
        # Else every later transaction would fail because of this one.
        self._left_open = self._db.in_transaction

    def _reached(self, when: str) -> None:
        """What this transaction did is about to be committed (`begun`), or is committed (`done`)."""
        for name in self._taken:
            reached(f"{name}.{when}")

    def read(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """Raises LedgerUnavailable."""
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except sqlite3.Error as fault:
                raise _in_our_words(fault, self._path) from fault

    def checkpoint(self) -> None:
        """Move what was committed from the log into the file: the bulk beside the writers, the rest in a turn of ours.

        Only with no writer at work can it be moved completely, and only then does the log begin anew and stop growing.
        Raises DiskFull, LedgerUnavailable; nothing is lost then, the log only grows.
        """
        try:
            # A connection of its own, so that the threads of this process go on meanwhile.
            with closing(_connect(self._path)) as db:
                _, pages, _ = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if pages >= LONG_LOG_PAGES:
                    with self._lock, self._turns.mine():
                        db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as fault:
            raise _in_our_words(fault, self._path) from fault

    def make_room(self) -> None:
        """Give the log its room on the disk at once, by a transaction that is never committed.

        A commit that only writes over what the log has takes half as long as one that makes it grow, since the file
        system has nothing of its own to commit. On a full disk it is left as it is.
        """
        log = self._path.with_name(f"{self._path.name}-wal")
        with suppress(sqlite3.Error, OSError), self._lock, self._turns.mine():
            disk = os.statvfs(self._path.parent)
            if disk.f_bavail * disk.f_frsize < 20 * LOG_ROOM_BYTES:
                # Room is needed for images first.
                return
            if log.exists() and log.stat().st_size >= LOG_ROOM_BYTES:
                return
            # With few pages in memory all others go to the log, committed or not.
            self._db.execute("PRAGMA cache_size=50")
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.execute("CREATE TABLE room (filling BLOB)")
                for _ in range(LOG_ROOM_BYTES // 1_000_000 + 1):
                    self._db.execute("INSERT INTO room VALUES (zeroblob(1000000))")
            finally:
                self._roll_back()
                self._db.execute("PRAGMA cache_size=-2000")
            fsync(log)

    def step(
        self,
        db: sqlite3.Connection,
        ref: int,
        before: State,
        step: str,
        *,
        now: float,
        detail: str = "",
        fence: int | None = None,
        columns: Mapping[str, object] = MappingProxyType({}),
    ) -> State:
        """Take one step of the state table and leave its history row; must be called inside `write`.

        Raises IllegalStep when the table has no such step or the row is in another state, LostClaim when `fence` is
        no longer the row's; in both cases the surrounding transaction changes nothing.
        """
        after_ = after(before, step)
        table = _TABLES[type(before)]
        # Column names come from this package alone, never from outside.
        sets = "".join(f", {name} = :{name}" for name in columns)
        held = " AND fence = :_fence" if fence is not None else ""
        changed = db.execute(
            f"UPDATE {table} SET state = :_after{sets} WHERE id = :_id AND state = :_before{held}",
            {**columns, "_after": after_.value, "_id": ref, "_before": before.value, "_fence": fence},
        ).rowcount
        if changed != 1:
            if fence is not None:
                raise LostClaim(f"{table} {ref}: the claim was lost before {step!r}")
            raise IllegalStep(f"{table} {ref}: not {before.value} any more, {step!r} was not taken")
        self.note(db, table, ref, before.value, step, after_.value, now=now, detail=detail)
        return after_

    def note(
        self,
        db: sqlite3.Connection,
        what: str,
        ref: int,
        before: str | None,
        step: str,
        after_: str,
        *,
        now: float,
        detail: str = "",
    ) -> None:
        """One history row."""
        self._taken[of_row(what, before, step)] = None
        db.execute(
            "INSERT INTO history (at, what, ref, before, step, after, detail) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (now, what, ref, before, step, after_, detail),
        )

    def note_all(
        self, db: sqlite3.Connection, what: str, refs: Sequence[int], step: str, after_: str, *, now: float
    ) -> None:
        """The first history row of each of these new rows."""
        self._taken[of_row(what, None, step)] = None
        query = "INSERT INTO history (at, what, ref, step, after) VALUES (?, ?, ?, ?, ?)"
        db.executemany(query, [(now, what, ref, step, after_) for ref in refs])

    def next_fence(self, db: sqlite3.Connection) -> int:
        """A number greater than every one given before: the newest claim always wins."""
        return int(db.execute("UPDATE fence SET value = value + 1 RETURNING value").fetchone()[0])

    def renew(self, table: str, fence: int, lease_until: float) -> bool:
        """Prolong every claim made under this fence; False when none is left."""
        with self.write("lease.renew") as db:
            query = f"UPDATE {table} SET lease_until = ? WHERE fence = ? AND owner IS NOT NULL"
            return db.execute(query, (lease_until, fence)).rowcount > 0


def _connect(path: Path) -> sqlite3.Connection:
    # Autocommit mode: transactions are begun and ended in `write`, never by the driver's guess.
    db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA foreign_keys=ON")
    db.execute(f"PRAGMA wal_autocheckpoint={LONGEST_LOG_PAGES}")
    db.execute(f"PRAGMA journal_size_limit={LOG_KEPT_BYTES}")
    return db


def _holds_files(folder: Path) -> bool:
    """Whether there are files that are not empty: receivers make empty ones ahead."""
    return any(path.stat().st_size for path in folder.glob("*/*.dcm"))


def _refuse_newer(path: Path) -> None:
    """Raise Stop before anything is touched when a newer program wrote this ledger."""
    if not path.exists() or not path.stat().st_size:
        return
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_S)) as db:
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise Stop(
            f"{path}: ledger of version {version}, this program knows {SCHEMA_VERSION}: "
            "use the program that wrote it, or another state_dir; nothing was changed"
        )


def _passes(fault: Exception | None) -> bool:
    """Whether what lies beneath a fault at the start may be over in a while."""
    while fault is not None and not isinstance(fault, sqlite3.Error | OSError):
        if isinstance(fault, DiskFull):
            return True
        fault = fault.__cause__ if isinstance(fault.__cause__, Exception) else None
    if isinstance(fault, OSError):
        return fault.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
    return fault is not None and getattr(fault, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in _FOR_A_WHILE


def _in_our_words(fault: sqlite3.Error | OSError, path: Path) -> Exception:
    """What a fault of the file means to the loops; a fault of the program itself stays as it is."""
    if isinstance(fault, OSError):
        no_room = fault.errno in (errno.ENOSPC, errno.EDQUOT)
        return DiskFull(f"{path}: {fault.strerror}: make room on this disk") if no_room else fault
    code = getattr(fault, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return DiskFull(f"{path}: {fault}: make room on this disk")
    if code in _UNAVAILABLE:
        return LedgerUnavailable(f"{path}: {fault}: check the disk, owner and rights")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Stop(f"{path}: {fault}: stop the node and restore the ledger from a backup")
    return fault
