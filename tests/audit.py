"""An audit record repository for tests: syslog over TLS or UDP on loopback, and the schema that messages must obey.

Knows nothing of the node.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from lxml import etree

from tests.certificates import Authority
from tests.peers import LOOPBACK, free_port

SCHEMA = Path(__file__).with_name("audit_message.rng")
# Source: RFC 5424 6; the structured data is nil.
SYSLOG = re.compile(
    rb"<(?P<pri>\d{1,3})>1 (?P<at>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z) (?P<host>[!-~]{1,255}) (?P<app>[!-~]{1,48})"
    rb" (?P<pid>[!-~]{1,128}) (?P<id>[!-~]{1,32}) - \xef\xbb\xbf(?P<xml>.*)",
    re.DOTALL,
)


@cache
def schema() -> etree.RelaxNG:
    return etree.RelaxNG(etree.parse(SCHEMA))


def faults(xml: bytes) -> list[str]:
    """What the schema finds wrong with a message, [] where nothing."""
    grammar = schema()
    return [] if grammar.validate(etree.fromstring(xml)) else [str(one.message) for one in grammar.error_log]


@dataclass(frozen=True)
class Received:
    """One message, as a repository understands it."""

    raw: bytes

    @property
    def header(self) -> dict[str, str]:
        found = SYSLOG.fullmatch(self.raw)
        assert found, self.raw[:120]
        return {name: found[name].decode() for name in ("pri", "at", "host", "app", "pid", "id")}

    @property
    def xml(self) -> bytes:
        found = SYSLOG.fullmatch(self.raw)
        assert found, self.raw[:120]
        return found["xml"]

    @property
    def tree(self) -> etree._Element:
        return etree.fromstring(self.xml)

    def get(self, path: str) -> list[str]:
        """What an XPath finds, as text."""
        found = self.tree.xpath(path)
        assert isinstance(found, list)
        return [str(one) for one in found]

    @property
    def event(self) -> str:
        return self.get("EventIdentification/EventID/@csd-code")[0]

    @property
    def kinds(self) -> list[str]:
        return self.get("EventIdentification/EventTypeCode/@csd-code")

    @property
    def outcome(self) -> str:
        return self.get("EventIdentification/@EventOutcomeIndicator")[0]

    @property
    def at(self) -> str:
        return self.get("EventIdentification/@EventDateTime")[0]

    @property
    def study(self) -> str:
        found = self.get(
            "ParticipantObjectIdentification[ParticipantObjectIDTypeCode/@csd-code='110180']/@ParticipantObjectID"
        )
        return found[0] if found else ""

    @property
    def patient(self) -> str:
        found = self.get("ParticipantObjectIdentification[@ParticipantObjectTypeCode='1']/@ParticipantObjectID")
        return found[0] if found else ""

    @property
    def instances(self) -> dict[str, int]:
        return {str(one.get("UID")): int(one.get("NumberOfInstances") or 0) for one in self.tree.iter("SOPClass")}


@dataclass
class SyslogServer:
    """A repository that understands RFC 5425 and asks for a certificate. `broken` is what was not of that form."""

    authority: Authority
    port: int = field(default_factory=free_port)
    messages: list[Received] = field(default_factory=list)
    broken: list[bytes] = field(default_factory=list)
    connections: int = 0
    take: Callable[[], bool] = lambda: True
    """Whether it reads on; False: it hangs with what has come, until it is stopped and that is lost."""
    _listening: socket.socket | None = None
    _open: list[ssl.SSLSocket] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)
    _gone: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self._gone.clear()
        own = self.authority.issue("repository")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own.certificate, own.key)
        context.load_verify_locations(self.authority.file)
        context.verify_mode = ssl.CERT_REQUIRED
        self._listening = socket.create_server((LOOPBACK, self.port))
        self._spawn(self._accept, self._listening, context)

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self, listening: socket.socket, context: ssl.SSLContext) -> None:
        while True:
            try:
                raw, _ = listening.accept()
            except OSError:
                return
            try:
                made = context.wrap_socket(raw, server_side=True)
            except OSError:
                raw.close()
                continue
            self.connections += 1
            self._open.append(made)
            self._spawn(self._read, made)

    def _read(self, made: ssl.SSLSocket) -> None:
        held = b""
        with suppress(OSError, ValueError):
            while True:
                piece = made.recv(65536)
                if not piece:
                    # Its last word was read: ours says so.
                    made.unwrap()
                    break
                if not self.take():
                    self._gone.wait(60)
                    break
                held = self._split(held + piece)
        made.close()

    def _split(self, held: bytes) -> bytes:
        while (found := re.match(rb"(\d{1,6}) ", held)) and len(held) >= found.end() + int(found[1]):
            end = found.end() + int(found[1])
            self.messages.append(Received(held[found.end() : end]))
            held = held[end:]
        if held and not re.match(rb"\d{1,6}( |$)", held):
            self.broken.append(held)
            return b""
        return held

    def stop(self) -> None:
        """As a program that is killed: unread bytes are lost."""
        self._gone.set()
        if self._listening:
            with suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
        for one in self._open:
            with suppress(OSError):
                # A reset, not a farewell.
                socket.socket.shutdown(one, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._open.clear()
        self._threads.clear()

    def settings(self, folder_authority: Authority | None = None) -> dict[str, object]:
        """The section `audit` of a node that sends here and shows a certificate."""
        own = (folder_authority or self.authority).issue("node")
        files = {"trusted": self.authority.file, "certificate": own.certificate, "key": own.key}
        tls = {name: str(path) for name, path in files.items()}
        return {"transport": "tls", "host": LOOPBACK, "port": self.port, "tls": tls, "enterprise_site": "General"}


@contextmanager
def repository(folder: Path) -> Iterator[SyslogServer]:
    """A running one."""
    made = SyslogServer(Authority(folder))
    made.start()
    try:
        yield made
    finally:
        made.stop()
