"""Objects and their deliveries in the ledger: claim, receipt, storage commitment. Knows no network."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dicom_node.ledger.rows import DeliveryRow
from dicom_node.ledger.store import Store
from dicom_node.records import ResultKind
from dicom_node.retry import GiveUp, TryAt
from dicom_node.states import Delivery

DOWN = "down "
"""What the names of marks about destinations begin with."""
COMMITTED = "storage commitment"
"""Note of a delivery whose destination has committed itself to keep the object."""
_JOINED = (
    "SELECT d.*, o.kind, o.sop_class_uid, o.sop_instance_uid, o.path, coalesce(o.digest, i.digest) AS digest"
    " FROM delivery d JOIN object o ON o.id = d.object"
    " LEFT JOIN instance i ON i.id = o.instance AND o.kind = 'original'"
)


@dataclass(frozen=True, slots=True)
class NewObject:
    """An object to be recorded with the names of the destinations it goes to."""

    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    path: str
    destinations: Sequence[str]
    digest: str | None = None
    """SHA-256 of its data set; None of an original, where it is with its instance."""


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
            "INSERT INTO object (kind, sop_class_uid, sop_instance_uid, path, instance, batch, made_at, digest)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (path) DO NOTHING",
            (new.kind.value, new.sop_class_uid, new.sop_instance_uid, new.path, instance, batch, now, new.digest),
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

        What waits for a second try comes after what was never tried. What a sender died over before is taken alone, so
        that it takes nothing else with it if it kills again.
        """
        if not self.due(destination, now=now):
            # Looking costs no write lock, and a sender looks often.
            return []
        with self._store.write() as db:
            due = db.execute(
                "SELECT id, deaths FROM delivery WHERE state = 'pending' AND destination = ? AND next_try <= ?"
                " ORDER BY next_try, id LIMIT ?",
                (destination, now, limit),
            ).fetchall()
            risky = next((n for n, found in enumerate(due) if found["deaths"]), len(due))
            due = due[: max(1, risky)]
            fence = self._store.next_fence(db) if due else 0
            for found in due:
                columns = {"owner": owner, "lease_until": now + lease_s, "fence": fence}
                self._store.step(db, found["id"], Delivery.PENDING, "claim", now=now, detail=owner, columns=columns)
        if not due:
            return []
        held = {row.id: row for row in self._rows("d.fence = ? AND d.owner IS NOT NULL AND d.state = 'sending'", fence)}
        return [held[found["id"]] for found in due]

    def due(self, destination: str, *, now: float) -> bool:
        """Whether anything is to be sent now."""
        query = "SELECT 1 FROM delivery WHERE state = 'pending' AND destination = ? AND next_try <= ? LIMIT 1"
        return bool(self._store.read(query, destination, now))

    def stored(self, row: DeliveryRow, status: int | None, detail: str, *, commitment: bool, now: float) -> None:
        """The destination has accepted the object; with `commitment` it is still to confirm that it keeps it.

        Raises LostClaim.
        """
        step = "store" if commitment else "deliver"
        self._end_claim(row, step, detail, now=now, status=status, attempts=0, next_try=0)

    def release(
        self, row: DeliveryRow, reason: str, *, next_try: float | None, failed: bool = True, now: float
    ) -> None:
        """Give a claim back to be tried again; `failed` False when it does not count against this object.

        `next_try` None: as due as it was.
        """
        columns = {} if next_try is None else {"next_try": next_try}
        self._end_claim(row, "release", reason, now=now, attempts=row.attempts + int(failed), **columns)

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

    def unconfirmed(self, destination: str, *, limit: int) -> list[DeliveryRow]:
        """What the destination has accepted and not confirmed."""
        return self._rows("d.state IN ('stored', 'awaiting') AND d.destination = ? LIMIT ?", destination, limit)

    def to_ask(self, destination: str, *, now: float, limit: int) -> list[DeliveryRow]:
        """Deliveries that the destination has accepted and whose commitment is to be asked for now."""
        where = "d.state = 'stored' AND d.destination = ? AND d.next_try <= ? ORDER BY d.next_try, d.id LIMIT ?"
        return self._rows(where, destination, now, limit)

    def asked(
        self,
        rows: Sequence[DeliveryRow],
        transaction_uid: str,
        *,
        now: float,
        wait: Callable[[int], float] = lambda _asked: 0.0,
    ) -> None:
        """Note the transaction before it goes out, so that even a report that beats the answer finds it.

        `wait(n)`: how long the report of the `n`-th request is waited for.
        """
        with self._store.write() as db:
            for row in rows:
                columns: dict[str, object] = {"transaction_uid": transaction_uid, "asked_at": now}
                columns |= {"asked": row.asked + 1, "next_try": now + wait(row.asked + 1)}
                self._store.step(db, row.id, Delivery.STORED, "ask", now=now, detail=transaction_uid, columns=columns)
                db.execute("INSERT INTO commitment VALUES (?, ?)", (transaction_uid, row.id))

    def overdue(self, destination: str, *, now: float, limit: int) -> list[DeliveryRow]:
        """Deliveries whose commitment was asked for and whose report should have come by now."""
        where = "d.state = 'awaiting' AND d.destination = ? AND d.next_try <= ? ORDER BY d.next_try, d.id LIMIT ?"
        return self._rows(where, destination, now, limit)

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
                    detail = COMMITTED
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
        # From name to name along the index: a DISTINCT would read every row.
        step = "SELECT min(destination) FROM delivery WHERE state = ? AND destination > at"
        query = f"WITH RECURSIVE name (at) AS (VALUES ('') UNION ALL SELECT ({step}) FROM name WHERE at IS NOT NULL)"
        names: set[str] = set()
        for state in (Delivery.PENDING, Delivery.SENDING, Delivery.STORED, Delivery.AWAITING):
            found = self._store.read(f"{query} SELECT at FROM name WHERE at > ''", state.value)
            names |= {row["at"] for row in found}
        return sorted(names)

    def counts(self) -> dict[str, dict[str, int]]:
        """How many objects are in each state, by destination."""
        # In the order of the index, which counts without sorting.
        rows = self._store.read("SELECT state, destination, count(*) AS n FROM delivery GROUP BY state, destination")
        result: dict[str, dict[str, int]] = {}
        for row in sorted(rows, key=lambda row: (row["destination"], row["state"])):
            result.setdefault(row["destination"], {})[row["state"]] = int(row["n"])
        return result

    def unfinished(self, destination: str, *, limit: int = 1000) -> list[DeliveryRow]:
        where = "d.destination = ? AND d.state IN ('pending', 'stored', 'awaiting') LIMIT ?"
        return self._rows(where, destination, limit)

    def waited(self, destination: str, *, made_before: float, limit: int) -> list[DeliveryRow]:
        """What was made before this time and is still to be sent, or to be asked for."""
        where = "d.destination = ? AND d.state IN ('pending', 'stored') AND o.made_at <= ? LIMIT ?"
        return self._rows(where, destination, made_before, limit)

    def down(self, destination: str, since: float, reason: str) -> None:
        """Note that a destination takes nothing, for whoever asks and for after a restart."""
        with self._store.write("delivery.outage") as db:
            value = json.dumps({"since": since, "reason": reason})
            db.execute("INSERT OR REPLACE INTO mark (name, value) VALUES (?, ?)", (DOWN + destination, value))

    def up(self, destination: str) -> None:
        with self._store.write("delivery.outage") as db:
            db.execute("DELETE FROM mark WHERE name = ?", (DOWN + destination,))

    def all_down(self) -> dict[str, tuple[float, str]]:
        """The destinations that take nothing: since when (seconds since the epoch), and why."""
        found = self._store.read("SELECT name, value FROM mark WHERE name >= ? AND name < ?", DOWN, DOWN + "~")
        values = {row["name"].removeprefix(DOWN): json.loads(row["value"]) for row in found}
        return {name: (float(value["since"]), str(value["reason"])) for name, value in values.items()}

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
        digest=found["digest"],
    )
