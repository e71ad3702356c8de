"""What an archive is asked and what it answers, as frozen records. Knows no protocol and no file's contents."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from dicom_node.errors import BadInput

_DATE = re.compile(r"\d{8}")
_MODALITY = re.compile(r"[A-Z0-9_ ]{1,16}")
_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
SPECIAL = frozenset("*?\\")
"""Wild cards and the separator of values: they would ask for more than was meant. Source: PS3.4 C.2.2.2.4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which studies. What is empty asks for any; what is given must hold together. Make it by `wanted`."""

    studies: tuple[str, ...] = ()
    """Study Instance UIDs."""
    accession: str = ""
    patient: str = ""
    """Patient ID, never shown or logged."""
    first: date | None = None
    last: date | None = None
    """Study Date, both ends included; None: open."""
    modalities: tuple[str, ...] = ()
    """Modalities in Study: one of them is enough."""

    def admits(self, study: FoundStudy) -> bool:
        """Whether a study that was answered is one that was asked for: some archives ignore keys that they don't know.

        Modalities that an archive does not tell are decided at its series.
        """
        if self.studies and study.study_instance_uid not in self.studies:
            return False
        if study.accession != (self.accession or study.accession) or study.patient != (self.patient or study.patient):
            return False
        if (self.first or self.last) and not _within(study.date, self.first, self.last):
            return False
        return not (self.modalities and study.modalities) or bool(set(self.modalities) & set(study.modalities))


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundStudy:
    """A study that an archive has. `accession` and `patient` are only compared: never shown or logged."""

    study_instance_uid: str
    date: str = ""
    """Study Date as YYYYMMDD, "" where the archive tells none."""
    modalities: tuple[str, ...] = ()
    """Modalities in Study, () where the archive does not tell."""
    instances: int | None = None
    """Number of Study Related Instances, None where the archive does not tell."""
    accession: str = ""
    patient: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundSeries:
    """A series that an archive has."""

    study_instance_uid: str
    series_instance_uid: str
    modality: str = ""
    manufacturer: str = ""
    """"" where the archive does not tell: a key that it may ignore."""
    description: str = ""
    instances: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundImage:
    """An instance that an archive has, an image or another object."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str = ""
    """"" where the archive does not tell."""
    modality: str = ""
    """That of its series."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One object that was fetched: a Part 10 file with the data set exactly as it came, gone after `Keep` returns."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


Keep = Callable[[Received], int]
"""Keeps a fetched object and says, as a C-STORE status, whether it is safe (0x0000). May run in another thread than
the caller's; raises nothing."""


def wanted(
    *,
    studies: tuple[str, ...] = (),
    accession: str = "",
    patient: str = "",
    dates: str = "",
    modalities: tuple[str, ...] = (),
) -> Wanted:
    """The question that a person asks. `dates`: 20240131, 20240101-20240131, 20240101- or -20240131.

    Raises BadInput: nothing that narrows it, a wild card, no UID, no date, no modality.
    """
    if not (studies or accession or patient or dates):
        raise BadInput("nothing says which studies: give --study, --accession, --patient or --date")
    for option, value in (("--accession", accession), ("--patient", patient)):
        if SPECIAL & set(value) or len(value) > 64 or not value.isprintable():
            raise BadInput(f"{option}: give the whole value without *, ? or backslash")
    for uid in studies:
        if not _UID.fullmatch(uid) or len(uid) > 64:
            raise BadInput("--study: a Study Instance UID has digits and dots only, at most 64 characters")
    for modality in modalities:
        if not _MODALITY.fullmatch(modality):
            raise BadInput(f"--modality: {modality!r} is no modality: write CR,DX,MG")
    first, last = _dates(dates) if dates else (None, None)
    return Wanted(
        studies=tuple(dict.fromkeys(studies)),
        accession=accession.strip(),
        patient=patient.strip(),
        first=first,
        last=last,
        modalities=tuple(dict.fromkeys(modalities)),
    )


def _dates(text: str) -> tuple[date | None, date | None]:
    first, dash, last = text.partition("-")
    ends = _day(first), _day(last) if dash else _day(first)
    if not any(ends):
        raise BadInput("--date: write 20240131, 20240101-20240131, 20240101- or -20240131")
    if ends[0] and ends[1] and ends[0] > ends[1]:
        raise BadInput(f"--date: {first} is after {last}: the earlier day comes first")
    return ends


def _day(text: str) -> date | None:
    if not text:
        return None
    try:
        if _DATE.fullmatch(text):
            return date.fromisoformat(f"{text[:4]}-{text[4:6]}-{text[6:]}")
    except ValueError:
        pass
    raise BadInput(f"--date: {text!r} is no day: write it as YYYYMMDD, for example 20240131")


def _within(text: str, first: date | None, last: date | None) -> bool:
    try:
        day = _day(text)
    except BadInput:
        return False
    return day is not None and (first is None or day >= first) and (last is None or day <= last)
