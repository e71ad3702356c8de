"""Texts are read in the character set that they are in, whatever is stated; and in the stated one where it can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from dicom_node.tolerant import items, read, text
from tests import dicom_files

NAME = "Jérôme^Zoé"
MARK = "83625174" * 2


def written(path: Path, value: bytes, charset: str | list[str] | None, syntax: str, **more: Any) -> Path:
    """A file whose Patient's Name, or what else holds the mark, are these bytes."""
    assert len(value) <= len(MARK)
    stated = {} if charset is None else {"SpecificCharacterSet": charset}
    whole = dicom_files.content(dicom_files.dataset(**{"PatientName": MARK, **stated, **more}), syntax)
    path.write_bytes(whole.replace(MARK.encode(), value.ljust(len(MARK))))
    return path


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
@pytest.mark.parametrize(
    ("value", "charset"),
    [
        (NAME.encode(), None),
        (NAME.encode(), ""),
        (NAME.encode(), "ISO_IR 6"),
        (NAME.encode(), "ISO_IR 999"),
        (NAME.encode(), "ISO_IR 192"),
        (NAME.encode("latin-1"), None),
        (NAME.encode("latin-1"), "ISO_IR 6"),
        (NAME.encode("latin-1"), "NONSENSE"),
        (NAME.encode("latin-1"), "ISO_IR 192"),
        (NAME.encode("latin-1"), "ISO_IR 100"),
        (NAME.encode("latin-1"), "ISO-IR 100"),
    ],
)
def test_a_name_is_read_as_what_its_bytes_are(tmp_path: Path, value: bytes, charset: str | None, syntax: str) -> None:
    dataset, _ = read(written(tmp_path / "a.dcm", value, charset, syntax))
    assert text(dataset, "PatientName") == NAME


def test_what_the_stated_set_can_hold_is_not_guessed_at(tmp_path: Path) -> None:
    dataset, _ = read(written(tmp_path / "a.dcm", NAME.encode(), "ISO_IR 100", uid.ExplicitVRLittleEndian))
    assert text(dataset, "PatientName") == NAME.encode().decode("latin-1")


def test_the_set_that_was_found_holds_in_sequences_too(tmp_path: Path) -> None:
    item = Dataset()
    item.InstitutionName = MARK
    file = written(tmp_path / "a.dcm", NAME.encode(), None, uid.ExplicitVRLittleEndian, ReferencedStudySequence=[item])
    dataset, _ = read(file)
    (found,) = items(dataset, "ReferencedStudySequence")
    assert text(found, "InstitutionName") == text(dataset, "PatientName") == NAME


def test_no_escape_sequence_stays_in_a_text(tmp_path: Path) -> None:
    value = b"Wang=\x1b$)A\xcd\xf5"
    dataset, _ = read(written(tmp_path / "a.dcm", value, ["", "ISO 2022 IR 58"], uid.ExplicitVRLittleEndian))
    assert text(dataset, "PatientName") == "Wang=王"


def test_binary_values_have_no_say_in_it(tmp_path: Path) -> None:
    ds = dicom_files.dataset(PatientName="Doe^Jane", LargestImagePixelValue=0x8FFF)
    dataset, _ = read(dicom_files.write(tmp_path / "a.dcm", ds, uid.ImplicitVRLittleEndian))
    assert dataset.original_character_set == "iso8859"
