"""Read DICOM data sets that may break the rules: no warning, no partial failure, one error when it is no DICOM.

Decides nothing about what an attribute means.
"""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from pydicom import config
from pydicom.charset import convert_encodings, python_encoding
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset, read_partial, read_preamble
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicom_node.bounded import MIB, Allowance, Bounded, Inflated
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
DEFLATED = b"1.2.840.10008.1.2.1.99"

MOST_HEADER = 64 * MIB
"""Values of a header that are read. The largest that were seen (enhanced multi-frame, reports) have a few."""
MOST_READS = 500_000
"""Pieces in which a header is read, two or three an element. As empty items they take 350 MB and some seconds."""
LONGEST = {"SQ": MIB, "text": 256 << 10, "": 16 * MIB}
"""Longest value that is looked at: of a sequence (eight look-up tables), of text or numbers (explicit VR can
state 64 KiB), of anything else. What is longer counts as absent: it may make a thousand times its size in objects."""
BULK = {"OB", "OW", "OD", "OF", "OL", "OV", "UN", "UC", "UR", "UT"}
"""VRs that may be long: binary and free text."""
TEXTS = {"LO", "LT", "PN", "SH", "ST", "UC", "UT"}
"""VRs that Specific Character Set is about. Source: PS3.5 6.1.2.3."""
PLAIN, UNICODE, LATIN = ("", "ISO_IR 6", "ISO 2022 IR 6"), "ISO_IR 192", "ISO_IR 100"
UNREAD_ESCAPE = "\x1b$)A"
"""Escape sequence of ISO 2022 IR 58, which the library reads the text by but leaves in it."""
SKIPPED = 1024
"""Longer values are not read where only their ends matter."""
UNDEFINED = 0xFFFFFFFF
"""Length of an element that ends with a delimiter. Source: PS3.5 7.1.2."""
META_READ = 64 << 10
"""Start of a file in which its File Meta group lies; it has a few hundred bytes."""


@contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom's warnings about invalid values: what we use is checked where it is used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def read(path: Path, *, whole: bool = False) -> tuple[FileDataset, bool]:
    """The data set of a file up to its pixel data, and whether it has any.

    Takes files without preamble or File Meta group (PS3.10 7.1); the transfer syntax is then guessed from the
    first element. Values that are longer than any that matters are left out, unless `whole`.
    Raises Unreadable where the bytes are no DICOM data set, OSError where the disk fails.
    """
    reached = False

    def at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        nonlocal reached
        reached = reached or tag in PIXEL_TAGS
        return reached

    allowance = Allowance(most_bytes=MOST_HEADER, most_reads=MOST_READS, what="its header")
    dataset = _read(path, allowance, at_pixels, None if whole else LONGEST[""])
    if not whole:
        _leave_out_long(dataset)
    _read_texts_as_written(dataset)
    return dataset, reached


def add_pixels(dataset: FileDataset, path: Path, *, most_bytes: int) -> None:
    """Put the pixel data of a file, if it has any, into its data set as `read` gave it.

    Raises Unreadable where they are damaged or have more than `most_bytes`, OSError where the disk fails.
    """
    allowance = Allowance(most_bytes=most_bytes + MOST_HEADER, most_reads=MOST_READS, what="its pixel data")

    def behind_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        return int(tag) > PIXEL_TAGS[-1]

    found = _read(path, allowance, behind_pixels, None, PIXEL_TAGS)
    try:
        for tag in PIXEL_TAGS:
            if tag in found:
                dataset[tag] = found.get_item(tag)
                # Interpreted here, where it may fail: an unknown VR is found out only then, and one that is not
                # stated follows from Bits Allocated. Empty counts as absent.
                if dataset[tag].value is None:
                    del dataset[tag]
    except READ_FAULTS as exc:
        raise Unreadable(f"its pixel data is damaged ({type(exc).__name__} while its element was read)") from exc


def ends_early(path: Path) -> bool:
    """Whether the end of a file's data set is missing, or it can't be read to its end. Raises OSError.

    One that ends between two elements looks whole, but for an image without its pixel data.
    """
    size = path.stat().st_size
    allowance = Allowance(most_bytes=2 * size + MOST_HEADER, most_reads=2 * size + MOST_READS, what="its data set")
    try:
        dataset = _read(path, allowance, lambda _tag, _vr, _length: False, SKIPPED)
    except Unreadable:
        return True
    # The library gives nothing at all where the end of fragments is missing.
    if not dataset or ("Rows" in dataset and not any(tag in dataset for tag in PIXEL_TAGS)):
        return True
    if text(dataset.file_meta, "TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        # Inflating it has met its end; places in it are none in the file.
        return False
    raw = (found for found in dataset.values() if isinstance(found, RawDataElement))
    return any(found.value_tell + found.length > size for found in raw if found.length != UNDEFINED)


def _read(
    path: Path,
    allowance: Allowance,
    stop: Callable[[BaseTag, str | None, int], bool],
    longest: int | None,
    only: Sequence[int] = (),
) -> FileDataset:
    try:
        with path.open("rb") as file, quiet():
            bounded = cast(BinaryIO, Bounded(file, allowance))
            deflated = _deflated_meta(file, bounded)
            if deflated is None:
                dataset = read_partial(bounded, stop, longest, force=True, specific_tags=list(only))
            else:
                inflated = cast(BinaryIO, Inflated(file, allowance))
                elements = read_dataset(inflated, False, True, None, stop, longest, specific_tags=list(only))
                dataset = FileDataset(inflated, elements, file_meta=deflated, is_implicit_VR=False)
                dataset.set_original_encoding(False, True, elements.original_character_set)
            # It would keep the file, or what was inflated.
            dataset.buffer = None
            return dataset
    except (*READ_FAULTS, OSError, Unreadable) as exc:
        # The library makes other errors of ours where it reads a sequence.
        if allowance.spent:
            raise allowance.fault() from exc
        # pydicom says OSError, without a number, for a cut sequence as well.
        if isinstance(exc, OSError) and exc.errno is not None:
            raise
        raise Unreadable(f"not a DICOM object, or damaged ({type(exc).__name__} while its elements were read)") from exc


def _deflated_meta(file: BinaryIO, bounded: BinaryIO) -> FileMetaDataset | None:
    """The File Meta group of a file whose data set is deflated, which then stands at its start; else at that of the
    file. The library would inflate all of it at once.
    """
    if DEFLATED in file.read(META_READ):
        file.seek(0)
        read_preamble(bounded, force=True)
        meta = read_dataset(bounded, False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != 2)
        if text(meta, "TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            return FileMetaDataset(meta)
    file.seek(0)
    return None


def _leave_out_long(dataset: FileDataset) -> None:
    # Not by `get_item`, which would read what was skipped. What is no raw element any more was a sequence without a
    # stated length, read within the allowance.
    raw = [found for found in dataset.values() if isinstance(found, RawDataElement)]
    for found in raw:
        if found.length > _longest(found):
            del dataset[found.tag]


def _read_texts_as_written(dataset: FileDataset) -> None:
    """Set the character set that the texts are read in where the stated one can't be theirs.

    Nothing stated, plain ASCII, or a name that nobody defined: UTF-8 where every text is valid in it, which other
    scripts are not by chance, else Latin-1. UTF-8 stated and not valid: Latin-1, since a replacement character would
    get into a patient's name. Any other statement holds. Source: PS3.3 C.12.1.1.2, PS3.5 6.1.2.
    """
    foreign = [value for found in dataset.values() if (value := _foreign_text(found))]
    stated = values(dataset, "SpecificCharacterSet") or [""]
    if not foreign or len(stated) > 1 or (stated[0] in python_encoding and stated[0] not in (*PLAIN, UNICODE)):
        return
    try:
        for value in foreign:
            value.decode()
        charset = UNICODE
    except UnicodeDecodeError:
        charset = LATIN
    implicit, little = dataset.original_encoding
    dataset.set_original_encoding(implicit, little, convert_encodings(charset))


def _foreign_text(found: DataElement | RawDataElement) -> bytes:
    """The bytes of an element that is text beyond ASCII, b"" of any other."""
    value = found.value if isinstance(found, RawDataElement) else None
    if not value or value.isascii():
        return b""
    vr = found.VR or (dictionary_VR(found.tag) if dictionary_has_tag(found.tag) else "UN")
    return value if vr in TEXTS else b""


def _longest(found: RawDataElement) -> int:
    """The stricter of what its stated VR and its known one allow: the library may take it as either."""
    known = dictionary_VR(found.tag) if dictionary_has_tag(found.tag) else "UN"
    kinds = ("SQ" if vr == "SQ" else "" if vr[:2] in BULK else "text" for vr in (found.VR or known, known))
    return min(LONGEST[kind] for kind in kinds)


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
    except OSError as exc:
        # Of the library, without a number, for a sequence whose items are none.
        if exc.errno is not None:
            raise
        return None


def values(dataset: Dataset, keyword: str) -> list[str]:
    """The element's values as stripped text, [] where it is absent, empty or not text or number."""
    found = element(dataset, keyword)
    if found is None or found.VR == "SQ" or isinstance(found.value, bytes) or found.value is None:
        return []
    try:
        many = [found.value] if isinstance(found.value, str) or found.VM <= 1 else list(found.value)
        return ["" if value is None else str(value).replace(UNREAD_ESCAPE, "").strip(" \0") for value in many]
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
