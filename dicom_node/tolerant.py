"""Read DICOM data sets that may break the rules: no warning, no partial failure, one error when it is no DICOM.

Decides nothing about what an attribute means.
"""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.errors import Unreadable

READ_FAULTS = (
    InvalidDicomError,
    BytesLengthException,
    struct.error,
    zlib.error,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OverflowError,
    TypeError,
    ValueError,
    RecursionError,
    MemoryError,
)
"""What pydicom raises on damaged bytes, found by feeding it such; OSError with a number is the disk's fault."""

NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")
"""Transfer syntaxes whose pixel data is not in fragments. Source: PS3.5 A.1, A.2, A.3, A.5."""
PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom's warnings about invalid values: what we use is checked where it is used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def read(path: Path, *, pixels: bool) -> tuple[FileDataset, bool]:
    """The data set of a file, and whether it has pixel data; `pixels` False stops before them.

    Takes files without preamble or File Meta group (PS3.10 7.1); the transfer syntax is then guessed from the
    first element. Raises Unreadable where the bytes are no DICOM data set, OSError where the disk fails.
    """
    reached = False

    def at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        nonlocal reached
        reached = reached or tag in PIXEL_TAGS
        return reached and not pixels

    try:
        with path.open("rb") as file, quiet():
            dataset = read_partial(file, stop_when=at_pixels, force=True)
    except (*READ_FAULTS, OSError) as exc:
        # pydicom says OSError, without a number, for a cut sequence as well.
        if isinstance(exc, OSError) and exc.errno is not None:
            raise
        raise Unreadable(f"not a DICOM object, or damaged ({type(exc).__name__} while its elements were read)") from exc
    return dataset, reached


def transfer_syntax(dataset: FileDataset) -> str:
    """The stated Transfer Syntax UID, else the one that the elements turned out to be written in."""
    stated = text(dataset.file_meta, "TransferSyntaxUID") if hasattr(dataset, "file_meta") else ""
    if stated:
        return stated
    implicit, little = dataset.original_encoding
    if implicit:
        return str(ImplicitVRLittleEndian)
    return str(ExplicitVRLittleEndian if little else ExplicitVRBigEndian)


def syntax_uid(syntax: str) -> UID:
    """A transfer syntax with its name and nature; no UID is too odd to be told in an error."""
    return UID(syntax, validation_mode=config.IGNORE)


def element(dataset: Dataset, keyword: str) -> DataElement | None:
    """The element, or None where it is absent or can't be interpreted."""
    try:
        with quiet():
            # Not `get`, which would give the value instead of the element.
            return dataset[keyword] if keyword in dataset else None  # noqa: SIM401
    except READ_FAULTS:
        return None


def values(dataset: Dataset, keyword: str) -> list[str]:
    """The element's values as stripped text, [] where it is absent, empty or not text or number."""
    found = element(dataset, keyword)
    if found is None or found.VR == "SQ" or isinstance(found.value, bytes) or found.value is None:
        return []
    try:
        many = [found.value] if isinstance(found.value, str) or found.VM <= 1 else list(found.value)
        return ["" if value is None else str(value).strip(" \0") for value in many]
    except READ_FAULTS:
        return []


def text(dataset: Dataset, keyword: str) -> str:
    """The first value as stripped text, "" where there is none."""
    found = values(dataset, keyword)
    return found[0] if found else ""


def numbers(dataset: Dataset, keyword: str) -> list[float]:
    """All values as finite numbers; [] where any of them is not one."""
    out = []
    for value in values(dataset, keyword):
        try:
            number = float(value)
        except ValueError:
            return []
        if not math.isfinite(number):
            return []
        out.append(number)
    return out


def number(dataset: Dataset, keyword: str) -> float | None:
    """The first value as a number, None where there is none."""
    found = numbers(dataset, keyword)
    return found[0] if found else None


def integer(dataset: Dataset, keyword: str, default: int) -> int:
    """The first value as a whole number, `default` where there is none."""
    found = number(dataset, keyword)
    return int(found) if found is not None and found == int(found) else default


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence, [] where it is absent or no sequence."""
    found = element(dataset, keyword)
    return list(found.value) if found is not None and found.VR == "SQ" else []
