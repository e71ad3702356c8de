"""Every code that results use, named once beside its source. Knows no data set.

Standard codes come from PS3.16; what has none is private under 99EVENRAY, which each result declares.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import NamedTuple

from dicom_node import marks
from dicom_node.records import Outcome

PRIVATE = marks.CODING_SCHEME


class Concept(NamedTuple):
    """One coded concept: at most 16 characters of value and 64 of meaning. Source: PS3.3 8.8, PS3.5 6.2 (SH, LO)."""

    value: str
    scheme: str
    meaning: str


# Source: PS3.16 CID 7005.
ACQUISITION_EQUIPMENT = Concept("109101", "DCM", "Acquisition Equipment")
PROCESSING_EQUIPMENT = Concept("109102", "DCM", "Processing Equipment")
# Source: IHE AI Results 6.5.3.1 (a placeholder code of the supplement's trial version).
PROCESSING_ALGORITHM = Concept("Newcode1", "99IHE", "Processing Algorithm")
# Source: PS3.16 CID 7202.
SOURCE_IMAGE = Concept("121322", "DCM", "Source image for image processing operation")
# Source: PS3.16 CID 7021.
MEASUREMENT_REPORT = Concept("126000", "DCM", "Imaging Measurement Report")
# Source: PS3.16 CID 7010. No note of rejection (113001), which would make archives hide the originals (IHE IOCM).
QUALITY_ISSUE = Concept("113010", "DCM", "Quality Issue")
# Source: PS3.16 CID 100. "XR unspecified body region" (43468-8, LN) would say more, but the edition of CID 100 in
# PixelMed's validator, which IHE uses, does not have it yet; this one is in both.
PROCEDURE = Concept("363679005", "SCT", "Imaging procedure")
# Source: RFC 5646 as a DICOM coding scheme, PS3.16 CID 5000.
ENGLISH = Concept("en", "RFC5646", "English")
# Source: PS3.16 annex D; TID 1501 leaves the finding open, and this is the nearest standard concept.
IMAGE_QUALITY = Concept("111101", "DCM", "Image Quality")
# Source: UCUM.
NO_UNIT = Concept("1", "UCUM", "no units")
PIXELS = Concept("{pixels}", "UCUM", "Pixels")
MILLIMETRE = Concept("mm", "UCUM", "millimeter")

# Source: PS3.16 TID 1600 to TID 1603.
IMAGE_LIBRARY = Concept("111028", "DCM", "Image Library")
IMAGE_LIBRARY_GROUP = Concept("126200", "DCM", "Image Library Group")
SOURCE = Concept("260753009", "SCT", "Source")
MODALITY = Concept("121139", "DCM", "Modality")
TARGET_REGION = Concept("123014", "DCM", "Target Region")
IMAGE_LATERALITY = Concept("111027", "DCM", "Image Laterality")
IMAGE_VIEW = Concept("111031", "DCM", "Image View")
PIXEL_ROWS = Concept("110910", "DCM", "Pixel Data Rows")
PIXEL_COLUMNS = Concept("110911", "DCM", "Pixel Data Columns")
ORIENTATION_ROW = Concept("111044", "DCM", "Patient Orientation Row")
ORIENTATION_COLUMN = Concept("111043", "DCM", "Patient Orientation Column")
HORIZONTAL_SPACING = Concept("111026", "DCM", "Horizontal Pixel Spacing")
VERTICAL_SPACING = Concept("111066", "DCM", "Vertical Pixel Spacing")
# Source: PS3.16 CID 29, those of radiography.
MODALITIES = {
    "CR": Concept("CR", "DCM", "Computed Radiography"),
    "DX": Concept("DX", "DCM", "Digital Radiography"),
    "IO": Concept("IO", "DCM", "Intra-oral Radiography"),
    "MG": Concept("MG", "DCM", "Mammography"),
    "PX": Concept("PX", "DCM", "Panoramic X-Ray"),
    "RF": Concept("RF", "DCM", "Radiofluoroscopy"),
    "RG": Concept("RG", "DCM", "Radiographic imaging"),
    "XA": Concept("XA", "DCM", "X-Ray Angiography"),
}
# Source: PS3.16 CID 244.
SIDES = {
    "R": Concept("24028007", "SCT", "Right"),
    "L": Concept("7771000", "SCT", "Left"),
    "B": Concept("51440002", "SCT", "Bilateral"),
}
# Source: PS3.16 CID 4010 for the View Positions of PS3.3 C.8.3.3 and C.8.11.5; mammography's are in `anatomy`.
VIEWS = {
    "AP": Concept("399348003", "SCT", "antero-posterior"),
    "PA": Concept("272479007", "SCT", "postero-anterior"),
    "LL": Concept("399173006", "SCT", "left lateral"),
    "RL": Concept("399198007", "SCT", "right lateral"),
    "LATERAL": Concept("399067008", "SCT", "lateral"),
}

# Nothing in PS3.16 stands for these (searched: CID 7203, CID 7050 ff., TID 4014, TID 2102).
HARMONIZATION = Concept("HARMONIZATION", PRIVATE, "Style harmonization")
SOURCE_OBJECT = Concept("SOURCE_OBJECT", PRIVATE, "Original that is no image")
RESULT_IMAGE = Concept("RESULT_IMAGE", PRIVATE, "Image made from the original")
RESULT_OBJECT = Concept("RESULT_OBJECT", PRIVATE, "Object made from the original")
EARLIER_REPORT = Concept("EARLIER_REPORT", PRIVATE, "Earlier report of the same study")
REPORT_DIGEST = Concept("REPORT_DIGEST", PRIVATE, "SHA-256 of this report's content")
OUTCOME = Concept("OUTCOME", PRIVATE, "Outcome of harmonization")
OUTCOMES = {
    Outcome.CONFORMING: Concept("CONFORMING", PRIVATE, "Conforming, nothing was changed"),
    Outcome.HARMONIZED: Concept("HARMONIZED", PRIVATE, "Harmonized, a verified image was made"),
    Outcome.REFUSED: Concept("REFUSED", PRIVATE, "Refused, no image was made"),
    Outcome.UNREADABLE: Concept("UNREADABLE", PRIVATE, "Unreadable, no image was made"),
    Outcome.PASSED: Concept("PASSED", PRIVATE, "Passed by, not a task of any route"),
}

DISTANCE_BEFORE = Concept("DISTANCE_BEFORE", PRIVATE, "Style distance before")
DISTANCE_AFTER = Concept("DISTANCE_AFTER", PRIVATE, "Style distance after")
THRESHOLD = Concept("THRESHOLD", PRIVATE, "Style distance that counts as conforming")
EXPOSED_SHARE = Concept("EXPOSED_SHARE", PRIVATE, "Share of the image that was exposed")

# Text items of an image's group, in the order in which a person reads them.
TEXTS = {
    "reason": Concept("REASON", PRIVATE, "Reason"),
    "exam": Concept("EXAM", PRIVATE, "Exam type"),
    "route": Concept("ROUTE", PRIVATE, "Route"),
    "method": Concept("METHOD", PRIVATE, "Method"),
    "bank": Concept("BANK", PRIVATE, "Reference bank"),
    "bank_digest": Concept("BANK_DIGEST", PRIVATE, "SHA-256 of the reference bank"),
    "reference": Concept("REFERENCE", PRIVATE, "Reference chosen"),
    "figure": Concept("FIGURE", PRIVATE, "Figure that is no finite number"),
    "alignment": Concept("ALIGNMENT", PRIVATE, "Alignment parameter"),
    "tried": Concept("TRIED", PRIVATE, "Method tried"),
    "tried_figure": Concept("TRIED_FIGURE", PRIVATE, "Figure of a method tried"),
    "tried_parameter": Concept("TRIED_PARAMETER", PRIVATE, "Parameter of a method tried"),
    "engine_version": Concept("ENGINE_VERSION", PRIVATE, "Engine version"),
    "settings_digest": Concept("SETTINGS_DIGEST", PRIVATE, "SHA-256 of the settings"),
    "weights_digest": Concept("WEIGHTS_DIGEST", PRIVATE, "SHA-256 of the weights"),
    "source_digest": Concept("SOURCE_DIGEST", PRIVATE, "SHA-256 of the original data set"),
    "display_digest": Concept("DISPLAY_DIGEST", PRIVATE, "SHA-256 of the grey codes before the change"),
    "pixels_digest": Concept("CODES_DIGEST", PRIVATE, "SHA-256 of the grey codes after the change"),
    "label": Concept("LABEL", PRIVATE, "Words drawn into the pixels sent"),
    "sent_digest": Concept("PIXELS_DIGEST", PRIVATE, "SHA-256 of the pixels sent"),
    "result": Concept("RESULT", PRIVATE, "SOP Instance UID of the result"),
    "result_digest": Concept("RESULT_DIGEST", PRIVATE, "SHA-256 of the data set of a result"),
    "method_version": Concept("METHOD_VERSION", PRIVATE, "Version of the method"),
    "software": Concept("SOFTWARE", PRIVATE, "Software that it was computed with"),
    "device": Concept("DEVICE", PRIVATE, "Class of device that it was computed on"),
    "note": Concept("NOTE", PRIVATE, "Note"),
    "source_class": Concept("SOURCE_CLASS", PRIVATE, "SOP Class UID of the original"),
    "source_instance": Concept("SOURCE_INSTANCE", PRIVATE, "SOP Instance UID of the original"),
}

SCHEMES = (
    (PRIVATE, "Evenray private concepts", "Evenray"),
    ("99IHE", "IHE trial concepts", "IHE Radiology"),
)
FIGURE_MARK, LOWER_MARK, UPPER_MARK = "F:", "L:", "U:"
"""Start the code values of a figure of the anatomy check and of the limit below or above it."""


def figure(name: str) -> Concept:
    """The concept of a figure of the anatomy check, whatever the engine calls it."""
    return Concept(FIGURE_MARK + _tail(name), PRIVATE, name[:64])


def limit(name: str, *, at_least: bool) -> Concept:
    """The concept of the limit that a figure was held against."""
    if at_least:
        return Concept(LOWER_MARK + _tail(name), PRIVATE, f"{name[:49]}: lower limit")
    return Concept(UPPER_MARK + _tail(name), PRIVATE, f"{name[:49]}: upper limit")


def _tail(name: str) -> str:
    """The name itself while it fits in a code value; else cut and closed with five characters of its hash, so that
    two long names never share a code."""
    plain = re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_") or "UNNAMED"
    room = 16 - len(FIGURE_MARK)
    if len(plain) > room or plain.lower() != name:
        plain = plain[: room - 5] + hashlib.sha256(name.encode()).hexdigest()[:5].upper()
    return plain


GROUP = "Report, measurement group of an image"
USES = {
    HARMONIZATION.value: "Derivation Code Sequence of a changed image",
    SOURCE_OBJECT.value: f"{GROUP}: COMPOSITE, the original",
    RESULT_IMAGE.value: f"{GROUP}: IMAGE, a changed image",
    RESULT_OBJECT.value: f"{GROUP}: COMPOSITE, a presentation state or a selection of key objects",
    EARLIER_REPORT.value: "Report, root: COMPOSITE, the report of an earlier batch that this one adds to",
    REPORT_DIGEST.value: "Report, root: TEXT, the digest of its own content, which finds damage; no signature",
    OUTCOME.value: f"{GROUP}: CODE, one of the next five",
    TEXTS["result"].value: f"{GROUP}: TEXT, in reports of version 0.1 in the place of RESULT_IMAGE",
}
"""Where a private concept stands. All others: values of OUTCOME, NUM of TID 300, TEXT, each in an image's group."""


def markdown(figures: Mapping[str, str] | None = None) -> str:
    """Every private concept as a Markdown table, for the conformance statement: code, meaning, where it stands.

    figures: names and sentences of the anatomy check's figures; each has a code, and its limit another.
    """
    rows = [(c.value, c.meaning, USES.get(c.value) or _use(c)) for c in _private()]
    for name, sentence in (figures or {}).items():
        bounds = " or ".join(limit(name, at_least=side).value for side in (True, False))
        rows.append((figure(name).value, name, f"{GROUP}: NUM. {sentence} Its limit is {bounds}"))
    lines = [f"| Code value ({PRIVATE}) | Code meaning | Where it stands |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| `{code}` | {meaning} | {use} |" for code, meaning, use in rows)]) + "\n"


def _private() -> list[Concept]:
    """In the order in which they are written above."""
    found: list[Concept] = []
    for named in list(globals().values()):
        if isinstance(named, Concept):
            found.append(named)
        elif isinstance(named, dict):
            found += [one for one in named.values() if isinstance(one, Concept)]
    return [concept for concept in found if concept.scheme == PRIVATE]


def _use(concept: Concept) -> str:
    if concept in OUTCOMES.values():
        return f"{GROUP}: value of OUTCOME"
    return f"{GROUP}: {'TEXT' if concept in TEXTS.values() else 'NUM, TID 300'}"
