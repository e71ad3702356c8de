"""Say whether a report is as it was written, by a digest of its own content that it carries. Builds no report.

The digest finds damage and unnoticed changes. It is no signature: who changes a report on purpose can make it anew.
It covers what the node wrote, as values, so that another transfer syntax or character set changes nothing. It leaves
out what was copied of patient and study, which an archive may correct, and of which a digest alone could be guessed
back in a report whose names were removed; `evenray audit replay` compares those with the original.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from dicom_node.results import concepts
from dicom_node.tolerant import READ_FAULTS, items, quiet, text

COVERED = (
    "SOPClassUID",
    "SOPInstanceUID",
    "ContentDate",
    "ContentTime",
    "Modality",
    "Manufacturer",
    "InstitutionName",
    "StationName",
    "SeriesDescription",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "TimezoneOffsetFromUTC",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "InstanceNumber",
    "ReferencedPerformedProcedureStepSequence",
    "ValueType",
    "ConceptNameCodeSequence",
    "ContinuityOfContent",
    "PredecessorDocumentsSequence",
    "PerformedProcedureCodeSequence",
    "CurrentRequestedProcedureEvidenceSequence",
    "PertinentOtherEvidenceSequence",
    "CompletionFlag",
    "VerificationFlag",
    "PreliminaryFlag",
    "ContentTemplateSequence",
    "ContentSequence",
    "ContributingEquipmentSequence",
    "CodingSchemeIdentificationSequence",
)
"""Every attribute of a report but those of patient and study, and the character set, which are copied."""


def digest_of(report: Dataset) -> str:
    """SHA-256 (hex) over the covered attributes, the stated digest itself left out.

    Each element is its tag, its VR and its values, a sequence its number of items, an item its number of elements, and
    a length before each piece: no two contents are written alike. Raises one of READ_FAULTS on damaged values.
    """
    digest = hashlib.sha256()
    with quiet():
        for keyword in COVERED:
            if keyword in report:
                for part in _element(report[keyword], outermost=True):
                    digest.update(b"%d:" % len(part) + part)
    return digest.hexdigest()


def stated_digest(report: Dataset) -> str:
    """The digest that the report carries, "" where it carries none."""
    found = [text(item, "TextValue") for item in items(report, "ContentSequence") if _is_digest(item)]
    return found[0] if len(found) == 1 else ""


def is_whole(report: Dataset) -> bool:
    """Whether the report's content is what it was when it was written."""
    try:
        return stated_digest(report) == digest_of(report)
    except READ_FAULTS:
        return False


def _is_digest(item: Dataset) -> bool:
    named = items(item, "ConceptNameCodeSequence")
    wanted = concepts.REPORT_DIGEST
    return any((text(n, "CodeValue"), text(n, "CodingSchemeDesignator")) == wanted[:2] for n in named)


def _element(found: DataElement, *, outermost: bool = False) -> Iterable[bytes]:
    """The element as a run of pieces whose number follows from what they say."""
    yield f"{int(found.tag):08x}{found.VR}".encode()
    if found.VR != "SQ":
        yield _value(found.value)
        return
    yield str(len(found.value)).encode()
    for item in found.value:
        own = outermost and found.keyword == "ContentSequence" and _is_digest(item)
        inside = [element for element in item if not (own and element.keyword == "TextValue")]
        yield str(len(inside)).encode()
        for element in inside:
            yield from _element(element)


def _value(value: object) -> bytes:
    """All values of an element, alike before they are written and after they are read: without padding."""
    if isinstance(value, bytes):
        return value
    many = [] if value is None else value if isinstance(value, MultiValue | list) else [value]
    parts = "\\".join(map(str, many)).split("\\")
    return "\\".join(part.strip(" \0") for part in parts).encode("utf-8", "surrogateescape")
