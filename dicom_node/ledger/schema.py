"""The shape of the ledger: tables, indexes and triggers of the present version. Knows no connection and no row.

Every query of the loops has its index here, so that none of them looks at more rows than it takes, however many there
are. What changes here is a new version, with a step in `migrations`.
"""

from __future__ import annotations

SCHEMA_VERSION = 3

HOLDS = (
    "digest IS NOT NULL"
    " AND state IN ('waiting', 'claimed', 'decided', 'reported', 'parked', 'conflict', 'own', 'expired')"
)
"""An instance that was looked at and holds its own bytes, or held them until retention: what a repetition is
compared with."""
OUTCOME = "json_extract(decision, '$.outcome')"
"""The outcome of a decided instance."""

# `promised`: a peer was told that we keep it, and may have deleted its own copy.
# `undecided` counts the instances that a batch still waits for; a trigger keeps it, so no step can forget it.
SCHEMA = f"""
CREATE TABLE association (
  id TEXT PRIMARY KEY, listener TEXT NOT NULL, calling_ae TEXT NOT NULL, called_ae TEXT NOT NULL,
  opened_at REAL NOT NULL, ended_at REAL, how TEXT, address TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX association_open ON association (listener) WHERE ended_at IS NULL;
CREATE INDEX association_ended ON association (ended_at) WHERE ended_at IS NOT NULL;
CREATE TABLE batch (
  id INTEGER PRIMARY KEY, study_key TEXT NOT NULL, study_instance_uid TEXT NOT NULL, number INTEGER NOT NULL,
  state TEXT NOT NULL, first_at REAL NOT NULL, last_at REAL NOT NULL, note TEXT NOT NULL DEFAULT '',
  attempts INTEGER NOT NULL DEFAULT 0, deaths INTEGER NOT NULL DEFAULT 0, next_try REAL NOT NULL DEFAULT 0,
  owner TEXT, lease_until REAL, fence INTEGER NOT NULL DEFAULT 0, settled_at REAL,
  undecided INTEGER NOT NULL DEFAULT 0, cleared INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX one_open_batch ON batch (study_key) WHERE state = 'open';
CREATE INDEX batch_by_state ON batch (state, undecided, next_try);
CREATE INDEX batch_by_last ON batch (state, last_at);
CREATE INDEX batch_by_first ON batch (state, first_at);
CREATE INDEX batch_by_study ON batch (study_key, number);
CREATE INDEX batch_held ON batch (fence) WHERE owner IS NOT NULL;
CREATE TABLE instance (
  id INTEGER PRIMARY KEY, state TEXT NOT NULL, sop_class_uid TEXT NOT NULL, sop_instance_uid TEXT NOT NULL,
  transfer_syntax_uid TEXT NOT NULL, calling_ae TEXT NOT NULL, called_ae TEXT NOT NULL, association TEXT NOT NULL,
  path TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, received_at REAL NOT NULL,
  digest TEXT, header TEXT, batch INTEGER REFERENCES batch, decision TEXT, note TEXT NOT NULL DEFAULT '',
  let_in INTEGER NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0, deaths INTEGER NOT NULL DEFAULT 0, next_try REAL NOT NULL DEFAULT 0,
  owner TEXT, lease_until REAL, fence INTEGER NOT NULL DEFAULT 0, promised INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX instance_by_state ON instance (state, next_try);
CREATE INDEX instance_unread ON instance (received_at) WHERE state IN ('received', 'reading');
CREATE INDEX instance_holding ON instance (sop_instance_uid, digest) WHERE {HOLDS};
CREATE INDEX instance_by_batch ON instance (batch, association) WHERE batch IS NOT NULL;
CREATE INDEX instance_by_outcome ON instance ({OUTCOME}) WHERE decision IS NOT NULL;
CREATE INDEX instance_held ON instance (fence) WHERE owner IS NOT NULL;
CREATE TRIGGER instance_is_awaited AFTER UPDATE OF state, batch ON instance
  WHEN (old.batch IS NOT NULL AND old.state IN ('waiting', 'claimed'))
    <> (new.batch IS NOT NULL AND new.state IN ('waiting', 'claimed')) OR old.batch <> new.batch
  BEGIN
    UPDATE batch SET undecided = undecided - 1 WHERE id = old.batch AND old.state IN ('waiting', 'claimed');
    UPDATE batch SET undecided = undecided + 1 WHERE id = new.batch AND new.state IN ('waiting', 'claimed');
  END;
CREATE TABLE object (
  id INTEGER PRIMARY KEY, kind TEXT NOT NULL, sop_class_uid TEXT NOT NULL, sop_instance_uid TEXT NOT NULL,
  path TEXT NOT NULL UNIQUE, instance INTEGER REFERENCES instance, batch INTEGER REFERENCES batch,
  made_at REAL NOT NULL, state TEXT NOT NULL DEFAULT 'kept', digest TEXT, promised INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX object_by_instance ON object (instance);
CREATE INDEX object_by_uid ON object (sop_instance_uid);
CREATE TABLE delivery (
  id INTEGER PRIMARY KEY, destination TEXT NOT NULL, object INTEGER NOT NULL REFERENCES object, state TEXT NOT NULL,
  status INTEGER, note TEXT NOT NULL DEFAULT '',
  transaction_uid TEXT, asked_at REAL, asked INTEGER NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0, deaths INTEGER NOT NULL DEFAULT 0, next_try REAL NOT NULL DEFAULT 0,
  owner TEXT, lease_until REAL, fence INTEGER NOT NULL DEFAULT 0,
  UNIQUE (destination, object)
) STRICT;
CREATE INDEX delivery_by_state ON delivery (state, destination, next_try);
CREATE INDEX delivery_held ON delivery (fence) WHERE owner IS NOT NULL;
CREATE TABLE commitment (
  transaction_uid TEXT NOT NULL, delivery INTEGER NOT NULL REFERENCES delivery, PRIMARY KEY (transaction_uid, delivery)
) STRICT;
CREATE INDEX object_by_batch ON object (batch) WHERE batch IS NOT NULL;
CREATE INDEX delivery_by_object ON delivery (object);
CREATE INDEX batch_settled ON batch (settled_at) WHERE settled_at IS NOT NULL AND cleared = 0;
CREATE INDEX batch_unsettled ON batch (id) WHERE state = 'reported' AND settled_at IS NULL;
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
CREATE TABLE damage (
  path TEXT PRIMARY KEY, what TEXT NOT NULL, ref INTEGER NOT NULL, sop_instance_uid TEXT NOT NULL,
  reason TEXT NOT NULL, found_at REAL NOT NULL
) STRICT;
CREATE TABLE mark (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
INSERT INTO mark VALUES ('born', (julianday('now') - 2440587.5) * 86400.0);
CREATE TABLE fence (value INTEGER NOT NULL) STRICT;
INSERT INTO fence VALUES (0);
CREATE TABLE history (
  id INTEGER PRIMARY KEY, at REAL NOT NULL, what TEXT NOT NULL, ref INTEGER NOT NULL,
  before TEXT, step TEXT NOT NULL, after TEXT NOT NULL, detail TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX history_by_ref ON history (what, ref);
CREATE TRIGGER history_is_never_updated BEFORE UPDATE ON history
  BEGIN SELECT RAISE(ABORT, 'history is append-only'); END;
CREATE TRIGGER history_is_never_deleted BEFORE DELETE ON history
  BEGIN SELECT RAISE(ABORT, 'history is append-only'); END;
"""
