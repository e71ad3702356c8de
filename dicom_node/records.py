"""The node's frozen records: what is passed between the steps. Knows no DICOM library, file or database."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

# JSON has no word for infinity: written as a string, a number without bound reads back as what it was.
_JSON = {"ser_json_inf_nan": "strings"}


class Outcome(StrEnum):
    """What became of an instance. A fault is not an outcome: it is retried or parked."""

    CONFORMING = "conforming"
    HARMONIZED = "harmonized"
    REFUSED = "refused"
    UNREADABLE = "unreadable"
    PASSED = "passed"


class ResultKind(StrEnum):
    """What a delivered object is. An original is forwarded as received; the others are made here."""

    ORIGINAL = "original"
    SECONDARY_CAPTURE = "secondary_capture"
    DERIVED_IMAGE = "derived_image"
    PRESENTATION_STATE = "presentation_state"
    KEY_OBJECT_SELECTION = "key_object_selection"
    STRUCTURED_REPORT = "structured_report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One instance as the receiver knows it: only what the C-STORE request and the association say."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae: str
    called_ae: str
    association: str
    path: str
    """Relative to the spool's root."""
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What routing, assembly and the engine need of one instance's data set. Parsed once, when it is admitted.

    Strings are upper case where DICOM's are code strings, "" where the attribute is absent or empty.
    `patient_key` tells patients apart (a digest of Patient ID and its issuer) without naming one.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str
    series_instance_uid: str
    patient_key: str
    modality: str
    body_part: str
    """As stated, or as recognised from the procedure's description; `body_part_source` says which."""
    body_part_source: str
    view: str
    laterality: str
    presentation_intent: str
    manufacturer: str
    rows: int
    columns: int
    frames: int
    samples_per_pixel: int
    has_pixels: bool
    made_by_evenray: bool

    @property
    def study_key(self) -> str:
        """Study UID and patient: files of two patients that claim one Study UID never share a report."""
        return f"{self.study_instance_uid}/{self.patient_key}"


@dataclass(frozen=True, slots=True)
class Measured:
    """One number of the anatomy check and the limit it was held against (None: reported only)."""

    __pydantic_config__: ClassVar[dict[str, str]] = _JSON

    name: str
    value: float
    limit: float | None = None
    at_least: bool = True
    passed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One method that the engine tried on the image."""

    __pydantic_config__: ClassVar[dict[str, str]] = _JSON

    method: str
    distance: float
    verified: bool
    figures: tuple[Measured, ...] = ()
    parameters: dict[str, str] = field(default_factory=dict)
    """Every parameter of the change; floats as repr, so that they read back to the same bits."""
    version: int = 0
    """Of the method: its parameters mean something in this version; 0 where it was not noted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided about one instance and why: the ledger keeps it as JSON, the report shows all of it."""

    __pydantic_config__: ClassVar[dict[str, str]] = _JSON

    outcome: Outcome
    reason: str
    exam: str = ""
    route: str = ""
    bank: str = ""
    bank_digest: str = ""
    references: tuple[str, ...] = ()
    method: str = ""
    distance_before: float | None = None
    distance_after: float | None = None
    threshold: float | None = None
    exposed_share: float | None = None
    alignment: dict[str, str] = field(default_factory=dict)
    figures: tuple[Measured, ...] = ()
    """Of the chosen method, or of the one that was refused."""
    tried: tuple[Tried, ...] = ()
    engine_version: str = ""
    settings_digest: str = ""
    weights_digest: str = ""
    source_digest: str = ""
    """SHA-256 of the original's data set as received."""
    display_digest: str = ""
    """SHA-256 of the grey codes that the change was applied to, "" where nothing was changed."""
    pixels_digest: str = ""
    """SHA-256 of the harmonized grey codes (little endian) as the engine gave them, "" where it gave none."""
    label: str = ""
    """The words that were drawn into the pixels sent, "" where none were."""
    sent_digest: str = ""
    """SHA-256 of the grey codes in the images sent; another one than `pixels_digest` only where words were drawn."""
    notes: tuple[str, ...] = ()
    """How the pixels were read (window, LUT, inversion) and which attributes were repaired or left out."""
    software: str = ""
    device: str = ""
    """With what it was computed: a method that is no curve gives the same bits again only there."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Cost by stage, for the operator; never part of a result, which must not depend on the machine's speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One DICOM object that was made, as a complete Part 10 file in memory-independent form."""

    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """One instance of a batch as its report needs it: the source (for its header) and the decision about it."""

    source: Path
    header: Header
    decision: Decision
    results: tuple[tuple[str, str], ...] = ()
    """(SOP Class UID, SOP Instance UID) of the objects made from it."""
    digests: dict[str, str] = field(default_factory=dict)
    """SHA-256 of a result's data set, by its SOP Instance UID, where it is known."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a destination answered to one delivery. `status` is the DIMSE status, None for a folder."""

    accepted: bool
    status: int | None
    detail: str
