"""What an odd image is: how its file is made, why it exists, and what must become of it. Knows no node code."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from engine.phantom import make_phantom
from tests import dicom_files

ROWS, COLUMNS = 80, 64
BITS = 12
SEED, VENDOR = 1, "Umbra"

HARMONIZED, CONFORMING, REFUSED = "harmonized", "conforming", "refused"
PASSED, UNREADABLE, PARKED = "passed", "unreadable", "parked"
"""PARKED: it can't even be placed in a study; a person sees the sentence and can retry."""

Build = Callable[[str], bytes]
Words = NDArray[Any]
GONE = "GONE"
"""In `holds`: the attribute is not in the result."""


@dataclass(frozen=True)
class Odd:
    """One odd image and its stated outcome.

    build: its file, given its name, from which its UIDs follow. says: regular expression for the outcome's sentence.
    read: words that the notes on how its pixels were read must hold, each in some note. repaired: the same of the
    report's notes on attributes. holds: attributes of every image made from it; GONE: absent there.
    same: it shows what the plain image shows, so the result does, too. unsendable: why DCMTK does not send it.
    """

    name: str
    why: str
    build: Build
    outcome: str = HARMONIZED
    says: str = ""
    read: tuple[str, ...] = ()
    repaired: tuple[str, ...] = ()
    holds: Mapping[str, Any] = field(default_factory=dict)
    same: bool = True
    unsendable: str = ""


@cache
def _phantom(rows: int, columns: int) -> Words:
    made = make_phantom(SEED, VENDOR, (rows, columns))
    share = made.codes / (2**made.bits - 1)
    return np.rint((1 - share if made.inverted else share) * (2**BITS - 1)).astype(np.uint16)


def phantom_words(rows: int = ROWS, columns: int = COLUMNS) -> Words:
    """(rows, columns) 12-bit words of a chest radiograph of nobody, bright is dense."""
    return _phantom(rows, columns).copy()


def image(name: str, kind: str = "DX", words: Words | None = None, **attributes: Any) -> Dataset:
    """A chest radiograph with every attribute that its class requires; `attributes` override, None removes."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:5], "big")
    study = f"1.2.826.0.1.3680043.10.543.{number}"
    given: dict[str, Any] = {
        "instance": f"{study}.1.1",
        "series": f"{study}.1",
        "study": study,
        "PatientName": "Doe^Jane",
        "PatientID": f"ODD{number}",
        "StudyDescription": "Chest",
        "PixelSpacing": [4.9, 4.9],
        "WindowCenter": 2 ** (BITS - 1),
        "WindowWidth": 2**BITS,
        **(FOR_PRESENTATION if kind in ("DX", "MG") else {}),
        **attributes,
    }
    ds = dicom_files.dataset(
        kind,
        phantom_words() if words is None else words,
        **{keyword: value for keyword, value in given.items() if value is not None},
    )
    for keyword in [keyword for keyword, value in given.items() if value is None and keyword in ds]:
        delattr(ds, keyword)
    return ds


FOR_PRESENTATION: dict[str, Any] = {
    "PixelIntensityRelationship": "LOG",
    "PixelIntensityRelationshipSign": -1,
    "RescaleIntercept": 0,
    "RescaleSlope": 1,
    "RescaleType": "US",
    "PresentationLUTShape": "IDENTITY",
    "LossyImageCompression": "00",
    "BurnedInAnnotation": "NO",
    "ImagerPixelSpacing": [4.9, 4.9],
    "PatientOrientation": ["L", "F"],
    "DetectorType": "DIRECT",
    "AcquisitionDate": "20240203",
    "AcquisitionTime": "101610",
}


def stating(kind: str = "DX", syntax: str = ExplicitVRLittleEndian, **attributes: Any) -> Build:
    """A file of the plain image that states these attributes; None removes one."""
    return lambda name: dicom_files.content(image(name, kind, **attributes), syntax)


def holding(places: Mapping[str, bytes], kind: str = "DX", **attributes: Any) -> Build:
    """The same, with these bytes, which no library would write, as values of text attributes."""

    def build(name: str) -> bytes:
        whole = dicom_files.content(image(name, kind, **attributes, **_marks(places)))
        for keyword, value in places.items():
            tag = tag_for_keyword(keyword) or 0
            head = struct.pack(
                "<HH2sH", tag >> 16, tag & 0xFFFF, dictionary_VR(tag).encode(), len(value) + len(value) % 2
            )
            mark = head + _mark(keyword, value).encode()
            assert whole.count(mark) == 1, keyword
            whole = whole.replace(mark, head + value + b" " * (len(value) % 2))
        return whole

    return build


def _marks(places: Mapping[str, bytes]) -> dict[str, str]:
    return {keyword: _mark(keyword, value) for keyword, value in places.items()}


def _mark(keyword: str, value: bytes) -> str:
    """Digits, which every VR takes, of the length that the value takes in the file, found nowhere else."""
    length = len(value) + len(value) % 2
    digits = str(int.from_bytes(hashlib.sha256(keyword.encode()).digest(), "big"))
    return (digits * (1 + length // len(digits)))[:length]
