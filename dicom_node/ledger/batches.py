"""Batches in the ledger: their open window, closing, claim and report. When one is complete is decided elsewhere."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from dicom_node.assembly import Snapshot
from dicom_node.ledger.deliveries import NewObject, add_objects
from dicom_node.ledger.rows import BatchRow
from dicom_node.ledger.store import Store
from dicom_node.states import Batch, Instance


class Batches:
    """The part of the ledger about batches."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def open(self) -> list[tuple[BatchRow, Snapshot]]:
        """Every open batch with what the decision about it needs."""
        unread = self._store.read("SELECT min(received_at) AS at FROM instance WHERE state IN ('received', 'reading')")[
            0
        ]["at"]
        found = self._store.read(
            "SELECT b.*, (SELECT CASE WHEN count(*) FILTER (WHERE a.ended_at IS NULL) > 0 THEN NULL"
            " ELSE max(a.ended_at) END FROM association a WHERE a.id IN"
            " (SELECT i.association FROM instance i WHERE i.batch = b.id)) AS released_at"
            " FROM batch b WHERE b.state = 'open' ORDER BY b.id"
        )
        return [(_row(b), Snapshot(b["first_at"], b["last_at"], b["released_at"], unread)) for b in found]

    def close(self, row: BatchRow, reason: str, *, now: float) -> None:
        with self._store.write() as db:
            self._store.step(db, row.id, Batch.OPEN, "close", now=now, detail=reason)

    def claim(self, owner: str, *, now: float, lease_s: float) -> BatchRow | None:
        """Take a closed batch whose every instance is decided or set aside; a batch left empty becomes void."""
        with self._store.write() as db:
            found = db.execute(
                "SELECT b.id, EXISTS (SELECT 1 FROM instance i WHERE i.batch = b.id AND i.state = 'decided') AS filled"
                " FROM batch b WHERE b.state = 'closed' AND b.next_try <= ? AND NOT EXISTS (SELECT 1 FROM instance i"
                " WHERE i.batch = b.id AND i.state IN ('waiting', 'claimed')) ORDER BY b.id LIMIT 1",
                (now,),
            ).fetchone()
            if found is None:
                return None
            if not found["filled"]:
                self._store.step(db, found["id"], Batch.CLOSED, "void", now=now)
                return None
            columns = {"owner": owner, "lease_until": now + lease_s, "fence": self._store.next_fence(db)}
            self._store.step(db, found["id"], Batch.CLOSED, "claim", now=now, detail=owner, columns=columns)
        return self.get(found["id"])

    def report(self, row: BatchRow, named: Sequence[int], report: NewObject, *, now: float) -> None:
        """Record the report and that it names these instances, in one transaction. Raises LostClaim."""
        with self._store.write() as db:
            ended = {"owner": None, "lease_until": None, "note": ""}
            self._store.step(db, row.id, Batch.REPORTING, "report", now=now, fence=row.fence, columns=ended)
            for ref in named:
                self._store.step(db, ref, Instance.DECIDED, "report", now=now, detail=f"batch {row.id}")
            add_objects(self._store, db, [report], instance=None, batch=row.id, now=now)

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
