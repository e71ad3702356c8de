"""Housekeeping in the ledger: what may leave the spool, what is damaged, what only grows, and copies of the ledger.

Knows no file of the spool, only what it is told. Nothing here deletes a row of history.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_node.errors import IllegalStep
from dicom_node.ledger.store import Store
from dicom_node.states import Delivery, Instance, Object

BORN = "born"
"""Mark: since when this ledger speaks for the spool. An older file without a row was not left behind by a crash.

Infinite while it speaks for no file that it has no row of: it was made over a spool that holds some, or is an older
copy. Never a time then, since a clock may be wrong.
"""
NODE = "node"
"""Mark: a number by which the backups of this ledger are known as its own."""

UNCLAIMED = "unclaimed"
"""Mark: how many files are kept although they have no row."""
RULES = "retention rules"
"""Mark: the rules under which batches were last looked at."""

_UNDELIVERED = "EXISTS (SELECT 1 FROM object o JOIN delivery d ON d.object = o.id WHERE {} AND d.state <> 'delivered')"
_DELIVERED = "EXISTS (SELECT 1 FROM object o JOIN delivery d ON d.object = o.id WHERE {} AND d.state = 'delivered')"
_ORIGINAL = "o.instance = i.id AND o.kind = 'original'"

_FILES = (
    "SELECT 'instance' AS what, id, state, path, sop_class_uid, sop_instance_uid, transfer_syntax_uid, size, digest"
    " FROM instance WHERE state NOT IN ('duplicate', 'expired')",
    "SELECT 'object' AS what, id, state, path, sop_class_uid, sop_instance_uid, '' AS transfer_syntax_uid,"
    " NULL AS size, digest FROM object WHERE kind <> 'original' AND state = 'kept'",
)


@dataclass(frozen=True, slots=True)
class Leaving:
    """One file whose time has come: an instance's original or a result, and its present state."""

    what: str
    id: int
    state: Instance | Object
    path: str
    promised: bool = False
    """As it was when it was looked for: a promise that is made meanwhile holds it back."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """One file that the ledger says is in the spool, with all that is known about its bytes."""

    what: str
    id: int
    state: str
    path: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    """Of an original, as it was received; "" of a result."""
    size: int | None
    digest: str | None
    """SHA-256 of the data set; None where none was recorded yet."""


class Upkeep:
    """The part of the ledger about housekeeping."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def settle(self, *, limit: int = 100) -> int:
        """Note of reported batches whose every delivery has its receipt when the last one came; how many there were.

        Nothing is added to a reported batch any more, and what is delivered stays so: once settled, always settled.
        """
        found = self._store.read(
            "SELECT b.id FROM batch b INDEXED BY batch_unsettled WHERE b.state = 'reported' AND b.settled_at IS NULL"
            f" AND NOT {_UNDELIVERED.format('o.batch = b.id')} AND NOT EXISTS (SELECT 1 FROM instance i"
            " JOIN object o ON o.instance = i.id JOIN delivery d ON d.object = o.id"
            " WHERE i.batch = b.id AND d.state <> 'delivered') ORDER BY b.id LIMIT ?",
            limit,
        )
        # CROSS JOIN keeps the order: SQLite else begins with every row of history that is about a delivery.
        last = "SELECT max(h.at) AS at FROM {} CROSS JOIN history h ON h.what = 'delivery' AND h.ref = d.id WHERE {}"
        of_report = last.format("object o CROSS JOIN delivery d ON d.object = o.id", "o.batch = ?1")
        joined = "instance i CROSS JOIN object o ON o.instance = i.id CROSS JOIN delivery d ON d.object = o.id"
        of_images = last.format(joined, "i.batch = ?1")
        own = "SELECT max(at) AS at FROM history WHERE what = 'batch' AND ref = ?1"
        if found:
            with self._store.write("upkeep.note") as db:
                for row in found:
                    query = f"SELECT max(at) AS at FROM ({own} UNION ALL {of_report} UNION ALL {of_images})"
                    at = db.execute(query, (row["id"],)).fetchone()["at"]
                    db.execute("UPDATE batch SET settled_at = ? WHERE id = ?", (at, row["id"]))
        return len(found)

    def due(self, *, settled_before: float, after: tuple[float, int], limit: int = 100) -> list[tuple[float, int]]:
        """Batches settled before then of which something may still leave, oldest first: (when settled, number)."""
        found = self._store.read(
            "SELECT settled_at, id FROM batch WHERE settled_at IS NOT NULL AND cleared = 0 AND settled_at <= ?"
            " AND (settled_at, id) > (?, ?) ORDER BY settled_at, id LIMIT ?",
            settled_before,
            *after,
            limit,
        )
        return [(row["settled_at"], row["id"]) for row in found]

    def leaving(self, batch: int, *, originals: bool, results: bool, only_copies: bool) -> list[Leaving]:
        """What of a settled batch may leave; `only_copies`: also what was never sent anywhere.

        But not what a peer was promised: it may have deleted its own copy.
        """
        sent = "EXISTS (SELECT 1 FROM delivery d WHERE d.object = o.id AND d.state = 'delivered')"
        made = (
            "SELECT 'object' AS what, o.id, o.state, o.path, o.promised FROM {}"
            " WHERE o.kind <> 'original' AND o.state = 'kept'"
        )
        rest = f"AND ((?2 AND o.promised = 0) OR {sent})"
        queries = [
            "SELECT 'instance' AS what, i.id, i.state, i.path, i.promised FROM instance i WHERE i.batch = ?1"
            f" AND i.state = 'reported' AND ((?2 AND i.promised = 0) OR {_DELIVERED.format(_ORIGINAL)})",
            made.format("instance i JOIN object o ON o.instance = i.id") + f" AND i.batch = ?1 {rest}",
            made.format("object o") + f" AND o.batch = ?1 {rest}",
        ]
        wanted = queries[:originals] + queries[1:] * results
        return [_leaving(row) for query in wanted for row in self._store.read(query, batch, only_copies)]

    def clear(self, batch: int) -> None:
        """Note that nothing more of a batch may leave under the present rules."""
        with self._store.write("upkeep.note") as db:
            db.execute("UPDATE batch SET cleared = 1 WHERE id = ?", (batch,))

    def under_rules(self, code: int) -> None:
        """Have every batch looked at again where the rules are others than the last time."""
        if self.mark(RULES) != code:
            with self._store.write("upkeep.note") as db:
                db.execute("UPDATE batch SET cleared = 0 WHERE cleared = 1")
            self.set_mark(RULES, code)

    def own_due(self, *, before: float, only_copies: bool, limit: int) -> list[Leaving]:
        """Results of a node that were routed back: ours exist elsewhere, those of others once they were sent on."""
        sent = _DELIVERED.format(_ORIGINAL)
        # What is promised must be somewhere else for certain; else it is enough that it was made here.
        ours = (
            "EXISTS (SELECT 1 FROM object r WHERE r.sop_instance_uid = i.sop_instance_uid AND r.kind <> 'original'"
            " AND (i.promised = 0 OR r.state = 'kept'"
            " OR EXISTS (SELECT 1 FROM delivery d WHERE d.object = r.id AND d.state = 'delivered')))"
        )
        last = (
            "max(i.received_at, coalesce((SELECT max(h.at) FROM object o CROSS JOIN delivery d ON d.object = o.id"
            f" CROSS JOIN history h ON h.what = 'delivery' AND h.ref = d.id WHERE {_ORIGINAL}), 0))"
        )
        found = self._store.read(
            "SELECT 'instance' AS what, i.id, i.state, i.path, i.promised FROM instance i WHERE i.state = 'own'"
            f" AND i.received_at <= ? AND NOT {_UNDELIVERED.format(_ORIGINAL)}"
            f" AND ((? AND i.promised = 0) OR {sent} OR {ours})"
            f" AND {last} <= ? ORDER BY i.id LIMIT ?",
            before,
            only_copies,
            before,
            limit,
        )
        return [_leaving(row) for row in found]

    def expire(self, files: Sequence[Leaving], why: str, *, now: float) -> None:
        """Record that these files leave; only after this may they be removed. Raises IllegalStep, then none leaves."""
        with self._store.write() as db:
            for file in files:
                if file.promised != bool(_promised(db, file)):
                    raise IllegalStep(f"{file.what} {file.id} was promised to a peer just now")
                self._store.step(db, file.id, file.state, "expire", now=now, detail=why)
                if file.what == "instance":
                    sent = "SELECT id FROM object WHERE path = ? AND kind = 'original' AND state = 'kept'"
                    for row in db.execute(sent, (file.path,)).fetchall():
                        self._store.step(db, row["id"], Object.KEPT, "expire", now=now, detail=why)
                db.execute("DELETE FROM damage WHERE path = ?", (file.path,))

    def prune(self, *, ended_before: float, limit: int = 1000) -> int:
        """Remove what only grows and means nothing any more; how many rows.

        Associations that ended before then and that nothing open refers to, and what was noted about commitment
        requests of deliveries that are settled.
        """
        old = self._store.read(
            "SELECT rowid AS n FROM association WHERE ended_at <= ? AND id NOT IN"
            " (SELECT association FROM instance WHERE state IN ('received', 'reading')"
            " UNION SELECT i.association FROM batch b JOIN instance i ON i.batch = b.id WHERE b.state = 'open')"
            " LIMIT ?",
            ended_before,
            limit,
        )
        settled = self._store.read(
            "SELECT c.rowid AS n FROM commitment c JOIN delivery d ON d.id = c.delivery WHERE d.state = 'delivered'"
            " LIMIT ?",
            limit,
        )
        # Looked for outside of the transaction: nobody waits for it. Neither comes to life again.
        if old or settled:
            with self._store.write("upkeep.note") as db:
                db.executemany("DELETE FROM association WHERE rowid = ?", [(row["n"],) for row in old])
                db.executemany("DELETE FROM commitment WHERE rowid = ?", [(row["n"],) for row in settled])
        return len(old) + len(settled)

    def files(self, what: str, *, after: int = 0, limit: int = 100) -> list[Spooled]:
        """Files of instances, or of objects (results), that should be in the spool, from one number on."""
        query = _FILES[what == "object"] + " AND id > ? ORDER BY id LIMIT ?"
        return [_spooled(row) for row in self._store.read(query, after, limit)]

    def file(self, what: str, ref: int) -> Spooled | None:
        """One such file, if it should still be there."""
        found = self._store.read(_FILES[what == "object"] + " AND id = ?", ref)
        return _spooled(found[0]) if found else None

    def learn(self, file: Spooled, digest: str) -> None:
        """Note the digest of a result of which none was recorded when it was made (by an older version)."""
        with self._store.write("upkeep.note") as db:
            db.execute("UPDATE object SET digest = ? WHERE id = ? AND digest IS NULL", (digest, file.id))

    def flag(self, file: Spooled, reason: str, *, now: float) -> None:
        """Note that a file is damaged, and keep its bytes from being used: what waits for them is parked."""
        with self._store.write("upkeep.note") as db:
            db.execute(
                "INSERT INTO damage (path, what, ref, sop_instance_uid, reason, found_at) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (path) DO UPDATE SET reason = excluded.reason",
                (file.path, file.what, file.id, file.sop_instance_uid, reason, now),
            )
            waiting = "SELECT 1 FROM instance WHERE id = ? AND state = 'waiting'"
            if file.what == "instance" and db.execute(waiting, (file.id,)).fetchone():
                self._store.step(
                    db, file.id, Instance.WAITING, "park", now=now, detail=reason, columns={"note": reason}
                )
            unsent = "SELECT d.id FROM delivery d JOIN object o ON o.id = d.object WHERE o.path = ?"
            for row in db.execute(f"{unsent} AND d.state = 'pending'", (file.path,)).fetchall():
                self._store.step(
                    db, row["id"], Delivery.PENDING, "park", now=now, detail=reason, columns={"note": reason}
                )

    def healed(self, path: str) -> None:
        """Note that a file that was damaged is whole again."""
        with self._store.write("upkeep.note") as db:
            db.execute("DELETE FROM damage WHERE path = ?", (path,))

    def damaged(self) -> list[dict[str, Any]]:
        """What is known to be damaged: what, ref, path, sop_instance_uid, reason, found_at; oldest first."""
        return [dict(row) for row in self._store.read("SELECT * FROM damage ORDER BY found_at, path")]

    def attention(self) -> list[dict[str, Any]]:
        """What a person should look at, in the form of the ledger's own list."""
        parked = "what = 'instance' AND ref IN (SELECT id FROM instance WHERE state = 'parked')"
        rows = self._store.read(
            "SELECT what, ref AS id, 'damaged' AS state, sop_instance_uid AS uid, reason AS note, 0 AS attempts"
            f" FROM damage WHERE NOT ({parked}) ORDER BY 1, 2"
        )
        found = [dict(row) for row in rows]
        if count := int(self.mark(UNCLAIMED) or 0):
            note = f"{count} files in the spool have no row in this ledger and are kept: evenray restore --from-spool"
            found.append({"what": "spool", "id": 0, "state": "unclaimed", "uid": "", "note": note, "attempts": 0})
        return found

    def park_unread(self, refs: Sequence[int], reason: str, *, now: float) -> None:
        """Set instances that nobody has looked at aside for a person, while no process of the node runs."""
        with self._store.write() as db:
            for ref in refs:
                self._store.step(db, ref, Instance.RECEIVED, "read", now=now, detail="while taken in again")
                self._store.step(db, ref, Instance.READING, "park", now=now, detail=reason, columns={"note": reason})

    def node(self) -> str:
        """What tells this ledger's backups from those of another node; given once, it stays through a restore."""
        if self.mark(NODE) is None:
            # As many bits as a mark holds exactly.
            self.set_mark(NODE, secrets.randbits(52))
        return f"{int(self.mark(NODE) or 0):013x}"

    def born(self) -> float:
        """Since when this ledger speaks for the spool, in seconds since the epoch."""
        return self.mark(BORN) or 0.0

    def has_left(self, path: str) -> bool:
        """Whether a row says that this file was there and has left."""
        found = self._store.read(
            "SELECT 1 FROM instance WHERE path = ?1 AND state IN ('duplicate', 'expired')"
            " UNION ALL SELECT 1 FROM object WHERE path = ?1 AND state = 'expired'",
            path,
        )
        return bool(found)

    def mark(self, name: str) -> float | None:
        found = self._store.read("SELECT value FROM mark WHERE name = ?", name)
        return float(found[0]["value"]) if found else None

    def set_mark(self, name: str, value: float) -> None:
        with self._store.write("upkeep.note") as db:
            db.execute(
                "INSERT INTO mark VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (name, repr(value)),
            )


def copy_ledger(source: Path, target: Path) -> None:
    """A consistent copy of a ledger that may be in use, as one file. It is not yet forced to the disk.

    Raises sqlite3.Error's meaning as OSError's: the caller only knows that the copy was not made.
    """
    try:
        where = f"{source.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(where, uri=True, timeout=60)) as live, closing(sqlite3.connect(target)) as copy:
            # All pages in one step: one moment of the ledger, and no writer waits for it.
            live.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as fault:
        raise OSError(f"{source}: can't be copied ({fault})") from fault


def files_in(ledger: Path) -> list[Spooled]:
    """Every file that a copy of a ledger says is in the spool. Creates nothing and changes nothing."""
    with closing(sqlite3.connect(f"{ledger.absolute().as_uri()}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        return [_spooled(row) for query in _FILES for row in db.execute(f"{query} ORDER BY id")]


def _leaving(row: sqlite3.Row) -> Leaving:
    state = Instance(row["state"]) if row["what"] == "instance" else Object(row["state"])
    return Leaving(row["what"], row["id"], state, row["path"], bool(row["promised"]))


def _promised(db: sqlite3.Connection, file: Leaving) -> int:
    table = "instance" if file.what == "instance" else "object"
    return int(db.execute(f"SELECT promised FROM {table} WHERE id = ?", (file.id,)).fetchone()["promised"])


def _spooled(row: sqlite3.Row) -> Spooled:
    return Spooled(**dict(row))
