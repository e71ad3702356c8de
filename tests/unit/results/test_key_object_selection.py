"""The selection of originals that need a look."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.errors import ResultInvalid
from dicom_node.header import read_header
from dicom_node.results.key_object_selection import Flagged, make_key_objects
from tests import dicom_files
from tests.unit.results.builders import SITE


def flagged(folder: Path, number: int, state: str = "refused", **attributes: str) -> Flagged:
    ds = dicom_files.dataset(instance=f"1.2.3.4.{number}", **attributes)
    return Flagged(
        header=read_header(dicom_files.write(folder / f"{number}.dcm", ds)), state=state, reason=f"reason {number}"
    )


def test_the_same_originals_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    found = [flagged(tmp_path, n) for n in (1, 2, 3)]
    assert make_key_objects(found, tmp_path / "1.dcm", SITE) == make_key_objects(found[::-1], tmp_path / "1.dcm", SITE)


def test_it_names_each_original_and_says_why(tmp_path: Path) -> None:
    found = [flagged(tmp_path, 1), flagged(tmp_path, 2, "unreadable"), flagged(tmp_path, 3, "parked")]
    document = dcmread(BytesIO(make_key_objects(found, tmp_path / "1.dcm", SITE).content))
    content = document.ContentSequence
    references = [item.ReferencedSOPSequence[0] for item in content if "ReferencedSOPSequence" in item]
    assert [r.ReferencedSOPInstanceUID for r in references] == ["1.2.3.4.1", "1.2.3.4.2", "1.2.3.4.3"]
    (said,) = [item.TextValue for item in content if item.ValueType == "TEXT" and "113012" in str(item)]
    assert not [item for item in content if "ReferencedSOPSequence" in item and "ConceptNameCodeSequence" in item]
    assert "1 parked, 1 refused, 1 unreadable" in said
    assert all(f"1.2.3.4.{n} {one.state}: reason {n}" in said for n, one in enumerate(found, start=1))
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    assert [len(series.ReferencedSOPSequence) for series in study.ReferencedSeriesSequence] == [3]


def test_it_asks_for_a_look_and_rejects_nothing(tmp_path: Path) -> None:
    document = dcmread(BytesIO(make_key_objects([flagged(tmp_path, 1)], tmp_path / "1.dcm", SITE).content))
    assert document.ConceptNameCodeSequence[0].CodeValue == "113010"
    assert (document.Modality, document.SeriesDescription) == ("KO", "Evenray quality control")
    assert (document.PatientID, document.StudyInstanceUID, document.ContentDate) == ("P1", "1.2.3.4", "20240203")


def test_another_reason_is_another_document(tmp_path: Path) -> None:
    one, other = flagged(tmp_path, 1), flagged(tmp_path, 1, "parked")
    made = {make_key_objects([f], tmp_path / "1.dcm", SITE).sop_instance_uid for f in (one, other)}
    assert len(made) == 2


def test_nothing_and_two_studies_are_no_selection(tmp_path: Path) -> None:
    one, other = flagged(tmp_path, 1), flagged(tmp_path, 2, study="9.9")
    for found in ([], [one, other]):
        with pytest.raises(ResultInvalid):
            make_key_objects(found, tmp_path / "1.dcm", SITE)


def test_what_it_takes_over_from_another_original_makes_it_another_document(tmp_path: Path) -> None:
    one, other = flagged(tmp_path, 1), flagged(tmp_path, 2, ContentDate="20240305", StudyDescription="late")
    made = [make_key_objects([one], tmp_path / f"{n}.dcm", SITE) for n in (1, 2)]
    assert other.header.study_key == one.header.study_key
    assert made[0].content != made[1].content
    assert made[0].sop_instance_uid != made[1].sop_instance_uid
