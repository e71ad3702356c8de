"""Files of a few kilobytes that claim gigabytes, and others that are meant to break a reader. Knows no node code."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from pydicom import uid
from pydicom.encaps import encapsulate

CHEST = "1.2.840.10008.5.1.4.1.1.1"
J2K, HTJ2K, JPEG_LS, JPEG = uid.JPEG2000Lossless, uid.HTJ2KLossless, uid.JPEGLSLossless, uid.JPEGBaseline8Bit
SIDE = 8192
"""The largest square that is believed to be a radiograph."""


def file_of(path: Path, body: bytes, name: str, syntax: str = uid.ExplicitVRLittleEndian) -> Path:
    """A Part 10 file with these bytes as its data set. `name` is its SOP Instance UID."""
    meta = element(0x0002, 0x0002, "UI", CHEST) + element(0x0002, 0x0003, "UI", name)
    meta += element(0x0002, 0x0010, "UI", syntax)
    meta = element(0x0002, 0x0000, "UL", struct.pack("<I", len(meta))) + meta
    path.write_bytes(bytes(128) + b"DICM" + meta + body)
    return path


def element(group: int, number: int, vr: str, value: bytes | str, length: int | None = None) -> bytes:
    """One element in Explicit VR Little Endian; `length` is what it claims."""
    raw = value.encode() if isinstance(value, str) else value
    raw += b"\0" * (len(raw) % 2)
    length = len(raw) if length is None else length
    head = struct.pack("<HH2s", group, number, vr.encode())
    if vr in ("OB", "OW", "SQ", "UN", "UT"):
        return head + struct.pack("<HI", 0, length) + raw
    return head + struct.pack("<H", length) + raw


def header(name: str, side: int = 64) -> bytes:
    """The elements of a chest radiograph up to its pixel data."""
    parts = [
        element(0x0008, 0x0016, "UI", CHEST),
        element(0x0008, 0x0018, "UI", name),
        element(0x0008, 0x0060, "CS", "CR"),
        element(0x0010, 0x0020, "LO", "P1"),
        element(0x0018, 0x0015, "CS", "CHEST "),
        element(0x0018, 0x5101, "CS", "PA"),
        element(0x0020, 0x000D, "UI", f"{name}.1"),
        element(0x0020, 0x000E, "UI", f"{name}.2"),
        element(0x0028, 0x0002, "US", struct.pack("<H", 1)),
        element(0x0028, 0x0004, "CS", "MONOCHROME2 "),
        element(0x0028, 0x0010, "US", struct.pack("<H", side)),
        element(0x0028, 0x0011, "US", struct.pack("<H", side)),
        element(0x0028, 0x0100, "US", struct.pack("<H", 8)),
        element(0x0028, 0x0101, "US", struct.pack("<H", 8)),
        element(0x0028, 0x0102, "US", struct.pack("<H", 7)),
        element(0x0028, 0x0103, "US", struct.pack("<H", 0)),
    ]
    return b"".join(parts)


def before_modality(name: str, more: bytes) -> bytes:
    """A radiograph of 8 by 8 with elements that come before its Study Instance UID."""
    whole = header(name, 8) + element(0x7FE0, 0x0010, "OB", bytes(64))
    place = whole.index(element(0x0010, 0x0020, "LO", "P1"))
    return whole[:place] + more + whole[place:]


def deflated(body: Callable[[], list[bytes]]) -> bytes:
    """Deflate pieces one after the other, so that making the bomb takes no memory."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return b"".join(packer.compress(piece) for piece in body()) + packer.flush()


def deflated_pixels(path: Path, name: str) -> Path:
    """64 by 64 pixels in 128 MB of pixel data."""
    zeros, count = bytes(1 << 24), 8
    start = header(name) + element(0x7FE0, 0x0010, "OW", b"", length=count << 24)
    return file_of(path, deflated(lambda: [start, *([zeros] * count)]), name, uid.DeflatedExplicitVRLittleEndian)


def deflated_header(path: Path, name: str) -> Path:
    """A private value of more than a gigabyte in front of everything that names the object."""
    zeros, count = bytes(1 << 24), 70
    start = element(0x0007, 0x1001, "OB", b"", length=count << 24)
    body = deflated(lambda: [start, *([zeros] * count), header(name)])
    return file_of(path, body, name, uid.DeflatedExplicitVRLittleEndian)


def deflated_text(path: Path, name: str) -> Path:
    """A text of 128 MB, of a VR without a limit."""
    commas, count = b"1\\" * (1 << 23), 8
    start = element(0x0008, 0x0060, "UT", b"", length=count << 24)
    body = deflated(lambda: [start, *([commas] * count), header(name)])
    return file_of(path, body, name, uid.DeflatedExplicitVRLittleEndian)


def long_length(path: Path, name: str) -> Path:
    """Pixel data of 4 GB in a file of 1 KB."""
    body = header(name) + element(0x7FE0, 0x0010, "OW", bytes(500), length=0xFFFFFFFE)
    return file_of(path, body, name)


def long_text(path: Path, name: str) -> Path:
    """A text of 4 GB in a file of 1 KB, before anything else."""
    return file_of(path, element(0x0008, 0x0005, "UT", b"x", length=0xFFFFFFF0) + header(name), name)


def many_pixels(path: Path, name: str) -> Path:
    """Rows and Columns of 65535."""
    return file_of(path, header(name, 65535) + element(0x7FE0, 0x0010, "OB", bytes(64)), name)


def deep(path: Path, name: str) -> Path:
    """A sequence in a sequence in a sequence, 20,000 deep."""
    sequence = element(0x0008, 0x1110, "SQ", b"", length=0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return file_of(path, before_modality(name, sequence * 20_000), name)


def endless(path: Path, name: str) -> Path:
    """A sequence of 600,000 empty items whose end never comes."""
    items = element(0x0008, 0x1110, "SQ", b"", length=0xFFFFFFFF)
    return file_of(path, before_modality(name, items + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 600_000), name)


def wide(path: Path, name: str) -> Path:
    """A million empty items, of stated length, in a sequence that the node looks into (Anatomic Region)."""
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 1_000_000
    return file_of(path, before_modality(name, element(0x0008, 0x2218, "SQ", items)), name)


def coded(path: Path, name: str, stream: bytes, syntax: str, side: int = 64) -> Path:
    value = encapsulate([stream]) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return file_of(path, header(name, side) + element(0x7FE0, 0x0010, "OB", value, length=0xFFFFFFFF), name, syntax)


def j2k(side: int, components: int = 1, *, precinct: int = 0xFF, tile: int = 0) -> bytes:
    """A JPEG 2000 stream without data. precinct: exponents of width and height in one byte; tile: its side."""
    tile = tile or side
    siz = struct.pack(">H8IH", 0, side, side, 0, 0, tile, tile, 0, 0, components) + b"\x07\x01\x01" * components
    scod = 0 if precinct == 0xFF else 1
    cod = struct.pack(">BBHBBBBBB", scod, 0, 1, 0, 5, 4, 4, 0, 1) + (bytes([precinct]) * 6 if scod else b"")
    qcd = b"\x40" + b"\x40" * 16
    parts = [b"\xff\x4f"]
    for marker, body in ((b"\xff\x51", siz), (b"\xff\x52", cod), (b"\xff\x5c", qcd)):
        parts.append(marker + struct.pack(">H", len(body) + 2) + body)
    parts.append(b"\xff\x90" + struct.pack(">HHIBB", 10, 0, 14 + 2, 0, 1) + b"\xff\x93" + bytes(2) + b"\xff\xd9")
    return b"".join(parts)


def jpeg_ls(side: int, components: int = 1) -> bytes:
    """A JPEG-LS stream that ends where its data should begin."""
    parts = b"".join(bytes((n + 1, 0x11, 0)) for n in range(components))
    frame = struct.pack(">BHHB", 8, side, side, components) + parts
    scan = bytes([1, 1, 0, 0, 0, 0])
    return (
        b"\xff\xd8\xff\xf7"
        + struct.pack(">H", len(frame) + 2)
        + frame
        + b"\xff\xda"
        + struct.pack(">H", len(scan) + 2)
        + scan
        + bytes(8)
        + b"\xff\xd9"
    )


def jpeg(path: Path, name: str) -> Path:
    """A baseline JPEG of one block whose frame header is made to claim 8192 squared."""
    from io import BytesIO  # noqa: PLC0415

    from PIL import Image  # noqa: PLC0415

    out = BytesIO()
    Image.new("L", (8, 8)).save(out, "JPEG")
    stream = bytearray(out.getvalue())
    place = stream.index(b"\xff\xc0") + 5
    stream[place : place + 4] = struct.pack(">HH", SIDE, SIDE)
    return coded(path, name, bytes(stream), JPEG, SIDE)


def rle(path: Path, name: str) -> Path:
    """One run of 128 zeros for 8192 squared."""
    return coded(path, name, struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00", uid.RLELossless, SIDE)


BOMBS: dict[str, Callable[[Path, str], Path]] = {
    "deflated pixels": deflated_pixels,
    "deflated header": deflated_header,
    "deflated text": deflated_text,
    "length of pixels": long_length,
    "length of a text": long_text,
    "rows and columns": many_pixels,
    "deep sequences": deep,
    "endless sequence": endless,
    "wide sequence": wide,
    "JPEG 2000, 16 components of 65535 squared": lambda p, n: coded(p, n, j2k(65535, 16), J2K),
    "HTJ2K, 16 components of 65535 squared": lambda p, n: coded(p, n, j2k(65535, 16), HTJ2K),
    "JPEG 2000 that agrees with its header": lambda p, n: coded(p, n, j2k(SIDE), J2K, SIDE),
    "JPEG 2000 of 22 million precincts": lambda p, n: coded(p, n, j2k(SIDE, precinct=0x11), J2K, SIDE),
    "JPEG 2000 of 65536 tiles": lambda p, n: coded(p, n, j2k(SIDE, tile=32), J2K, SIDE),
    "JPEG-LS, 255 components of 65535 squared": lambda p, n: coded(p, n, jpeg_ls(65535, 255), JPEG_LS),
    "JPEG-LS that agrees with its header": lambda p, n: coded(p, n, jpeg_ls(SIDE), JPEG_LS, SIDE),
    "JPEG": jpeg,
    "RLE": rle,
}
