"""Objects and their deliveries in the ledger: claim, receipt, storage commitment. Knows no network."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dicom_node.ledger.rows import DeliveryRow
from dicom_node.ledger.store import Store
from dicom_node.records import ResultKind
from dicom_node.retry import GiveUp, TryAt
from dicom_node.states import Delivery

_JOINED = (
    "SELECT d.*, o.kind, o.sop_class_uid, o.sop_instance_uid, o.path FROM delivery d JOIN object o ON o.id = d.object"
)


@dataclass(frozen=True, slots=True)
class NewObject:
    """An object to be recorded with the names of the destinations it goes to."""

    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    path: str
    destinations: Sequence[str]


def add_objects(
    store: Store,
    db: sqlite3.Connection,
    objects: Sequence[NewObject],
    *,
    instance: int | None,
    batch: int | None,
    now: float,
) -> None:
    """Record objects and their pending deliveries inside a running transaction. A repeat adds nothing."""
    for new in objects:
        db.execute(
            "INSERT INTO object (kind, sop_class_uid, sop_instance_uid, path, instance, batch, made_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (path) DO NOTHING",
            (new.kind.value, new.sop_class_uid, new.sop_instance_uid, new.path, instance, batch, now),
        )
        ref = db.execute("SELECT id FROM object WHERE path = ?", (new.path,)).fetchone()["id"]
        for destination in dict.fromkeys(new.destinations):
            made = db.execute(
                "INSERT INTO delivery (destination, object, state) VALUES (?, ?, ?)"
                " ON CONFLICT (destination, object) DO NOTHING",
                (destination, ref, Delivery.PENDING.value),
            )
            if made.rowcount and made.lastrowid is not None:
                detail = f"{new.kind.value} to {destination}"
                store.note(db, "delivery", made.lastrowid, None, "queue", "pending", now=now, detail=detail)


class Deliveries:
    """The part of the ledger about deliveries."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def claim(self, destination: str, owner: str, *, now: float, lease_s: float, limit: int) -> list[DeliveryRow]:
        """Take up to `limit` deliveries of one destination that are due, under one fence.

        What a sender died over before is taken alone, so that it takes nothing else with it if it kills again.
        """
        with self._store.write() as db:
            due = db.execute(
                "SELECT id, deaths FROM delivery WHERE state = 'pending' AND destination = ? AND next_try <= ?"
                " ORDER BY id LIMIT ?",
                (destination, now, limit),
            ).fetchall()
            risky = next((n for n, found in enumerate(due) if found["deaths"]), len(due))
            due = due[: max(1, risky)]
            fence = self._store.next_fence(db) if due else 0
            for found in due:
                columns = {"owner": owner, "lease_until": now + lease_s, "fence": fence}
                self._store.step(db, found["id"], Delivery.PENDING, "claim", now=now, detail=owner, columns=columns)
        return self._rows("d.fence = ? AND d.state = 'sending' ORDER BY d.id", fence) if due else []

    def stored(self, row: DeliveryRow, status: int | None, detail: str, *, commitment: bool, now: float) -> None:
        """The destination has accepted the object; with `commitment` it is still to confirm that it keeps it.

        Raises LostClaim.
        """
        step = "store" if commitment else "deliver"
        self._end_claim(row, step, detail, now=now, status=status, attempts=0, next_try=0)

    def release(self, row: DeliveryRow, reason: str, *, next_try: float, failed: bool = True, now: float) -> None:
        """Give a claim back to be tried again; `failed` False when this object was not even tried."""
        self._end_claim(row, "release", reason, now=now, next_try=next_try, attempts=row.attempts + int(failed))

    def park(self, row: DeliveryRow, reason: str, *, now: float) -> None:
        if row.state is Delivery.SENDING:
            self._end_claim(row, "park", reason, now=now)
            return
        with self._store.write() as db:
            self._store.step(db, row.id, row.state, "park", now=now, detail=reason, columns={"note": reason})

    def _end_claim(self, row: DeliveryRow, step: str, detail: str, *, now: float, **columns: float | None) -> None:
        ended = {"owner": None, "lease_until": None, "note": detail, **columns}
        with self._store.write() as db:
            self._store.step(db, row.id, Delivery.SENDING, step, now=now, detail=detail, fence=row.fence, columns=ended)

    def accepted(self, row: DeliveryRow, reason: str, *, now: float) -> None:
        """Count what the destination accepted as delivered, since no confirmation is asked for any more."""
        with self._store.write() as db:
            self._store.step(db, row.id, row.state, "deliver", now=now, detail=reason, columns={"note": reason})

    def unconfirmed(self, destination: str) -> list[DeliveryRow]:
        """What the destination has accepted and not confirmed."""
        return self._rows("d.state IN ('stored', 'awaiting') AND d.destination = ? ORDER BY d.id", destination)

    def to_ask(self, destination: str, *, now: float, limit: int) -> list[DeliveryRow]:
        """Deliveries that the destination has accepted and whose commitment is to be asked for now."""
        where = "d.state = 'stored' AND d.destination = ? AND d.next_try <= ? ORDER BY d.id LIMIT ?"
        return self._rows(where, destination, now, limit)

    def asked(self, rows: Sequence[DeliveryRow], transaction_uid: str, *, now: float) -> None:
        """Note the transaction before it goes out, so that even a report that beats the answer finds it."""
        with self._store.write() as db:
            for row in rows:
                columns = {"transaction_uid": transaction_uid, "asked_at": now, "asked": row.asked + 1}
                self._store.step(db, row.id, Delivery.STORED, "ask", now=now, detail=transaction_uid, columns=columns)
                db.execute("INSERT INTO commitment VALUES (?, ?)", (transaction_uid, row.id))

    def overdue(self, destination: str, *, asked_before: float) -> list[DeliveryRow]:
        """Deliveries whose commitment was asked for before this time and that have no report."""
        where = "d.state = 'awaiting' AND d.destination = ? AND d.asked_at <= ? ORDER BY d.id"
        return self._rows(where, destination, asked_before)

    def ask_again(self, row: DeliveryRow, reason: str, *, next_try: float, now: float) -> None:
        with self._store.write() as db:
            columns = {"next_try": next_try, "note": reason}
            self._store.step(db, row.id, Delivery.AWAITING, "ask again", now=now, detail=reason, columns=columns)

    def give_up_asking(self, row: DeliveryRow, reason: str, *, now: float) -> None:
        """Park what the destination accepted but never confirmed; raises IllegalStep when a report came meanwhile."""
        with self._store.write() as db:
            self._store.step(db, row.id, Delivery.AWAITING, "park", now=now, detail=reason, columns={"note": reason})

    def reported(
        self,
        transaction_uid: str,
        committed: Sequence[str],
        failed: Mapping[str, str],
        *,
        then: Callable[[int, str], TryAt | GiveUp],
        now: float,
    ) -> int:
        """Apply a storage commitment report; returns how many deliveries it settled.

        A late report of an earlier transaction counts too: it says that the destination keeps the object.
        A failure sends the object again, since the destination says that it does not have it; `then(asked, reason)`
        says when, or that it is parked.
        """
        settled = 0
        with self._store.write() as db:
            found = db.execute(
                f"{_JOINED} JOIN commitment c ON c.delivery = d.id WHERE c.transaction_uid = ?"
                " AND d.state IN ('awaiting', 'stored', 'parked')",
                (transaction_uid,),
            ).fetchall()
            for row in map(_row, found):
                if row.sop_instance_uid in committed:
                    detail = "storage commitment"
                    self._store.step(db, row.id, row.state, "deliver", now=now, detail=detail, columns={"note": detail})
                elif row.sop_instance_uid in failed and row.state is not Delivery.PARKED:
                    reason = f"not committed: {failed[row.sop_instance_uid]}"
                    # `asked` is never set back by a new sending, so a peer that accepts and forgets has an end.
                    decided = then(row.asked, reason)
                    if isinstance(decided, GiveUp):
                        columns: dict[str, object] = {"note": decided.reason}
                        self._store.step(db, row.id, row.state, "park", now=now, detail=reason, columns=columns)
                    else:
                        columns = {"note": reason, "next_try": decided.at}
                        self._store.step(db, row.id, row.state, "send again", now=now, detail=reason, columns=columns)
                else:
                    continue
                settled += 1
        return settled

    def destinations(self) -> list[str]:
        """Every destination that still has something to do, configured or not."""
        found = self._store.read(
            "SELECT DISTINCT destination FROM delivery WHERE state IN ('pending', 'sending', 'stored', 'awaiting')"
        )
        return [row["destination"] for row in found]

    def counts(self) -> dict[str, dict[str, int]]:
        """How many objects are in each state, by destination."""
        rows = self._store.read("SELECT destination, state, count(*) AS n FROM delivery GROUP BY 1, 2 ORDER BY 1, 2")
        result: dict[str, dict[str, int]] = {}
        for row in rows:
            result.setdefault(row["destination"], {})[row["state"]] = int(row["n"])
        return result

    def unfinished(self, destination: str) -> list[DeliveryRow]:
        where = "d.destination = ? AND d.state IN ('pending', 'stored', 'awaiting') ORDER BY d.id"
        return self._rows(where, destination)

    def retry(self, ref: int, *, now: float) -> bool:
        rows = self._rows("d.id = ?", ref)
        if not rows or rows[0].state is not Delivery.PARKED:
            return False
        with self._store.write() as db:
            fresh = {"attempts": 0, "deaths": 0, "asked": 0, "next_try": 0, "note": ""}
            self._store.step(db, ref, Delivery.PARKED, "retry", now=now, detail="asked by a person", columns=fresh)
        return True

    def of_instance(self, ref: int) -> list[DeliveryRow]:
        """Deliveries of the results made from one instance, and of the original itself."""
        return self._rows("o.instance = ? ORDER BY d.id", ref)

    def of_batch(self, ref: int) -> list[DeliveryRow]:
        """Deliveries of one batch's report."""
        return self._rows("o.batch = ? ORDER BY d.id", ref)

    def _rows(self, where: str, *values: object) -> list[DeliveryRow]:
        return [_row(found) for found in self._store.read(f"{_JOINED} WHERE {where}", *values)]


def _row(found: sqlite3.Row) -> DeliveryRow:
    return DeliveryRow(
        id=found["id"],
        state=Delivery(found["state"]),
        destination=found["destination"],
        object=found["object"],
        kind=ResultKind(found["kind"]),
        sop_class_uid=found["sop_class_uid"],
        sop_instance_uid=found["sop_instance_uid"],
        path=found["path"],
        status=found["status"],
        note=found["note"],
        attempts=found["attempts"],
        asked=found["asked"],
        fence=found["fence"],
    )
