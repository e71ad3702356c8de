"""A folder as destination: complete files only, never another object overwritten."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from dicom_node.destinations import Answer, Parcel, open_destination
from dicom_node.errors import PeerBusy, PeerRefused, PeerUnreachable, SpoolDamaged
from dicom_node.records import Receipt
from dicom_node.settings import Folder
from tests.unit.destinations.objects import STUDY, parcel


def _send(root: Path, *parcels: Parcel) -> list[Answer]:
    port = open_destination("disk", Folder(kind="folder", path=root), calling_ae="EVENRAY")
    return [answer for _, answer in port.send(parcels, beat=lambda: None)]


def test_an_object_is_one_file_in_the_folder_of_its_study(tmp_path: Path) -> None:
    sent = parcel(tmp_path, "1.2.3")
    (answer,) = _send(tmp_path / "out", sent)
    assert isinstance(answer, Receipt)
    assert answer.status is None
    written = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert written == [tmp_path / "out" / STUDY / "1.2.3.dcm"]
    assert written[0].read_bytes() == sent.path.read_bytes()


def test_the_same_bytes_again_are_accepted(tmp_path: Path) -> None:
    sent = parcel(tmp_path, "1.2.3")
    first, second = _send(tmp_path / "out", sent, sent)
    assert isinstance(first, Receipt)
    assert isinstance(second, Receipt)
    assert second.accepted


def test_other_bytes_under_the_same_name_are_refused_and_the_first_stay(tmp_path: Path) -> None:
    sent = parcel(tmp_path, "1.2.3")
    _send(tmp_path / "out", sent)
    kept = sent.path.read_bytes()
    other = Parcel(sent.sop_class_uid, sent.sop_instance_uid, parcel(tmp_path, "1.2.3", size=48).path)
    (answer,) = _send(tmp_path / "out", other)
    assert isinstance(answer, PeerRefused)
    assert "another object is there" in str(answer)
    assert (tmp_path / "out" / STUDY / "1.2.3.dcm").read_bytes() == kept


@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.ENOSPC, PeerBusy), (errno.EDQUOT, PeerBusy), (errno.EACCES, PeerBusy), (errno.EROFS, PeerBusy), (errno.EIO, PeerUnreachable)],
)
def test_a_disk_fault_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    def fail(_from: object, into: object, _length: int) -> None:
        into.write(b"half of it")  # type: ignore[attr-defined]
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    (answer,) = _send(tmp_path / "out", parcel(tmp_path, "1.2.3"))
    assert isinstance(answer, kind)
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == []


def test_a_file_in_place_of_the_folder_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    (answer,) = _send(tmp_path / "out", parcel(tmp_path, "1.2.3"))
    assert isinstance(answer, PeerRefused)
    assert "can't be written" in str(answer)


def test_a_missing_or_foreign_file_is_damage_of_the_spool(tmp_path: Path) -> None:
    text = tmp_path / "note.txt"
    text.write_text("no DICOM at all, but longer than a preamble would be\n" * 5)
    missing, foreign = _send(
        tmp_path / "out", Parcel("1.2", "1.2.3", tmp_path / "gone.dcm"), Parcel("1.2", "1.2.3", text)
    )
    assert isinstance(missing, SpoolDamaged)
    assert isinstance(foreign, SpoolDamaged)


@pytest.mark.parametrize("study", ["../../escape", "", "..", "/etc"])
def test_a_study_uid_never_leads_out_of_the_folder(tmp_path: Path, study: str) -> None:
    sent = parcel(tmp_path, "1.2.3")
    # Padded to the length that the element states.
    raw = sent.path.read_bytes().replace(STUDY.encode(), study.encode().ljust(len(STUDY), b"\0"))
    sent.path.write_bytes(raw)
    (answer,) = _send(tmp_path / "out", sent)
    assert isinstance(answer, Receipt)
    inside = list((tmp_path / "out").rglob("*.dcm"))
    assert len(inside) == 1
    assert inside[0].parent == tmp_path / "out" / "no-study-uid"
