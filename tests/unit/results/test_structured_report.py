"""The report of a batch, and that an audit reads back what was written, bit for bit."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread, uid
from pydicom.dataset import FileDataset

from dicom_node.errors import BadInput, ResultInvalid
from dicom_node.header import read_header
from dicom_node.records import Measured, Outcome, Reported
from dicom_node.results import concepts
from dicom_node.results.report_text import parse_report, render_report
from dicom_node.results.structured_report import make_report
from tests import dicom_files
from tests.unit.results.builders import FIGURES, SITE, reported


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return dicom_files.write(tmp_path / "a.dcm", dicom_files.dataset())


def batch(folder: Path) -> list[Reported]:
    """One instance of each outcome, one of them no image."""
    out = []
    for number, outcome in enumerate(Outcome, start=1):
        ds = dicom_files.dataset(instance=f"1.2.3.4.{number}")
        if outcome is Outcome.PASSED:
            ds.SOPClassUID = uid.EncapsulatedPDFStorage
        out.append(reported(dicom_files.write(folder / f"{number}.dcm", ds), outcome))
    return out


def saved(folder: Path, *instances: Reported) -> Path:
    path = folder / "report.dcm"
    path.write_bytes(make_report(instances, SITE).content)
    return path


def opened(*instances: Reported) -> FileDataset:
    return dcmread(BytesIO(make_report(instances, SITE).content))


def test_the_same_batch_in_any_order_gives_the_same_bytes(tmp_path: Path) -> None:
    instances = batch(tmp_path)
    assert make_report(instances, SITE) == make_report(instances[::-1], SITE)


def test_the_speed_of_the_machine_changes_nothing(file: Path) -> None:
    assert make_report([reported(file, seconds={"engine": 1.0})], SITE) == make_report([reported(file)], SITE)


def test_another_reason_is_another_object(file: Path) -> None:
    one, other = (make_report([reported(file, reason=reason)], SITE) for reason in ("a", "b"))
    assert one.sop_instance_uid != other.sop_instance_uid


def test_every_number_and_parameter_is_read_back_bit_for_bit(tmp_path: Path, file: Path) -> None:
    instance = reported(file)
    (row,) = parse_report(saved(tmp_path, instance))
    d = instance.decision
    for key in ("distance_before", "distance_after", "threshold", "exposed_share", "reason", "exam", "route"):
        assert row[key] == getattr(d, key), key
    for key in ("method", "bank", "bank_digest", "settings_digest", "weights_digest", "source_digest"):
        assert row[key] == getattr(d, key), key
    assert row["pixels_digest"] == d.pixels_digest
    assert (row["engine_version"], row["outcome"]) == (d.engine_version, "harmonized")
    assert tuple(row["references"]) == d.references
    assert row["alignment"] == d.alignment
    assert row["parameters"] == d.tried[0].parameters
    assert [Measured(**figure) for figure in row["figures"]] == list(FIGURES)
    for read, tried in zip(row["tried"], d.tried, strict=True):
        assert (read["method"], read["distance"], read["verified"]) == (tried.method, tried.distance, tried.verified)
        assert read["parameters"] == tried.parameters
        assert [Measured(**figure) for figure in read["figures"]] == list(tried.figures)
    assert row["results"] == [instance.results[0][1]]
    assert row["source_instance"] == "1.2.3.4.1"


@settings(max_examples=40, deadline=None)  # highdicom takes a tenth of a second a report
@given(value=st.floats(allow_nan=False), bound=st.none() | st.floats(allow_nan=False, allow_infinity=False))
def test_any_figure_is_read_back(tmp_path_factory: pytest.TempPathFactory, value: float, bound: float | None) -> None:
    folder = tmp_path_factory.mktemp("figure")
    path = dicom_files.write(folder / "a.dcm", dicom_files.dataset())
    figure = Measured("odd name: of a figure", value, bound, True, bound is None or value >= bound)
    (row,) = parse_report(saved(folder, reported(path, figures=(figure,), tried=())))
    assert [Measured(**found) for found in row["figures"]] == [figure]


def test_every_outcome_is_reported_with_its_reason(tmp_path: Path) -> None:
    rows = parse_report(saved(tmp_path, *batch(tmp_path)))
    assert sorted(row["outcome"] for row in rows) == sorted(outcome.value for outcome in Outcome)
    assert all(row["reason"] for row in rows)


def test_the_evidence_lists_every_source_and_result(tmp_path: Path) -> None:
    instances = batch(tmp_path)
    report = opened(*instances)
    listed = {
        str(found.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for found in series.ReferencedSOPSequence
    }
    expected = {i.header.sop_instance_uid for i in instances} | {r for i in instances for _, r in i.results}
    assert listed == expected


def test_a_source_without_series_or_pixels_is_reported_all_the_same(tmp_path: Path) -> None:
    path = dicom_files.write(tmp_path / "a.dcm", dicom_files.dataset(SeriesInstanceUID=None, PixelData=None))
    bare = reported(path, Outcome.UNREADABLE, tried=(), figures=(), distance_before=None, method="", references=())
    (row,) = parse_report(saved(tmp_path, bare))
    assert row["outcome"] == "unreadable"


def test_the_date_is_the_latest_of_the_sources_and_never_the_clocks(tmp_path: Path) -> None:
    early = reported(dicom_files.write(tmp_path / "1", dicom_files.dataset(instance="1.2.3.4.1")))
    late = reported(dicom_files.write(tmp_path / "2", dicom_files.dataset(instance="1.2.3.4.2", ContentTime="235959")))
    report = opened(early, late)
    assert (report.ContentDate, report.ContentTime) == ("20240203", "235959")
    dates = {str(f.value) for f in report.iterall() if f.VR in ("DA", "TM", "DT") and f.value}
    assert dates <= {"20240203", "101500", "235959", "19600229"}


def test_a_batch_without_any_date_says_that_its_date_is_a_constant(tmp_path: Path) -> None:
    ds = dicom_files.dataset(ContentDate=None, ContentTime=None, StudyDate=None, StudyTime=None)
    instance = reported(dicom_files.write(tmp_path / "a.dcm", ds))
    assert opened(instance).ContentDate == "19000101"
    (row,) = parse_report(saved(tmp_path, instance))
    assert any("states a date" in note for note in row["notes"])


def test_repairs_are_told_by_keyword_and_never_by_value(tmp_path: Path) -> None:
    ds = dicom_files.dataset(PatientAge="60", PatientBirthDate="00000000", PatientName="Jérôme^Zoé")
    path = saved(tmp_path, reported(dicom_files.write(tmp_path / "a.dcm", ds)))
    (row,) = parse_report(path)
    notes = "\n".join(row["notes"])
    for word in (
        "PatientAge was repaired",
        "PatientBirthDate is invalid",
        "BurnedInAnnotation",
        "SpecificCharacterSet",
    ):
        assert word in notes
    assert dcmread(path).SpecificCharacterSet == "ISO_IR 192"


def test_the_rendered_report_names_no_patient(tmp_path: Path) -> None:
    said = render_report(saved(tmp_path, *batch(tmp_path)))
    assert "Doe" not in said
    assert "P1" not in said
    assert "HARMONIZED  1.2.3.4.2" in said
    assert "style distance 1.25 -> 0.3 (conforming up to 0.5)" in said
    assert "blur 0.1 (at least 0.2)  NOT PASSED" in said


def test_two_studies_are_not_one_report(tmp_path: Path) -> None:
    one = reported(dicom_files.write(tmp_path / "1", dicom_files.dataset()))
    for attributes in ({"study": "1.2.9"}, {"PatientID": "P2"}):
        other = reported(dicom_files.write(tmp_path / "2", dicom_files.dataset(instance="1.2.3.4.2", **attributes)))
        with pytest.raises(ResultInvalid, match="one study"):
            make_report([one, other], SITE)
    with pytest.raises(ResultInvalid, match="at least one"):
        make_report([], SITE)


def test_a_foreign_object_is_no_report(file: Path) -> None:
    with pytest.raises(BadInput, match="not a report of Evenray"):
        parse_report(file)


def test_our_report_routed_back_is_known(tmp_path: Path, file: Path) -> None:
    assert read_header(saved(tmp_path, reported(file))).made_by_evenray


@given(st.text(min_size=1, max_size=100))
def test_any_figure_name_has_a_code_of_its_own_that_fits(name: str) -> None:
    for concept in (concepts.figure(name), concepts.limit(name, at_least=True), concepts.limit(name, at_least=False)):
        assert len(concept.value) <= 16
        assert len(concept.meaning) <= 64


def test_long_names_with_the_same_start_have_different_codes() -> None:
    names = ["gradient_correlation", "gradient_correlation_at_edges", "Gradient Correlation", "gradient-correlation"]
    assert len({concepts.figure(name).value for name in names}) == len(names)


def test_every_private_code_is_used_once() -> None:
    found = [c for c in vars(concepts).values() if isinstance(c, concepts.Concept)]
    found += [*concepts.TEXTS.values(), *concepts.OUTCOMES.values()]
    assert len({(c.value, c.scheme) for c in found}) == len(found)
    assert all(len(c.value) <= 16 and len(c.meaning) <= 64 for c in found)
