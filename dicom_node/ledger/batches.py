"""Batches in the ledger: their open window, closing, claim and report. When one is complete is decided elsewhere."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from dicom_node.assembly import Snapshot
from dicom_node.ledger.deliveries import NewObject, add_objects
from dicom_node.ledger.rows import BatchRow
from dicom_node.ledger.store import Store
from dicom_node.records import ResultKind
from dicom_node.settings import Assembly
from dicom_node.states import Batch, Instance

AT_ONCE = 100
"""Batches of one kind that one look takes."""

_READY = (
    "SELECT b.id, EXISTS (SELECT 1 FROM instance i WHERE i.batch = b.id AND i.state = 'decided') AS filled FROM batch b"
    " WHERE b.state = 'closed' AND b.undecided = 0 AND b.next_try <= ? ORDER BY b.next_try, b.id LIMIT 1"
)


class Batches:
    """The part of the ledger about batches."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def open(self) -> list[tuple[BatchRow, Snapshot]]:
        """Every open batch with what the decision about it needs; for reports and tests, not for the loops."""
        return self._snapshots("b.state = 'open' ORDER BY b.id")

    def to_decide(self, *, now: float, rules: Assembly, limit: int = AT_ONCE) -> list[tuple[BatchRow, Snapshot]]:
        """The open batches about which the decision may be other than to wait, up to `limit` of each kind.

        Kinds: quiet for the longest time that may be asked for; quiet for the shortest; open for too long; received
        later than now, by a clock that was ahead. While an instance is unread, only what became quiet before it
        arrived can be complete.
        """
        unread = self._unread()
        until = now if unread is None or unread > now else unread
        quiet, short, cap = until - rules.quiet_s, until - rules.quiet_after_release_s, until - rules.cap_s
        last, first = "b.state = 'open' AND b.last_at", "b.state = 'open' AND b.first_at"
        found: dict[int, tuple[BatchRow, Snapshot]] = {}
        for where, values in (
            (f"{last} <= ? ORDER BY b.last_at LIMIT ?", (quiet,)),
            (f"{last} > ? AND b.last_at <= ? ORDER BY b.last_at LIMIT ?", (quiet, short)),
            (f"{first} <= ? ORDER BY b.first_at LIMIT ?", (cap,)),
            (f"{last} > ? ORDER BY b.last_at LIMIT ?", (now,)),
        ):
            found |= {row.id: (row, shot) for row, shot in self._snapshots(where, *values, limit, unread=unread)}
        return list(found.values())

    def _unread(self) -> float | None:
        # Named, or the index of the state is taken and every unread row is looked at.
        query = (
            "SELECT received_at FROM instance INDEXED BY instance_unread WHERE state IN ('received', 'reading')"
            " ORDER BY received_at LIMIT 1"
        )
        found = self._store.read(query)
        return float(found[0]["received_at"]) if found else None

    def _snapshots(self, where: str, *values: float, unread: float | None = None) -> list[tuple[BatchRow, Snapshot]]:
        since = self._unread() if unread is None else unread
        found = self._store.read(
            "SELECT b.*, (SELECT CASE WHEN count(*) FILTER (WHERE a.ended_at IS NULL) > 0 THEN NULL"
            " ELSE max(a.ended_at) END FROM association a WHERE a.id IN"
            f" (SELECT i.association FROM instance i WHERE i.batch = b.id)) AS released_at FROM batch b WHERE {where}",
            *values,
        )
        return [(_row(b), Snapshot(b["first_at"], b["last_at"], b["released_at"], since)) for b in found]

    def close(self, row: BatchRow, reason: str, *, now: float) -> None:
        with self._store.write() as db:
            self._store.step(db, row.id, Batch.OPEN, "close", now=now, detail=reason)

    def claim(self, owner: str, *, now: float, lease_s: float) -> BatchRow | None:
        """Take a closed batch whose every instance is decided or set aside; a batch left empty becomes void."""
        # Looking needs no turn among the writers, and an idle worker looks often.
        if not self._store.read(_READY, now):
            return None
        with self._store.write() as db:
            found = db.execute(_READY, (now,)).fetchone()
            if found is None:
                return None
            if not found["filled"]:
                self._store.step(db, found["id"], Batch.CLOSED, "void", now=now)
                return None
            columns = {"owner": owner, "lease_until": now + lease_s, "fence": self._store.next_fence(db)}
            self._store.step(db, found["id"], Batch.CLOSED, "claim", now=now, detail=owner, columns=columns)
        return self.get(found["id"])

    def report(
        self, row: BatchRow, named: Sequence[int], report: NewObject, *, now: float, also: Sequence[NewObject] = ()
    ) -> None:
        """Record the report, that it names these instances, and what was made of the batch beside it, in one
        transaction. Raises LostClaim.
        """
        with self._store.write() as db:
            ended = {"owner": None, "lease_until": None, "note": ""}
            self._store.step(db, row.id, Batch.REPORTING, "report", now=now, fence=row.fence, columns=ended)
            for ref in named:
                self._store.step(db, ref, Instance.DECIDED, "report", now=now, detail=f"batch {row.id}")
            add_objects(self._store, db, [report, *also], instance=None, batch=row.id, now=now)

    def release(self, row: BatchRow, reason: str, *, next_try: float, counted: bool = True, now: float) -> None:
        """Give a claim back to be tried again later; `counted` False when the fault was not the batch's."""
        attempts = row.attempts + int(counted)
        with self._store.write() as db:
            ended = {"owner": None, "lease_until": None, "note": reason, "next_try": next_try, "attempts": attempts}
            self._store.step(
                db, row.id, Batch.REPORTING, "release", now=now, detail=reason, fence=row.fence, columns=ended
            )

    def park(self, row: BatchRow, reason: str, *, now: float) -> None:
        with self._store.write() as db:
            ended = {"owner": None, "lease_until": None, "note": reason}
            self._store.step(
                db, row.id, Batch.REPORTING, "park", now=now, detail=reason, fence=row.fence, columns=ended
            )

    def retry(self, ref: int, *, now: float) -> bool:
        row = self.get(ref)
        if row is None or row.state is not Batch.PARKED:
            return False
        with self._store.write() as db:
            fresh = {"attempts": 0, "deaths": 0, "next_try": 0, "note": ""}
            self._store.step(db, ref, Batch.PARKED, "retry", now=now, detail="asked by a person", columns=fresh)
        return True

    def earlier_report(self, row: BatchRow) -> str:
        """SOP Instance UID of the last report of an earlier batch of the same study, "" where there is none."""
        found = self._store.read(
            "SELECT o.sop_instance_uid FROM batch b JOIN object o ON o.batch = b.id WHERE b.study_key ="
            " (SELECT study_key FROM batch WHERE id = ?) AND b.number < ? AND o.kind = ?"
            " ORDER BY b.number DESC LIMIT 1",
            *(row.id, row.number, ResultKind.STRUCTURED_REPORT.value),
        )
        return str(found[0]["sop_instance_uid"]) if found else ""

    def get(self, ref: int) -> BatchRow | None:
        found = self._store.read("SELECT * FROM batch WHERE id = ?", ref)
        return _row(found[0]) if found else None


def _row(found: sqlite3.Row) -> BatchRow:
    return BatchRow(
        id=found["id"],
        state=Batch(found["state"]),
        study_instance_uid=found["study_instance_uid"],
        number=found["number"],
        first_at=found["first_at"],
        last_at=found["last_at"],
        note=found["note"],
        attempts=found["attempts"],
        fence=found["fence"],
    )
