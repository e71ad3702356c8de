"""Draw a site's words into the grey codes of a changed image. Knows no data set, file or clock.

The glyphs are the bitmaps that Pillow carries (HPND licence), enlarged by whole factors: outlines would be drawn
otherwise by another version of a font library, and a replay would find other pixels.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dicom_node.display import Codes

TYPOGRAPHIC = str.maketrans(
    {"\u2013": "-", "\u2014": "-", "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2026": "..."}
)
"""What word processors make of plain characters; the bitmaps are of Latin-1."""
HEIGHT_SHARE = 0.045
"""Height of a line as a share of the image's shorter side, where the width allows it."""
WIDTH_SHARE = 0.6
"""No line is longer than this share of the width while the letters can be made smaller."""
SURROUND = 2
"""Plate around the words, and from there to the border of the image, in dots of the font."""


class _Plate(NamedTuple):
    """The words as dots. dots: (h, w) bool; down, across: pixels from it to the nearest sides of the image."""

    dots: NDArray[np.bool_]
    down: int
    across: int


def drawn(codes: Codes, bits: int, words: str) -> Codes | None:
    """The codes with white words on a black plate in the corner that hides least; None where they don't fit.

    codes: (H, W) grey codes of `bits` bits, display sense; they are not changed. The same arguments give the same
    codes on every machine. A character outside Latin-1 becomes a question mark.
    """
    rows, columns = codes.shape
    plate = _plate(words, rows, columns)
    if plate is None:
        return None
    corner = min(_corners(plate, rows, columns), key=lambda place: _hidden(codes[place]))
    out = codes.copy()
    out[corner] = np.where(plate.dots, codes.dtype.type(2**bits - 1), codes.dtype.type(0))
    return out


def _plate(words: str, rows: int, columns: int) -> _Plate | None:
    """The words at the largest whole scale that keeps to the shares, in as few lines as fit."""
    text = " ".join(words.translate(TYPOGRAPHIC).split())
    if not text:
        return None
    single = _bitmap([text])
    wanted = round(HEIGHT_SHARE * min(rows, columns) / single.shape[0])
    scale = max(1, min(wanted, int(WIDTH_SHARE * columns / single.shape[1])))
    for width in range(len(text), 0, -1):
        lines = textwrap.wrap(text, width, break_long_words=False)
        dots = np.kron(np.pad(_bitmap(lines), SURROUND), np.ones((scale, scale), np.bool_))
        room = rows - dots.shape[0], columns - dots.shape[1]
        if min(room) >= 0:
            down, across = (min(SURROUND * scale, left // 2) for left in room)
            return _Plate(dots, down, across)
    return None


def _bitmap(lines: list[str]) -> NDArray[np.bool_]:
    """Lines of text as dots, (h, w) bool."""
    font = ImageFont.load_default_imagefont()
    encoded = [line.encode("latin-1", "replace") for line in lines]
    boxes = [font.getbbox(line) for line in encoded]
    width, height = (int(max(box[side] for box in boxes)) for side in (2, 3))
    image = Image.new("1", (width, height * len(lines)))
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(encoded):
        draw.text((0, number * height), line, fill=1, font=font)
    return np.asarray(image)


def _corners(plate: _Plate, rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns under the plate: top before bottom, left before right."""
    height, width = plate.dots.shape
    tops = (plate.down, rows - height - plate.down)
    lefts = (plate.across, columns - width - plate.across)
    for top, left in itertools.product(tops, lefts):
        yield slice(top, top + height), slice(left, left + width)


def _hidden(part: NDArray[Any]) -> tuple[int, int]:
    """What a plate would hide, as whole numbers: the contrast first (a marker, an edge), then the brightness.

    The variance times the square of the number of pixels, which is exact where a mean is not.
    """
    count = int(part.size)
    levels = np.bincount(part.ravel())
    greys = np.arange(len(levels), dtype=np.int64)
    total, squares = int((levels * greys).sum()), int((levels * greys * greys).sum())
    return count * squares - total * total, total
