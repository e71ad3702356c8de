"""Which of a person's files the demo sends, and under which UID."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.demo.gather import gather
from dicom_node.demo.given import Given
from dicom_node.demo.place import Place
from dicom_node.demo.study import make_study
from dicom_node.errors import BadInput

SMALL = (160, 134)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path / "out")
    made.sent.mkdir(parents=True)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "in"
    made.mkdir()
    make_study(made, size=SMALL)
    return made


def changed(source: Path, target: Path) -> None:
    """Another image under the same UID."""
    image = dcmread(source)
    image.ImageComments = "another"
    image.save_as(target)


def test_a_repeated_uid_gets_one_of_its_own_in_a_copy(folder: Path, place: Place) -> None:
    (folder / "1-again.dcm").write_bytes(b"")
    changed(folder / "1-norlund.dcm", folder / "1-again.dcm")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    found = gather(folder, place)
    assert len({one.uid for one in found.given}) == len(found.given) == 6
    assert [dcmread(one.path).SOPInstanceUID for one in found.given] == [one.uid for one in found.given]
    assert [dcmread(one.path).file_meta.MediaStorageSOPInstanceUID for one in found.given] == [
        one.uid for one in found.given
    ]
    assert found.same_uid == ["1-norlund.dcm"]
    assert found.remarks() == [
        "1 file carries a UID that another file carries already; a copy with a UID of its own is sent: 1-norlund.dcm"
    ]
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert [one.uid for one in gather(folder, place).given] == [one.uid for one in found.given]


def test_a_compressed_file_without_meta_keeps_its_syntax_under_the_new_uid(folder: Path, place: Place) -> None:
    changed(folder / "2-umbra.dcm", folder / "2-again.dcm")
    found = gather(folder, place)
    again = next(one for one in found.given if one.path.parent == place.sent)
    assert (
        dcmread(again.path).file_meta.TransferSyntaxUID == dcmread(folder / "2-umbra.dcm").file_meta.TransferSyntaxUID
    )
    assert dcmread(again.path).PixelData == dcmread(folder / "2-umbra.dcm").PixelData


def test_copies_and_other_files_are_left_out_and_counted(folder: Path, place: Place) -> None:
    (folder / "copy.dcm").write_bytes((folder / "3-pallas.dcm").read_bytes())
    (folder / "readme.txt").write_text("no image")
    (folder / "empty.dcm").write_bytes(b"")
    found = gather(folder, place)
    assert len(found.given) == 5
    assert found.remarks() == [
        "2 files are no DICOM object, left out: empty.dcm, readme.txt",
        "1 file holds the same data set as another file, left out: copy.dcm",
    ]


def test_a_folder_without_dicom_and_the_demos_own_folder_are_bad_input(tmp_path: Path, place: Place) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("nothing")
    with pytest.raises(BadInput, match="none of its 1 file"):
        gather(tmp_path / "notes", place)
    with pytest.raises(BadInput, match="own folder"):
        gather(place.sent, place)
    with pytest.raises(BadInput, match="no such file"):
        gather(tmp_path / "nowhere", place)


@pytest.mark.parametrize(
    ("name", "slug"), [("Umbra", "3-umbra"), ("CR MONO1/10.dcm", "3-cr-mono1-10"), ("äöü.dcm", "3-image")]
)
def test_a_picture_is_named_after_its_image(name: str, slug: str) -> None:
    assert Given(3, name, Path("x.dcm"), "1.2").slug == slug
