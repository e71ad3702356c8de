"""The ledger: the SQLite file that is the truth about state, and the only place with SQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from dicom_node.ledger.associations import Opened, add_associations
from dicom_node.ledger.batches import Batches
from dicom_node.ledger.deliveries import Deliveries, NewObject
from dicom_node.ledger.figures import Figures, Timing
from dicom_node.ledger.instances import Admission, Instances
from dicom_node.ledger.migrations import STEPS
from dicom_node.ledger.present import present
from dicom_node.ledger.promises import PromiseRow, Promises, Reference, TooMany
from dicom_node.ledger.rows import BatchRow, DeliveryRow, InstanceRow, ObjectRow
from dicom_node.ledger.schema import OUTCOME, SCHEMA_VERSION
from dicom_node.ledger.store import Store
from dicom_node.ledger.sweeping import DAY_S, DEADLY, sweep
from dicom_node.ledger.trail import Trail
from dicom_node.ledger.upkeep import BORN, UNCLAIMED, Leaving, Spooled, Upkeep, copy_ledger, files_in
from dicom_node.records import ResultKind
from dicom_node.states import Batch, Delivery, Instance

__all__ = [
    "BORN",
    "DEADLY",
    "UNCLAIMED",
    "Admission",
    "BatchRow",
    "Batches",
    "DeliveryRow",
    "Figures",
    "InstanceRow",
    "Instances",
    "Leaving",
    "Ledger",
    "NewObject",
    "ObjectRow",
    "Opened",
    "PromiseRow",
    "Promises",
    "Reference",
    "Spooled",
    "Timing",
    "TooMany",
    "Upkeep",
    "copy_ledger",
    "faults_in",
    "files_in",
]


def _object(row: sqlite3.Row) -> ObjectRow:
    return ObjectRow(ResultKind(row["kind"]), row["sop_class_uid"], row["sop_instance_uid"], row["path"], row["digest"])


class Ledger:
    """One open ledger. Safe to share between the threads of a process; every process opens its own."""

    def __init__(self, path: Path) -> None:
        self._store = Store(path)
        self.instances = Instances(self._store)
        self.batches = Batches(self._store)
        self.deliveries = Deliveries(self._store)
        self.promises = Promises(self._store)
        self.upkeep = Upkeep(self._store)
        self.trail = Trail(self._store)
        self.figures = Figures(self._store)

    def close(self) -> None:
        self._store.close()

    def make_room(self) -> None:
        """Prepare for many commits: the first thing that who commits for waiting senders does."""
        self._store.make_room()

    def association_opened(
        self, ref: str, listener: str, calling_ae: str, called_ae: str, address: str = "", *, now: float
    ) -> None:
        with self._store.write("association.open") as db:
            add_associations(db, [Opened(ref, listener, calling_ae, called_ae, now, address)])

    def association_ended(self, ref: str, how: str, *, now: float) -> None:
        with self._store.write("association.end") as db:
            query = "UPDATE association SET ended_at = ?, how = ? WHERE id = ? AND ended_at IS NULL"
            db.execute(query, (now, how, ref))

    def renew(self, table: str, fence: int, *, lease_until: float) -> bool:
        """Prolong every claim of one fence; False when it was lost."""
        return self._store.renew(table, fence, lease_until)

    def sweep(self, alive: Callable[[str], bool], *, longest_s: float = DAY_S, now: float) -> int:
        """Give back what a lost process held: leases that ran out, and those whose owner is known to be dead.

        What several processes died over is parked instead: it may be what kills them. Associations of a dead
        listener are ended, and so are waits longer than `longest_s`, which a clock that was ahead has set. Returns how
        many rows were freed.
        """
        freed = sweep(
            self._store, alive, self.deliveries.destinations, self.promises.callers, longest_s=longest_s, now=now
        )
        self._store.checkpoint()
        return freed

    def checkpoint(self) -> None:
        """Move what was committed from the log into the file. For whoever has time: the receivers then never have to.

        Cheap when there is nothing to move.
        """
        self._store.checkpoint()

    def objects_of(self, instance: int) -> list[ObjectRow]:
        """What was recorded of one instance: the original that is forwarded, and the results made from it."""
        rows = self._store.read("SELECT * FROM object WHERE instance = ? ORDER BY id", instance)
        return [_object(row) for row in rows]

    def is_result(self, sop_instance_uid: str) -> bool:
        """Whether this node made an object of this UID."""
        query = "SELECT 1 FROM object WHERE sop_instance_uid = ? AND kind <> 'original' LIMIT 1"
        return bool(self._store.read(query, sop_instance_uid))

    def present(self, sop_instance_uids: Collection[str]) -> set[str]:
        """Those of the UIDs that arrived here or were made here, whatever became of them."""
        return present(self._store, sop_instance_uids)

    def names(self, path: str) -> bool:
        """Whether a row refers to this spooled file."""
        return bool(self._store.read("SELECT 1 FROM object WHERE path = ?", path))

    def paths_in(self, folder: str) -> set[str]:
        """Every file of one folder of the spool ("results/07/") that a row says is there."""
        # All that begins with the folder's name: "0" comes after "/".
        found = self._store.read(
            "SELECT path FROM instance WHERE path > ?1 AND path < ?2 AND state NOT IN ('duplicate', 'expired')"
            " UNION ALL SELECT path FROM object WHERE path > ?1 AND path < ?2 AND state = 'kept'",
            folder,
            folder.removesuffix("/") + "0",
        )
        return {row["path"] for row in found}

    def known_paths(self) -> set[str]:
        """Every spooled file that a row says is there; for tests, since there may be very many."""
        return self.paths_in("originals/") | self.paths_in("results/")

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
            f"SELECT {OUTCOME} AS outcome, count(*) AS n FROM instance WHERE decision IS NOT NULL GROUP BY {OUTCOME}"
        )
        return {row["outcome"]: int(row["n"]) for row in rows}

    def attention(self) -> list[dict[str, Any]]:
        """What a person should look at: parked and conflicting rows with their reasons, newest last."""
        rows = self._store.read(
            "SELECT 'instance' AS what, id, state, sop_instance_uid AS uid, note, attempts FROM instance"
            " WHERE state IN ('parked', 'conflict')"
            " UNION ALL SELECT 'batch', id, state, study_instance_uid, note, attempts FROM batch WHERE state = 'parked'"
            " UNION ALL SELECT 'delivery', d.id, d.state, o.sop_instance_uid, d.destination || ': ' || d.note,"
            " d.attempts FROM delivery d JOIN object o ON o.id = d.object WHERE d.state = 'parked'"
            " UNION ALL SELECT 'promise', id, state, transaction_uid, calling_ae || ': ' || note, attempts FROM promise"
            " WHERE state = 'parked' ORDER BY 1, 2"
        )
        return [*(dict(row) for row in rows), *self.upkeep.attention()]

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
    # An older one is brought up to date when the node starts.
    known = version == SCHEMA_VERSION or version in STEPS
    return found or ([] if known else [f"of version {version}, this program knows {SCHEMA_VERSION}"])
