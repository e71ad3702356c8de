"""Try every decoder of the node on a small image that is made here. Knows no file and no setting."""

from __future__ import annotations

import struct
from collections.abc import Callable
from importlib.metadata import version
from io import BytesIO

import jpeg_ls
import numpy as np
import openjpeg.utils
import rle.utils
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid

from dicom_node.codecs import CODEC_FAULTS, CODECS, Frame, decode
from dicom_node.errors import Unreadable

SIDE, BITS = 64, 12
MIDDLE = 1 << (BITS - 1)
Words = NDArray[np.uint8] | NDArray[np.uint16]
RAMP: Words = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE)
"""Every grey value of 12 bits once."""
FLAT: Words = np.full((SIDE, SIDE), MIDDLE, np.uint16)


def trials() -> list[tuple[str, str]]:
    """(what was tried, why it failed or "") for every group of transfer syntaxes that the node can make an image of."""
    made: tuple[tuple[str, str, Callable[[], bytes], Words, int], ...] = (
        ("RLE Lossless", uid.RLELossless, _rle, RAMP, 0),
        ("JPEG-LS lossless", uid.JPEGLSLossless, lambda: bytes(jpeg_ls.encode_array(RAMP)), RAMP, 0),
        ("JPEG-LS near", uid.JPEGLSNearLossless, lambda: bytes(jpeg_ls.encode_array(RAMP, lossy_error=2)), RAMP, 2),
        ("JPEG 2000 lossless", uid.JPEG2000Lossless, _jpeg_2000, RAMP, 0),
        ("JPEG baseline", uid.JPEGBaseline8Bit, _jpeg_baseline, (RAMP >> 4).astype(np.uint8), 16),
        ("JPEG extended, 12 bits", uid.JPEGExtended12Bit, _jpeg_extended, FLAT, 0),
        ("JPEG lossless", uid.JPEGLosslessSV1, _jpeg_lossless, FLAT, 0),
    )
    return [(name, _tried(str(syntax), encode, expected, off)) for name, syntax, encode, expected, off in made]


def htj2k() -> str:
    """What would decode HTJ2K: there is no encoder here to try it with; "" where nothing would."""
    found = CODECS.get(uid.HTJ2KLossless)
    return f"{found[0]} (pylibjpeg-openjpeg {version('pylibjpeg-openjpeg')})" if found else ""


def _tried(syntax: str, encode: Callable[[], bytes], expected: Words, tolerance: int) -> str:
    """Why the image did not come back, "" where it did; `tolerance` is the largest error of a lossy one."""
    try:
        data = encode()
    except CODEC_FAULTS as fault:
        return f"its encoder failed ({fault})"
    frame = Frame(
        data=data,
        syntax=syntax,
        rows=SIDE,
        columns=SIDE,
        bits_allocated=8 * expected.dtype.itemsize,
        bits_stored=8 if expected.dtype.itemsize == 1 else BITS,
        signed=False,
    )
    try:
        words, name = decode(frame)
    except Unreadable as fault:
        return str(fault)
    off = int(np.abs(words.astype(np.int64) - expected).max())
    return "" if off <= tolerance else f"{name} gave other grey values, up to {off} off"


def _rle() -> bytes:
    words = RAMP.astype("<u2").tobytes()
    return bytes(
        rle.utils.encode_pixel_data(
            words, byteorder="<", rows=SIDE, columns=SIDE, samples_per_pixel=1, bits_allocated=16, number_of_frames=1
        )
    )


def _jpeg_2000() -> bytes:
    monochrome2 = 2  # the package's own numbering
    return bytes(openjpeg.utils.encode_array(RAMP, bits_stored=BITS, photometric_interpretation=monochrome2))


def _jpeg_baseline() -> bytes:
    buffer = BytesIO()
    Image.fromarray((RAMP >> 4).astype(np.uint8)).save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()


# No library here writes 12-bit JPEG, but an even grey needs no encoder: every difference is 0, and with a Huffman
# table of one code of one bit each of them is a zero bit. Source: T.81 annex B (segments), F.1.2, H.1.2.
ONE_CODE = bytes([1, *[0] * 15, 0])
START, END = b"\xff\xd8", b"\xff\xd9"


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">HH", marker, len(content) + 2) + content


def _frame(marker: int) -> bytes:
    return _segment(marker, struct.pack(">BHHB", BITS, SIDE, SIDE, 1) + bytes([1, 0x11, 0]))


def _jpeg_lossless() -> bytes:
    scan = _segment(0xFFDA, bytes([1, 1, 0x00, 1, 0, 0]))
    return START + _frame(0xFFC3) + _segment(0xFFC4, b"\x00" + ONE_CODE) + scan + bytes(SIDE * SIDE // 8) + END


def _jpeg_extended() -> bytes:
    tables = _segment(0xFFC4, b"\x00" + ONE_CODE) + _segment(0xFFC4, b"\x10" + ONE_CODE)
    scan = _segment(0xFFDA, bytes([1, 1, 0x00, 0, 63, 0]))
    # Two codes a block of 8x8: the mean's difference, and "nothing but zeros follows".
    data = bytes(SIDE * SIDE // 64 * 2 // 8)
    return START + _segment(0xFFDB, b"\x00" + bytes([1] * 64)) + _frame(0xFFC1) + tables + scan + data + END
