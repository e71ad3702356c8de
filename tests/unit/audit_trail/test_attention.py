"""What a person is told of the audit trail: a repository that is away, and messages that were lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.audit_trail.attention import attention, look
from dicom_node.audit_trail.spool import MessageSpool, Trouble
from dicom_node.errors import PeerUnreachable
from dicom_node.settings_peers import Audit
from tests.audit import repository
from tests.peers import free_port

AUDIT = Audit(transport="udp")
SPOOL = "audit/spool"
NOW = 1_700_000_000.0


def _told(folder: Path, *, now: float = NOW, audit: Audit = AUDIT) -> list[tuple[str, str]]:
    return [(row["state"], row["note"]) for row in attention(folder, audit, now=now)]


def test_while_all_is_well_nothing_is_said(tmp_path: Path) -> None:
    assert _told(tmp_path) == []
    MessageSpool(tmp_path / SPOOL, limit_bytes=100).add([b"x"], now=NOW)
    assert _told(tmp_path) == []


def test_a_repository_that_is_away_for_long_is_said_with_the_reason(tmp_path: Path) -> None:
    spool = MessageSpool(tmp_path / SPOOL, limit_bytes=10_000)
    spool.add([b"x"] * 70, now=NOW)
    spool.note(Trouble(down_since=NOW - 30, reason="nobody listens"))
    assert _told(tmp_path) == [], "it may only be restarted"
    assert _told(tmp_path, now=NOW + 60) == [("away", "70 messages wait since 2023-11-14 22:12 UTC: nobody listens")]
    assert _told(tmp_path, now=NOW + 60, audit=Audit()) == []


def test_lost_messages_are_said_for_a_week(tmp_path: Path) -> None:
    MessageSpool(tmp_path / SPOOL, limit_bytes=100).note(Trouble(lost=7, lost_at=NOW))
    ((state, note),) = _told(tmp_path, now=NOW + 6 * 86400)
    assert state == "lost"
    assert note.startswith("7 messages left undelivered")
    assert _told(tmp_path, now=NOW + 8 * 86400) == []


def test_whether_a_repository_is_there_can_be_asked(tmp_path: Path) -> None:
    with repository(tmp_path) as server:
        assert look(Audit.model_validate(server.settings())).endswith("by tls")
        assert not server.messages
    absent = Audit.model_validate({**server.settings(), "port": free_port()})
    with pytest.raises(PeerUnreachable, match="refused"):
        look(absent)
    assert "never says" in look(AUDIT)
