"""Instances in the ledger: arrival, admission, claim, decision. Knows no file contents, only what it is told."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from dicom_node.ledger.deliveries import NewObject, add_objects
from dicom_node.ledger.rows import InstanceRow, decision_from_json, decision_to_json, header_from_json, header_to_json
from dicom_node.ledger.store import Store
from dicom_node.records import Arrival, Decision, Header, ResultKind
from dicom_node.states import Batch, Instance

_HOLDS = "digest IS NOT NULL AND state IN ('waiting', 'claimed', 'decided', 'reported', 'parked', 'conflict', 'own')"
"""An instance that was looked at and holds its own bytes: what a repetition is compared with."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What admitting one instance led to. `first` is the instance whose bytes or UID were here before."""

    state: Instance
    first: int | None = None


class Instances:
    """The part of the ledger about instances."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def arrive(self, arrival: Arrival, *, now: float) -> int:
        """Commit one spooled instance: only after this may the sender be told Success."""
        with self._store.write() as db:
            ref = db.execute(
                "INSERT INTO instance (state, sop_class_uid, sop_instance_uid, transfer_syntax_uid, calling_ae,"
                " called_ae, association, path, size, received_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    Instance.RECEIVED.value,
                    arrival.sop_class_uid,
                    arrival.sop_instance_uid,
                    arrival.transfer_syntax_uid,
                    arrival.calling_ae,
                    arrival.called_ae,
                    arrival.association,
                    arrival.path,
                    arrival.size,
                    now,
                ),
            ).lastrowid
            assert ref is not None
            self._store.note(db, "instance", ref, None, "receive", Instance.RECEIVED.value, now=now)
            return ref

    def read(self, owner: str, *, now: float, lease_s: float) -> InstanceRow | None:
        """Take the oldest instance that nobody has looked at, under a lease and a new fence; None without one."""
        return self._take(Instance.RECEIVED, "read", owner, now=now, lease_s=lease_s)

    def unread(self) -> list[InstanceRow]:
        """Instances that nobody has looked at, oldest first; for reports and tests, not for the loops."""
        return self._rows("state = 'received' ORDER BY id")

    def get(self, ref: int) -> InstanceRow | None:
        rows = self._rows("id = ?", ref)
        return rows[0] if rows else None

    def of_batch(self, batch: int) -> list[InstanceRow]:
        return self._rows("batch = ? ORDER BY id", batch)

    def holder(self, row: InstanceRow, digest: str) -> InstanceRow | None:
        """The instance that holds the same bytes under the same UID already, if there is one."""
        found = self._rows(
            f"sop_instance_uid = ? AND id <> ? AND digest = ? AND {_HOLDS} ORDER BY id LIMIT 1",
            row.sop_instance_uid,
            row.id,
            digest,
        )
        return found[0] if found else None

    def admit(
        self,
        row: InstanceRow,
        header: Header,
        digest: str,
        *,
        forward_to: Sequence[str],
        own: bool = False,
        now: float,
    ) -> Admission:
        """Place one instance that is being read: in its study's open batch, or beside it. Raises LostClaim.

        Beside it stand a repetition, a clash, and (`own`) a result of Evenray. `forward_to`: the destinations of the
        original itself; it leaves at once, whatever the engine will decide later.
        """
        with self._store.write() as db:
            first, step = (None, "admit") if row.let_in else _relation(db, row, digest)
            if own and step != "repeat":
                first, step = None, "recognise"
            note = {
                "repeat": f"same bytes as instance {first}",
                "clash": f"same UID, other bytes than instance {first}",
            }
            columns: dict[str, object] = {
                "header": header_to_json(header),
                "digest": digest,
                "note": note.get(step, ""),
                "owner": None,
                "lease_until": None,
            }
            if step == "admit":
                columns["batch"] = _join_batch(self._store, db, header, row.received_at, now)
            detail = note.get(step, "")
            state = self._store.step(
                db, row.id, Instance.READING, step, now=now, detail=detail, fence=row.fence, columns=columns
            )
            if forward_to and step in ("admit", "recognise"):
                original = NewObject(ResultKind.ORIGINAL, row.sop_class_uid, row.sop_instance_uid, row.path, forward_to)
                add_objects(self._store, db, [original], instance=row.id, batch=None, now=now)
            return Admission(Instance(state), first)

    def claim(self, owner: str, *, now: float, lease_s: float) -> InstanceRow | None:
        """Take the oldest admitted instance that is due, under a lease and a new fence; None when there is none."""
        return self._take(Instance.WAITING, "claim", owner, now=now, lease_s=lease_s)

    def _take(self, state: Instance, step: str, owner: str, *, now: float, lease_s: float) -> InstanceRow | None:
        with self._store.write() as db:
            found = db.execute(
                "SELECT id FROM instance WHERE state = ? AND next_try <= ? ORDER BY id LIMIT 1", (state.value, now)
            ).fetchone()
            if found is None:
                return None
            columns = {"owner": owner, "lease_until": now + lease_s, "fence": self._store.next_fence(db)}
            self._store.step(db, found["id"], state, step, now=now, detail=owner, columns=columns)
        return self.get(found["id"])

    def decide(self, row: InstanceRow, decision: Decision, objects: Sequence[NewObject], *, now: float) -> None:
        """Record the outcome with everything made from it, in one transaction. Raises LostClaim."""
        with self._store.write() as db:
            columns = {"decision": decision_to_json(decision), "owner": None, "lease_until": None, "note": ""}
            detail = decision.outcome.value
            self._store.step(
                db, row.id, Instance.CLAIMED, "decide", now=now, detail=detail, fence=row.fence, columns=columns
            )
            add_objects(self._store, db, objects, instance=row.id, batch=None, now=now)

    def release(self, row: InstanceRow, reason: str, *, next_try: float, counted: bool = True, now: float) -> None:
        """Give a claim back to be tried again later; `counted` False when the fault was not the image's.

        Raises LostClaim.
        """
        self._end_claim(row, "release", reason, now=now, next_try=next_try, attempts=row.attempts + int(counted))

    def park(self, row: InstanceRow, reason: str, *, now: float) -> None:
        """Set a claimed instance, or one that is being read, aside for a person. Raises LostClaim."""
        self._end_claim(row, "park", reason, now=now)

    def _end_claim(self, row: InstanceRow, step: str, reason: str, *, now: float, **columns: float) -> None:
        ended = {"note": reason, "owner": None, "lease_until": None, **columns}
        with self._store.write() as db:
            self._store.step(db, row.id, row.state, step, now=now, detail=reason, fence=row.fence, columns=ended)

    def retry(self, ref: int, *, now: float) -> bool:
        """A person's wish to try a parked instance again, or to let a conflicting one in; False when it is neither."""
        row = self.get(ref)
        if row is None or row.state not in (Instance.PARKED, Instance.CONFLICT):
            return False
        let_in = int(row.let_in or row.state is Instance.CONFLICT)
        fresh = {"attempts": 0, "deaths": 0, "next_try": 0, "note": "", "let_in": let_in}
        with self._store.write() as db:
            self._store.step(db, ref, row.state, "retry", now=now, detail="asked by a person", columns=fresh)
        return True

    def _rows(self, where: str, *values: object) -> list[InstanceRow]:
        return [_row(found) for found in self._store.read(f"SELECT * FROM instance WHERE {where}", *values)]


def _row(found: sqlite3.Row) -> InstanceRow:
    return InstanceRow(
        id=found["id"],
        state=Instance(found["state"]),
        sop_class_uid=found["sop_class_uid"],
        sop_instance_uid=found["sop_instance_uid"],
        transfer_syntax_uid=found["transfer_syntax_uid"],
        calling_ae=found["calling_ae"],
        path=found["path"],
        size=found["size"],
        received_at=found["received_at"],
        digest=found["digest"],
        header=header_from_json(found["header"]) if found["header"] else None,
        batch=found["batch"],
        decision=decision_from_json(found["decision"]) if found["decision"] else None,
        note=found["note"],
        let_in=bool(found["let_in"]),
        attempts=found["attempts"],
        fence=found["fence"],
    )


def _relation(db: sqlite3.Connection, row: InstanceRow, digest: str) -> tuple[int | None, str]:
    """Whether the UID is here already: (that instance, the step that follows)."""
    same = db.execute(
        f"SELECT id, digest FROM instance WHERE sop_instance_uid = ? AND id <> ? AND {_HOLDS}"
        # A conflict that came later was kept aside because of this very instance: it holds nothing up.
        " AND NOT (state = 'conflict' AND id > ? AND digest <> ?) ORDER BY digest = ? DESC, id",
        (row.sop_instance_uid, row.id, row.id, digest, digest),
    ).fetchone()
    if same is None:
        return None, "admit"
    return int(same["id"]), "repeat" if same["digest"] == digest else "clash"


def _join_batch(store: Store, db: sqlite3.Connection, header: Header, at: float, now: float) -> int:
    """The open batch of the study, prolonged to this reception; a new one when there is none."""
    found = db.execute("SELECT id FROM batch WHERE study_key = ? AND state = 'open'", (header.study_key,)).fetchone()
    if found:
        db.execute("UPDATE batch SET last_at = max(last_at, ?) WHERE id = ?", (at, found["id"]))
        return int(found["id"])
    number = db.execute("SELECT count(*) FROM batch WHERE study_key = ?", (header.study_key,)).fetchone()[0] + 1
    ref = db.execute(
        "INSERT INTO batch (study_key, study_instance_uid, number, state, first_at, last_at) VALUES (?, ?, ?, ?, ?, ?)",
        (header.study_key, header.study_instance_uid, number, Batch.OPEN.value, at, at),
    ).lastrowid
    assert ref is not None
    store.note(db, "batch", ref, None, "open", Batch.OPEN.value, now=now)
    return ref
