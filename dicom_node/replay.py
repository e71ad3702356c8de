"""Make the pixels that a report speaks of again, and say what that proved. Writes nothing and shows nothing.

The checks stand in the order in which each makes sense of the next: the report is as it was written, the original is
the one that it names, its grey codes are the same, the result is the one that was sent, the change gives the same
pixels. A curve needs the original and the report alone, on any machine: the grey scale is worked out by arithmetic
that is the same everywhere (`greyscale`), and so is the curve (`engine.replay_curve`). A method that is no curve needs
the bank that the report names, and gives the same bits on the same software and device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from dicom_node.display import Codes, DisplayImage, encode_codes, pixels_digest
from dicom_node.errors import BadInput, EngineFault, Unreadable
from dicom_node.header import dataset_digest, read_header
from dicom_node.pixels import read_display, read_words
from dicom_node.process import TOLERANCE, Processor, device_class, is_curve, replay_curve, software
from dicom_node.records import Outcome
from dicom_node.results import copying, label
from dicom_node.results.report_text import Report, Row
from dicom_node.tolerant import read, values


class Proof(StrEnum):
    """What a replay proved."""

    COEFFICIENTS = "proved: identical (from the coefficients alone)"
    SAME_PLACE = "proved: identical (same software and device)"
    OTHER_PLACE = "proved: identical (on other software or another device)"
    TOLERANCE = "within tolerance"
    UNCHANGED = "nothing to make again: no image was made of it"
    NONE = "NOT REPRODUCED"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at, as a sentence. noted: it differs in a way that an archive may cause."""

    said: str
    passed: bool
    noted: bool = False


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of one image. codes: what was made again, wanted: what the result holds; both where they differ."""

    instance: str
    report: str
    method: str
    proof: Proof
    said: str
    """The proof in a sentence, with the numbers behind it."""
    checks: tuple[Check, ...]
    codes: Codes | None = None
    wanted: Codes | None = None

    @property
    def failed(self) -> bool:
        return self.proof is Proof.NONE


@dataclass(frozen=True, slots=True)
class _Made:
    """The change made again: the proof so far, and the codes as an image result holds them."""

    proof: Proof
    said: str
    codes: Codes | None = None


def replay(
    report: Report, row: Row, original: Path, results: Sequence[Path], processor: Callable[[], Processor]
) -> Replayed:
    """Check one image of a report against its original and, where they are given, objects made from it.

    processor: called only for a method that is no curve; what it raises goes through. OSError is the disk's.
    """
    checks = [_is_whole(report), *_same_original(report, row, original)]
    wanted: Codes | None = None
    for result in results:
        found, codes = _same_result(row, result)
        checks.append(found)
        wanted = codes if wanted is None or not found.passed else wanted
    if row["outcome"] == Outcome.HARMONIZED:
        decoded, made = _changed(row, original, wanted, processor)
        checks.append(decoded)
    else:
        made = _Made(Proof.UNCHANGED, f"{row['outcome']}: {row['reason']}")
    failed = [check.said for check in checks if not check.passed]
    if failed:
        more = made.said if made.proof is Proof.NONE else ""
        made = replace(made, proof=Proof.NONE, said="; ".join(filter(None, [*failed, more])))
    return Replayed(
        row["source_instance"], report.uid, row["method"], made.proof, made.said, tuple(checks), made.codes, wanted
    )


def _is_whole(report: Report) -> Check:
    if report.whole:
        return Check("the report's content is what was written", passed=True)
    return Check(f"the report {report.flaw}", passed=False)


def _same_original(report: Report, row: Row, original: Path) -> list[Check]:
    checks = []
    try:
        dataset, _ = read(original)
        checks += _same_patient(report, row, dataset)
        if read_header(original).sop_instance_uid != row["source_instance"]:
            checks.append(Check("the original has another SOP Instance UID than the one reported", passed=False))
    except Unreadable as fault:
        checks.append(Check(f"the original can't be read: {fault}", passed=False))
    if dataset_digest(original) == row["source_digest"]:
        return [*checks, Check("the original is the one reported, bit for bit", passed=True)]
    return [*checks, Check("the original is not the one reported: its data set has another digest", passed=False)]


def _same_patient(report: Report, row: Row, original: Dataset) -> list[Check]:
    """What the report copied of patient and study, from the first original of the batch; of others only the patient.

    Told by keyword, never by value.
    """
    copied = Dataset()
    copying.patient_and_study(original, copied)
    keywords: tuple[str, ...] = ("PatientID", "IssuerOfPatientID")
    if row is report.rows[0]:
        keywords = (*copying.PATIENT_AND_STUDY, *copying.PATIENT_AND_STUDY_CODES)
    differing = [k for k in keywords if k != "TimezoneOffsetFromUTC" and _told(copied, k) != _told(report.dataset, k)]
    if not differing:
        return []
    said = f"the report states another {', '.join(differing)} than the original: one of them was changed"
    return [Check(said, passed=False)]


def _told(dataset: Dataset, keyword: str) -> object:
    if keyword in copying.PATIENT_AND_STUDY_CODES:
        return [item.to_json() for item in dataset.get(keyword) or ()]
    return [value for value in values(dataset, keyword) if value]


def _same_result(row: Row, result: Path) -> tuple[Check, Codes | None]:
    """Whether an object is what was sent, and its codes where it is an image."""
    try:
        header = read_header(result)
        codes: Codes | None = read_words(result) if header.has_pixels else None
    except Unreadable as fault:
        return Check(f"the result can't be read: {fault}", passed=False), None
    if header.sop_instance_uid not in row["results"]:
        return Check("the result given is none of those that the report names", passed=False), None
    if codes is not None and pixels_digest(codes) != row["sent_digest"]:
        return Check("the result's pixels are not those sent: they were changed", passed=False), codes
    stated = dict(said.split("=", 1) for said in row["result_digests"] if "=" in said)
    if dataset_digest(result) == stated.get(header.sop_instance_uid):
        return Check("the result is the one sent, bit for bit", passed=True), codes
    if codes is None:
        return Check("the result is not the one sent: it was changed", passed=False), None
    said = "the result's pixels are those sent, but other attributes are not: an archive may have corrected them"
    return Check(said, passed=True, noted=True), codes


def _changed(row: Row, original: Path, wanted: Codes | None, processor: Callable[[], Processor]) -> tuple[Check, _Made]:
    """Decode the original and make the change again; a decoder that gives other grey codes is told from a change."""
    try:
        image = read_display(original)
    except Unreadable as fault:
        return Check(f"the original can't be decoded: {fault}", passed=False), _Made(Proof.NONE, "")
    if pixels_digest(encode_codes(image.values, image.bits)) == row["display_digest"]:
        decoded = Check("it decodes to the same grey codes as then", passed=True)
    else:
        said = "it decodes to other grey codes than then: the file, or its decoder, is another"
        decoded = Check(said, passed=False)
    return decoded, _again(row, image, wanted, processor)


def _again(row: Row, image: DisplayImage, wanted: Codes | None, processor: Callable[[], Processor]) -> _Made:
    """Make the change again and compare its digest."""
    method = row["method"]
    version = int(row["method_version"]) if row["method_version"].isdecimal() else 0
    try:
        if is_curve(method):
            codes, proof, where = replay_curve(image, method, version, row["parameters"]), Proof.COEFFICIENTS, ""
        else:
            engine = processor()
            where = _elsewhere(row, engine)
            codes = engine.replay(image, row["bank"], row["bank_digest"], method, version)
            proof = Proof.OTHER_PLACE if where else Proof.SAME_PLACE
    except (BadInput, Unreadable, EngineFault) as fault:
        return _Made(Proof.NONE, f"it can't be made again here: {fault}")
    same = pixels_digest(codes) == row["pixels_digest"]
    sent = _as_sent(row, codes, image.bits)
    if sent is None:
        return _Made(Proof.NONE, "the words that the report names don't fit into the image", codes)
    if same and row["sent_digest"] in ("", pixels_digest(sent)):
        return _Made(proof, where, sent)
    if proof is Proof.OTHER_PLACE:
        return _near(sent, wanted, image.bits, where)
    return _Made(Proof.NONE, "the change gives other pixels than those reported", sent)


def _as_sent(row: Row, codes: Codes, bits: int) -> Codes | None:
    return label.drawn(codes, bits, row["label"]) if row["label"] else codes


def _elsewhere(row: Row, processor: Processor) -> str:
    """What differs from where it was computed, "" where nothing does."""
    here = {"software": software(), "device": device_class(processor.device)}
    return "; ".join(
        f"{key} {row[key] or 'not stated'} then, {now} here" for key, now in here.items() if row[key] != now
    )


def _near(codes: Codes, wanted: Codes | None, bits: int, where: str) -> _Made:
    """How far apart two images are, in grey of 1; only where the result is given there is something to measure."""
    if wanted is None or wanted.shape != codes.shape or wanted.dtype != codes.dtype:
        return _Made(Proof.NONE, f"other pixels ({where}): give the image with --result to measure how far off", codes)
    off = float(np.sqrt(np.mean(((codes.astype(np.float64) - wanted) / (2**bits - 1)) ** 2)))
    said = f"{off:.2g} of grey off in the root mean square, tolerance {TOLERANCE:g} (other software or device: {where})"
    return _Made(Proof.TOLERANCE if off <= TOLERANCE else Proof.NONE, said, codes)
