"""Files and folders of all kinds sent to an archive, as `evenray send` does."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.demo.archive import Archive
from dicom_node.errors import BadInput, PeerUnreachable
from dicom_node.records import Receipt
from dicom_node.sending import Sent, send_files
from dicom_node.settings import Dimse
from tests.peers import LOOPBACK, free_port
from tests.unit.destinations.objects import data_set, parcel


def test_a_folder_is_sent_whole_and_every_file_has_a_result(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    (folder / "deep").mkdir(parents=True)
    plain = parcel(folder, "1.2.1")
    implicit = parcel(folder / "deep", "1.2.2", ImplicitVRLittleEndian)
    bare = parcel(folder, "1.2.3", ImplicitVRLittleEndian)
    explicit = parcel(folder, "1.2.4", ExplicitVRLittleEndian)
    expected = {p.sop_instance_uid: data_set(p.path) for p in (plain, implicit, bare, explicit)}
    for stripped in (bare, explicit):
        # As some modalities and all old archives write: no preamble, no File Meta Information.
        stripped.path.write_bytes(data_set(stripped.path))
    (folder / "README.txt").write_text("not an image")
    (folder / "empty").write_bytes(b"")
    seen: list[Sent] = []
    archive = Archive(tmp_path / "pacs", "PACS", LOOPBACK, free_port())
    archive.start()
    try:
        where = Dimse(kind="dimse", ae_title="PACS", host=LOOPBACK, port=archive.port)
        results = send_files([folder, plain.path], where, calling_ae="EVENRAY_SCU", progress=seen.append)
        held = {h.sop_instance_uid: data_set(h.path) for h in archive.instances()}
    finally:
        archive.stop()
    assert held == expected
    assert results == seen
    assert sorted((r.sop_instance_uid, r.path.name) for r in results if isinstance(r.answer, Receipt)) == [
        ("1.2.1", "1.2.1.dcm"),
        ("1.2.2", "1.2.2.dcm"),
        ("1.2.3", "1.2.3.dcm"),
        ("1.2.4", "1.2.4.dcm"),
    ]
    assert sorted(r.path.name for r in results if r.answer is None) == ["README.txt", "empty"]


def test_a_file_whose_meta_names_another_object_is_sent_as_what_it_is(tmp_path: Path) -> None:
    wrong = parcel(tmp_path, "1.2.1")
    raw = wrong.path.read_bytes()
    # The first occurrence is in the File Meta Information.
    wrong.path.write_bytes(raw.replace(b"1.2.1\0", b"1.2.9\0", 1))
    assert dcmread(wrong.path).file_meta.MediaStorageSOPInstanceUID == "1.2.9"
    archive = Archive(tmp_path / "pacs", "PACS", LOOPBACK, free_port())
    archive.start()
    try:
        where = Dimse(kind="dimse", ae_title="PACS", host=LOOPBACK, port=archive.port)
        (result,) = send_files([wrong.path], where, calling_ae="EVENRAY_SCU")
    finally:
        archive.stop()
    assert isinstance(result.answer, Receipt)
    assert result.sop_instance_uid == "1.2.1"
    assert [h.sop_instance_uid for h in archive.instances()] == ["1.2.1"]


def test_a_dead_peer_is_a_result_and_a_missing_path_is_bad_input(tmp_path: Path) -> None:
    where = Dimse(kind="dimse", ae_title="PACS", host=LOOPBACK, port=free_port())
    (result,) = send_files([parcel(tmp_path, "1.2.1").path], where, calling_ae="EVENRAY_SCU")
    assert isinstance(result.answer, PeerUnreachable)
    with pytest.raises(BadInput, match="no such file"):
        send_files([tmp_path / "nowhere"], where, calling_ae="EVENRAY_SCU")
