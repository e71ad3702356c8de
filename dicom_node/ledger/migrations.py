"""From an older version of the ledger to the present one: a list of steps, taken together or not at all.

Knows the schemas of the past, and no meaning of any row beyond what a step has to fill in.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from dicom_node.durable import fsync
from dicom_node.errors import Stop
from dicom_node.ledger.schema import SCHEMA_VERSION

log = logging.getLogger(__name__)

# What is written here was released and is never changed: `schema` may move on, an old ledger may not.
STEPS: Mapping[int, str] = {
    1: """
CREATE INDEX association_ended ON association (ended_at) WHERE ended_at IS NOT NULL;
ALTER TABLE batch ADD COLUMN settled_at REAL;
ALTER TABLE batch ADD COLUMN undecided INTEGER NOT NULL DEFAULT 0;
ALTER TABLE batch ADD COLUMN cleared INTEGER NOT NULL DEFAULT 0;
UPDATE batch SET undecided =
  (SELECT count(*) FROM instance i WHERE i.batch = batch.id AND i.state IN ('waiting', 'claimed'));
DROP INDEX batch_by_study;
CREATE INDEX batch_by_study ON batch (study_key, number);
DROP INDEX batch_by_state;
CREATE INDEX batch_by_state ON batch (state, undecided, next_try);
CREATE INDEX batch_by_last ON batch (state, last_at);
CREATE INDEX batch_by_first ON batch (state, first_at);
DROP INDEX instance_by_uid;
DROP INDEX instance_by_batch;
CREATE INDEX instance_unread ON instance (received_at) WHERE state IN ('received', 'reading');
CREATE INDEX instance_holding ON instance (sop_instance_uid, digest) WHERE
  digest IS NOT NULL
  AND state IN ('waiting', 'claimed', 'decided', 'reported', 'parked', 'conflict', 'own', 'expired');
CREATE INDEX instance_by_batch ON instance (batch, association) WHERE batch IS NOT NULL;
CREATE INDEX instance_by_outcome ON instance (json_extract(decision, '$.outcome')) WHERE decision IS NOT NULL;
CREATE TRIGGER instance_is_awaited AFTER UPDATE OF state, batch ON instance
  WHEN (old.batch IS NOT NULL AND old.state IN ('waiting', 'claimed'))
    <> (new.batch IS NOT NULL AND new.state IN ('waiting', 'claimed')) OR old.batch <> new.batch
  BEGIN
    UPDATE batch SET undecided = undecided - 1 WHERE id = old.batch AND old.state IN ('waiting', 'claimed');
    UPDATE batch SET undecided = undecided + 1 WHERE id = new.batch AND new.state IN ('waiting', 'claimed');
  END;
ALTER TABLE object ADD COLUMN state TEXT NOT NULL DEFAULT 'kept';
ALTER TABLE object ADD COLUMN digest TEXT;
-- From here on `next_try` says by when the report on a commitment should have come.
UPDATE delivery SET next_try = asked_at + 300 WHERE state = 'awaiting';
CREATE INDEX object_by_batch ON object (batch) WHERE batch IS NOT NULL;
CREATE INDEX delivery_by_object ON delivery (object);
CREATE INDEX batch_settled ON batch (settled_at) WHERE settled_at IS NOT NULL AND cleared = 0;
CREATE INDEX batch_unsettled ON batch (id) WHERE state = 'reported' AND settled_at IS NULL;
CREATE TABLE damage (
  path TEXT PRIMARY KEY, what TEXT NOT NULL, ref INTEGER NOT NULL, sop_instance_uid TEXT NOT NULL,
  reason TEXT NOT NULL, found_at REAL NOT NULL
) STRICT;
CREATE TABLE mark (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
INSERT INTO mark VALUES ('born', coalesce(
  (SELECT at FROM history ORDER BY id LIMIT 1), (julianday('now') - 2440587.5) * 86400.0));
""",
    2: """
ALTER TABLE association ADD COLUMN address TEXT NOT NULL DEFAULT '';
ALTER TABLE instance ADD COLUMN promised INTEGER NOT NULL DEFAULT 0;
ALTER TABLE object ADD COLUMN promised INTEGER NOT NULL DEFAULT 0;
CREATE TABLE promise (
  id INTEGER PRIMARY KEY, state TEXT NOT NULL, transaction_uid TEXT NOT NULL,
  calling_ae TEXT NOT NULL, called_ae TEXT NOT NULL, address TEXT NOT NULL, asked_at REAL NOT NULL,
  digest TEXT NOT NULL, named INTEGER NOT NULL, wanted TEXT NOT NULL, answer TEXT, note TEXT NOT NULL DEFAULT '',
  attempts INTEGER NOT NULL DEFAULT 0, deaths INTEGER NOT NULL DEFAULT 0, next_try REAL NOT NULL DEFAULT 0,
  owner TEXT, lease_until REAL, fence INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX promise_by_state ON promise (state, calling_ae, next_try);
CREATE INDEX promise_asked ON promise (state, asked_at) WHERE state = 'asked';
CREATE INDEX promise_by_transaction ON promise (transaction_uid);
CREATE INDEX promise_held ON promise (fence) WHERE owner IS NOT NULL;
""",
}
"""What leads from each released version to the next."""


def migrate(db: sqlite3.Connection, path: Path, version: int) -> None:
    """Bring a ledger of an older version up to date, inside a running transaction. A copy is made before.

    Raises Stop where the version is unknown or there is no room for the copy; nothing is changed then.
    """
    if version not in STEPS:
        raise Stop(
            f"{path}: ledger of version {version}, this program knows {SCHEMA_VERSION}: "
            "use the program that wrote it, or another state_dir"
        )
    copy = _copy(path, version)
    log.warning("ledger %s: version %d becomes %d; as it was: %s", path, version, SCHEMA_VERSION, copy.name)
    for step in range(version, SCHEMA_VERSION):
        for statement in statements(STEPS[step]):
            db.execute(statement)
    db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def statements(script: str) -> Iterator[str]:
    """The statements of a script, triggers (which hold semicolons) whole."""
    # executescript would commit on its own: one statement at a time stays inside the transaction.
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


def _copy(path: Path, version: int) -> Path:
    """The ledger as it is, as one file beside it, on the disk."""
    part = path.with_name(f"{path.name}.v{version}.part")
    kept = path.with_name(f"{path.name}.v{version}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    part.unlink(missing_ok=True)
    try:
        source = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=60)
        with closing(source), closing(sqlite3.connect(part)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")
        fsync(part)
        part.rename(kept)
        fsync(path.parent)
    except (sqlite3.Error, OSError) as fault:
        part.unlink(missing_ok=True)
        need = path.stat().st_size >> 20
        raise Stop(
            f"{path}: no copy of this older ledger could be made before bringing it up to date ({fault}): "
            f"make room ({need + 1} MiB) and see that the folder can be written"
        ) from fault
    return kept
