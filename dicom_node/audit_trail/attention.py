"""What a person should know of the audit trail, from what its spool noted. Changes nothing and names no patient."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dicom_node.audit_trail.notes import FOLDER
from dicom_node.audit_trail.spool import SHOWN_S, segments, trouble
from dicom_node.audit_trail.syslog import open_repository
from dicom_node.settings_peers import Audit

PATIENCE_S = 60.0
"""A repository that is away for longer is a person's business."""


def attention(state_dir: Path, audit: Audit, *, now: float) -> list[dict[str, Any]]:
    """In the form of the ledger's own list; [] while all is well, or where no messages are wanted."""
    folder = state_dir / FOLDER / "spool"
    if audit.transport == "none" or not folder.exists():
        return []
    found, known = [], trouble(folder)
    if known.down_since and now - known.down_since > PATIENCE_S:
        count = sum(one.messages for one in segments(folder))
        found.append(_row("away", f"{count} messages wait since {_at(known.down_since)}: {known.reason}"))
    if known.lost and now - known.lost_at < SHOWN_S:
        why = "the audit repository took nothing and audit.spool_mib was reached"
        found.append(_row("lost", f"{known.lost} messages left undelivered until {_at(known.lost_at)}: {why}"))
    return found


def _row(state: str, note: str) -> dict[str, Any]:
    return {"what": "audit", "id": 0, "state": state, "uid": "", "note": note, "attempts": 0}


def _at(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def look(audit: Audit) -> str:
    """Connect to the repository as the node would, and send nothing. Raises PeerUnreachable."""
    repository = open_repository(audit)
    try:
        repository.send([])
    finally:
        repository.close()
    where = f"{audit.host}:{audit.port} by {audit.transport}"
    return where if repository.confirms else f"{where}, which never says whether anybody listens"
