"""Figures about the node's work for people and machines that watch it. Reads only, and never more rows than it says.

Whatever waits is counted by its index; what is done is counted from the history, on from where one stopped before. So
none of it becomes slower with what the ledger has seen.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dicom_node.ledger.deliveries import DOWN
from dicom_node.states import Batch, Delivery, Instance

WAITING = (Instance.RECEIVED, Instance.READING, Instance.WAITING, Instance.CLAIMED)
"""Instances that still need the worker."""
_QUEUES: tuple[tuple[type[Instance | Batch | Delivery], tuple[str, ...]], ...] = (
    (Instance, (*(state.value for state in WAITING), Instance.PARKED.value, Instance.CONFLICT.value)),
    (Batch, tuple(state.value for state in (Batch.OPEN, Batch.CLOSED, Batch.REPORTING, Batch.PARKED))),
)
_UNDELIVERED = tuple(s.value for s in Delivery if s is not Delivery.DELIVERED)
BACK = 200_000
"""History rows that are looked through at most for what happened last."""
STEPS_AT_ONCE = 20_000


class Reading(Protocol):
    """What a query needs: the ledger's store, or a connection of one's own."""

    def read(self, query: str, *values: Any) -> list[sqlite3.Row]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Where the time of one decided instance went, in seconds; None where a stage did not happen or is not over."""

    instance: int
    exam: str
    method: str
    outcome: str
    to_first_look: float | None
    wait: float | None
    decode: float | None
    engine: float | None
    encode: float | None
    send: float | None
    work: float | None
    """From the claim to the decision."""
    total: float | None
    """From the last byte received until every object of it was delivered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """How much came and how much was done in the last seconds before a moment."""

    seconds: float
    arrived: int
    decided: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """What happened since a watermark of the history."""

    upto: int
    counts: tuple[tuple[str, str, str, int], ...]
    """(what, step, destination or "", how often)."""
    decisions: tuple[dict[str, Any], ...]
    more: bool


class Figures:
    """The part of the ledger about figures.

    `+what` in the queries keeps SQLite at the range of ids: its index by what and row would look at all of them.
    """

    def __init__(self, store: Reading) -> None:
        self._store = store

    def queues(self) -> dict[str, dict[str, int]]:
        """How many instances and batches are in each state that is not an end; parked ones wait for a person."""
        found: dict[str, dict[str, int]] = {}
        for kind, states in _QUEUES:
            what = kind.__name__.lower()
            query = f"SELECT count(*) FROM {what} WHERE state = ?"
            found[what] = {state: int(self._store.read(query, state)[0][0]) for state in states}
        return found

    def damaged(self) -> int:
        """How many files are known to be damaged."""
        return int(self._store.read("SELECT count(*) FROM damage")[0][0])

    def down_since(self) -> dict[str, float]:
        """The destinations that take nothing, and since when (seconds since the epoch)."""
        found = self._store.read("SELECT name, value FROM mark WHERE name >= ? AND name < ?", DOWN, DOWN + "~")
        return {row["name"].removeprefix(DOWN): float(json.loads(row["value"])["since"]) for row in found}

    def undelivered(self) -> list[tuple[str, str, int]]:
        """(destination, state, how many) of what is not delivered."""
        marks = ", ".join("?" * len(_UNDELIVERED))
        query = (
            f"SELECT destination, state, count(*) AS n FROM delivery WHERE state IN ({marks})"
            " GROUP BY state, destination ORDER BY destination, state"
        )
        return [(row["destination"], row["state"], row["n"]) for row in self._store.read(query, *_UNDELIVERED)]

    def waiting(self) -> int:
        """Instances that still need the worker."""
        marks = ", ".join("?" * len(WAITING))
        query = f"SELECT count(*) FROM instance WHERE state IN ({marks})"
        return int(self._store.read(query, *(state.value for state in WAITING))[0][0])

    def oldest_waiting(self) -> float | None:
        """When the oldest instance that still needs the worker was received, in seconds since the epoch."""
        query = "SELECT received_at FROM instance WHERE id = (SELECT min(id) FROM instance WHERE state = ?)"
        found = [row[0] for state in WAITING for row in self._store.read(query, state.value)]
        return min(found, default=None)

    def flow(self, seconds: float, *, now: float) -> Flow:
        """Arrivals and decisions of the last seconds; of less time where much more happened than is looked through."""
        arrived = self._recent("receive", now - seconds)
        decided = self._recent("decide", now - seconds)
        return Flow(seconds=seconds, arrived=arrived, decided=decided)

    def _recent(self, step: str, since: float) -> int:
        query = (
            "SELECT count(*) FROM history WHERE id > (SELECT coalesce(max(id), 0) - ? FROM history)"
            " AND +what = 'instance' AND step = ? AND at >= ?"
        )
        return int(self._store.read(query, BACK // 4, step, since)[0][0])

    def last(self) -> int:
        """The newest row of the history: where counting begins."""
        return int(self._store.read("SELECT coalesce(max(id), 0) FROM history")[0][0])

    def steps_since(self, mark: int) -> Steps:
        """What happened after the watermark, at most STEPS_AT_ONCE steps."""
        upto = min(self.last(), mark + STEPS_AT_ONCE)
        counts = self._store.read(
            "SELECT h.what, h.step, coalesce(d.destination, '') AS destination, count(*) AS n FROM history h"
            " LEFT JOIN delivery d ON h.what = 'delivery' AND d.id = h.ref"
            " WHERE h.id > ? AND h.id <= ? GROUP BY 1, 2, 3",
            mark,
            upto,
        )
        decisions = self._store.read(
            "SELECT i.decision FROM history h JOIN instance i ON i.id = h.ref"
            " WHERE h.id > ? AND h.id <= ? AND +h.what = 'instance' AND h.step = 'decide' AND i.decision IS NOT NULL",
            mark,
            upto,
        )
        return Steps(
            upto=upto,
            counts=tuple((row["what"], row["step"], row["destination"], row["n"]) for row in counts),
            decisions=tuple(json.loads(row["decision"]) for row in decisions),
            more=upto < self.last(),
        )

    def timings(self, limit: int = 300) -> list[Timing]:
        """Where the time of the last decided instances went, newest first."""
        last = self._store.read(
            "SELECT DISTINCT ref FROM (SELECT ref, id FROM history"
            " WHERE id > (SELECT coalesce(max(id), 0) - ? FROM history) AND +what = 'instance' AND step = 'decide'"
            " ORDER BY id DESC LIMIT ?)",
            BACK,
            limit,
        )
        sends = self._sends(4 * limit)
        return [timing for row in last if (timing := self._timing(row["ref"], sends)) is not None]

    def _timing(self, ref: int, sends: dict[int, float]) -> Timing | None:
        found = self._store.read("SELECT decision, received_at FROM instance WHERE id = ?", ref)
        if not found or found[0]["decision"] is None:
            return None
        decision = json.loads(found[0]["decision"])
        at: dict[str, float] = {}
        steps = self._store.read("SELECT step, at FROM history WHERE what = 'instance' AND ref = ? ORDER BY id", ref)
        for row in steps:
            # A step that was repeated counts when it was taken last; the first look, when it was taken first.
            if row["step"] != "read" or "read" not in at:
                at[row["step"]] = row["at"]
        objects = self._store.read(
            "SELECT d.id, d.state, o.kind FROM delivery d JOIN object o ON o.id = d.object WHERE o.instance = ?", ref
        )
        ends = [self._ended(row["id"]) for row in objects if row["state"] == Delivery.DELIVERED.value]
        sent = [sends[row["id"]] for row in objects if row["id"] in sends]
        cost = decision.get("seconds", {})
        whole = bool(ends) and len(ends) == len(objects)
        return Timing(
            instance=ref,
            exam=decision.get("exam", ""),
            method=decision.get("method", ""),
            outcome=decision.get("outcome", ""),
            to_first_look=_between(found[0]["received_at"], at.get("read")),
            wait=_between(at.get("admit"), at.get("claim")),
            decode=cost.get("decode"),
            engine=cost.get("engine"),
            encode=cost.get("encode"),
            send=sum(sent) if sent else None,
            work=_between(at.get("claim"), at.get("decide")),
            total=_between(found[0]["received_at"], max(ends)) if whole else None,
        )

    def _ended(self, delivery: int) -> float:
        query = "SELECT max(at) FROM history WHERE what = 'delivery' AND ref = ? AND after = 'delivered'"
        return float(self._store.read(query, delivery)[0][0])

    def _sends(self, limit: int) -> dict[int, float]:
        """How long the last objects took to send, by delivery.

        Many are claimed together and sent one after the other: each began when the one before it was accepted.
        """
        rows = self._store.read(
            "SELECT h.ref, h.at, d.destination, (SELECT max(c.at) FROM history c WHERE c.what = 'delivery'"
            " AND c.ref = h.ref AND c.step = 'claim' AND c.id < h.id) AS claimed FROM history h"
            " JOIN delivery d ON d.id = h.ref WHERE h.id IN (SELECT id FROM history"
            " WHERE id > (SELECT coalesce(max(id), 0) - ? FROM history) AND +what = 'delivery' AND before = 'sending'"
            " AND step IN ('store', 'deliver') ORDER BY id DESC LIMIT ?) ORDER BY h.id",
            BACK,
            limit,
        )
        found: dict[int, float] = {}
        before: dict[str, float] = {}
        for row in rows:
            if row["claimed"] is not None:
                began = max(row["claimed"], before.get(row["destination"], row["claimed"]))
                found[row["ref"]] = max(0.0, row["at"] - began)
            before[row["destination"]] = row["at"]
        return found


def _between(start: float | None, end: float | None) -> float | None:
    """Never negative: the clock may have been set back."""
    return None if start is None or end is None else max(0.0, end - start)


class _Connection:
    """A read-only connection of its own."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def read(self, query: str, *values: Any) -> list[sqlite3.Row]:
        return self._db.execute(query, values).fetchall()


@contextmanager
def figures_of(path: Path, *, patience_s: float = 5.0) -> Iterator[Figures]:
    """The figures of a ledger file, whatever its version: changes and migrates nothing. Raises OSError."""
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=patience_s)
        try:
            db.row_factory = sqlite3.Row
            yield Figures(_Connection(db))
        finally:
            db.close()
    except sqlite3.Error as fault:
        raise OSError(0, str(fault), str(path)) from fault


def not_writable(path: Path, *, patience_s: float = 5.0) -> str:
    """Why a ledger file can't be written, "" where it can. Writes nothing."""
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=patience_s, isolation_level=None)
        try:
            db.execute("BEGIN IMMEDIATE")
            db.execute("ROLLBACK")
        finally:
            db.close()
    except sqlite3.Error as fault:
        # Somebody writes all the time: then it can be written.
        return "" if getattr(fault, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY else str(fault)
    return ""
