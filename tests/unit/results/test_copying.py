"""What a result takes over from an original whose values may be invalid."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.results import copying
from dicom_node.tolerant import quiet
from tests import dicom_files


def copied(**attributes: Any) -> tuple[Dataset, tuple[str, ...]]:
    source = dicom_files.dataset(**attributes)
    reread = dcmread(BytesIO(dicom_files.content(source)))
    result = Dataset()
    copier = copying.patient_and_study(reread, result)
    return result, copier.notes


@pytest.mark.parametrize(
    ("keyword", "stated", "expected"),
    [
        ("PatientAge", "60", "060Y"),
        ("PatientAge", "58Y", "058Y"),
        ("PatientAge", "003M", "003M"),
        ("StudyDate", "1993.02.24", "19930224"),
        ("StudyDate", "1993-02-24", "19930224"),
        ("StudyTime", "10:47:02", "104702"),
        ("StudyTime", "104702.826", "104702.826"),
        ("PatientSex", "m", "M"),
        ("StudyDescription", "x" * 70, "x" * 64),
    ],
)
def test_a_value_whose_meaning_is_certain_is_repaired(keyword: str, stated: str, expected: str) -> None:
    result, notes = copied(**{keyword: stated})
    assert str(result[keyword].value) == expected
    assert notes == ((f"{keyword} was repaired",) if stated != expected else ())


@pytest.mark.parametrize(
    ("keyword", "stated"),
    [
        ("PatientAge", "sixty"),
        ("PatientAge", "999"),
        ("PatientBirthDate", "00000000"),
        ("PatientBirthDate", "20230230"),
        ("StudyTime", "256199"),
        ("PatientSex", "X"),
        ("AccessionNumber", "1" * 17),
        ("PatientID", "P" * 65),
    ],
)
def test_a_value_whose_meaning_is_not_certain_is_left_out_and_named(keyword: str, stated: str) -> None:
    result, notes = copied(**{keyword: stated})
    assert not result.get(keyword)
    assert notes == (f"{keyword} is invalid in the original and was left out",)
    assert stated not in "".join(notes)


def test_type_2_attributes_are_present_though_the_original_lacks_them() -> None:
    result, notes = copied(**dict.fromkeys(copying.IDENTITY_2))
    assert all(keyword in result for keyword in copying.IDENTITY_2)
    assert not any(result[keyword].value for keyword in copying.IDENTITY_2)
    assert notes == ()


@pytest.mark.parametrize("keyword", copying.IDENTITY_2)
@pytest.mark.parametrize("removed", [True, False])
def test_absent_and_empty_look_the_same_to_a_reader(keyword: str, removed: bool) -> None:
    source = dicom_files.dataset(**{keyword: None if removed else ""})
    result, _ = copied(**{keyword: None if removed else ""})
    assert str(source.get(keyword, "")) == str(result.get(keyword, "") or "")


def test_odd_groups_and_private_elements_are_never_copied() -> None:
    source = dicom_files.dataset()
    source.add_new(0x00050010, "LO", "ODD GROUP")
    source.add_new(0x00091001, "LO", "PRIVATE")
    result = Dataset()
    copying.patient_and_study(source, result)
    assert not [found for found in result if found.tag.group % 2 or found.tag.group < 8]


def test_an_incomplete_code_is_left_out_and_named() -> None:
    broken = Dataset()
    broken.CodeValue = "1"
    result, notes = copied(ProcedureCodeSequence=[broken, dicom_files.code("2", "99X", "y")])
    assert [item.CodeValue for item in result.ProcedureCodeSequence] == ["2"]
    assert notes == ("ProcedureCodeSequence has an incomplete code, which was left out",)


@pytest.mark.parametrize(
    ("stated", "name"),
    [
        ("ISO_IR 100", "Buc^Jérôme"),
        ("ISO_IR 144", "Дуэ^Юлия"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        ("ISO_IR 192", "Jérôme=山田"),
    ],
)
def test_the_character_set_of_the_original_is_kept(stated: Any, name: str) -> None:
    source = dicom_files.dataset(SpecificCharacterSet=stated, PatientName=name)
    reread = dcmread(BytesIO(dicom_files.content(source)))
    result = Dataset()
    copying.patient_and_study(reread, result)
    assert copying.choose_charset(reread, result) is None
    assert result.SpecificCharacterSet == stated
    buffer = BytesIO()
    result.save_as(buffer, implicit_vr=False, little_endian=True)
    buffer.seek(0)
    again = dcmread(buffer, force=True)
    assert str(again.PatientName) == name


@pytest.mark.parametrize("stated", [None, "ISO_IR 6", "NO_SUCH_SET"])
def test_text_that_the_character_set_cannot_hold_is_written_as_unicode(stated: str | None) -> None:
    source = dicom_files.dataset()
    if stated:
        source.SpecificCharacterSet = stated
    result = Dataset()
    result.PatientName = "Jérôme"
    note = copying.choose_charset(source, result)
    assert result.SpecificCharacterSet == "ISO_IR 192"
    assert note is not None
    assert "Jérôme" not in note


def test_plain_text_needs_no_character_set() -> None:
    result = Dataset()
    result.PatientName = "Doe^Jane"
    assert copying.choose_charset(dicom_files.dataset(), result) is None
    assert "SpecificCharacterSet" not in result


def test_the_moment_is_the_latest_that_the_original_states() -> None:
    assert copying.moment(dicom_files.dataset()) == ("20240203", "101611")
    assert copying.moment(dicom_files.dataset(ContentDate="bad", StudyTime="")) == ("20240203", "000000")
    assert copying.moment(dicom_files.dataset(ContentDate=None, StudyDate=None)) is None


def test_a_removed_identity_without_method_is_not_claimed() -> None:
    result, notes = copied(PatientIdentityRemoved="YES")
    assert "PatientIdentityRemoved" not in result
    assert notes


@pytest.mark.parametrize(
    ("keyword", "stated"),
    [("AccessionNumber", ["A1", "B2"]), ("PatientName", ["Doe", "Roe"]), ("StudyDescription", ["a", "b"])],
)
def test_several_values_where_there_is_one_are_left_out(keyword: str, stated: list[str]) -> None:
    result, notes = copied(**{keyword: stated})
    assert not result.get(keyword)
    assert notes == (f"{keyword} is invalid in the original and was left out",)


@pytest.mark.parametrize(
    ("stated", "kept"),
    [
        *((zone, True) for zone in ("+0130", "-1200", "+1400", "+0000")),
        *((zone, False) for zone in ("+1430", "-0000", "+9999", "+0160", "CET")),
    ],
)
def test_a_time_zone_is_one_of_the_earth(stated: str, kept: bool) -> None:
    result, notes = copied(TimezoneOffsetFromUTC=stated)
    assert result.get("TimezoneOffsetFromUTC") == (stated if kept else None)
    assert bool(notes) is not kept


def test_values_are_checked_by_their_vr_not_by_luck() -> None:
    assert copying.repaired("Modality", "cr") == "CR"
    assert copying.repaired("Modality", "C-R") is None
    assert copying.repaired("PatientName", "a=b=c=d") is None
    assert copying.repaired("PatientName", "a^b^c^d^e^f") is None
    assert copying.repaired("PatientName", "a^b^c^d^e=f") == "a^b^c^d^e=f"
    assert copying.repaired("PatientOrientation", "X") is None
    assert copying.repaired("AcquisitionDateTime", "20240203101500.5+0100") == "20240203101500.5+0100"
    assert copying.repaired("AcquisitionDateTime", "3 February") is None
    assert copying.repaired("PixelSpacing", "0.123456789012345678") == "0.12345678901235"
    assert copying.repaired("SeriesNumber", "99999999999") is None
    assert copying.repaired("ReferencedSOPInstanceUID", "1.02") is None
    assert ExplicitVRLittleEndian == copying.repaired("ReferencedSOPInstanceUID", ExplicitVRLittleEndian)


def test_a_code_is_never_cut_to_another_code() -> None:
    source, result = Dataset(), Dataset()
    with quiet():
        source.ViewCodeSequence = [dicom_files.code("123456789012345678", "SCT", "view")]
        copier = copying.Copier(source)
        copier.copy_codes(result, ("ViewCodeSequence",))
    assert "ViewCodeSequence" not in result
    assert copier.notes == ("ViewCodeSequence has an incomplete code, which was left out",)
