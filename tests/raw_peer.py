"""A scripted upper-layer peer: PDUs are written byte by byte as a test wants them. Knows no DICOM library."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
CR_IMAGE = "1.2.840.10008.5.1.4.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
NO_DATA, DATA = 0x0101, 0x0001
COMMAND, LAST = 1, 2
RELEASE_RQ = b"\x05\0\0\0\0\x04\0\0\0\0"
ABORT = b"\x07\0\0\0\0\x04\0\0\0\0"


def pdu(kind: int, body: bytes, *, length: int | None = None) -> bytes:
    return struct.pack(">BBI", kind, 0, len(body) if length is None else length) + body


def pdv(content: bytes, *, context: int = 1, control: int = 0, length: int | None = None) -> bytes:
    return struct.pack(">IBB", len(content) + 2 if length is None else length, context, control) + content


def p_data(*pdvs: bytes) -> bytes:
    return pdu(4, b"".join(pdvs))


def _element(element: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, element, len(value)) + value


def _uid(uid: str) -> bytes:
    raw = uid.encode("latin-1")
    return raw + b"\0" * (len(raw) % 2)


def command(
    field: int, *, message: int = 1, sop_class: str = CR_IMAGE, instance: str = "1.2.3", data: int = DATA
) -> bytes:
    """An encoded command set. Source: PS3.7 6.3.1."""
    body = _element(0x0002, _uid(sop_class)) + _element(0x0100, struct.pack("<H", field))
    body += _element(0x0110, struct.pack("<H", message)) + _element(0x0700, struct.pack("<H", 0))
    body += _element(0x0800, struct.pack("<H", data))
    if instance:
        body += _element(0x1000, _uid(instance))
    return _element(0x0000, struct.pack("<I", len(body))) + body


def store(
    content: bytes, *, message: int = 1, instance: str = "1.2.3", context: int = 1, piece: int = 1 << 30
) -> bytes:
    """A C-STORE request as PDUs of one PDV, its data set in pieces of that size."""
    found = p_data(pdv(command(1, message=message, instance=instance), context=context, control=COMMAND | LAST))
    for at in range(0, max(1, len(content)), piece):
        last = LAST if at + piece >= len(content) else 0
        found += p_data(pdv(content[at : at + piece], context=context, control=last))
    return found


def associate_rq(
    contexts: Iterable[tuple[int, str, Iterable[str]]],
    *,
    called: str = "EVENRAY",
    calling: str = "RAWPEER",
    max_pdu: int = 16384,
) -> bytes:
    """An A-ASSOCIATE-RQ. Source: PS3.8 9.3.2."""

    def item(kind: int, body: bytes) -> bytes:
        return struct.pack(">BBH", kind, 0, len(body)) + body

    body = struct.pack(">HH16s16s32x", 1, 0, called.encode("latin-1").ljust(16), calling.encode("latin-1").ljust(16))
    body += item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, abstract, syntaxes in contexts:
        inside = item(0x30, abstract.encode()) + b"".join(item(0x40, syntax.encode()) for syntax in syntaxes)
        body += item(0x20, bytes((number, 0, 0, 0)) + inside)
    user = item(0x51, struct.pack(">I", max_pdu)) + item(0x52, b"1.2.3.4")
    return pdu(1, body + item(0x50, user))


@dataclass(frozen=True)
class Answer:
    """One PDU that came back."""

    kind: int
    body: bytes

    @property
    def status(self) -> int:
        """The status of the response in a P-DATA-TF of one PDV."""
        return response_fields(self.body[6:])[0x0900]

    @property
    def abort_reason(self) -> tuple[int, int]:
        """Source and reason of an A-ABORT."""
        return self.body[2], self.body[3]


def response_fields(command_set: bytes) -> dict[int, int]:
    """The numbers of a response's command set by element."""
    found: dict[int, int] = {}
    at = 0
    while at < len(command_set):
        _, element, length = struct.unpack_from("<HHI", command_set, at)
        if length == 2:
            found[element] = struct.unpack_from("<H", command_set, at + 8)[0]
        at += 8 + length
    return found


class RawPeer:
    """One end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(20)

    @classmethod
    def connect(cls, port: int) -> RawPeer:
        return cls(socket.create_connection(("127.0.0.1", port), timeout=20))

    @classmethod
    def associated(cls, port: int, contexts: Iterable[tuple[int, str, Iterable[str]]] | None = None) -> RawPeer:
        """A peer whose association was accepted."""
        made = cls.connect(port)
        made.send(associate_rq(contexts or [(1, CR_IMAGE, [EXPLICIT])]))
        answer = made.read()
        assert answer is not None
        assert answer.kind == 2, "the association was accepted"
        return made

    def send(self, content: bytes) -> None:
        self.sock.sendall(content)

    def read(self) -> Answer | None:
        """The next PDU; None when the connection has ended."""
        head = self._exactly(6)
        if head is None:
            return None
        kind, _, length = struct.unpack(">BBI", head)
        body = self._exactly(length)
        return None if body is None else Answer(kind, body)

    def _exactly(self, count: int) -> bytes | None:
        content = b""
        while len(content) < count:
            try:
                piece = self.sock.recv(count - len(content))
            except ConnectionResetError:
                return None
            if not piece:
                return None
            content += piece
        return content

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
