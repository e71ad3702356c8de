"""What the history says that an audit trail tells: objects that came, went and left, each with its study.

Reads only. Knows no message and no patient: the ledger names none.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import StrEnum

from dicom_node.ledger.store import Store

STEPS_AT_ONCE = 20_000
"""History rows that one look goes through."""
NOT_TRIED = "not sent this time"
"""Detail of a delivery's release that followed no attempt."""

_RANGE = "h.id > ? AND h.id <= ?"
_KEY = "json_extract(i.header, '$.study_instance_uid')"
_HEADER_KEY = f"{_KEY} || '/' || json_extract(i.header, '$.patient_key')"
# `+what` keeps SQLite at the range of ids: its index by what and row would look at all of them.
_CAME = (
    "SELECT h.id, i.received_at AS at, 'came' AS kind, i.sop_class_uid, b.study_instance_uid, b.study_key, i.path,"
    " i.calling_ae AS peer, i.association, coalesce(a.address, '') AS address, '' AS why"
    " FROM history h CROSS JOIN batch b ON b.id = h.ref"
    " CROSS JOIN instance i ON i.batch = b.id LEFT JOIN association a ON a.id = i.association"
    f" WHERE {_RANGE} AND +h.what = 'batch' AND h.step = 'close'"
    # What a person let in or tried again was told before.
    " AND (SELECT count(*) FROM history p WHERE p.what = 'instance' AND p.ref = i.id"
    " AND p.step IN ('admit', 'clash')) < 2"
)
_BESIDE = (
    "SELECT h.id, i.received_at AS at, CASE h.step WHEN 'repeat' THEN 'repeated' ELSE 'came' END AS kind,"
    f" i.sop_class_uid, {_KEY} AS study_instance_uid, {_HEADER_KEY} AS study_key, i.path, i.calling_ae AS peer,"
    " i.association, coalesce(a.address, '') AS address, '' AS why FROM history h"
    f" CROSS JOIN instance i ON i.id = h.ref LEFT JOIN association a ON a.id = i.association WHERE {_RANGE}"
    " AND +h.what = 'instance' AND h.step IN ('repeat', 'clash', 'recognise')"
)
_WENT = (
    "SELECT h.id, h.at, CASE h.step WHEN 'park' THEN 'parked' WHEN 'release' THEN 'failed' ELSE 'went' END AS kind,"
    f" o.sop_class_uid, coalesce(b.study_instance_uid, {_KEY}) AS study_instance_uid,"
    f" coalesce(b.study_key, {_HEADER_KEY}) AS study_key, o.path, d.destination AS peer,"
    " '' AS association, '' AS address,"
    " CASE WHEN h.step IN ('park', 'release') THEN h.detail ELSE '' END AS why"
    " FROM history h CROSS JOIN delivery d ON d.id = h.ref CROSS JOIN object o ON o.id = d.object"
    " LEFT JOIN instance i ON i.id = o.instance LEFT JOIN batch b ON b.id = coalesce(i.batch, o.batch)"
    f" WHERE {_RANGE} AND +h.what = 'delivery'"
    " AND (h.step = 'park' OR (h.before = 'sending' AND h.step IN ('store', 'deliver', 'release')))"
    # A destination that takes nothing for a week is tried ten thousand times: each object says so once.
    f" AND NOT (h.step = 'release' AND (h.detail = '{NOT_TRIED}' OR EXISTS (SELECT 1 FROM history p"
    f" WHERE p.what = 'delivery' AND p.ref = h.ref AND p.step = 'release' AND p.id < h.id"
    f" AND p.detail <> '{NOT_TRIED}')))"
)
_LEFT = (
    "SELECT h.id, h.at, 'left' AS kind, i.sop_class_uid, coalesce(b.study_instance_uid, "
    f"{_KEY}) AS study_instance_uid, coalesce(b.study_key, {_HEADER_KEY}) AS study_key, i.path, '' AS peer,"
    " '' AS association, '' AS address, h.detail AS why FROM history h CROSS JOIN instance i ON i.id = h.ref"
    f" LEFT JOIN batch b ON b.id = i.batch WHERE {_RANGE} AND +h.what = 'instance' AND h.step = 'expire'"
)
_HELD = "i.batch IN (SELECT id FROM batch WHERE study_key = ?1) AND i.state NOT IN ('duplicate', 'expired')"


class Told(StrEnum):
    """What happened to an object."""

    CAME = "came"
    REPEATED = "repeated"
    """It came, and the same bytes were here already."""
    WENT = "went"
    """A destination has accepted it."""
    FAILED = "failed"
    """It did not go, and is tried again."""
    PARKED = "parked"
    """It does not go until a person has helped."""
    LEFT = "left"
    """Its file leaves the spool after its receipts."""


@dataclass(frozen=True, slots=True)
class Event:
    """One object to which something happened."""

    id: int
    """Of its row of history."""
    at: float
    """When, in seconds since the epoch; of what came, when it was received."""
    kind: Told
    sop_class_uid: str
    study_instance_uid: str
    study_key: str
    path: str
    peer: str
    """The AE title of who sent it, or the name of the destination."""
    association: str
    address: str
    """Where that association came from."""
    why: str


class Trail:
    """The part of the ledger about what an audit trail tells."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def head(self) -> int:
        """The number of the last row of history; 0 where there is none."""
        return int(self._store.read("SELECT coalesce(max(id), 0) AS n FROM history")[0]["n"])

    def events(self, after: int, upto: int) -> list[Event]:
        """What rows of history after one and up to another tell, in their order.

        What came is told when its batch closes: then its study is complete for the time being.
        """
        found = [
            _event(row) for query in (_CAME, _BESIDE, _WENT, _LEFT) for row in self._store.read(query, after, upto)
        ]
        return sorted(found, key=lambda event: event.id)

    def held(self, study_key: str) -> int:
        """How many originals of a study are in the spool."""
        return int(self._store.read(f"SELECT count(*) AS n FROM instance i WHERE {_HELD}", study_key)[0]["n"])

    def files_of(self, study_key: str, *, limit: int = 5) -> list[str]:
        """Some files of a study that should be in the spool: originals, else reports, which name the patient too."""
        originals = f"SELECT i.path FROM instance i WHERE {_HELD} LIMIT ?2"
        reports = (
            "SELECT path FROM object WHERE batch IN (SELECT id FROM batch WHERE study_key = ?1) AND state = 'kept'"
        )
        query = f"SELECT path FROM ({originals}) UNION ALL SELECT path FROM ({reports} LIMIT ?2) LIMIT ?2"
        return [row["path"] for row in self._store.read(query, study_key, limit)]


def _event(row: sqlite3.Row) -> Event:
    return Event(
        id=row["id"],
        at=row["at"],
        kind=Told(row["kind"]),
        sop_class_uid=row["sop_class_uid"],
        study_instance_uid=row["study_instance_uid"] or "",
        study_key=row["study_key"] or "",
        path=row["path"],
        peer=row["peer"],
        association=row["association"],
        address=row["address"],
        why=row["why"],
    )
