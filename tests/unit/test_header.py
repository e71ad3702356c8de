"""The header as routing reads it, from files as they really are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from dicom_node import marks
from dicom_node.errors import Unreadable
from dicom_node.header import dataset_digest, read_header
from dicom_node.ledger.rows import header_from_json, header_to_json
from tests import dicom_files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.dcm"


def test_the_header_states_what_the_file_states(file: Path) -> None:
    header = read_header(dicom_files.write(file, dicom_files.dataset("MG")))
    assert (header.modality, header.body_part, header.view, header.laterality) == ("MG", "BREAST", "MLO", "L")
    assert (header.rows, header.columns, header.frames, header.samples_per_pixel) == (32, 48, 1, 1)
    assert header.presentation_intent == "FOR PRESENTATION"
    assert header.transfer_syntax_uid == uid.ExplicitVRLittleEndian
    assert header.has_pixels
    assert not header.made_by_evenray


@pytest.mark.parametrize(
    "syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian]
)
def test_every_encoding_gives_the_same_header(file: Path, syntax: str) -> None:
    header = read_header(dicom_files.write(file, dicom_files.dataset(), syntax))
    assert (header.sop_instance_uid, header.modality, header.has_pixels) == ("1.2.3.4.1", "CR", True)
    assert header.transfer_syntax_uid == syntax


def test_a_bare_data_set_is_read_as_implicit_little_endian(file: Path) -> None:
    header = read_header(dicom_files.without_meta(file, dicom_files.dataset()))
    assert header.transfer_syntax_uid == uid.ImplicitVRLittleEndian
    assert header.study_instance_uid == "1.2.3.4"


@pytest.mark.parametrize("missing", ["SOPInstanceUID", "StudyInstanceUID"])
def test_an_object_without_its_identity_is_unreadable(file: Path, missing: str) -> None:
    ds = dicom_files.dataset(**{missing: None})
    with pytest.raises(Unreadable, match="it has no"):
        read_header(dicom_files.without_meta(file, ds))


def test_a_uid_that_is_a_path_is_unreadable(file: Path) -> None:
    ds = dicom_files.dataset(StudyInstanceUID="../../etc/passwd")
    with pytest.raises(Unreadable, match="is no UID"):
        read_header(dicom_files.without_meta(file, ds))


def test_the_class_is_the_file_meta_groups_where_the_data_set_states_none(file: Path) -> None:
    whole = dicom_files.content(dicom_files.dataset()).replace(b"\x08\x00\x16\x00UI", b"\x08\x00\x17\x00UI")
    file.write_bytes(whole)
    assert read_header(file).sop_class_uid == dicom_files.CLASSES["CR"]
    file.write_bytes(whole[whole.index(b"\x08\x00\x17\x00UI") :])
    with pytest.raises(Unreadable, match="no SOP Class UID"):
        read_header(file)


def test_a_palette_image_counts_as_colour(file: Path) -> None:
    ds = dicom_files.dataset("SC", PhotometricInterpretation="PALETTE COLOR")
    assert read_header(dicom_files.write(file, ds)).samples_per_pixel == 3


def test_the_error_never_quotes_the_object(file: Path) -> None:
    ds = dicom_files.dataset(StudyInstanceUID="Doe^Jane")
    with pytest.raises(Unreadable) as told:
        read_header(dicom_files.without_meta(file, ds))
    assert "Doe" not in str(told.value)


@given(st.binary(max_size=600))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_raise_anything_but_unreadable(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "noise"
    path.write_bytes(data)
    with pytest.raises(Unreadable):
        read_header(path)


@given(st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_read_or_unreadable(tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(
        dicom_files.content(dicom_files.dataset("MG", ViewCodeSequence=[dicom_files.code("1", "2", "3")]))
    )
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, 900))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged"
    path.write_bytes(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    header, reason = None, ""
    try:
        header = read_header(path)
    except Unreadable as fault:
        reason = str(fault)
    assert "Doe" not in reason, "the reason quotes nothing of the patient"
    if header is None:
        return
    # Whatever was read is fit for the ledger: a study to belong to, and the same again when it is read back.
    assert header.sop_instance_uid
    assert header.study_instance_uid
    assert header_from_json(header_to_json(header)) == header


def test_a_missing_file_is_the_disks_fault(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "none")


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"BodyPartExamined": "THORAX"}, ("CHEST", "BodyPartExamined")),
        ({"BodyPartExamined": "lung"}, ("CHEST", "BodyPartExamined")),
        ({"BodyPartExamined": "MAMMA"}, ("BREAST", "BodyPartExamined")),
        ({"BodyPartExamined": "HAND"}, ("HAND", "BodyPartExamined")),
        (
            {"BodyPartExamined": None, "AnatomicRegionSequence": [dicom_files.code("51185008", "SCT", "Thorax")]},
            ("CHEST", "AnatomicRegionSequence"),
        ),
        (
            {"BodyPartExamined": "", "AnatomicRegionSequence": [dicom_files.code("x", "99A", "Mamma")]},
            ("BREAST", "AnatomicRegionSequence"),
        ),
        ({"BodyPartExamined": None, "ProtocolName": "Thorax p.a."}, ("CHEST", "ProtocolName")),
        ({"BodyPartExamined": None, "StudyDescription": "XR CHEST 2 VIEWS"}, ("CHEST", "StudyDescription")),
        ({"BodyPartExamined": None, "StudyDescription": "Thoracic spine"}, ("SPINE", "StudyDescription")),
        ({"BodyPartExamined": None, "SeriesDescription": "Mammography"}, ("BREAST", "SeriesDescription")),
        ({"BodyPartExamined": None, "Modality": "MG"}, ("BREAST", "Modality")),
        ({"BodyPartExamined": None}, ("", "")),
    ],
)
def test_the_body_part_comes_from_the_most_formal_statement(
    file: Path, attributes: dict[str, object], expected: tuple[str, str]
) -> None:
    header = read_header(dicom_files.write(file, dicom_files.dataset(**attributes)))
    assert (header.body_part, header.body_part_source) == expected


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"ViewPosition": "AP"}, "AP"),
        ({"ViewPosition": None, "ViewCodeSequence": [dicom_files.code("399162004", "SCT", "x")]}, "CC"),
        ({"ViewPosition": None, "ViewCodeSequence": [dicom_files.code("R-10226", "SRT", "x")]}, "MLO"),
        ({"ViewPosition": None, "SeriesDescription": "view: PA"}, "PA"),
        ({"ViewPosition": "", "SeriesDescription": "review of lateral"}, ""),
    ],
)
def test_the_view_comes_from_the_most_formal_statement(
    file: Path, attributes: dict[str, object], expected: str
) -> None:
    assert read_header(dicom_files.write(file, dicom_files.dataset(**attributes))).view == expected


def test_two_patients_under_one_study_uid_have_two_study_keys(tmp_path: Path) -> None:
    keys = {
        read_header(dicom_files.write(tmp_path / name, dicom_files.dataset(PatientID=name))).study_key
        for name in ("P1", "P2")
    }
    assert len(keys) == 2


def test_the_patient_key_holds_no_patient_id(file: Path) -> None:
    assert "P1" not in read_header(dicom_files.write(file, dicom_files.dataset())).patient_key


def _item(**attributes: object) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


OURS = marks.uid_from_hash(hashlib.sha256(b"x").digest())


@pytest.mark.parametrize(
    "attributes",
    [
        {"SOPInstanceUID": OURS},
        {"ContributingEquipmentSequence": [_item(Manufacturer="ACME"), _item(Manufacturer="Evenray")]},
        {"SourceImageSequence": [_item(ReferencedSOPInstanceUID=OURS)]},
        {"ImageType": ["DERIVED", "SECONDARY"], "SeriesDescription": "Evenray harmonized: fitted_curve"},
    ],
)
def test_any_one_mark_left_by_a_pacs_is_enough_to_know_our_result(file: Path, attributes: dict[str, object]) -> None:
    assert read_header(dicom_files.write(file, dicom_files.dataset("SC", **attributes))).made_by_evenray


@pytest.mark.parametrize(
    "attributes",
    [
        {"SOPInstanceUID": "2.25.1"},
        {"SOPInstanceUID": generate_uid(prefix=None)},
        {"ContributingEquipmentSequence": [_item(Manufacturer="ACME")]},
        {"SeriesDescription": "Evenray harmonized: fitted_curve"},
        {"StationName": "EVENRAY"},
    ],
)
def test_a_foreign_object_is_not_taken_for_ours(file: Path, attributes: dict[str, object]) -> None:
    assert not read_header(dicom_files.write(file, dicom_files.dataset(**attributes))).made_by_evenray


@given(st.binary(min_size=16, max_size=64))
def test_our_uids_are_valid_and_known_again(digest: bytes) -> None:
    made = marks.uid_from_hash(digest)
    assert uid.UID(made).is_valid
    assert marks.is_our_uid(made)


@pytest.mark.parametrize("other", ["", "1.2.3", "2.25.", "2.25.x", "2.25." + "9" * 60, "2.25.1.2"])
def test_what_is_no_uuid_uid_is_not_ours(other: str) -> None:
    assert not marks.is_our_uid(other)


def test_the_digest_does_not_depend_on_the_file_meta(tmp_path: Path) -> None:
    ds = dicom_files.dataset()
    whole = dicom_files.content(ds)
    ds.file_meta.ImplementationVersionName = "ANOTHER_RECEIVER"
    dicom_files.content(ds)
    start = whole.index(b"\x08\x00\x05\x00") if b"\x08\x00\x05\x00" in whole else whole.index(b"\x08\x00\x08\x00")
    (tmp_path / "part10").write_bytes(whole)
    (tmp_path / "bare").write_bytes(whole[start:])
    (tmp_path / "wrong_length").write_bytes(whole[:140] + b"\x01\x00\x00\x00" + whole[144:])
    digests = {dataset_digest(tmp_path / name) for name in ("part10", "bare", "wrong_length")}
    assert digests == {hashlib.sha256(whole[start:]).hexdigest()}


def test_one_changed_pixel_changes_the_digest(tmp_path: Path) -> None:
    whole = bytearray(dicom_files.content(dicom_files.dataset()))
    (tmp_path / "a").write_bytes(whole)
    whole[-1] ^= 1
    (tmp_path / "b").write_bytes(whole)
    assert dataset_digest(tmp_path / "a") != dataset_digest(tmp_path / "b")
