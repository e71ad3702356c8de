"""Instances in the ledger: arrival, admission, claim, decision. Knows no file contents, only what it is told."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from dicom_node.ledger.associations import Opened, add_associations
from dicom_node.ledger.deliveries import NewObject, add_objects
from dicom_node.ledger.rows import InstanceRow, decision_from_json, decision_to_json, header_from_json, header_to_json
from dicom_node.ledger.schema import HOLDS
from dicom_node.ledger.store import Store
from dicom_node.records import Arrival, Decision, Header, ResultKind
from dicom_node.states import Batch, Instance

_ARRIVED_FIELDS = (
    "sop_class_uid",
    "sop_instance_uid",
    "transfer_syntax_uid",
    "calling_ae",
    "called_ae",
    "association",
    "path",
    "size",
)
_ARRIVED = attrgetter(*_ARRIVED_FIELDS)
_ARRIVE = (
    f"INSERT INTO instance (id, {', '.join(_ARRIVED_FIELDS)}, received_at, state)"
    f" VALUES (?, {'?, ' * len(_ARRIVED_FIELDS)}?, '{Instance.RECEIVED.value}')"
)

# One order over both would be a sort of all that is due: these are two looks at the beginning of an index.
_DUE = (
    "SELECT id FROM (SELECT id FROM instance WHERE state = ?1 AND next_try > 0 AND next_try <= ?2"
    " ORDER BY next_try, id LIMIT 1)"
    " UNION ALL SELECT id FROM (SELECT id FROM instance WHERE state = ?1 AND next_try = 0 ORDER BY id LIMIT 1)"
    " LIMIT 1"
)


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
        return self.arrive_all([arrival], now=now)[0]

    def arrive_all(self, arrivals: Sequence[Arrival], *, opened: Sequence[Opened] = (), now: float) -> list[int]:
        """Commit spooled instances together, in this order; returns their numbers. All of them or none.

        `opened`: associations that carried some of them and may not be known yet; a repeat adds nothing.
        """
        if not arrivals:
            return []
        with self._store.write() as db:
            add_associations(db, opened)
            # No one else inserts meanwhile, so the numbers are known before the rows: one statement a table.
            first = int(db.execute("SELECT coalesce(max(id), 0) + 1 FROM instance").fetchone()[0])
            refs = list(range(first, first + len(arrivals)))
            rows = [(ref, *_ARRIVED(arrival), now) for ref, arrival in zip(refs, arrivals, strict=True)]
            db.executemany(_ARRIVE, rows)
            self._store.note_all(db, "instance", refs, "receive", Instance.RECEIVED.value, now=now)
        return refs

    def read(self, owner: str, *, now: float, lease_s: float) -> InstanceRow | None:
        """Take an instance that nobody has looked at, under a lease and a new fence; None without one.

        What is tried again comes first, then the oldest.
        """
        return self._take(Instance.RECEIVED, "read", owner, now=now, lease_s=lease_s)

    def unread(self) -> list[InstanceRow]:
        """Instances that nobody has looked at, oldest first; for reports and tests, not for the loops."""
        return self._rows("state = 'received' ORDER BY id")

    def get(self, ref: int) -> InstanceRow | None:
        rows = self._rows("id = ?", ref)
        return rows[0] if rows else None

    def has_path(self, path: str) -> bool:
        """Whether a row names this spooled file."""
        return bool(self._store.read("SELECT 1 FROM instance WHERE path = ?", path))

    def of_batch(self, batch: int) -> list[InstanceRow]:
        # Sorted here: the index that finds them has another order.
        return sorted(self._rows("batch = ?", batch), key=lambda row: row.id)

    def holder(self, row: InstanceRow, digest: str) -> InstanceRow | None:
        """The instance that holds the same bytes under the same UID already, if there is one."""
        found = self._rows(
            f"sop_instance_uid = ? AND id <> ? AND digest = ? AND {HOLDS} ORDER BY id LIMIT 1",
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
        """Take an admitted instance that is due, under a lease and a new fence; None when there is none.

        What is tried again comes first, then the oldest.
        """
        return self._take(Instance.WAITING, "claim", owner, now=now, lease_s=lease_s)

    def _take(self, state: Instance, step: str, owner: str, *, now: float, lease_s: float) -> InstanceRow | None:
        due = (state.value, now)
        # Looking needs no turn among the writers, and an idle worker looks often.
        if not self._store.read(_DUE, *due):
            return None
        with self._store.write() as db:
            found = db.execute(_DUE, due).fetchone()
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
    others = f"SELECT id FROM instance WHERE sop_instance_uid = ? AND id <> ? AND {HOLDS}"
    key = (row.sop_instance_uid, row.id)
    same = db.execute(f"{others} AND digest = ? ORDER BY id LIMIT 1", (*key, digest)).fetchone()
    if same is not None:
        return int(same["id"]), "repeat"
    # A conflict that came later was kept aside because of this very instance: it holds nothing up.
    clash = db.execute(f"{others} AND NOT (state = 'conflict' AND id > ?) LIMIT 1", (*key, row.id)).fetchone()
    return (None, "admit") if clash is None else (int(clash["id"]), "clash")


def _join_batch(store: Store, db: sqlite3.Connection, header: Header, at: float, now: float) -> int:
    """The open batch of the study, prolonged to this reception; a new one when there is none."""
    key = (header.study_key,)
    # Received later than now: the clock was ahead.
    at = min(at, now)
    found = db.execute("SELECT id FROM batch WHERE study_key = ? AND state = 'open'", key).fetchone()
    if found:
        db.execute("UPDATE batch SET last_at = max(last_at, ?) WHERE id = ?", (at, found["id"]))
        return int(found["id"])
    last = "SELECT number FROM batch WHERE study_key = ? ORDER BY number DESC LIMIT 1"
    number = (db.execute(last, key).fetchone() or (0,))[0] + 1
    ref = db.execute(
        "INSERT INTO batch (study_key, study_instance_uid, number, state, first_at, last_at) VALUES (?, ?, ?, ?, ?, ?)",
        (header.study_key, header.study_instance_uid, number, Batch.OPEN.value, at, at),
    ).lastrowid
    assert ref is not None
    store.note(db, "batch", ref, None, "open", Batch.OPEN.value, now=now)
    return ref
