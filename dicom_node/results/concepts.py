"""Every code that results use, named once beside its source. Knows no data set.

Standard codes come from PS3.16; what has none is private under 99EVENRAY, which each result declares.
"""

from __future__ import annotations

import hashlib
import re
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
# Source: PS3.16 CID 100. "XR unspecified body region" (43468-8, LN) would say more, but the edition of CID 100 in
# PixelMed's validator, which IHE uses, does not have it yet; this one is in both.
PROCEDURE = Concept("363679005", "SCT", "Imaging procedure")
# Source: RFC 5646 as a DICOM coding scheme, PS3.16 CID 5000.
ENGLISH = Concept("en", "RFC5646", "English")
# Source: PS3.16 annex D; TID 1501 leaves the finding open, and this is the nearest standard concept.
IMAGE_QUALITY = Concept("111101", "DCM", "Image Quality")
# Source: UCUM.
NO_UNIT = Concept("1", "UCUM", "no units")

# Nothing in PS3.16 stands for these (searched: CID 7203, CID 7050 ff., TID 4014, TID 2102).
HARMONIZATION = Concept("HARMONIZATION", PRIVATE, "Style harmonization")
SOURCE_OBJECT = Concept("SOURCE_OBJECT", PRIVATE, "Original that is no image")
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
    "pixels_digest": Concept("PIXELS_DIGEST", PRIVATE, "SHA-256 of the pixels sent"),
    "result": Concept("RESULT", PRIVATE, "SOP Instance UID of the result"),
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
