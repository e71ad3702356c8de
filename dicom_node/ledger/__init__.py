"""The ledger: the SQLite file that is the truth about state, and the only place with SQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dicom_node.ledger.batches import Batches
from dicom_node.ledger.deliveries import Deliveries, NewObject
from dicom_node.ledger.instances import Admission, Instances
from dicom_node.ledger.rows import BatchRow, DeliveryRow, InstanceRow, ObjectRow
from dicom_node.ledger.store import SCHEMA_VERSION, Store
from dicom_node.records import ResultKind
from dicom_node.states import Batch, Delivery, Instance

__all__ = [
    "Admission",
    "BatchRow",
    "Batches",
    "DeliveryRow",
    "InstanceRow",
    "Instances",
    "Ledger",
    "NewObject",
    "ObjectRow",
    "faults_in",
]


DEADLY = 5
"""So many processes that died over one thing are no accident any more."""


def _object(row: sqlite3.Row) -> ObjectRow:
    return ObjectRow(ResultKind(row["kind"]), row["sop_class_uid"], row["sop_instance_uid"], row["path"])


class Ledger:
    """One open ledger. Safe to share between the threads of a process; every process opens its own."""

    def __init__(self, path: Path) -> None:
        self._store = Store(path)
        self.instances = Instances(self._store)
        self.batches = Batches(self._store)
        self.deliveries = Deliveries(self._store)

    def close(self) -> None:
        self._store.close()

    def association_opened(self, ref: str, listener: str, calling_ae: str, called_ae: str, *, now: float) -> None:
        with self._store.write() as db:
            db.execute(
                "INSERT INTO association (id, listener, calling_ae, called_ae, opened_at) VALUES (?, ?, ?, ?, ?)",
                (ref, listener, calling_ae, called_ae, now),
            )

    def association_ended(self, ref: str, how: str, *, now: float) -> None:
        with self._store.write() as db:
            query = "UPDATE association SET ended_at = ?, how = ? WHERE id = ? AND ended_at IS NULL"
            db.execute(query, (now, how, ref))

    def renew(self, table: str, fence: int, *, lease_until: float) -> bool:
        """Prolong every claim of one fence; False when it was lost."""
        return self._store.renew(table, fence, lease_until)

    def sweep(self, alive: Callable[[str], bool], *, now: float) -> int:
        """Give back what a lost process held: leases that ran out, and those whose owner is known to be dead.

        What several processes died over is parked instead: it may be what kills them. Associations of a dead
        listener are ended. Returns how many rows were freed.
        """
        freed = 0
        with self._store.write() as db:
            for state in (Instance.READING, Instance.CLAIMED, Batch.REPORTING, Delivery.SENDING):
                table = type(state).__name__.lower()
                query = f"SELECT id, owner, lease_until, deaths FROM {table} WHERE state = ?"
                for row in db.execute(query, (state.value,)).fetchall():
                    if row["lease_until"] > now and alive(row["owner"]):
                        continue
                    deaths = row["deaths"] + int(not alive(row["owner"]))
                    step = "park" if deaths >= DEADLY else "release"
                    why = "its process is gone" if deaths > row["deaths"] else "the lease ran out"
                    why += f" ({deaths} times, so it may be the cause)" if step == "park" else ""
                    ended: dict[str, Any] = {"owner": None, "lease_until": None, "deaths": deaths, "note": why}
                    self._store.step(db, row["id"], state, step, now=now, detail=why, columns=ended)
                    freed += 1
            lost = db.execute("SELECT DISTINCT listener FROM association WHERE ended_at IS NULL").fetchall()
            for row in lost:
                if not alive(row["listener"]):
                    query = "UPDATE association SET ended_at = ?, how = 'lost' WHERE ended_at IS NULL AND listener = ?"
                    freed += db.execute(query, (now, row["listener"])).rowcount
        return freed

    def objects_of(self, instance: int) -> list[ObjectRow]:
        """What was recorded of one instance: the original that is forwarded, and the results made from it."""
        rows = self._store.read("SELECT * FROM object WHERE instance = ? ORDER BY id", instance)
        return [_object(row) for row in rows]

    def is_result(self, sop_instance_uid: str) -> bool:
        """Whether this node made an object of this UID."""
        query = "SELECT 1 FROM object WHERE sop_instance_uid = ? AND kind <> 'original' LIMIT 1"
        return bool(self._store.read(query, sop_instance_uid))

    def names(self, path: str) -> bool:
        """Whether a row refers to this spooled file."""
        return bool(self._store.read("SELECT 1 FROM object WHERE path = ?", path))

    def known_paths(self) -> set[str]:
        """Every spooled file that a row refers to."""
        found = self._store.read("SELECT path FROM instance WHERE state <> 'duplicate' UNION SELECT path FROM object")
        return {row["path"] for row in found}

    def counts(self) -> dict[str, dict[str, int]]:
        """How many instances, batches and deliveries are in each state."""
        result: dict[str, dict[str, int]] = {}
        for kind in (Instance, Batch, Delivery):
            table = kind.__name__.lower()
            rows = self._store.read(f"SELECT state, count(*) AS n FROM {table} GROUP BY state")
            have = {row["state"]: int(row["n"]) for row in rows}
            result[table] = {state.value: have.get(state.value, 0) for state in kind}
        return result

    def outcomes(self) -> dict[str, int]:
        """How many instances ended in each outcome."""
        rows = self._store.read(
            "SELECT json_extract(decision, '$.outcome') AS outcome, count(*) AS n FROM instance"
            " WHERE decision IS NOT NULL GROUP BY outcome ORDER BY outcome"
        )
        return {row["outcome"]: int(row["n"]) for row in rows}

    def attention(self) -> list[dict[str, Any]]:
        """What a person should look at: parked and conflicting rows with their reasons, newest last."""
        rows = self._store.read(
            "SELECT 'instance' AS what, id, state, sop_instance_uid AS uid, note, attempts FROM instance"
            " WHERE state IN ('parked', 'conflict')"
            " UNION ALL SELECT 'batch', id, state, study_instance_uid, note, attempts FROM batch WHERE state = 'parked'"
            " UNION ALL SELECT 'delivery', d.id, d.state, o.sop_instance_uid, d.destination || ': ' || d.note,"
            " d.attempts FROM delivery d JOIN object o ON o.id = d.object WHERE d.state = 'parked' ORDER BY 1, 2"
        )
        return [dict(row) for row in rows]

    def history(self, what: str, ref: int) -> list[dict[str, Any]]:
        """Every step that one row has taken, oldest first."""
        rows = self._store.read("SELECT * FROM history WHERE what = ? AND ref = ? ORDER BY id", what, ref)
        return [dict(row) for row in rows]


def faults_in(path: Path) -> list[str]:
    """What SQLite finds wrong with a ledger file, [] when it is whole. Creates nothing and changes nothing."""
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
        try:
            found = [str(row[0]) for row in db.execute("PRAGMA quick_check(10)") if row[0] != "ok"]
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
        finally:
            db.close()
    except sqlite3.Error as fault:
        return [str(fault)]
    return found or (
        [] if version == SCHEMA_VERSION else [f"of version {version}, this program knows {SCHEMA_VERSION}"]
    )
