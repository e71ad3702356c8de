"""Decode one compressed grey frame to its words, or say why not. Knows no data set and no meaning of a value.

A frame that is cut off is refused, never completed: some decoders fill what is missing without a word.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import gdcm
import jpeg_ls
import numpy as np
import openjpeg.utils
import rle.utils
from numpy.typing import NDArray
from pydicom import uid

from dicom_node.errors import Unreadable
from dicom_node.memory import at_most
from dicom_node.tolerant import syntax_uid

Words = NDArray[np.uint8] | NDArray[np.uint16]
CODEC_FAULTS = (RuntimeError, ValueError, TypeError, LookupError, OverflowError, NotImplementedError, struct.error)

END_MARKER = b"\xff\xd9"
ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
WITHOUT_END_MARKER = (uid.RLELossless, ENCAPSULATED_UNCOMPRESSED)
TAIL = 16
"""Bytes behind the end marker that writers pad with; the marker can't occur inside coded data."""


CODED_BYTES = 16
"""Memory that OpenJPEG may take a pixel. For noise, which codes worst, it takes less than 8."""
CODED_MORE = 256 << 20
"""And so much besides."""
PRECISIONS = {0xFFC0: (8, 12), 0xFFC1: (8, 12), 0xFFC3: range(2, 17)}
"""Bits a sample of the processes. Source: T.81 table B.2. Differs: a baseline frame of 12 bits decodes as extended."""
J2K_START = b"\xff\x4f\xff\x51"
"""SOC and SIZ, in that order at the start of every code stream. Source: T.800 A.4.1, A.5.1."""

RUST_PANIC = "PanicException"
NOISE = b"\x5a\xa3\x16\xc9" * 16


@dataclass(frozen=True, slots=True)
class Frame:
    """One compressed frame with what its data set says of it."""

    data: bytes
    syntax: str
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool

    @property
    def name(self) -> str:
        return syntax_uid(self.syntax).name

    @property
    def pixels(self) -> int:
        return self.rows * self.columns


def decode(frame: Frame) -> tuple[Words, str]:
    """The (rows, columns) words of a frame and the decoder's name.

    Raises Unreadable, naming transfer syntax and decoder, where there is no decoder or the frame is damaged.
    """
    require_decoder(frame.syntax)
    name, codec = CODECS[frame.syntax]
    _check_end(frame)
    try:
        words = codec(frame)
    except CODEC_FAULTS as exc:
        raise _damaged(frame, f"{name} can't decode it ({exc})") from exc
    if words.size != frame.pixels:
        raise _damaged(frame, f"{name} gave {words.size} pixels, the header says {frame.columns}x{frame.rows}")
    return words.reshape(frame.rows, frame.columns), name


def require_decoder(syntax: str) -> None:
    """Raises Unreadable where no decoder takes this transfer syntax."""
    if syntax not in CODECS:
        known = ", ".join(sorted({name for name, _ in CODECS.values()}))
        raise Unreadable(
            f"no decoder for transfer syntax {syntax_uid(syntax).name} ({syntax}); known decoders: {known}. "
            "Let the sender propose Explicit VR Little Endian"
        )


def _damaged(frame: Frame, why: str) -> Unreadable:
    return Unreadable(f"pixel data in {frame.name} is damaged: {why}. Send the image again, or uncompressed")


def _check_end(frame: Frame) -> None:
    """Source: T.81 B.1.1.3, T.87 C.1, T.800 A.4.4: a code stream ends in 0xFFD9 (the others have lengths instead)."""
    if frame.syntax not in WITHOUT_END_MARKER and END_MARKER not in frame.data[-TAIL:]:
        raise _damaged(frame, "the code stream has no end marker, so it is cut off")


def _jpeg(frame: Frame) -> Words:
    """JPEG (T.81) by GDCM, whose IJG libraries decode 8, 12 and 16 bits; pydicom's plug-in lets it do 8 only."""
    process, precision, rows, columns = _jpeg_shape(frame)
    if (rows, columns) != (frame.rows, frame.columns):
        raise ValueError(f"the code stream is {columns}x{rows}")
    words = _gdcm(frame.data, frame, process, precision)
    # The IJG libraries fill up a scan that ends too early and tell nobody. Noise behind a complete scan is never
    # looked at; where it changes the picture, the scan had missed something.
    # Fill bytes (T.81 B.1.1.2) before the end marker are no data; with noise behind them they would form a marker.
    scan = frame.data[: frame.data.rindex(END_MARKER)].rstrip(b"\xff")
    if not np.array_equal(words, _gdcm(scan + NOISE + END_MARKER, frame, process, precision)):
        raise ValueError("the scan ends before the picture is complete")
    return words


def _gdcm(data: bytes, frame: Frame, process: str, precision: int) -> Words:
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(data)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    allocated = 8 if precision <= 8 else 16
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((frame.columns, frame.rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    # The process that the code stream states, because 8 bits in "Extended" are common and decode as such.
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(process))))
    image.SetPixelFormat(gdcm.PixelFormat(1, allocated, precision, precision - 1, int(frame.signed)))
    buffer = image.GetBuffer()
    if buffer is None:
        raise ValueError("no pixels came back")
    return _little_endian(buffer.encode("utf-8", "surrogateescape"), allocated)


def _jpeg_shape(frame: Frame) -> tuple[str, int, int, int]:
    """Transfer syntax of the code stream's process, precision, rows and columns, from its frame header.

    Raises ValueError where the stream is not one grey component or breaks T.81's rules for its scan.
    """
    data, at, found = frame.data, 2, None
    while at + 4 <= len(data):
        marker, length = struct.unpack_from(">HH", data, at)
        if marker == 0xFFFF:
            at += 1
            continue
        if marker < 0xFF00:
            # GDCM ends the process where it finds none.
            raise ValueError("there is no marker where a segment ends")
        body = at + 4
        if marker in (0xFFC0, 0xFFC1, 0xFFC3):
            precision, rows, columns, components = struct.unpack_from(">BHHB", data, body)
            found = (marker, precision, rows, columns, components)
        elif marker == 0xFFDA and found is not None:
            count = data[body]
            first, last = data[body + 1 + 2 * count : body + 3 + 2 * count]
            return _jpeg_process(found, first, last)
        at += 2 + length
    raise ValueError("no frame header of a supported process before the scan")


def _jpeg_process(found: tuple[int, int, int, int, int], first: int, last: int) -> tuple[str, int, int, int]:
    """Source: T.81 tables B.2 and B.3 (what a scan header may say in each process)."""
    marker, precision, rows, columns, components = found
    if components != 1:
        raise ValueError(f"{components} components")
    # GDCM ends the process at others.
    if precision not in PRECISIONS[marker]:
        raise ValueError(f"{precision} bits a sample, which its process can't have")
    if marker == 0xFFC3:
        syntax = str(uid.JPEGLosslessSV1 if first == 1 else uid.JPEGLossless)
        return syntax, precision, rows, columns
    # A sequential scan with another spectral range is not T.81; decoders guess, and a guess is no medical image.
    if (first, last) != (0, 63):
        raise ValueError(f"the scan states spectral selection {first} to {last}, which a sequential process can't")
    return str(uid.JPEGBaseline8Bit if precision == 8 else uid.JPEGExtended12Bit), precision, rows, columns


def _jpeg_ls(frame: Frame) -> Words:
    """JPEG-LS (T.87) by CharLS."""
    _check_claim(_jpeg_ls_claim(frame.data), frame)
    data, header = jpeg_ls.decode_buffer(frame.data)
    if (header["height"], header["width"], header["components"]) != (frame.rows, frame.columns, 1):
        raise ValueError(f"the code stream is {header['width']}x{header['height']}")
    return _little_endian(bytes(data), 8 if header["bits_per_sample"] <= 8 else 16)


def _jpeg_2000(frame: Frame) -> Words:
    """JPEG 2000 (T.800) and HTJ2K (T.814) by OpenJPEG, in strict mode: it fails on a cut tile."""
    _check_claim(_jpeg_2000_claim(frame.data), frame)
    # Its need is not the image's alone: a hundred bytes can ask for a structure a pixel. It takes a "no" well; the
    # other libraries would end the process, but need no more than the size that was checked.
    with at_most(CODED_MORE + CODED_BYTES * frame.pixels):
        array = openjpeg.utils.decode(frame.data)
    if array.shape != (frame.rows, frame.columns):
        raise ValueError(f"the code stream is of shape {array.shape}")
    if array.dtype.itemsize > 2:
        raise ValueError(f"{8 * array.dtype.itemsize} bits a sample")
    # Two's complement stays in the low bits; the caller extends the sign from Bits Stored.
    whole = np.ascontiguousarray(array)
    return whole.view(np.uint8) if whole.dtype.itemsize == 1 else whole.view(np.uint16)


def _check_claim(claim: tuple[int, int, int], frame: Frame) -> None:
    """Raises ValueError where a code stream says that it holds another image, before anybody makes room for it."""
    rows, columns, components = claim
    if claim != (frame.rows, frame.columns, 1):
        raise ValueError(f"the code stream is {columns}x{rows} of {components} component(s)")


def _jpeg_ls_claim(data: bytes) -> tuple[int, int, int]:
    """Rows, columns and components that a JPEG-LS stream states. Source: T.87 C.2.2 (SOF 55)."""
    at = 2
    while at + 4 <= len(data):
        marker, length = struct.unpack_from(">HH", data, at)
        if marker == 0xFFF7:
            _precision, rows, columns, components = struct.unpack_from(">BHHB", data, at + 4)
            return rows, columns, components
        at += 1 if marker == 0xFFFF else 2 + length
    raise ValueError("it has no frame header")


def _jpeg_2000_claim(data: bytes) -> tuple[int, int, int]:
    """Rows, columns and components that a JPEG 2000 stream states. Source: T.800 A.5.1 (SIZ), table A.9.

    Some writers put the boxes of a JP2 file before it.
    """
    start = data.find(J2K_START)
    if start < 0:
        raise ValueError("it has no size marker")
    right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
    (components,) = struct.unpack_from(">H", data, start + 40)
    return bottom - top, right - left, components


def _rle(frame: Frame) -> Words:
    """RLE Lossless (PS3.5 annex G); the library fails where a segment is too short."""
    try:
        data = rle.utils.decode_pixel_data(
            frame.data, version=2, rows=frame.rows, columns=frame.columns, bits_allocated=frame.bits_allocated
        )
    except BaseException as fault:
        # A panic of its Rust code is no Exception, and its class can't be imported.
        if type(fault).__name__ != RUST_PANIC:
            raise
        raise ValueError("a segment holds more or less than its part of the picture") from None
    return _little_endian(bytes(data), frame.bits_allocated)


def _uncompressed(frame: Frame) -> Words:
    """Native words that were only put into fragments (PS3.5 A.4.11); a pad byte may follow."""
    needed = frame.pixels * frame.bits_allocated // 8
    if len(frame.data) < needed:
        raise ValueError(f"{len(frame.data)} of {needed} bytes")
    return _little_endian(frame.data[:needed], frame.bits_allocated)


def _little_endian(data: bytes, allocated: int) -> Words:
    if allocated == 8:
        return np.frombuffer(data, np.uint8)
    return np.frombuffer(data, "<u2").astype(np.uint16, copy=False)


CODECS: dict[str, tuple[str, Callable[[Frame], Words]]] = {
    uid.JPEGBaseline8Bit: ("gdcm", _jpeg),
    uid.JPEGExtended12Bit: ("gdcm", _jpeg),
    uid.JPEGLossless: ("gdcm", _jpeg),
    uid.JPEGLosslessSV1: ("gdcm", _jpeg),
    uid.JPEGLSLossless: ("charls", _jpeg_ls),
    uid.JPEGLSNearLossless: ("charls", _jpeg_ls),
    uid.JPEG2000Lossless: ("openjpeg", _jpeg_2000),
    uid.JPEG2000: ("openjpeg", _jpeg_2000),
    uid.HTJ2KLossless: ("openjpeg", _jpeg_2000),
    uid.HTJ2KLosslessRPCL: ("openjpeg", _jpeg_2000),
    uid.HTJ2K: ("openjpeg", _jpeg_2000),
    ENCAPSULATED_UNCOMPRESSED: ("numpy", _uncompressed),
    uid.RLELossless: ("pylibjpeg-rle", _rle),
}
