"""A PACS on a plain socket that does what a test tells it, right or wrong, and remembers every connection and object.

Knows nothing of the node. The upper layer is spoken by hand (PS3.8 9.3), so that it can be broken at any byte.
"""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode, encode

from tests.peers import LOOPBACK

STORE, STORE_RSP, ACTION, ACTION_RSP, REPORT, ECHO, ECHO_RSP = 0x0001, 0x8001, 0x0130, 0x8130, 0x0100, 0x0030, 0x8030
"""Command fields. Source: PS3.7 table E.1-1."""
COMMITMENT, COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
ABORT = bytes([7, 0, 0, 0, 0, 4, 0, 0, 2, 0])
RELEASE_RP = bytes([6, 0, 0, 0, 0, 4, 0, 0, 0, 0])


def always(value: int) -> Callable[[str], int]:
    return lambda _uid: value


@dataclass(kw_only=True)
class Mode:
    """How it behaves. The default is a good archive that confirms on the association of the request."""

    mute: bool = False
    """Takes the connection and says nothing."""
    hang_up: bool = False
    """Closes when an association is asked for."""
    open_with: bytes | None = None
    """Answers an association request with these bytes."""
    abort_when_open: bool = False
    max_pdu: int = 16384
    abort_in: Callable[[str], bool] = lambda _uid: False
    """Aborts in the middle of the data of such an object."""
    keeps: bool = True
    silent_on: Callable[[str], bool] = lambda _uid: False
    """Takes such an object and never answers."""
    delay_s: float = 0.0
    status: Callable[[str], int] = lambda _uid: 0
    answer_with: bytes | None = None
    """Sends these bytes in the place of an answer."""
    answer_id: Callable[[int], int] = lambda message_id: message_id
    answers: int = 1
    close_after: int = 0
    """Closes the socket after so many answers; 0: never."""
    takes_commitment: bool = True
    action_status: int = 0
    report: Callable[[Dataset], list[Dataset]] = field(default_factory=lambda: honest)
    """The reports on a request, sent on the same association."""


def honest(request: Dataset) -> list[Dataset]:
    """Everything is committed."""
    report = Dataset()
    report.TransactionUID = request.TransactionUID
    report.ReferencedSOPSequence = request.ReferencedSOPSequence
    return [report]


def failing(request: Dataset, *, every: int = 1, reason: int = 0x0112) -> list[Dataset]:
    """Each `every`-th object failed."""
    report = Dataset()
    report.TransactionUID = request.TransactionUID
    good, bad = [], []
    for n, item in enumerate(request.ReferencedSOPSequence):
        if n % every:
            good.append(item)
        else:
            item.FailureReason = reason
            bad.append(item)
    report.FailedSOPSequence = bad
    if good:
        report.ReferencedSOPSequence = good
    return [report]


class ScriptedPacs:
    """Listens from the start; `mode` may be replaced at any time and holds from the next step on."""

    def __init__(self, mode: Mode | None = None, *, port: int = 0) -> None:
        self.mode = mode or Mode()
        self.connected_at: list[float] = []
        self.stored: dict[str, list[str]] = defaultdict(list)
        """SHA-256 of every data set that was answered with Success or a warning, by SOP Instance UID."""
        self.received: dict[str, int] = defaultdict(int)
        """How many complete objects of each UID came, whatever was answered."""
        self.requests: list[Dataset] = []
        """Requests for commitment."""
        self.most_at_once = 0
        self._open = 0
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._ended = threading.Event()
        self._listener = socket.create_server((LOOPBACK, port), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self._start(self._accept)

    def stop(self) -> None:
        self._ended.set()
        with socket.socket() as waker, suppress(OSError):
            waker.connect((LOOPBACK, self.port))
        self.drop()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def drop(self) -> None:
        """Cut every connection."""
        with self._lock:
            sockets = list(self._sockets)
        for one in sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def wait(self, seconds: float) -> None:
        self._ended.wait(seconds)

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._ended.is_set():
                connection.close()
                return
            with self._lock:
                self.connected_at.append(time.monotonic())
                self._sockets.append(connection)
                self._open += 1
                self.most_at_once = max(self.most_at_once, self._open)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with connection, suppress(OSError, EOFError):
                _Association(self, connection).run()
        finally:
            with self._lock:
                self._sockets.remove(connection)
                self._open -= 1


class _Association:
    """One connection, served until something ends it."""

    def __init__(self, pacs: ScriptedPacs, connection: socket.socket) -> None:
        self._pacs = pacs
        self._connection = connection
        self._contexts: dict[int, str] = {}
        self._answered = 0
        self._largest = 16384
        self._command = b""
        self._data = bytearray()
        self._request = Dataset()

    @property
    def _mode(self) -> Mode:
        return self._pacs.mode

    def run(self) -> None:
        if self._mode.mute:
            self._silence()
        elif self._opened():
            while self._more():
                pass

    def _opened(self) -> bool:
        kind, body = self._pdu()
        if kind != 1 or self._mode.hang_up:
            return False
        if self._mode.open_with is not None:
            self._send(self._mode.open_with)
            self._silence()
            return False
        self._send(self._accepted(body))
        if self._mode.abort_when_open:
            self._send(ABORT)
            return False
        return True

    def _more(self) -> bool:
        """Take one PDU; whether the association goes on."""
        kind, body = self._pdu()
        if kind == 5:
            self._send(RELEASE_RP)
        return kind == 4 and all(self._take(*value) for value in _values(body))

    def _take(self, context: int, header: int, piece: bytes) -> bool:
        if header & 1:
            self._command += piece
            if not header & 2:
                return True
            self._request, self._command = decode(BytesIO(self._command), True, True), b""
            self._data = bytearray()
            return self._request.CommandDataSetType != 0x0101 or self._serve(context, self._request, b"")
        self._data += piece
        uid = str(self._request.get("AffectedSOPInstanceUID", ""))
        if self._request.CommandField == STORE and self._mode.abort_in(uid):
            self._send(ABORT)
            return False
        return not header & 2 or self._serve(context, self._request, bytes(self._data))

    def _serve(self, context: int, request: Dataset, data: bytes) -> bool:
        """Answer one message; whether the association goes on."""
        if request.CommandField == STORE:
            return self._store(context, request, data)
        if request.CommandField == ACTION:
            return self._action(context, request, data)
        if request.CommandField == ECHO:
            self._answer(context, ECHO_RSP, request, 0)
        return True

    def _store(self, context: int, request: Dataset, data: bytes) -> bool:
        mode, uid = self._mode, str(request.AffectedSOPInstanceUID)
        with self._pacs._lock:
            self._pacs.received[uid] += 1
        if mode.silent_on(uid):
            self._silence()
            return False
        self._pacs.wait(mode.delay_s)
        if mode.answer_with is not None:
            self._send(mode.answer_with)
            self._silence()
            return False
        status = mode.status(uid)
        if mode.keeps and status in (0x0000, 0xB000, 0xB006, 0xB007):
            with self._pacs._lock:
                self._pacs.stored[uid].append(hashlib.sha256(data).hexdigest())
        for _ in range(mode.answers):
            self._answer(context, STORE_RSP, request, status, message_id=mode.answer_id(int(request.MessageID)))
        self._answered += 1
        return self._answered != mode.close_after

    def _action(self, context: int, request: Dataset, data: bytes) -> bool:
        syntax = self._contexts[context]
        action = decode(BytesIO(data), syntax == "1.2.840.10008.1.2", True)
        mode = self._mode
        with self._pacs._lock:
            self._pacs.requests.append(action)
        self._answer(context, ACTION_RSP, request, mode.action_status)
        if mode.action_status:
            return True
        for number, report in enumerate(mode.report(action), 1):
            command = Dataset()
            command.AffectedSOPClassUID = COMMITMENT
            command.CommandField = REPORT
            command.MessageID = number
            command.CommandDataSetType = 0x0001
            command.AffectedSOPInstanceUID = COMMITMENT_INSTANCE
            command.EventTypeID = 2 if "FailedSOPSequence" in report else 1
            encoded = encode(report, syntax == "1.2.840.10008.1.2", True)
            assert encoded is not None
            self._message(context, command, encoded)
        return True

    def _answer(self, context: int, field_: int, request: Dataset, status: int, message_id: int | None = None) -> None:
        command = Dataset()
        command.CommandField = field_
        command.MessageIDBeingRespondedTo = request.MessageID if message_id is None else message_id
        command.CommandDataSetType = 0x0101
        command.Status = status
        for keyword in ("AffectedSOPClassUID", "AffectedSOPInstanceUID"):
            if keyword in request:
                command[keyword] = request[keyword]
        self._message(context, command, b"")

    def _message(self, context: int, command: Dataset, data: bytes) -> None:
        raw = encode(command, True, True)
        assert raw is not None
        # Group length first. Source: PS3.7 6.3.1.
        self._value(context, 3, struct.pack("<HHII", 0, 0, 4, len(raw)) + raw)
        room = self._largest - 6
        pieces = [data[at : at + room] for at in range(0, len(data), room)]
        for n, piece in enumerate(pieces, 1):
            self._value(context, 2 if n == len(pieces) else 0, piece)

    def _value(self, context: int, header: int, piece: bytes) -> None:
        value = struct.pack(">IBB", len(piece) + 2, context, header) + piece
        self._send(struct.pack(">BxI", 4, len(value)) + value)

    def _accepted(self, body: bytes) -> bytes:
        """A-ASSOCIATE-AC: every context in its first transfer syntax. Source: PS3.8 9.3.3."""
        items = [_item(0x10, b"1.2.840.10008.3.1.1.1")]
        for kind, value in _items(body[68:]):
            if kind == 0x50:
                for what, length in _items(value):
                    self._largest = struct.unpack(">I", length)[0] or 16384 if what == 0x51 else self._largest
            if kind != 0x20:
                continue
            inner = list(_items(value[4:]))
            abstract = next(v for k, v in inner if k == 0x30).decode().strip("\0 ")
            syntax = next(v for k, v in inner if k == 0x40)
            refused = abstract == COMMITMENT and not self._mode.takes_commitment
            self._contexts[value[0]] = syntax.decode().strip("\0 ")
            items.append(_item(0x21, bytes([value[0], 0, 3 if refused else 0, 0]) + _item(0x40, syntax)))
        user = _item(0x51, struct.pack(">I", self._mode.max_pdu)) + _item(0x52, b"1.2.826.0.1.3680043.8.498.99")
        content = body[:68] + b"".join(items) + _item(0x50, user)
        return struct.pack(">BxI", 2, len(content)) + content

    def _silence(self) -> None:
        """Say nothing until the other side goes, or the test ends."""
        self._connection.settimeout(60)
        while self._connection.recv(65536):
            pass

    def _pdu(self) -> tuple[int, bytes]:
        head = self._exactly(6)
        return head[0], self._exactly(struct.unpack(">I", head[2:])[0])

    def _exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            part = self._connection.recv(min(1 << 16, count - len(parts)))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)

    def _send(self, content: bytes) -> None:
        self._connection.sendall(content)


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _items(body: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at < len(body):
        kind, length = struct.unpack_from(">BxH", body, at)
        found.append((kind, body[at + 4 : at + 4 + length]))
        at += 4 + length
    return found


def _values(body: bytes) -> list[tuple[int, int, bytes]]:
    """The presentation data values of a P-DATA-TF. Source: PS3.8 9.3.5."""
    found, at = [], 0
    while at < len(body):
        (length,) = struct.unpack_from(">I", body, at)
        found.append((body[at + 4], body[at + 5], body[at + 6 : at + 4 + length]))
        at += 4 + length
    return found
