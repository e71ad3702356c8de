"""Multipart bodies, written from files and read into files, so that no object is ever held in memory.

Source: RFC 2387, RFC 2046 5.1.1, PS3.18 8.6.1.2. Knows no HTTP and no data set. Written here, since what the DICOMweb
client library and requests offer reads and writes whole parts in memory, and form parsers ask for form fields.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from dicom_node.errors import SpoolDamaged

PIECE = 1 << 16
"""Written at once: a peer that takes it more slowly than its time-out allows counts as not there."""
LONGEST_HEAD = 1 << 14
"""Bytes of one part's header fields, and of what may stand before the first part."""


class MultipartInvalid(Exception):
    """The body is not what its boundary says, or goes beyond a bound. Says no word of the body."""


@dataclass(frozen=True, slots=True)
class Part:
    """One Part 10 file to send, and how long it is."""

    path: Path
    size: int


class Body:
    """A multipart/related body of Part 10 files. Its length is known beforehand, so that it is not sent in chunks."""

    def __init__(self, parts: Sequence[Part], moved: Callable[[int], None]) -> None:
        """`moved` is told how many bytes were handed out, as they are."""
        self._parts = list(parts)
        self._moved = moved
        self._boundary = uuid.uuid4().hex
        # Without the transfer syntax, which is optional here and stands in the file: Orthanc passes over a part that
        # states it, and answers with success.
        self._head = f"\r\n--{self._boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        self._tail = f"\r\n--{self._boundary}--\r\n".encode()

    @property
    def content_type(self) -> str:
        return f'multipart/related; type="application/dicom"; boundary={self._boundary}'

    def __len__(self) -> int:
        return sum(len(self._head) + part.size for part in self._parts) + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        """The bytes. Raises SpoolDamaged where a file has another length than it had."""
        for part in self._parts:
            yield self._head
            yield from self._content(part)
        yield self._tail

    def _content(self, part: Part) -> Iterator[bytes]:
        left = part.size
        try:
            with part.path.open("rb") as file:
                while piece := file.read(PIECE):
                    left -= len(piece)
                    if left < 0:
                        break
                    self._moved(len(piece))
                    yield piece
        except OSError as exc:
            # As one of ours: the HTTP library would take it for a fault of the connection.
            raise SpoolDamaged(f"{part.path}: can't be read ({exc.strerror})") from exc
        if left:
            raise SpoolDamaged(f"{part.path}: its length changed while it was sent")


def boundary_of(content_type: str) -> tuple[str, bytes]:
    """The media type in lower case, and the boundary, b"" where there is none. Source: RFC 2045 5.1, RFC 2046 5.1.1."""
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_boundary("")
    return message.get_content_type(), boundary.encode("ascii", "replace")[:70]


class Parts:
    """The parts of a body that is read piece by piece, each written out as it comes."""

    def __init__(self, read: Callable[[int], bytes], boundary: bytes) -> None:
        """`read` gives at most so many bytes, b"" at the end. Raises MultipartInvalid where there is no boundary."""
        if not boundary:
            raise MultipartInvalid("a multipart body without a boundary")
        self._read = read
        self._delimiter = b"\r\n--" + boundary
        # So that the first delimiter, which needs no line break before it, is found as all the others are.
        self._held = bytearray(b"\r\n")
        self._copy(lambda _piece: None, most=LONGEST_HEAD)

    def next(self, write: Callable[[bytes], object], *, most: int) -> bool:
        """Hand the content of the next part to `write`; False where there is none. Raises MultipartInvalid."""
        while len(self._held) < 2 and self._more():
            pass
        if self._held[:2] == b"--":
            return False
        while (end := self._held.find(b"\r\n\r\n")) < 0:
            if len(self._held) > LONGEST_HEAD or not self._more():
                raise MultipartInvalid("a part without an end of its header fields")
        del self._held[: end + 4]
        self._copy(write, most=most)
        return True

    def _copy(self, write: Callable[[bytes], object], *, most: int) -> None:
        """Everything up to the next delimiter, which is taken away."""
        while (end := self._held.find(self._delimiter)) < 0:
            # The end of what is held may be the start of the delimiter.
            safe = max(0, len(self._held) - len(self._delimiter) + 1)
            most -= safe
            self._check(most)
            write(bytes(self._held[:safe]))
            del self._held[:safe]
            if not self._more():
                raise MultipartInvalid("the body ends within a part")
        self._check(most - end)
        write(bytes(self._held[:end]))
        del self._held[: end + len(self._delimiter)]

    @staticmethod
    def _check(left: int) -> None:
        if left < 0:
            raise MultipartInvalid("a part is longer than allowed")

    def _more(self) -> bool:
        piece = self._read(PIECE)
        self._held += piece
        return bool(piece)
