"""A DICOM image's pixels as stored, and as a viewer would show them. Knows nothing of what is done with them.

The grey scale chain (PS3.3 C.11.1, C.11.2, PS3.4 N.2) depends on the stored value alone, so it is worked out once for
every possible stored value and then looked up: exact, and fast on large images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.encaps import get_frame

from dicom_node import greyscale
from dicom_node.codecs import Frame, Words, decode, require_decoder
from dicom_node.display import Codes, DisplayImage, WordTable, encode_codes, pixels_digest
from dicom_node.errors import Unreadable
from dicom_node.tolerant import (
    NATIVE,
    READ_FAULTS,
    add_pixels,
    element,
    integer,
    number,
    numbers,
    read,
    syntax_uid,
    text,
    transfer_syntax,
)

__all__ = ["Codes", "DisplayImage", "encode_codes", "pixels_digest", "read_display", "read_words"]

SQUARE_WITHIN = 0.01
"""Spacings that differ by less than 1% are rounding of the vendor's, not pixels that are not square."""

MOST_PIXELS = 1 << 26
"""8192 squared. The largest radiographs are of 6000 by 8000 (film) and 3000 by 10000 (legs, put together)."""
PIECE = 1 << 22
MOST_CODED = 2
"""Pixel data may take so many times its size uncoded. What codes noise takes a little more than once."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the stored values lie in the bytes. Source: PS3.3 C.7.6.3, PS3.5 8.1."""

    syntax: str
    rows: int
    columns: int
    allocated: int
    stored: int
    high_bit: int
    signed: bool


def read_display(path: Path) -> DisplayImage:
    """The image of a DICOM file in display sense.

    Raises Unreadable, with reason and remedy, where there is no single grey image, a part of it is missing, or no
    decoder takes it. OSError is the disk's.
    """
    dataset, layout = _opened(path)
    spacing = _spacing_mm(dataset)
    indices, decoder = _indices(dataset, layout)
    counts = _counts(indices, 1 << layout.stored)
    bits = max(layout.stored, 8)
    table, padding, notes = greyscale.table(dataset, counts, signed=layout.signed, levels=2**bits)
    masked = padding[indices] if padding.any() else np.zeros(indices.shape, np.bool_)
    return DisplayImage(
        values=table[indices],
        padding=masked,
        bits=bits,
        spacing_mm=spacing,
        notes=(f"decoded by {decoder} ({syntax_uid(layout.syntax).name})", *notes),
        words=WordTable(table, padding, layout.signed),
    )


def read_words(path: Path) -> Words:
    """The (rows, columns) stored values of a DICOM file, as unsigned words. Raises as `read_display` does."""
    words, _ = _indices(*_opened(path))
    return words.astype(np.uint8) if words.itemsize == 1 else words.astype(np.uint16)


def _opened(path: Path) -> tuple[FileDataset, _Layout]:
    """The data set with its pixel data, and how they lie in there."""
    dataset, reached = read(path)
    # Twice, so that nothing large is read or decoded before the header says that it is a radiograph.
    room = _layout(dataset, reached)
    add_pixels(dataset, path, most_bytes=MOST_CODED * room.rows * room.columns * room.allocated // 8)
    return dataset, _with_pixels(dataset, room)


def _indices(dataset: FileDataset, layout: _Layout) -> tuple[NDArray[np.integer[Any]], str]:
    """The stored values without the bits beside them, and who decoded them."""
    words, decoder = _words(dataset, layout)
    shift = layout.high_bit + 1 - layout.stored if layout.syntax in NATIVE else 0
    mask = (1 << layout.stored) - 1
    whole = shift == 0 and layout.stored == 8 * words.itemsize
    return words if whole else ((words >> shift) & mask), decoder


def _layout(dataset: FileDataset, reached: bool) -> _Layout:
    """The layout, once it is certain that this is one grey image of integers."""
    if not reached:
        raise Unreadable("it holds no pixel data")
    samples, frames = integer(dataset, "SamplesPerPixel", 1), integer(dataset, "NumberOfFrames", 1)
    photometric = text(dataset, "PhotometricInterpretation").upper()
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        stated = photometric or "no photometric interpretation"
        raise Unreadable(f"not a grey radiograph: {samples} sample(s) a pixel, {stated}; needed is MONOCHROME1 or 2")
    if frames > 1:
        raise Unreadable(f"{frames} frames: a radiograph has one; send the frames as single images")
    allocated = integer(dataset, "BitsAllocated", 0)
    stored = integer(dataset, "BitsStored", allocated)
    rows, columns = integer(dataset, "Rows", 0), integer(dataset, "Columns", 0)
    if rows < 1 or columns < 1:
        raise Unreadable("its header states no image size (Rows, Columns)")
    if rows * columns > MOST_PIXELS:
        raise Unreadable(f"{columns}x{rows} pixels: no radiograph has more than {MOST_PIXELS}")
    if allocated not in (8, 16) or not 1 <= stored <= allocated:
        raise Unreadable(f"Bits Allocated {allocated}, Bits Stored {stored}: needed are 8 or 16, and 1 to that")
    syntax, high_bit = transfer_syntax(dataset), integer(dataset, "HighBit", stored - 1)
    # A code stream has its own bits; for any other guess than the stated one the picture would be another.
    if syntax in NATIVE and not stored - 1 <= high_bit < allocated:
        raise Unreadable(f"High Bit {high_bit} can't be that of {stored} bits stored in {allocated}: mend the header")
    return _Layout(
        syntax=syntax,
        rows=rows,
        columns=columns,
        allocated=allocated,
        stored=stored,
        high_bit=high_bit,
        signed=integer(dataset, "PixelRepresentation", 0) == 1,
    )


def _counts(words: NDArray[np.integer[Any]], levels: int) -> NDArray[np.intp]:
    """How often each word occurs; in pieces, as numpy makes every word it counts eight bytes long."""
    flat = words.ravel()
    counts = np.zeros(levels, np.intp)
    for start in range(0, flat.size, PIECE):
        counts += np.bincount(flat[start : start + PIECE], minlength=levels)
    return counts


def _with_pixels(dataset: FileDataset, layout: _Layout) -> _Layout:
    """The layout again, once the pixel data it speaks of is there and is of integers."""
    if "PixelData" in dataset:
        return layout
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise Unreadable("its pixel data is floating point: send the image as integers")
    raise Unreadable("its pixel data is cut off: send the image again")


def _words(dataset: FileDataset, layout: _Layout) -> tuple[Words, str]:
    """The (rows, columns) words as stored, and who decoded them."""
    if layout.syntax in NATIVE:
        return _native(dataset, layout), "numpy"
    require_decoder(layout.syntax)
    try:
        data = get_frame(dataset.PixelData, 0, number_of_frames=1)
    except READ_FAULTS as exc:
        name = syntax_uid(layout.syntax).name
        raise Unreadable(f"pixel data in {name} is damaged: its fragments can't be read. Send the image again") from exc
    return decode(
        Frame(
            data=data,
            syntax=layout.syntax,
            rows=layout.rows,
            columns=layout.columns,
            bits_allocated=layout.allocated,
            bits_stored=layout.stored,
            signed=layout.signed,
        )
    )


def _native(dataset: FileDataset, layout: _Layout) -> Words:
    """Uncompressed words. Source: PS3.5 8.1.1, 8.2 (Big Endian OW swaps the bytes of 8-bit pixels as well)."""
    data: bytes = dataset.PixelData
    little = dataset.original_encoding[1] is not False
    count = layout.rows * layout.columns
    expected = count * layout.allocated // 8
    if len(data) < expected:
        raise Unreadable(f"its pixel data is cut off: {len(data)} of {expected} bytes. Send the image again")
    if layout.allocated == 16:
        words = np.frombuffer(data, "<u2" if little else ">u2", count=count).astype(np.uint16, copy=False)
        return words.reshape(layout.rows, layout.columns)
    found = element(dataset, "PixelData")
    if not little and found is not None and found.VR == "OW":
        data = np.frombuffer(data[: len(data) // 2 * 2], ">u2").astype("<u2").tobytes()
    return np.frombuffer(data, np.uint8, count=count).reshape(layout.rows, layout.columns)


def _spacing_mm(dataset: FileDataset) -> float | None:
    """Side of a pixel in the patient where stated. Source: PS3.3 10.7.1.3, C.8.11.7 (magnification), C.8.6.2.

    Raises Unreadable where the pixels are not square: every measure of the engine would be wrong in one direction.
    """
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        sides = numbers(dataset, keyword)
        if len(sides) != 2 or min(sides) <= 0:
            continue
        _check_square(sides[0], sides[1], keyword)
        side = float(np.sqrt(sides[0] * sides[1]))
        magnification = number(dataset, "EstimatedRadiographicMagnificationFactor") or 1.0
        return side / magnification if keyword == "ImagerPixelSpacing" and magnification > 0 else side
    aspect = numbers(dataset, "PixelAspectRatio")
    if len(aspect) == 2 and min(aspect) > 0:
        _check_square(aspect[0], aspect[1], "PixelAspectRatio")
    return None


def _check_square(vertical: float, horizontal: float, keyword: str) -> None:
    if abs(vertical / horizontal - 1) > SQUARE_WITHIN:
        raise Unreadable(
            f"its pixels are not square ({keyword} {vertical:g} by {horizontal:g}): resample it to square pixels"
        )
