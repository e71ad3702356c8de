"""A file as the DICOM library reads it, that never gives more than a reader asked for and can hold.

A few bytes can claim gigabytes: a length field, a deflated stream, a sequence without end. Here the claim is held
against what is there and what is allowed. Knows no element.
"""

from __future__ import annotations

import os
import zlib
from typing import BinaryIO

from dicom_node.errors import Unreadable

CHUNK = 1 << 16
MIB = 1 << 20
KEPT = MIB
"""Inflated bytes that stay at hand behind the place of reading: the library looks back by a few kilobytes."""
MOST_INFLATED = 1 << 30
"""Of a header, skipped values included. A deflated gigabyte takes a few seconds; no header of an image is so long."""


class Allowance:
    """How much may still be read: bytes, and calls, since every element costs some and much memory."""

    def __init__(self, *, most_bytes: int, most_reads: int, what: str) -> None:
        self.left, self._reads = most_bytes, most_reads
        self.spent = False
        self._said = f"{what} is larger than {most_bytes // MIB} MiB or has more than {most_reads // 3} elements"

    def take(self, count: int) -> None:
        """Raises Unreadable once there is nothing left."""
        self.left -= count
        self._reads -= 1
        if self.left < 0 or self._reads < 0:
            raise self.exceeded()

    def exceeded(self) -> Unreadable:
        """The fault; kept in mind, because the library may make another one of it."""
        self.spent = True
        return self.fault()

    def fault(self) -> Unreadable:
        return Unreadable(f"{self._said}: no radiograph is like that, so it was not read")


class Bounded:
    """A file on the disk: a length beyond its end allocates nothing."""

    def __init__(self, file: BinaryIO, allowance: Allowance) -> None:
        self._file, self._allowance = file, allowance
        self._size = os.fstat(file.fileno()).st_size
        self.name = str(file.name)
        self.tell = file.tell
        self.seek = file.seek

    def read(self, count: int = -1) -> bytes:
        left = max(0, self._size - self._file.tell())
        count = left if count < 0 else min(count, left)
        self._allowance.take(count)
        return self._file.read(count)


class Inflated:
    """A deflated data set, inflated only as far as it is read. Source: PS3.5 A.5, RFC 1951."""

    def __init__(self, file: BinaryIO, allowance: Allowance, *, most: int = MOST_INFLATED) -> None:
        """`file` stands at the start of the deflated bytes."""
        self._file, self._allowance, self._most = file, allowance, most
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._held = bytearray()
        self._start = 0
        self._at = 0
        self.name = str(file.name)

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Forward to anywhere, back within what is held. Raises ValueError beyond that."""
        self._at = offset + (self._at if whence == 1 else 0)
        if self._at < self._start or whence > 1:
            raise ValueError("a deflated data set can't be read backwards")
        return self._at

    def read(self, count: int = -1) -> bytes:
        while count < 0 or self._start + len(self._held) < self._at + count:
            if not self._more():
                break
        first = self._at - self._start
        there = max(0, len(self._held) - first)
        count = there if count < 0 else min(count, there)
        self._allowance.take(count)
        self._at += count
        return bytes(self._held[first : first + count])

    def _more(self) -> bool:
        """Inflate one more piece; False at the end. Raises zlib.error where the stream is cut off."""
        if self._inflate.eof:
            return False
        self._forget()
        raw = self._inflate.unconsumed_tail or self._file.read(CHUNK)
        piece = self._inflate.decompress(raw, MIB)
        if not raw and not piece:
            raise zlib.error("incomplete or truncated stream")
        self._held += piece
        end = self._start + len(self._held)
        # A value is held whole until it is read: it may not grow beyond what may be read.
        if end > self._most or end - self._at > self._allowance.left + KEPT:
            raise self._allowance.exceeded()
        return True

    def _forget(self) -> None:
        behind = min(self._at - self._start - KEPT, len(self._held))
        if behind > KEPT:
            del self._held[:behind]
            self._start += behind
