"""A report replayed against its original and its result: what is whole is proved, whatever is changed is found."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread, dcmwrite

from dicom_node import replay as replay_module
from dicom_node.commands.audit_reports import find_reports
from dicom_node.display import pixels_digest
from dicom_node.header import content_digest, dataset_digest, read_header
from dicom_node.pixels import read_display
from dicom_node.process import Processor
from dicom_node.records import Decision, Made, Outcome, Reported, Tried
from dicom_node.replay import Proof, Replayed, replay
from dicom_node.results.label import drawn
from dicom_node.results.report_text import parse_report, read_report
from dicom_node.results.secondary_capture import make_secondary_capture
from dicom_node.results.structured_report import make_report
from dicom_node.settings import Route, Settings, Site
from dicom_node.tolerant import quiet
from tests.unit.commands.running import OTHER, PREFERRED, ROUTE, chest, chests, config, evenray

SITE = Site(institution="Klinik", station="RAY1")


@dataclass(frozen=True)
class Case:
    """One original with its report and its result on the disk."""

    original: Path
    report: Path
    result: Path
    processor: Processor

    def replayed(self, **other: Path) -> Replayed:
        """The replay, with other files in the place of those given by name."""
        report = read_report(other.get("report", self.report))
        original, result = other.get("original", self.original), other.get("result", self.result)
        return replay(report, report.rows[0], original, [result], lambda: self.processor)


def write(folder: Path, case: str, original: Path, decision: Decision, made: Made, processor: Processor) -> Case:
    result, report = folder / f"{case}-result.dcm", folder / f"{case}-report.dcm"
    result.write_bytes(made.content)
    told = Reported(
        source=original,
        header=read_header(original),
        decision=decision,
        results=((made.sop_class_uid, made.sop_instance_uid),),
        digests={made.sop_instance_uid: content_digest(made.content)},
    )
    report.write_bytes(make_report([told], SITE).content)
    return Case(original, report, result, processor)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    preferred = chests(folder / "preferred", [1, 2, 3], PREFERRED)
    assert evenray("references", "add", "site", *preferred, "-c", config(folder, ROUTE)).code == 0
    return folder


@pytest.fixture(scope="module")
def processor(home: Path) -> Processor:
    routes = (Route(name="r", bank="site", objects=("secondary_capture", "structured_report")),)
    return Processor(Settings(state_dir=home / "state", routes=routes, site=SITE))


def decided(original: Path, processor: Processor) -> tuple[Decision, Made]:
    decision, made = processor.decide(
        original, read_header(original), calling_ae="", source_digest=dataset_digest(original)
    )
    assert decision.outcome is Outcome.HARMONIZED, decision.reason
    return decision, made[0]


@pytest.fixture(scope="module")
def curve(home: Path, processor: Processor) -> Case:
    """A fitted curve."""
    original = chest(home / "far.dcm", 4, OTHER)
    return write(home, "curve", original, *decided(original, processor), processor)


@pytest.fixture(scope="module")
def matching(home: Path, curve: Case, processor: Processor) -> Case:
    """What histogram matching, which is no curve, makes of the same image, reported as a decision for it would be."""
    decision, _ = decided(curve.original, processor)
    image = read_display(curve.original)
    codes = processor.replay(image, "site", decision.bank_digest, "histogram_matching", 1)
    digest = pixels_digest(codes)
    decision = replace(
        decision,
        method="histogram_matching",
        tried=(Tried(method="histogram_matching", distance=0.5, verified=True, version=1),),
        pixels_digest=digest,
        sent_digest=digest,
    )
    made = make_secondary_capture(curve.original, codes, image.bits, decision, read_header(curve.original), SITE)
    return write(home, "matching", curve.original, decision, made, processor)


def test_a_curve_is_proved_from_the_coefficients_alone(curve: Case) -> None:
    def no_engine() -> Processor:
        raise AssertionError("a curve needs no bank, no settings and no weights")

    report = read_report(curve.report)
    done = replay(report, report.rows[0], curve.original, [curve.result], no_engine)
    assert done.proof is Proof.COEFFICIENTS
    assert all(check.passed and not check.noted for check in done.checks)
    assert done.codes is not None
    assert np.array_equal(done.codes, done.wanted)


def test_another_method_is_proved_on_the_same_software_and_device(matching: Case) -> None:
    assert matching.replayed().proof is Proof.SAME_PLACE


def test_elsewhere_the_same_bits_are_still_proved_and_the_difference_is_said(
    matching: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "software", lambda: "torch 99")
    done = matching.replayed()
    assert done.proof is Proof.OTHER_PLACE
    assert "torch 99 here" in done.said


@pytest.mark.parametrize(("off", "proof"), [(1, Proof.TOLERANCE), (200, Proof.NONE)])
def test_elsewhere_other_bits_are_measured_against_the_tolerance(
    matching: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off: int, proof: Proof
) -> None:
    """As if the report's machine had made each pixel `off` codes of 1024 brighter."""
    monkeypatch.setattr(replay_module, "device_class", lambda _place: "cuda elsewhere")
    image = read_display(matching.original)
    (row,) = parse_report(matching.report)
    made = matching.processor.replay(image, "site", row["bank_digest"], "histogram_matching", 1)
    codes = np.minimum(made + np.uint16(off), 2**image.bits - 1).astype(np.uint16)
    decision, _ = decided(matching.original, matching.processor)
    tried = (Tried(method="histogram_matching", distance=0.5, verified=True, version=1),)
    digest = pixels_digest(codes)
    decision = replace(
        decision, method="histogram_matching", tried=tried, pixels_digest=digest, sent_digest=digest, device="cpu there"
    )
    header = read_header(matching.original)
    result = make_secondary_capture(matching.original, codes, image.bits, decision, header, SITE)
    case = write(tmp_path, "far", matching.original, decision, result, matching.processor)
    done = case.replayed()
    assert done.proof is proof
    assert "cpu there then, cuda elsewhere here" in done.said
    report = read_report(case.report)
    without = replay(report, report.rows[0], case.original, [], lambda: case.processor)
    assert without.proof is Proof.NONE
    assert "give the image with --result" in without.said


def test_on_the_same_device_no_other_bit_is_tolerated(matching: Case, tmp_path: Path) -> None:
    decision, _ = decided(matching.original, matching.processor)
    (row,) = parse_report(matching.report)
    tried = (Tried(method="histogram_matching", distance=0.5, verified=True, version=1),)
    decision = replace(decision, method="histogram_matching", tried=tried)
    image = read_display(matching.original)
    codes = matching.processor.replay(image, "site", row["bank_digest"], "histogram_matching", 1)
    codes[0, 0] ^= 1
    decision = replace(decision, pixels_digest=pixels_digest(codes), sent_digest=pixels_digest(codes))
    header = read_header(matching.original)
    made = make_secondary_capture(matching.original, codes, image.bits, decision, header, SITE)
    done = write(tmp_path, "one", matching.original, decision, made, matching.processor).replayed()
    assert done.proof is Proof.NONE
    assert "the change gives other pixels" in done.said


def test_words_drawn_into_the_pixels_are_drawn_again(curve: Case, home: Path, tmp_path: Path) -> None:
    decision, _ = decided(curve.original, curve.processor)
    image = read_display(curve.original)
    report = read_report(curve.report)
    plain = replay(report, report.rows[0], curve.original, [], lambda: curve.processor).codes
    assert plain is not None
    labelled = drawn(plain, image.bits, "NOT ORIGINAL")
    assert labelled is not None
    decision = replace(decision, label="NOT ORIGINAL", sent_digest=pixels_digest(labelled))
    made = make_secondary_capture(curve.original, labelled, image.bits, decision, read_header(curve.original), SITE)
    case = write(tmp_path, "label", curve.original, decision, made, curve.processor)
    assert case.replayed().proof is Proof.COEFFICIENTS
    (row,) = parse_report(case.report)
    assert row["pixels_digest"] != row["sent_digest"]


def test_a_bank_that_is_not_here_is_said(matching: Case) -> None:
    report = read_report(matching.report)
    done = replay(report, report.rows[0], matching.original, [], lambda: Processor(Settings(routes=())))
    assert done.proof is Proof.NONE
    assert "bank 'site' with digest" in done.said
    assert "it is not here" in done.said


def test_an_image_that_was_not_changed_has_nothing_to_make_again(curve: Case, tmp_path: Path) -> None:
    decision, _ = decided(curve.original, curve.processor)
    decision = Decision(outcome=Outcome.REFUSED, reason="too far", source_digest=decision.source_digest)
    told = Reported(source=curve.original, header=read_header(curve.original), decision=decision)
    path = tmp_path / "refused.dcm"
    path.write_bytes(make_report([told], SITE).content)
    report = read_report(path)
    done = replay(report, report.rows[0], curve.original, [], lambda: curve.processor)
    assert (done.proof, done.said) == (Proof.UNCHANGED, "refused: too far")
    other = chest(tmp_path / "other.dcm", 9, OTHER)
    done = replay(report, report.rows[0], other, [], lambda: curve.processor)
    assert done.proof is Proof.NONE
    assert "another digest" in done.said


def edited(path: Path, target: Path, edit: Callable[..., None]) -> Path:
    dataset = dcmread(path)
    edit(dataset)
    dcmwrite(target, dataset)
    return target


def test_a_report_of_another_patient_is_found_and_told_by_keyword_only(curve: Case, tmp_path: Path) -> None:
    def edit(report: object) -> None:
        report.PatientID, report.StudyDescription = "P2", "Secret"  # type: ignore[attr-defined]

    done = curve.replayed(report=edited(curve.report, tmp_path / "report.dcm", edit))
    assert done.proof is Proof.NONE
    assert "states another PatientID, StudyDescription than the original" in done.said
    assert "P2" not in done.said
    assert "Secret" not in done.said


def test_a_result_that_an_archive_corrected_is_noted_and_no_fault(curve: Case, tmp_path: Path) -> None:
    def edit(result: object) -> None:
        result.PatientID = "P2"  # type: ignore[attr-defined]

    done = curve.replayed(result=edited(curve.result, tmp_path / "result.dcm", edit))
    assert done.proof is Proof.COEFFICIENTS
    assert [check.said for check in done.checks if check.noted] == [
        "the result's pixels are those sent, but other attributes are not: an archive may have corrected them"
    ]


def test_a_result_of_another_image_is_found(curve: Case, tmp_path: Path) -> None:
    other = chest(tmp_path / "other.dcm", 9, OTHER)
    done = curve.replayed(result=other)
    assert "the result given is none of those that the report names" in done.said


def flipped(path: Path, target: Path, position: int, bit: int) -> Path:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    target.write_bytes(content)
    return target


def behind_meta(path: Path) -> int:
    """The first byte of the data set."""
    return 144 + int.from_bytes(path.read_bytes()[140:144], "little")


@settings(max_examples=60)
@given(data=st.data())
def test_a_changed_bit_anywhere_in_the_original_is_found(curve: Case, home: Path, data: st.DataObject) -> None:
    size = curve.original.stat().st_size
    position = data.draw(st.integers(behind_meta(curve.original), size - 1))
    changed = flipped(curve.original, home / "flipped-original.dcm", position, data.draw(st.integers(0, 7)))
    done = curve.replayed(original=changed)
    assert done.proof is Proof.NONE
    assert "the original is not the one reported" in done.said


@settings(max_examples=60)
@given(data=st.data())
def test_a_changed_bit_anywhere_in_the_result_is_found(curve: Case, home: Path, data: st.DataObject) -> None:
    start = behind_meta(curve.result)
    position = data.draw(st.integers(start, curve.result.stat().st_size - 1))
    changed = flipped(curve.result, home / "flipped-result.dcm", position, data.draw(st.integers(0, 7)))
    done = curve.replayed(result=changed)
    assert done.failed or any(check.noted for check in done.checks)
    pixels = curve.result.stat().st_size - dcmread(curve.result).Rows ** 2 * 2
    if position >= pixels:
        # The uppermost bits of a word are beside the bits stored.
        assert done.failed or (position - pixels) % 2


@settings(max_examples=150)
@given(data=st.data())
def test_a_changed_bit_anywhere_in_the_report_is_found(curve: Case, home: Path, data: st.DataObject) -> None:
    position = data.draw(st.integers(behind_meta(curve.report), curve.report.stat().st_size - 1))
    changed = flipped(curve.report, home / "flipped-report.dcm", position, data.draw(st.integers(0, 7)))
    found = find_reports([changed])
    assert not found.skipped, "a damaged report is not passed over"
    if found.faults:
        return
    ((_, report),) = found.reports
    done = replay(report, report.rows[0], curve.original, [], lambda: curve.processor)
    if not done.failed:
        # A bit that changes no value: the padding of a text, or a character set that all of its texts are in.
        assert values_of(changed) == values_of(curve.report)


def values_of(path: Path) -> str:
    with quiet():
        dataset = dcmread(path)
        dataset.pop("SpecificCharacterSet", None)
        return str(dataset.to_json())


def test_a_curve_is_the_same_on_another_kind_of_processor(curve: Case) -> None:
    """numpy and torch, told to leave out the vector instructions that they would use here."""
    script = (
        "import sys; from pathlib import Path; from dicom_node.replay import replay;"
        "from dicom_node.results.report_text import read_report; from dicom_node.process import device_class;"
        "report = read_report(Path(sys.argv[2]));"
        "print(device_class('cpu'), '|', replay(report, report.rows[0], Path(sys.argv[1]), [], exit).proof.value)"
    )
    features = "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
    here = [f for f in np._core._multiarray_umath.__cpu_features__ if np._core._multiarray_umath.__cpu_features__[f]]
    environment = {
        **os.environ,
        "ATEN_CPU_CAPABILITY": "default",
        "NPY_DISABLE_CPU_FEATURES": " ".join(f for f in features.split() if f in here),
    }
    done = subprocess.run(
        [sys.executable, "-c", script, str(curve.original), str(curve.report)],
        env=environment, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    place, _, proof = done.stdout.strip().partition(" | ")
    assert proof == Proof.COEFFICIENTS.value
    assert place != parse_report(curve.report)[0]["device"]
