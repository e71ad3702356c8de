"""Attributes that a result takes over from its original, each checked against its VR. Knows no pixels.

An invalid value is repaired where what was meant is certain, else left out; either is told by keyword, never by
value. Source: PS3.5 6.2 (VRs), PS3.3 C.7.1.1, C.7.2.1, C.7.2.2 (what belongs to patient and study).
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable
from datetime import datetime

from pydicom.charset import convert_encodings, encode_string
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import format_number_as_ds

from dicom_node.tolerant import items, numbers, text, values

IDENTITY_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
"""Type 2 in the Patient and General Study modules: present in every result, empty where not known."""
PATIENT_AND_STUDY = (
    *IDENTITY_2,
    "IssuerOfPatientID",
    "PatientBirthTime",
    "EthnicGroup",
    "PatientSpeciesDescription",
    "PatientBreedDescription",
    "ResponsiblePerson",
    "ResponsiblePersonRole",
    "ResponsibleOrganization",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientSexNeutered",
    "StudyDescription",
    "TimezoneOffsetFromUTC",
)
PATIENT_AND_STUDY_CODES = (
    "PatientSpeciesCodeSequence",
    "PatientBreedCodeSequence",
    "DeidentificationMethodCodeSequence",
    "ProcedureCodeSequence",
)
NEVER_CUT = {
    *("PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyID", "PatientName"),
    *("CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion"),
}
"""A shortened identifier or code is another one."""
ENUMERATED = {
    "PatientSex": {"M", "F", "O"},
    "ImageLaterality": {"R", "L", "B", "U"},
    "Laterality": {"R", "L"},
    "PatientIdentityRemoved": {"YES", "NO"},
    "PatientSexNeutered": {"ALTERED", "UNALTERED"},
    "ResponsiblePersonRole": {"OWNER", "PARENT", "CHILD", "SPOUSE", "SIBLING", "RELATIVE", "GUARDIAN", "CUSTODIAN",
                              "AGENT", "INVESTIGATOR", "VETERINARIAN"},
    "AnatomicalOrientationType": {"BIPED", "QUADRUPED"},
    "BreastImplantPresent": {"YES", "NO"},
    "CollimatorShape": {"RECTANGULAR", "CIRCULAR", "POLYGONAL"},
    "DetectorActiveShape": {"RECTANGLE", "ROUND", "HEXAGONAL"},
    "DetectorConditionsNominalFlag": {"YES", "NO"},
    "DetectorGeometry": {"CURVED_LINEAR", "CYLINDRICAL", "SPHERICAL", "PLANAR"},
    "ExposureControlMode": {"MANUAL", "AUTOMATIC"},
    "ExposureStatus": {"NORMAL", "ABORTED"},
    "FieldOfViewHorizontalFlip": {"YES", "NO"},
    "FieldOfViewRotation": {"0", "90", "180", "270"},
    "FieldOfViewShape": {"RECTANGLE", "ROUND", "HEXAGONAL"},
    "LongitudinalTemporalInformationModified": {"UNMODIFIED", "MODIFIED", "REMOVED"},
    "PartialView": {"YES", "NO"},
    "PregnancyStatus": {"1", "2", "3", "4"},
    "QualityControlImage": {"YES", "NO", "BOTH"},
    "RecognizableVisualFeatures": {"YES", "NO"},
    "ShutterShape": {"RECTANGULAR", "CIRCULAR", "POLYGONAL"},
    "SmokingStatus": {"YES", "NO", "UNKNOWN"},
}  # fmt: skip
LONGEST = {"AE": 16, "LO": 64, "SH": 16, "ST": 1024, "LT": 10240, "PN": 64, "UI": 64}
# Source: PS3.3 C.7.6.1.1.1 (bipeds and quadrupeds), C.12.1.1.8 (-1200 to +1400, and never -0000).
PATTERNS = {
    "PatientOrientation": r"[APRLHF]{1,3}|(LE|RT|D|V|CR|CD|R|M|L|PL|PA|PR|DI|ME|LA|PX){1,3}",
    "TimezoneOffsetFromUTC": r"-(?!0000)(0\d[0-5]\d|1[01][0-5]\d|1200)|\+(0\d[0-5]\d|1[0-3][0-5]\d|1400)",
}
CONTROL = re.compile(r"[\x00-\x1a\x1c-\x1f\x7f]")
UNICODE = "ISO_IR 192"
NO_MOMENT = ("19000101", "000000")
"""Date and time of a document where no original states one: it has to have them (PS3.3 C.17.2), and the clock's would
make a repeat another object."""


class Copier:
    """Copies checked attributes of one original into one result and remembers what it had to change."""

    def __init__(self, source: Dataset) -> None:
        self.source = source
        self._notes: dict[str, None] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence an attribute, in the order of copying; keywords only."""
        return tuple(self._notes)

    def note(self, sentence: str) -> None:
        self._notes[sentence] = None

    def copy(self, result: Dataset, keywords: Iterable[str]) -> None:
        """Copy what is stated and valid; the rest is left out and noted."""
        for keyword in keywords:
            stated = values(self.source, keyword)
            checked = [repaired(keyword, value) for value in stated]
            good = [value for value in checked if value is not None]
            if not any(stated):
                continue
            if len(good) != len(stated) or not _many_enough(keyword, len(stated)):
                self.note(f"{keyword} is invalid in the original and was left out")
                continue
            if good != stated:
                self.note(f"{keyword} was repaired")
            setattr(result, keyword, good if len(good) > 1 else good[0])

    def copy_codes(self, result: Dataset, keywords: Iterable[str]) -> None:
        """Copy code sequences: value, scheme, version and meaning of every item that has what PS3.3 8.8 asks for."""
        for keyword in keywords:
            out = [code for item in items(self.source, keyword) if (code := self._code(item, keyword)) is not None]
            if out:
                setattr(result, keyword, out)

    def copy_positive(self, result: Dataset, keywords: Iterable[str]) -> None:
        """Copy numbers that only mean something when they are positive (spacings, magnification)."""
        for keyword in keywords:
            found = numbers(self.source, keyword)
            if found and min(found) > 0:
                self.copy(result, (keyword,))
            elif values(self.source, keyword):
                self.note(f"{keyword} is invalid in the original and was left out")

    def _code(self, item: Dataset, keyword: str) -> Dataset | None:
        inner, out = Copier(item), Dataset()
        inner.copy(out, ("CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning"))
        if "CodeValue" in out and "CodingSchemeDesignator" in out and "CodeMeaning" in out:
            return out
        self.note(f"{keyword} has an incomplete code, which was left out")
        return None


def patient_and_study(source: Dataset, result: Dataset) -> Copier:
    """Copy the patient and study attributes; the type 2 ones are present even when empty."""
    copier = Copier(source)
    result.StudyInstanceUID = text(source, "StudyInstanceUID")
    copier.copy(result, PATIENT_AND_STUDY)
    copier.copy_codes(result, PATIENT_AND_STUDY_CODES)
    for keyword in IDENTITY_2:
        if keyword not in result:
            setattr(result, keyword, None)
    # Source: PS3.3 C.7.1.1: the method is required where the identity was removed.
    if text(result, "PatientIdentityRemoved") == "YES" and not (
        "DeidentificationMethod" in result or "DeidentificationMethodCodeSequence" in result
    ):
        del result.PatientIdentityRemoved
        copier.note("PatientIdentityRemoved states no method and was left out")
    return copier


def choose_charset(source: Dataset, result: Dataset) -> str | None:
    """Set Specific Character Set to the original's where it can hold every text of the result, else to Unicode.

    Returns the note about a change, None where there was none. Source: PS3.3 C.12.1.1.2, PS3.5 6.1.
    """
    texts = list(_texts(result))
    stated = values(source, "SpecificCharacterSet")
    if all(value.isascii() for value in texts):
        if any(stated) and _known(stated):
            result.SpecificCharacterSet = stated if len(stated) > 1 else stated[0]
        return None
    if any(stated) and _known(stated) and all(_fits(value, stated) for value in texts):
        result.SpecificCharacterSet = stated if len(stated) > 1 else stated[0]
        return None
    result.SpecificCharacterSet = UNICODE
    why = "does not hold its text" if any(stated) else "is not stated"
    return f"SpecificCharacterSet of the original {why}: written as {UNICODE}"


def _texts(dataset: Dataset) -> Iterable[str]:
    for found in dataset:
        if found.VR == "SQ":
            for item in found.value:
                yield from _texts(item)
        elif found.VR in ("LO", "LT", "PN", "SH", "ST", "UC", "UT"):
            many = found.value if isinstance(found.value, MultiValue) else [found.value]
            yield from (str(value) for value in many if value is not None)


def _known(stated: list[str]) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            convert_encodings(stated)
        except (LookupError, UserWarning, ValueError):
            return False
    return True


def _fits(value: str, stated: list[str]) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            # pydicom takes the default repertoire for Latin-1, which PS3.5 6.1.2.1 does not.
            encodings = ["ascii" if name == "iso8859" else name for name in convert_encodings(stated)]
            encode_string(value, encodings)
            written = encode_string(value, convert_encodings(stated))
        except (UnicodeError, UserWarning, LookupError, ValueError):
            return False
    # pydicom leaves out the escape sequences of some sets: what no byte announces would be read as another text.
    return written.isascii() or b"\x1b" in written or stated[0] not in ("", "ISO_IR 6", "ISO 2022 IR 6")


def repaired(keyword: str, value: str) -> str | None:
    """The value as its VR wants it, or None where what was meant is not certain."""
    vr = dictionary_VR(keyword)
    fixed = REPAIRS[vr](value) if vr in REPAIRS else _as_text(keyword, vr, value)
    if fixed is None or fixed not in ENUMERATED.get(keyword, {fixed}):
        return None
    return fixed if re.fullmatch(PATTERNS.get(keyword, ".*"), fixed, re.DOTALL) else None


def _many_enough(keyword: str, count: int) -> bool:
    """Whether an attribute may have so many values. Source: PS3.6 (VM: "2", "1-3", "1-n", "2-2n")."""
    low, _, high = dictionary_VM(keyword).partition("-")
    if not high:
        return count == int(low)
    if not high.endswith("n"):
        return int(low) <= count <= int(high)
    return count >= int(low) and count % int(high.removesuffix("n") or "1") == 0


def _as_text(keyword: str, vr: str, value: str) -> str | None:
    """Text without control characters; a description that is too long is cut, an identifier never."""
    clean = value if vr in ("ST", "LT", "UT") else CONTROL.sub("", value).strip()
    longest = LONGEST.get(vr)
    if longest is None:
        return clean
    if vr == "PN":
        return clean if _is_name(clean) else None
    if len(clean) <= longest:
        return clean
    return None if keyword in NEVER_CUT else clean[:longest].rstrip()


def _is_name(value: str) -> bool:
    """Source: PS3.5 6.2 (PN), 6.2.1: three groups of 64 characters and five components."""
    groups = value.split("=")
    return len(groups) <= 3 and all(len(group) <= LONGEST["PN"] and group.count("^") <= 4 for group in groups)


def _as_age(value: str) -> str | None:
    """Source: PS3.5 6.2 (AS): three digits and D, W, M or Y. Bare digits are years in every source seen."""
    match = re.fullmatch(r"(\d{1,3})([DWMY]?)", value.upper(), re.ASCII)
    if not match or (not match[2] and int(match[1]) > 120):
        return None
    return f"{int(match[1]):03d}{match[2] or 'Y'}"


def _as_date(value: str) -> str | None:
    """Source: PS3.5 6.2 (DA): YYYYMMDD; separators of ACR-NEMA and ISO 8601 are dropped."""
    match = re.fullmatch(r"(\d{4})[.\-/]?(\d{2})[.\-/]?(\d{2})", value, re.ASCII)
    if not match:
        return None
    digits = match[1] + match[2] + match[3]
    try:
        datetime.strptime(digits, "%Y%m%d")  # noqa: DTZ007 (a date has no time zone)
    except ValueError:
        return None
    return digits


def _as_time(value: str) -> str | None:
    """Source: PS3.5 6.2 (TM): HHMMSS.FFFFFF, cut at any point; colons of ACR-NEMA are dropped."""
    match = re.fullmatch(r"([01]\d|2[0-3])(?::?([0-5]\d)(?::?([0-5]\d|60)(\.\d{1,6})?\d*)?)?", value, re.ASCII)
    return "".join(part or "" for part in match.groups()) if match else None


def _as_moment(value: str) -> str | None:
    """Source: PS3.5 6.2 (DT): a date, cut at any point, a time, and an offset from UTC."""
    match = re.fullmatch(r"(\d{4})(\d{2}(\d{2}(\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?)?)?)?([+-]\d{4})?", value, re.ASCII)
    return value if match else None


def _as_code_string(value: str) -> str | None:
    """Source: PS3.5 6.2 (CS): capitals, digits, space and underscore, at most 16."""
    capitals = value.upper()
    return capitals if re.fullmatch(r"[A-Z0-9 _]{0,16}", capitals, re.ASCII) else None


def _as_decimal(value: str) -> str | None:
    """Source: PS3.5 6.2 (DS): at most 16 characters; a longer one is rounded to what fits."""
    try:
        number = float(value)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    return value if len(value) <= 16 else format_number_as_ds(number)


def _as_integer(value: str) -> str | None:
    match = re.fullmatch(r"[+-]?\d{1,10}", value, re.ASCII)
    return value if match and -(2**31) <= int(value) < 2**31 else None


def _as_uid(value: str) -> str | None:
    valid = len(value) <= 64 and re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+", value, re.ASCII)
    return value if valid else None


REPAIRS: dict[str, Callable[[str], str | None]] = {
    "AS": _as_age,
    "DA": _as_date,
    "TM": _as_time,
    "DT": _as_moment,
    "CS": _as_code_string,
    "DS": _as_decimal,
    "IS": _as_integer,
    "UI": _as_uid,
}


def moment(source: Dataset) -> tuple[str, str] | None:
    """The latest date and time (YYYYMMDD, HHMMSS) that an original states about itself, None where none is valid."""
    found = []
    for kind in ("Content", "Acquisition", "Series", "Study", "InstanceCreation"):
        day = _as_date(text(source, f"{kind}Date"))
        if day is not None:
            time = _as_time(text(source, f"{kind}Time")) or ""
            found.append((day, (time[:6] + "000000")[:6]))
    return max(found) if found else None
