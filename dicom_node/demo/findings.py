"""What the archive has received, image by image: its reports are read back, and its objects checked against them.

Asks the node nothing: what a person is shown is what a PACS would have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.uid import Comprehensive3DSRStorage

from dicom_node.demo.archive import Held
from dicom_node.demo.given import Given
from dicom_node.errors import BadInput, Unreadable
from dicom_node.header import dataset_digest, read_header
from dicom_node.pixels import encode_codes, pixels_digest, read_display
from dicom_node.records import Measured, Outcome
from dicom_node.results.report_text import parse_report

MISSING = "missing"
"""Stands where an outcome should: no report in the archive names the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One image that was sent, and what the archive holds about it."""

    given: Given
    outcome: str
    reason: str
    exam: str = ""
    vendor: str = ""
    method: str = ""
    before: float | None = None
    after: float | None = None
    threshold: float | None = None
    figures: tuple[Measured, ...] = ()
    parameters: Mapping[str, str]
    original: Path | None = None
    """As the archive received it, like the other two."""
    image: Path | None = None
    report: Path | None = None
    faults: tuple[str, ...] = ()
    """In what the archive's objects differ from what the report says of them."""


def read_back(given: Sequence[Given], held: Sequence[Held], stranded: Mapping[str, str]) -> list[Finding]:
    """One finding for every object that was sent. `stranded` says, by UID, why the node has set an object aside."""
    paths = {one.sop_instance_uid: one.path for one in held}
    rows: dict[str, tuple[Path, dict[str, Any]]] = {}
    for one in held:
        if one.sop_class_uid == Comprehensive3DSRStorage:
            rows |= {row["source_instance"]: (one.path, row) for row in _rows(one.path)}
    return [
        _found(one, *rows[one.uid], paths)
        if one.uid in rows
        else Finding(given=one, outcome=MISSING, reason=stranded.get(one.uid, "no report names it"), parameters={})
        for one in given
    ]


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a report of ours; none where a person's own structured report was among the files."""
    try:
        return parse_report(path)
    except (BadInput, Unreadable):
        return []


def _found(given: Given, report: Path, row: dict[str, Any], paths: Mapping[str, Path]) -> Finding:
    original = paths.get(given.uid)
    image = next((paths[uid] for uid in row["results"] if uid in paths), None)
    return Finding(
        given=given,
        outcome=row["outcome"],
        reason=row["reason"],
        exam=row["exam"],
        vendor=_vendor(original),
        method=row["method"],
        before=row["distance_before"],
        after=row["distance_after"],
        threshold=row["threshold"],
        figures=tuple(Measured(**figure) for figure in row["figures"]),
        parameters=row["parameters"],
        original=original,
        image=image,
        report=report,
        faults=tuple(_faults(row, original, image)),
    )


def _vendor(original: Path | None) -> str:
    try:
        return read_header(original).manufacturer if original else ""
    except Unreadable:
        return ""


def _faults(row: dict[str, Any], original: Path | None, image: Path | None) -> list[str]:
    """The report's digests against the archive's bytes: the original untouched, the result's pixels as reported."""
    faults = []
    if original is None:
        faults.append("its original did not reach the archive")
    elif dataset_digest(original) != row["source_digest"]:
        faults.append("its original reached the archive with other bytes")
    if row["outcome"] == Outcome.HARMONIZED:
        if image is None:
            faults.append("its harmonized image did not reach the archive")
        elif _pixels_of(image) != row["pixels_digest"]:
            faults.append("its harmonized image has other pixels than its report says")
    return faults


def _pixels_of(image: Path) -> str:
    shown = read_display(image)
    return pixels_digest(encode_codes(shown.values, shown.bits))
