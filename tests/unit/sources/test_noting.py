"""A question to an archive is noted as it was asked, whether or not it was answered, and only for an audit trail."""

from __future__ import annotations

from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.dsutils import decode

from dicom_node.audit_trail import Notes, notes
from dicom_node.errors import PeerUnreachable
from dicom_node.settings import Settings
from dicom_node.sources.noting import noted
from dicom_node.sources.query import wanted

ARCHIVE = {"kind": "dimse", "ae_title": "PACS", "host": "127.0.0.1", "port": 104}
WEB = {"kind": "dicomweb", "url": "http://127.0.0.1:8042/dicom-web/"}


def _settings(folder: Path, archive: dict[str, Any], transport: str = "udp") -> Settings:
    raw = {"state_dir": str(folder), "sources": {"archive": archive}, "audit": {"transport": transport}}
    return Settings.model_validate(raw)


def _ask(settings: Settings, fault: Exception | None = None, **asked: Any) -> list[dict[str, Any]]:
    made = Notes(settings)
    try:
        with noted(made, "archive", settings.sources["archive"], wanted(**asked)):
            if fault:
                raise fault
    except PeerUnreachable:
        assert fault
    return [notes.read(path) for path in made.pending()]


def test_a_question_by_c_find_is_noted_as_its_identifier(tmp_path: Path) -> None:
    (note,) = _ask(_settings(tmp_path, ARCHIVE), patient="P1", dates="20240101-20240131")
    assert (note["kind"], note["archive"], note["why"]) == ("query", "archive", "")
    assert note["syntax"] == ExplicitVRLittleEndian
    identifier = decode(BytesIO(b64decode(note["query"])), False, True)
    assert (identifier.PatientID, identifier.StudyDate) == ("P1", "20240101-20240131")
    assert identifier.QueryRetrieveLevel == "STUDY"


def test_a_question_by_qido_is_noted_as_its_address(tmp_path: Path) -> None:
    (note,) = _ask(_settings(tmp_path, WEB), studies=("1.2.3", "1.2.4"), accession="A 1")
    address = urlsplit(b64decode(note["query"]).decode())
    assert address.path == "/dicom-web/studies"
    assert parse_qs(address.query) == {"StudyInstanceUID": ["1.2.3,1.2.4"], "AccessionNumber": ["A 1"]}
    assert note["syntax"] == ""


def test_a_question_that_fails_is_noted_with_what_was_wrong(tmp_path: Path) -> None:
    (note,) = _ask(_settings(tmp_path, ARCHIVE), PeerUnreachable("PACS: nobody there"), patient="P1")
    assert note["why"] == "PACS: nobody there"


@pytest.mark.parametrize("archive", [ARCHIVE, WEB])
def test_without_an_audit_trail_no_question_is_written_down(tmp_path: Path, archive: dict[str, Any]) -> None:
    assert _ask(_settings(tmp_path, archive, "none"), patient="P1") == []
    assert not list(tmp_path.iterdir())
