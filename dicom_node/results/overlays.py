"""Overlay planes that a derived image keeps: a side marker may be drawn in one. Knows no pixels of the image.

Source: PS3.3 C.9.2. Planes inside the pixel data's unused bits (retired) can't be kept, as those bits are gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_node.results.copying import CONTROL, Copier
from dicom_node.tolerant import READ_FAULTS

FIRST, LAST = 0x6000, 0x601E
ROWS, COLUMNS, TYPE, ORIGIN, ALLOCATED, POSITION, DATA = 0x10, 0x11, 0x40, 0x50, 0x100, 0x102, 0x3000
NAMES = {0x22: ("LO", 64), 0x1500: ("LO", 64), 0x45: ("LO", 64)}
"""Description, label and subtype."""


def groups(original: Dataset) -> Iterator[int]:
    """The groups of usable planes: as large as they say, with bits of their own."""
    for group in range(FIRST, LAST + 2, 2):
        if _number(original, group, ROWS) and _plane(original, group) is not None:
            yield group


def copy_overlays(copier: Copier, image: Dataset) -> None:
    """Copy every usable plane of the original; the others are left out and noted."""
    original = copier.source
    usable = set(groups(original))
    for group in range(FIRST, LAST + 2, 2):
        if group in usable:
            _copy(original, image, group)
        elif any(Tag(group, part) in original for part in (ROWS, COLUMNS, POSITION, DATA)):
            copier.note(f"overlay {group:04X} is unusable, or in the pixel data's bits, and was left out")


def _copy(original: Dataset, image: Dataset, group: int) -> None:
    plane = _plane(original, group)
    for part, vr, value in (
        (ROWS, "US", _number(original, group, ROWS)),
        (COLUMNS, "US", _number(original, group, COLUMNS)),
        (TYPE, "CS", _text(original, group, TYPE)),
        (ORIGIN, "SS", _origin(original, group)),
        (ALLOCATED, "US", 1),
        (POSITION, "US", 0),
        (DATA, "OW", plane),
    ):
        image.add(DataElement(Tag(group, part), vr, value))
    for part, (vr, longest) in NAMES.items():
        said = CONTROL.sub("", _text(original, group, part))[:longest]
        if said:
            image.add(DataElement(Tag(group, part), vr, said))


def _plane(original: Dataset, group: int) -> bytes | None:
    """The bits of a plane at their exact length, None where it is no plane of one frame with bits of its own."""
    rows, columns = _number(original, group, ROWS), _number(original, group, COLUMNS)
    data = _value(original, group, DATA)
    if not isinstance(data, bytes) or _text(original, group, TYPE) not in ("G", "R"):
        return None
    size = (rows * columns + 7) // 8
    if not 0 < size <= len(data) or _origin(original, group) is None or _number(original, group, POSITION) != 0:
        return None
    if original.original_encoding[1] is False and original[Tag(group, DATA)].VR == "OW":
        # Source: PS3.5 8.1.2: words of 16 bits, which Big Endian writes the other way round.
        data = np.frombuffer(data[: len(data) // 2 * 2], ">u2").astype("<u2").tobytes()
    return data[:size] + b"\0" * (size % 2)


def _origin(original: Dataset, group: int) -> list[int] | None:
    try:
        stated = _value(original, group, ORIGIN)
        found = [int(value) for value in stated] if isinstance(stated, Iterable) else []
    except (TypeError, ValueError):
        return None
    return found if len(found) == 2 and all(-(2**15) <= value < 2**15 for value in found) else None


def _number(original: Dataset, group: int, part: int) -> int:
    found = _value(original, group, part)
    return found if isinstance(found, int) and 0 <= found < 2**16 else 0


def _text(original: Dataset, group: int, part: int) -> str:
    found = _value(original, group, part)
    return found.strip(" \0") if isinstance(found, str) else ""


def _value(original: Dataset, group: int, part: int) -> object:
    try:
        tag = Tag(group, part)
        return original[tag].value if tag in original else None
    except READ_FAULTS:
        return None
