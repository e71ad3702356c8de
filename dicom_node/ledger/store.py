"""The SQLite file: connection, schema, transactions, and the one way in which a state changes.

Knows no meaning of any row. `synchronous=FULL` with WAL: a committed row survives a power cut.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dicom_node.errors import IllegalStep, LostClaim, Stop
from dicom_node.states import Batch, Delivery, Instance, State, after

SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE association (
  id TEXT PRIMARY KEY, listener TEXT NOT NULL, calling_ae TEXT NOT NULL, called_ae TEXT NOT NULL,
  opened_at REAL NOT NULL, ended_at REAL, how TEXT
) STRICT;
CREATE INDEX association_open ON association (listener) WHERE ended_at IS NULL;
CREATE TABLE batch (
  id INTEGER PRIMARY KEY, study_key TEXT NOT NULL, study_instance_uid TEXT NOT NULL, number INTEGER NOT NULL,
  state TEXT NOT NULL, first_at REAL NOT NULL, last_at REAL NOT NULL, note TEXT NOT NULL DEFAULT '',
  attempts INTEGER NOT NULL DEFAULT 0, deaths INTEGER NOT NULL DEFAULT 0, next_try REAL NOT NULL DEFAULT 0,
  owner TEXT, lease_until REAL, fence INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX one_open_batch ON batch (study_key) WHERE state = 'open';
CREATE INDEX batch_by_state ON batch (state);
CREATE INDEX batch_by_study ON batch (study_key);
CREATE INDEX batch_held ON batch (fence) WHERE owner IS NOT NULL;
CREATE TABLE instance (
  id INTEGER PRIMARY KEY, state TEXT NOT NULL, sop_class_uid TEXT NOT NULL, sop_instance_uid TEXT NOT NULL,
  transfer_syntax_uid TEXT NOT NULL, calling_ae TEXT NOT NULL, called_ae TEXT NOT NULL, association TEXT NOT NULL,
  path TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, received_at REAL NOT NULL,
  digest TEXT, header TEXT, batch INTEGER REFERENCES batch, decision TEXT, note TEXT NOT NULL DEFAULT '',
  let_in INTEGER NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0, deaths INTEGER NOT NULL DEFAULT 0, next_try REAL NOT NULL DEFAULT 0,
  owner TEXT, lease_until REAL, fence INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX instance_by_state ON instance (state, next_try);
CREATE INDEX instance_by_uid ON instance (sop_instance_uid);
CREATE INDEX instance_by_batch ON instance (batch);
CREATE INDEX instance_held ON instance (fence) WHERE owner IS NOT NULL;
CREATE TABLE object (
  id INTEGER PRIMARY KEY, kind TEXT NOT NULL, sop_class_uid TEXT NOT NULL, sop_instance_uid TEXT NOT NULL,
  path TEXT NOT NULL UNIQUE, instance INTEGER REFERENCES instance, batch INTEGER REFERENCES batch, made_at REAL NOT NULL
) STRICT;
CREATE INDEX object_by_instance ON object (instance);
CREATE INDEX object_by_uid ON object (sop_instance_uid);
CREATE TABLE delivery (
  id INTEGER PRIMARY KEY, destination TEXT NOT NULL, object INTEGER NOT NULL REFERENCES object, state TEXT NOT NULL,
  status INTEGER, note TEXT NOT NULL DEFAULT '',
  transaction_uid TEXT, asked_at REAL, asked INTEGER NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0, deaths INTEGER NOT NULL DEFAULT 0, next_try REAL NOT NULL DEFAULT 0,
  owner TEXT, lease_until REAL, fence INTEGER NOT NULL DEFAULT 0,
  UNIQUE (destination, object)
) STRICT;
CREATE INDEX delivery_by_state ON delivery (state, destination, next_try);
CREATE INDEX delivery_held ON delivery (fence) WHERE owner IS NOT NULL;
CREATE TABLE commitment (
  transaction_uid TEXT NOT NULL, delivery INTEGER NOT NULL REFERENCES delivery, PRIMARY KEY (transaction_uid, delivery)
) STRICT;
CREATE TABLE fence (value INTEGER NOT NULL) STRICT;
INSERT INTO fence VALUES (0);
CREATE TABLE history (
  id INTEGER PRIMARY KEY, at REAL NOT NULL, what TEXT NOT NULL, ref INTEGER NOT NULL,
  before TEXT, step TEXT NOT NULL, after TEXT NOT NULL, detail TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX history_by_ref ON history (what, ref);
CREATE TRIGGER history_is_never_updated BEFORE UPDATE ON history
  BEGIN SELECT RAISE(ABORT, 'history is append-only'); END;
CREATE TRIGGER history_is_never_deleted BEFORE DELETE ON history
  BEGIN SELECT RAISE(ABORT, 'history is append-only'); END;
"""

_TABLES: Mapping[type, str] = {Instance: "instance", Batch: "batch", Delivery: "delivery"}


class Store:
    """One connection to the ledger, shared by the threads of a process under a lock."""

    def __init__(self, path: Path) -> None:
        """Raises Stop where the file is no ledger, is damaged, or can't be written."""
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Autocommit mode: transactions are begun and ended below, never by the driver's guess.
            self._db = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._create(path)
        except (sqlite3.DatabaseError, OSError) as fault:
            raise Stop(
                f"{path}: can't be used as the ledger ({fault}): check owner and rights; if it is damaged, stop the "
                "node and restore it from a backup, or move it aside: originals stay in the spool"
            ) from fault

    def _create(self, path: Path) -> None:
        with self.write() as db:
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if version == 0:
                # executescript would commit on its own: one statement at a time stays inside the transaction.
                for statement in _statements(SCHEMA):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            elif version != SCHEMA_VERSION:
                raise Stop(
                    f"{path}: ledger of version {version}, this program knows {SCHEMA_VERSION}: "
                    "use the program that wrote it, or another state_dir"
                )

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is committed at the end, or changes nothing when anything in it raises."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def read(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

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
        db.execute(
            "INSERT INTO history (at, what, ref, before, step, after, detail) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (now, what, ref, before, step, after_, detail),
        )

    def next_fence(self, db: sqlite3.Connection) -> int:
        """A number greater than every one given before: the newest claim always wins."""
        return int(db.execute("UPDATE fence SET value = value + 1 RETURNING value").fetchone()[0])

    def renew(self, table: str, fence: int, lease_until: float) -> bool:
        """Prolong every claim made under this fence; False when none is left."""
        with self.write() as db:
            query = f"UPDATE {table} SET lease_until = ? WHERE fence = ? AND owner IS NOT NULL"
            return db.execute(query, (lease_until, fence)).rowcount > 0


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, triggers (which hold semicolons) whole."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
