"""Promises in the ledger: who asked whether we keep which objects, what is answered, and what must stay because of it.

Knows no network and no file, only what it is told about them.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dicom_node.ledger.deliveries import COMMITTED
from dicom_node.ledger.schema import HOLDS
from dicom_node.ledger.store import Store
from dicom_node.ledger.upkeep import Spooled
from dicom_node.states import Promise

Reference = tuple[str, str]
"""SOP Class UID and SOP Instance UID."""

OPEN = (Promise.ASKED, Promise.DECIDED, Promise.REPORTING)

_HELD = (
    "SELECT 'instance' AS what, id, state, path, sop_class_uid, sop_instance_uid, transfer_syntax_uid, size, digest"
    f" FROM instance WHERE sop_instance_uid = ? AND {HOLDS}",
    "SELECT 'object' AS what, id, state, path, sop_class_uid, sop_instance_uid, '' AS transfer_syntax_uid,"
    " NULL AS size, digest FROM object WHERE sop_instance_uid = ? AND kind <> 'original'",
)


class TooMany(Exception):
    """This peer has asked for so much already that is not answered yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromiseRow:
    """One request. `answer` has one reason for each reference, 0 where it is kept; None until it is decided."""

    id: int
    state: Promise
    transaction_uid: str
    calling_ae: str
    called_ae: str
    address: str
    """Where the request came from."""
    asked_at: float
    wanted: tuple[Reference, ...]
    answer: tuple[int, ...] | None
    note: str
    attempts: int
    fence: int


class Promises:
    """The part of the ledger about promises."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def ask(
        self,
        transaction_uid: str,
        wanted: Sequence[Reference],
        *,
        calling_ae: str,
        called_ae: str,
        address: str,
        most: int,
        duplicate: int,
        report_after: float,
        now: float,
    ) -> int:
        """Record a request; only after this may it be accepted. Returns its number.

        The same request of the same peer once more is the same row, which is decided and answered anew. Another one
        under a transaction UID in use is answered with the reason `duplicate`. `report_after`: when others than the
        caller may tell the peer. Raises TooMany where `most` references of this peer wait.
        """
        digest = hashlib.sha256(json.dumps(sorted(wanted)).encode()).hexdigest()
        columns: dict[str, Any] = {
            "calling_ae": calling_ae,
            "called_ae": called_ae,
            "address": address,
            "asked_at": now,
            "digest": digest,
            "named": len(wanted),
            "wanted": json.dumps(wanted),
            "next_try": report_after,
        }
        with self._store.write() as db:
            known = db.execute(
                "SELECT id, state, calling_ae, digest FROM promise WHERE transaction_uid = ? ORDER BY id",
                (transaction_uid,),
            ).fetchall()
            same = next((row for row in known if (row["calling_ae"], row["digest"]) == (calling_ae, digest)), None)
            if same is not None:
                self._again(db, same["id"], Promise(same["state"]), columns, now)
                return int(same["id"])
            self._refuse_flood(db, calling_ae, most - len(wanted))
            columns |= {"state": Promise.ASKED.value, "transaction_uid": transaction_uid}
            if known:
                columns["answer"] = json.dumps([duplicate] * len(wanted))
            query = f"INSERT INTO promise ({', '.join(columns)}) VALUES ({', '.join(f':{name}' for name in columns)})"
            ref = db.execute(query, columns).lastrowid
            assert ref is not None
            detail = f"{len(wanted)} objects, by {calling_ae}"
            self._store.note(db, "promise", ref, None, "ask", Promise.ASKED.value, now=now, detail=detail)
        return ref

    def _again(self, db: sqlite3.Connection, ref: int, state: Promise, columns: dict[str, Any], now: float) -> None:
        if state in (Promise.ASKED, Promise.REPORTING):
            # It is being answered: only where the peer is now may have changed.
            query = "UPDATE promise SET address = ?, next_try = ? WHERE id = ?"
            db.execute(query, (columns["address"], columns["next_try"], ref))
            return
        fresh = {**columns, "answer": None, "note": "", "attempts": 0, "deaths": 0}
        self._store.step(db, ref, state, "ask again", now=now, detail="the same request once more", columns=fresh)

    def _refuse_flood(self, db: sqlite3.Connection, calling_ae: str, room: int) -> None:
        states = ", ".join(f"'{state.value}'" for state in OPEN)
        query = f"SELECT count(*) + total(named) AS n FROM promise WHERE state IN ({states}) AND calling_ae = ?"
        if db.execute(query, (calling_ae,)).fetchone()["n"] > room:
            raise TooMany

    def next_asked(self) -> tuple[int, float] | None:
        """The oldest request that is not decided: its number, and when it was asked."""
        query = "SELECT id, asked_at FROM promise INDEXED BY promise_asked WHERE state = 'asked' ORDER BY asked_at, id"
        found = self._store.read(f"{query} LIMIT 1")
        return (int(found[0]["id"]), float(found[0]["asked_at"])) if found else None

    def unread_since(self) -> float | None:
        """When the oldest instance was received that nobody has looked at yet; None while there is none."""
        found = self._store.read(
            "SELECT received_at FROM instance INDEXED BY instance_unread WHERE state IN ('received', 'reading')"
            " ORDER BY received_at LIMIT 1"
        )
        return float(found[0]["received_at"]) if found else None

    def held(self, sop_instance_uid: str) -> list[Spooled]:
        """What is in the spool under this UID, or was until its receipts (`state`: expired), originals and results."""
        return [Spooled(**dict(row)) for query in _HELD for row in self._store.read(query, sop_instance_uid)]

    def held_elsewhere(self, file: Spooled) -> bool:
        """Whether a destination has committed itself to keep what has left our spool."""
        which = "o.instance = ? AND o.kind = 'original'" if file.what == "instance" else "o.id = ?"
        query = (
            f"SELECT 1 FROM object o JOIN delivery d ON d.object = o.id WHERE {which}"
            " AND d.state = 'delivered' AND d.note = ?"
        )
        return bool(self._store.read(query, file.id, COMMITTED))

    def keep(self, files: Sequence[Spooled]) -> bool:
        """Mark files as promised: from now on none leaves as an only copy. False where one has left meanwhile."""
        with self._store.write("promise.keep") as db:
            marked = 0
            for file in files:
                table = "instance" if file.what == "instance" else "object"
                query = f"UPDATE {table} SET promised = 1 WHERE id = ? AND path = ? AND state <> 'expired'"
                marked += db.execute(query, (file.id, file.path)).rowcount
        return marked == len(files)

    def assume(self) -> None:
        """Count all that is held as promised: an older ledger does not know what peers were told after it."""
        with self._store.write("promise.keep") as db:
            for table in ("instance", "object"):
                db.execute(f"UPDATE {table} SET promised = 1 WHERE promised = 0 AND state <> 'expired'")

    def decide(self, row: PromiseRow, answer: Sequence[int], *, now: float) -> None:
        """Record the answer. Raises IllegalStep where another process was quicker."""
        failed = sum(reason != 0 for reason in answer)
        detail = f"{len(answer) - failed} kept, {failed} not"
        with self._store.write() as db:
            columns = {"answer": json.dumps(list(answer)), "note": detail}
            self._store.step(db, row.id, Promise.ASKED, "decide", now=now, detail=detail, columns=columns)

    def callers(self) -> list[str]:
        """Every peer that is to be told something."""
        # From name to name along the index: a DISTINCT would read every row.
        step = "SELECT min(calling_ae) FROM promise WHERE state = 'decided' AND calling_ae > at"
        query = f"WITH RECURSIVE name (at) AS (VALUES ('') UNION ALL SELECT ({step}) FROM name WHERE at IS NOT NULL)"
        return [row["at"] for row in self._store.read(f"{query} SELECT at FROM name WHERE at > ''")]

    def due(self, calling_ae: str, *, now: float) -> PromiseRow | None:
        """The request of this peer whose answer is to be told first, if one is due."""
        where = "state = 'decided' AND calling_ae = ? AND next_try <= ? ORDER BY next_try, id LIMIT 1"
        rows = self._rows(where, calling_ae, now)
        return rows[0] if rows else None

    def untold(self, calling_ae: str, *, limit: int) -> list[int]:
        """Decided requests of this peer, due or not."""
        query = "SELECT id FROM promise WHERE state = 'decided' AND calling_ae = ? ORDER BY next_try, id LIMIT ?"
        return [int(row["id"]) for row in self._store.read(query, calling_ae, limit)]

    def decided(self, ref: int) -> bool:
        """Whether there is an answer that nobody tells the peer at the moment."""
        return bool(self._store.read("SELECT 1 FROM promise WHERE id = ? AND state = 'decided'", ref))

    def claim(self, ref: int, owner: str, *, now: float, lease_s: float) -> PromiseRow | None:
        """Take one decided request to tell the peer, under a lease and a new fence; None where somebody else did."""
        with self._store.write("promise.free") as db:
            if not db.execute("SELECT 1 FROM promise WHERE id = ? AND state = 'decided'", (ref,)).fetchone():
                return None
            columns = {"owner": owner, "lease_until": now + lease_s, "fence": self._store.next_fence(db)}
            self._store.step(db, ref, Promise.DECIDED, "claim", now=now, detail=owner, columns=columns)
        rows = self._rows("id = ?", ref)
        return rows[0] if rows else None

    def release(self, row: PromiseRow, reason: str, *, next_try: float, failed: bool = True, now: float) -> None:
        """Give a claim back, to be tried again. Raises LostClaim."""
        columns = {"next_try": next_try, "attempts": row.attempts + int(failed)}
        self._end_claim(row, "release", reason, columns, now)

    def park(self, row: PromiseRow, reason: str, *, now: float) -> None:
        """Set a claimed answer aside that can't be told. Raises LostClaim."""
        self._end_claim(row, "park", reason, {}, now)

    def reported(self, row: PromiseRow, detail: str, *, now: float) -> None:
        """The peer has taken the answer: only who asked, when, and what became of it is kept. Raises LostClaim."""
        self._end_claim(row, "report", detail, {"wanted": "[]", "answer": None, "attempts": 0}, now)

    def _end_claim(self, row: PromiseRow, step: str, detail: str, columns: dict[str, Any], now: float) -> None:
        ended = {"owner": None, "lease_until": None, "note": detail, **columns}
        with self._store.write() as db:
            self._store.step(
                db, row.id, Promise.REPORTING, step, now=now, detail=detail, fence=row.fence, columns=ended
            )

    def free(self, ref: int, *, at: float = 0.0) -> None:
        """Whoever can may tell the peer from then on."""
        with self._store.write("promise.free") as db:
            db.execute("UPDATE promise SET next_try = ? WHERE id = ? AND state IN ('asked', 'decided')", (at, ref))

    def retry(self, ref: int, *, now: float) -> bool:
        rows = self._rows("id = ?", ref)
        if not rows or rows[0].state is not Promise.PARKED:
            return False
        with self._store.write() as db:
            # Its time begins anew, too.
            fresh = {"attempts": 0, "deaths": 0, "next_try": 0, "note": "", "asked_at": now}
            self._store.step(db, ref, Promise.PARKED, "retry", now=now, detail="asked by a person", columns=fresh)
        return True

    def get(self, ref: int) -> PromiseRow | None:
        rows = self._rows("id = ?", ref)
        return rows[0] if rows else None

    def waiting(self) -> dict[str, dict[str, Any]]:
        """By peer: how many of its requests are not answered yet, and since when (seconds since the epoch)."""
        states = ", ".join(f"'{state.value}'" for state in OPEN)
        rows = self._store.read(
            f"SELECT calling_ae, count(*) AS n, min(asked_at) AS since FROM promise WHERE state IN ({states})"
            " GROUP BY calling_ae"
        )
        return {row["calling_ae"]: {"requests": int(row["n"]), "since": float(row["since"])} for row in rows}

    def _rows(self, where: str, *values: object) -> list[PromiseRow]:
        return [_row(found) for found in self._store.read(f"SELECT * FROM promise WHERE {where}", *values)]


def _row(found: sqlite3.Row) -> PromiseRow:
    return PromiseRow(
        id=found["id"],
        state=Promise(found["state"]),
        transaction_uid=found["transaction_uid"],
        calling_ae=found["calling_ae"],
        called_ae=found["called_ae"],
        address=found["address"],
        asked_at=found["asked_at"],
        wanted=tuple((sop_class, sop_instance) for sop_class, sop_instance in json.loads(found["wanted"])),
        answer=None if found["answer"] is None else tuple(json.loads(found["answer"])),
        note=found["note"],
        attempts=found["attempts"],
        fence=found["fence"],
    )
