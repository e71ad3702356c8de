"""A DICOMweb server on a real socket that answers as a test says, good or bad. Knows no node.

It reads HTTP itself, since what is tested is what no good server does: it hangs, breaks off, or lies.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from email.parser import BytesParser
from io import BytesIO
from typing import Any

from pydicom import dcmread

LOOPBACK = "127.0.0.1"
SEQUENCES = {"stored": "00081199", "failed": "00081198", "others": "0008119A"}
REASONS = {"stored": "00081196", "failed": "00081197", "others": "00081197"}


@dataclass
class Asked:
    """One request. `parts`: of each part its header fields and its content; `uids`: of the objects in them."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    parts: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def uids(self) -> list[str]:
        return [str(dcmread(BytesIO(content), stop_before_pixels=True).SOPInstanceUID) for _, content in self.parts]


@dataclass
class Say:
    """An answer."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    """Sent in the place of an answer."""
    break_off: bool = False
    """Closes the connection in the middle of the answer."""
    silent: bool = False
    """Never answers."""
    dribble: bytes = b""
    """Sent a byte at a time, without end, before the answer."""


def model(
    stored: Iterable[str | tuple[str, int]] = (),
    failed: Iterable[tuple[str, int]] = (),
    others: Iterable[int] = (),
    *,
    sop_class: str = "1.2.840.10008.5.1.4.1.1.1.1",
) -> dict[str, Any]:
    """A Store Instances Response. `stored`: UIDs, or UIDs with a Warning Reason."""

    def item(kind: str, uid: str, reason: int | None) -> dict[str, Any]:
        made: dict[str, Any] = {}
        if uid:
            made["00081150"] = {"vr": "UI", "Value": [sop_class]}
            made["00081155"] = {"vr": "UI", "Value": [uid]}
        if reason is not None:
            made[REASONS[kind]] = {"vr": "US", "Value": [reason]}
        return made

    rows = {
        "stored": [item("stored", *((one, None) if isinstance(one, str) else one)) for one in stored],
        "failed": [item("failed", *one) for one in failed],
        "others": [item("others", "", one) for one in others],
    }
    return {SEQUENCES[kind]: {"vr": "SQ", "Value": found} for kind, found in rows.items() if found}


def module(*arguments: Any, status: int = 200, **options: Any) -> Say:
    """The same as an answer in JSON."""
    body = json.dumps(model(*arguments, **options)).encode()
    return Say(status, body, {"Content-Type": "application/dicom+json"})


def as_xml(found: dict[str, Any], *, space: str = ' xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM"') -> bytes:
    """The same in the native DICOM model."""

    def elements(data: dict[str, Any]) -> str:
        return "".join(
            f'<DicomAttribute tag="{tag}" vr="{element["vr"]}">{values(element["Value"])}</DicomAttribute>'
            for tag, element in data.items()
        )

    def values(found: list[Any]) -> str:
        return "".join(
            f'<Item number="{n}">{elements(one)}</Item>'
            if isinstance(one, dict)
            else f'<Value number="{n}">{one}</Value>'
            for n, one in enumerate(found, 1)
        )

    return f'<?xml version="1.0"?><NativeDicomModel{space}>{elements(found)}</NativeDicomModel>'.encode()


def all_stored(asked: Asked) -> Say:
    """What a good server says."""
    return module(asked.uids)


class ScriptedWeb:
    """Listens from the start; `script` may be replaced at any time and answers each request that comes then."""

    def __init__(
        self,
        script: Callable[[Asked], Say] = all_stored,
        *,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        keeps_bodies: bool = True,
        hasty: bool = False,
        slow_s: float = 0.0,
    ) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self._keeps_bodies = keeps_bodies
        """False: it reads and forgets them."""
        self._hasty = hasty
        """It answers from the header fields alone, and closes."""
        self._slow_s = slow_s
        """It takes no body before this time is over."""
        self._tls = tls
        self._ended = threading.Event()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server((LOOPBACK, port), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{LOOPBACK}:{self.port}/dicom-web"

    @property
    def connections(self) -> int:
        return len(self._sockets)

    def stop(self) -> None:
        self._ended.set()
        with socket.socket() as waker, suppress(OSError):
            waker.connect((LOOPBACK, self.port))
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._ended.is_set():
                connection.close()
                return
            self._sockets.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError, EOFError, ValueError):
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rb") as reader:
                while self._answer(connection, self._read(reader)):
                    pass

    def _read(self, reader: Any) -> Asked:
        first = reader.readline()
        if not first:
            raise EOFError
        method, path, _ = first.decode().split(" ")
        lines = bytearray()
        while (line := reader.readline()) not in (b"\r\n", b""):
            lines += line
        headers = dict(BytesParser().parsebytes(bytes(lines)).items())
        self._ended.wait(self._slow_s)
        left = 0 if self._hasty else int(headers.get("Content-Length", 0))
        body = reader.read(left) if self._keeps_bodies else b""
        if self._keeps_bodies and len(body) < left:
            raise EOFError
        while not self._keeps_bodies and left:
            left -= len(reader.read(min(left, 1 << 16)))
        asked = Asked(method, path, headers, body)
        if "boundary=" in headers.get("Content-Type", "") and body:
            asked.parts = _parts(body, headers["Content-Type"].split("boundary=")[1].encode())
        self.asked.append(asked)
        return asked

    def _answer(self, connection: socket.socket, asked: Asked) -> bool:
        """Whether the connection goes on."""
        said = self.script(asked)
        if said.silent:
            self._ended.wait(60)
            return False
        while said.dribble and not self._ended.wait(0.2):
            connection.sendall(said.dribble)
        if said.raw is not None:
            connection.sendall(said.raw)
            return False
        headers = {"Content-Length": str(len(said.body)), **said.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        whole = f"HTTP/1.1 {said.status} Said\r\n{lines}\r\n".encode() + said.body
        connection.sendall(whole[: len(whole) // 2] if said.break_off else whole)
        return not said.break_off and not self._hasty


def _parts(body: bytes, boundary: bytes) -> list[tuple[dict[str, str], bytes]]:
    """Every part of a body that must be well-formed."""
    pieces = (b"\r\n" + body if body[:2] != b"\r\n" else body).split(b"\r\n--" + boundary)
    assert pieces[0] == b""
    assert pieces[-1].strip() == b"--"
    found = []
    for piece in pieces[1:-1]:
        head, _, content = piece.partition(b"\r\n\r\n")
        found.append((dict(BytesParser().parsebytes(head.lstrip(b"\r\n")).items()), content))
    return found
