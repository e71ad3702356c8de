"""What a report must hold beside its numbers: references, evidence, library, devices, and the digest of itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread, dcmwrite, uid
from pydicom.dataset import Dataset, FileDataset

from dicom_node import marks
from dicom_node.records import Outcome, Reported
from dicom_node.results import concepts, copying
from dicom_node.results.report_integrity import COVERED, digest_of, is_whole, stated_digest
from dicom_node.results.report_text import parse_report, read_report
from dicom_node.results.structured_report import make_report, series_uid
from dicom_node.tolerant import quiet
from engine import FIGURES as ENGINE_FIGURES
from tests import dicom_files
from tests.unit.results.builders import SITE, reported

STATE = "1.2.840.10008.5.1.4.1.1.11.1"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return dicom_files.write(tmp_path / "a.dcm", dicom_files.dataset())


def opened(*instances: Reported, earlier: str = "") -> FileDataset:
    return dcmread(BytesIO(make_report(instances, SITE, earlier=earlier).content))


def tree(item: Dataset) -> Iterator[Dataset]:
    """Every content item of a report, depth first."""
    for child in item.get("ContentSequence") or ():
        yield child
        yield from tree(child)


def named(report: Dataset, concept: concepts.Concept) -> list[Dataset]:
    return [i for i in tree(report) if i.ConceptNameCodeSequence[0].CodeValue == concept.value]


def references(item: Dataset) -> tuple[str, str]:
    (to,) = item.ReferencedSOPSequence
    return str(to.ReferencedSOPClassUID), str(to.ReferencedSOPInstanceUID)


def evidence(report: Dataset) -> dict[str, str]:
    """SOP Instance UID to series of everything that the report lists as evidence."""
    return {
        str(found.ReferencedSOPInstanceUID): str(series.SeriesInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for found in series.ReferencedSOPSequence
    }


def test_images_made_are_image_references_and_other_objects_composite_ones(file: Path) -> None:
    one = reported(file)
    made = (*one.results, (STATE, "1.2.3.99"))
    report = opened(replace(one, results=made))
    (image,), (state,) = named(report, concepts.RESULT_IMAGE), named(report, concepts.RESULT_OBJECT)
    assert (image.ValueType, references(image)) == ("IMAGE", one.results[0])
    assert (state.ValueType, references(state)) == ("COMPOSITE", (STATE, "1.2.3.99"))


def test_all_that_is_referenced_is_evidence_and_no_more(tmp_path: Path) -> None:
    files = [dicom_files.write(tmp_path / f"{n}", dicom_files.dataset(instance=f"1.2.3.4.{n}")) for n in (1, 2)]
    # One selection of key objects stands under every image that it is about.
    both = [reported(file, Outcome.REFUSED) for file in files]
    keys = (str(uid.KeyObjectSelectionDocumentStorage), "1.2.3.77")
    report = opened(*(replace(one, results=(keys,)) for one in both))
    listed = evidence(report)
    assert set(listed) == {references(i)[1] for i in tree(report) if "ReferencedSOPSequence" in i}
    assert set(listed) == {"1.2.3.4.1", "1.2.3.4.2", "1.2.3.77"}


def test_a_later_report_names_the_earlier_one(file: Path) -> None:
    report = opened(reported(file), earlier="1.2.3.55")
    (item,) = named(report, concepts.EARLIER_REPORT)
    assert references(item) == (str(uid.Comprehensive3DSRStorage), "1.2.3.55")
    (study,) = report.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == series_uid("1.2.3.55") == evidence(report)["1.2.3.55"]
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.55"
    assert study.StudyInstanceUID == report.StudyInstanceUID
    assert report.SOPInstanceUID != opened(reported(file)).SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in opened(reported(file))


def test_a_report_is_found_in_the_series_under_which_a_later_one_names_it(file: Path) -> None:
    report = opened(reported(file))
    assert report.SeriesInstanceUID == series_uid(report.SOPInstanceUID)


def test_the_library_describes_every_image_as_its_header_does(tmp_path: Path) -> None:
    full = dicom_files.dataset(
        "MG", instance="1.2.3.4.1", PatientOrientation=["P", "L"], ImagerPixelSpacing=[0.1, 0.2], ImageLaterality="L"
    )
    bare = dicom_files.dataset(instance="1.2.3.4.2", Modality="OT", BodyPartExamined=None, ViewPosition=None)
    paper = dicom_files.dataset(instance="1.2.3.4.3")
    paper.SOPClassUID = uid.EncapsulatedPDFStorage
    files = [dicom_files.write(tmp_path / str(n), ds) for n, ds in enumerate((full, bare, paper))]
    report = opened(*map(reported, files))
    (library,) = named(report, concepts.IMAGE_LIBRARY)
    entries = [i for i in tree(library) if i.ValueType == "IMAGE"]
    assert [references(entry)[1] for entry in entries] == ["1.2.3.4.1", "1.2.3.4.2"], "a document is no image"
    said = {i.ConceptNameCodeSequence[0].CodeMeaning: value(i) for i in entries[0].ContentSequence}
    assert said == {
        "Modality": "MG",
        "Target Region": "76752008",
        "Image Laterality": "7771000",
        "Pixel Data Rows": 32,
        "Pixel Data Columns": 48,
        "Image View": "399368009",
        "Patient Orientation Row": "P",
        "Patient Orientation Column": "L",
        "Horizontal Pixel Spacing": 0.2,
        "Vertical Pixel Spacing": 0.1,
    }
    assert "ContentSequence" not in entries[1], "without a modality of the table nothing else may be said"


def value(item: Dataset) -> Any:
    if item.ValueType == "CODE":
        return item.ConceptCodeSequence[0].CodeValue
    return item.TextValue if item.ValueType == "TEXT" else float(item.MeasuredValueSequence[0].NumericValue)


def test_the_device_uid_changes_with_the_weights_and_is_that_of_the_algorithm(file: Path) -> None:
    found = []
    for weights in ("1" * 64, "2" * 64):
        report = opened(reported(file, weights_digest=weights))
        items = report.ContributingEquipmentSequence
        (algorithm,) = [i for i in items if i.PurposeOfReferenceCodeSequence[0].CodeValue == "Newcode1"]
        purpose = algorithm.PurposeOfReferenceCodeSequence[0]
        assert (purpose.CodingSchemeDesignator, purpose.CodeMeaning) == ("99IHE", "Processing Algorithm")
        assert algorithm.Manufacturer == algorithm.ManufacturerModelName == marks.MANUFACTURER
        assert algorithm.SoftwareVersions
        found.append(str(algorithm.DeviceUID))
    assert found[0] != found[1]
    assert found[0] == opened(reported(file, weights_digest="1" * 64)).ContributingEquipmentSequence[0].DeviceUID


def test_every_private_code_is_declared_with_its_scheme(file: Path) -> None:
    report = opened(reported(file), earlier="1.2.3")
    used = {
        str(e.value) for e in report.iterall() if e.keyword == "CodingSchemeDesignator" and str(e.value)[:2] == "99"
    }
    declared = {i.CodingSchemeDesignator for i in report.CodingSchemeIdentificationSequence}
    assert used == declared == {marks.CODING_SCHEME, "99IHE"}


def test_algorithm_identification_holds_every_parameter(file: Path) -> None:
    one = reported(file)
    report = opened(one)
    texts = {c: [i.TextValue for i in tree(report) if i.ConceptNameCodeSequence[0].CodeValue == c] for c in
             ("111001", "111003", "111002")}  # fmt: skip
    assert texts["111001"] == ["Evenray fitted_curve"]
    assert texts["111003"] == [one.decision.engine_version]
    assert texts["111002"] == [f"{n}={v}" for n, v in one.decision.tried[0].parameters.items()]


def test_what_a_replay_needs_is_read_back(tmp_path: Path, file: Path) -> None:
    one = reported(
        file, software="torch 9", device="cpu", display_digest="a" * 64, label="NOT ORIGINAL", sent_digest="c" * 64
    )
    result = one.results[0][1]
    tried = (replace(one.decision.tried[0], version=7), *one.decision.tried[1:])
    one = replace(one, digests={result: "d" * 64}, decision=replace(one.decision, tried=tried))
    path = tmp_path / "report.dcm"
    path.write_bytes(make_report([one], SITE).content)
    (row,) = parse_report(path)
    kept = {key: row[key] for key in ("software", "device", "display_digest", "label", "sent_digest", "pixels_digest")}
    assert kept == {key: getattr(one.decision, key) for key in kept}
    assert row["method_version"] == "7"
    assert row["result_digests"] == [f"{result}={'d' * 64}"]


def test_a_report_of_version_0_1_still_names_its_results(tmp_path: Path, file: Path) -> None:
    report = opened(reported(file))
    (image,) = named(report, concepts.RESULT_IMAGE)
    made = references(image)[1]
    name = image.ConceptNameCodeSequence
    del image.ReferencedSOPSequence
    image.ValueType, image.TextValue = "TEXT", made
    name[0].CodeValue = concepts.TEXTS["result"].value
    report.ContentSequence = [i for i in report.ContentSequence if i not in named(report, concepts.REPORT_DIGEST)]
    path = tmp_path / "old.dcm"
    dcmwrite(path, report)
    read = read_report(path)
    assert read.rows[0]["results"] == [made]
    assert not read.sealed
    assert not read.whole


def test_a_report_carries_the_digest_of_its_content(file: Path) -> None:
    report = opened(reported(file), earlier="1.2.3")
    assert stated_digest(report) == digest_of(report)
    assert is_whole(report)


@settings(max_examples=40)
@given(
    reason=st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\x85\u2028\u2029"), max_size=40)
)
def test_a_report_is_whole_whatever_its_texts_say(tmp_path_factory: pytest.TempPathFactory, reason: str) -> None:
    path = tmp_path_factory.getbasetemp() / "texts.dcm"
    if not path.exists():
        dicom_files.write(path, dicom_files.dataset())
    site = SITE.model_copy(update={"institution": reason[:30]})
    content = make_report([reported(path, reason=reason, method=f" {reason}\\b ", tried=())], site).content
    assert is_whole(dcmread(BytesIO(content)))


def test_the_digest_covers_all_but_patient_study_and_character_set(file: Path) -> None:
    report = opened(reported(file), earlier="1.2.3")
    copied = {*copying.PATIENT_AND_STUDY, *copying.PATIENT_AND_STUDY_CODES, "SpecificCharacterSet"}
    assert {e.keyword for e in report} - copied <= set(COVERED)
    assert not set(COVERED) & (copied - {"TimezoneOffsetFromUTC"})


def test_an_archive_may_correct_the_patient_and_write_it_in_its_own_way(file: Path) -> None:
    report = opened(reported(file))
    report.PatientName, report.PatientID, report.SpecificCharacterSet = "Müller^Änne", "P2", "ISO_IR 192"
    report.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
    buffer = BytesIO()
    dcmwrite(buffer, report, implicit_vr=True, little_endian=True)
    buffer.seek(0)
    assert is_whole(dcmread(buffer))


@given(data=st.data())
def test_any_other_value_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp()
    path = folder / "shared.dcm"
    if not path.exists():
        dicom_files.write(path, dicom_files.dataset())
        (folder / "shared-report.dcm").write_bytes(make_report([reported(path)], SITE).content)
    report = dcmread(folder / "shared-report.dcm")
    found = [(i, e.keyword) for i in datasets(report) for e in i if e.VR != "SQ" and (i is not report or covered(e))]
    item, keyword = data.draw(st.sampled_from(found))
    before = item[keyword].value
    with quiet():
        item[keyword].value = other(before)
    assert not is_whole(report), keyword


def covered(element: Any) -> bool:
    return element.keyword in COVERED


def datasets(dataset: Dataset) -> Iterator[Dataset]:
    yield dataset
    for element in dataset:
        if element.VR == "SQ" and ("SOPClassUID" not in dataset or covered(element)):
            for item in element.value:
                yield from datasets(item)


def other(value: Any) -> Any:
    if isinstance(value, float):
        return value * (1 + 2**-52) if value else 5e-324
    if isinstance(value, int):
        return value + 1
    if value is None or not isinstance(value, str):
        return "1"
    return f"{value}1"


def test_the_table_of_private_concepts_has_every_code_once_and_every_figure() -> None:
    said = concepts.markdown(ENGINE_FIGURES)
    codes = [line.split("`")[1] for line in said.splitlines()[2:]]
    assert len(codes) == len(set(codes))
    wanted = {c.value for c in [*concepts.TEXTS.values(), *concepts.OUTCOMES.values(), concepts.HARMONIZATION]}
    assert wanted <= set(codes)
    assert {concepts.figure(name).value for name in ENGINE_FIGURES} <= set(codes)
    assert all(line.count("|") == 4 for line in said.splitlines())


@pytest.mark.parametrize("part", ["LEFT LOWER EXTREMITY", "X" * 70, "CHE\x1bST"])
def test_a_body_part_that_no_code_holds_stops_no_report(tmp_path: Path, part: str) -> None:
    odd = dicom_files.write(tmp_path / "a.dcm", dicom_files.dataset(BodyPartExamined=part))
    report = opened(reported(odd))
    assert not named(report, concepts.TARGET_REGION)
