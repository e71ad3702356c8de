"""Evenray's own reports are found in an archive and fetched into a folder, by whichever way the archive has."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.errors import BadInput, EvenrayError, PeerRefused
from dicom_node.marks import uid_from_hash
from dicom_node.sources.dimse import DimseSource
from dicom_node.sources.query import wanted
from dicom_node.sources.reports import fetch_reports, find_reports
from tests import dicom_files
from tests.node import data_set, uid_of
from tests.peers import free_port
from tests.query_retrieve import Archive

SR = "1.2.840.10008.5.1.4.1.1.88.34"
OURS = uid_from_hash(b"a report of ours")


def _report(folder: Path, uid: str, manufacturer: str, series: str) -> Path:
    ds = dicom_files.dataset("CR", study="1.2.3", series=series, instance=uid, Modality="SR", Manufacturer=manufacturer)
    del ds.PixelData
    ds.SOPClassUID = SR
    return dicom_files.write(folder / f"{uid}.dcm", ds)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "files"
    folder.mkdir()
    image = dicom_files.dataset("CR", study="1.2.3", series="1.2.3.1", instance="1.2.3.1.1", Manufacturer="Evenray")
    return [
        _report(folder, "1.2.3.2.1", "EVENRAY", "1.2.3.2"),
        _report(folder, "1.2.3.3.1", "Another", "1.2.3.3"),
        _report(folder, OURS, "Coerced by a PACS", "1.2.3.4"),
        _report(folder, "1.2.3.5.1", "", "1.2.3.5"),
        dicom_files.write(folder / "image.dcm", image),
    ]


def test_reports_of_ours_and_those_that_may_be_are_found(files: list[Path]) -> None:
    with Archive(files) as archive:
        source = DimseSource("pacs", archive.setting(), calling_ae="AUDIT")
        found = find_reports(source, wanted(studies=("1.2.3",)))
    assert {one.sop_instance_uid for one in found} == {"1.2.3.2.1", OURS, "1.2.3.5.1"}


@pytest.mark.parametrize("gets", [True, False])
def test_reports_are_fetched_into_a_folder_byte_for_byte(tmp_path: Path, files: list[Path], gets: bool) -> None:
    port = free_port()
    target = tmp_path / "out"
    target.mkdir()
    with Archive(files, gets=gets, moves=("AUDIT", port)) as archive:
        setting = archive.setting(method="auto")
        source = DimseSource("pacs", setting, calling_ae="AUDIT")
        images = find_reports(source, wanted(studies=("1.2.3",)))
        done = fetch_reports("pacs", setting, images, target, calling_ae="AUDIT", port=None if gets else port)
    fetched = {image.sop_instance_uid: path for image, path in done}
    by_uid = {uid_of(path): path for path in files}
    assert len(fetched) == 3
    for uid, path in fetched.items():
        assert isinstance(path, Path)
        assert path == target / f"{uid}.dcm"
        assert data_set(path) == data_set(by_uid[uid])
    assert len(list(target.iterdir())) == 3


def test_without_a_port_an_archive_that_only_moves_is_refused_with_the_remedy(
    tmp_path: Path, files: list[Path]
) -> None:
    with Archive(files, gets=False, moves=("AUDIT", 1)) as archive:
        source = DimseSource("pacs", archive.setting(), calling_ae="AUDIT")
        images = find_reports(source, wanted(studies=("1.2.3",)))[:1]
        ((_, fault),) = fetch_reports("pacs", archive.setting(), images, tmp_path, calling_ae="AUDIT")
    assert isinstance(fault, PeerRefused)
    assert "give the port" in str(fault)
    assert [what for what, _ in archive.asked if what != "C-FIND"] == []


def test_a_port_that_is_taken_is_said_so(tmp_path: Path, files: list[Path]) -> None:
    with Archive(files) as archive:
        images = find_reports(DimseSource("pacs", archive.setting(), calling_ae="AUDIT"), wanted(studies=("1.2.3",)))
        with pytest.raises(BadInput, match="can't listen"):
            fetch_reports("pacs", archive.setting(), images, tmp_path, calling_ae="AUDIT", port=archive.port)


def test_a_folder_that_takes_nothing_is_no_success(tmp_path: Path, files: list[Path]) -> None:
    with Archive(files) as archive:
        images = find_reports(DimseSource("pacs", archive.setting(), calling_ae="AUDIT"), wanted(studies=("1.2.3",)))
        done = fetch_reports("pacs", archive.setting(), images, tmp_path / "nowhere", calling_ae="AUDIT")
    assert all(isinstance(answer, EvenrayError) for _, answer in done)
    assert {status for _, status in archive.given} == {0xA700}
