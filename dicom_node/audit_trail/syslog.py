"""Syslog for audit messages: the RFC 5424 form, and its way over UDP (RFC 5426) or TLS (RFC 5425) to a repository.

Knows nothing of what a message says, and keeps none.
"""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from dicom_node.errors import PeerUnreachable, SettingsInvalid
from dicom_node.settings_peers import Audit
from dicom_node.tls import TlsSocket, client_socket, why

FACILITY = 10
"""Security and authorisation. Source: PS3.15 A.6."""
NOTICE, WARNING = 5, 4
APP_NAME = "evenray"
MSG_ID = "DICOM+RFC3881"
"""Source: PS3.15 A.6."""
BOM = b"\xef\xbb\xbf"
"""Says that what follows is UTF-8. Source: RFC 5424 6.4."""
LONGEST = 32768
"""Bytes that every repository takes. Source: PS3.15 A.6."""
PATIENCE_S = 10.0
"""Longest wait for a connection, and for the repository to take what was written."""
END_S = 2.0
"""Longest wait for the answer to our last word."""
UDP_ECHO_S = 0.02
"""How long the word that nobody listens there takes on the same network."""
SIOCOUTQ = 0x5411
"""Bytes that were written and that the peer's system has not acknowledged. Source: tcp(7)."""


class Repository(Protocol):
    """Where messages go."""

    confirms: bool
    """Whether a broken connection tells of messages that were lost."""

    def send(self, messages: Sequence[bytes]) -> None:
        """Send complete syslog messages in this order, over a connection that is opened where there is none.

        Raises PeerUnreachable; any of them may have arrived then.
        """

    def there(self) -> bool:
        """Whether what was sent last went over a connection that still stands."""

    def end(self) -> bool:
        """Say that nothing more comes; whether the repository has read everything then."""

    def close(self) -> None: ...


def form(xml: bytes, *, at: float, host: str, pid: int, warning: bool) -> bytes:
    """One syslog message. `at`: seconds since the epoch. Source: RFC 5424 6."""
    priority = 8 * FACILITY + (WARNING if warning else NOTICE)
    stamp = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    name = "".join(letter for letter in host if "!" <= letter <= "~")[:255] or "-"
    header = f"<{priority}>1 {stamp} {name} {APP_NAME} {pid} {MSG_ID} - "
    return header.encode("ascii") + BOM + xml


def framed(message: bytes) -> bytes:
    """With its length before it. Source: RFC 5425 4.3, MSG-LEN SP SYSLOG-MSG."""
    return b"%d %b" % (len(message), message)


def open_repository(audit: Audit) -> Repository:
    return Udp(audit) if audit.transport == "udp" else Tls(audit)


class Udp:
    """RFC 5426: one message a datagram. Only a port that refuses is noticed; whatever else is lost is lost unseen."""

    confirms = False

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._socket: socket.socket | None = None

    def send(self, messages: Sequence[bytes]) -> None:
        try:
            if self._socket is None:
                self._socket = self._open()
            for message in messages:
                self._socket.send(message)
            # A refusal comes back as an error of the socket, a moment later.
            select.select([self._socket], [], [], UDP_ECHO_S)
            if code := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, "nobody listens there")
        except OSError as fault:
            self.close()
            raise _down(self._audit, fault) from fault

    def _open(self) -> socket.socket:
        where = (self._audit.host, self._audit.port)
        family, kind, protocol, _, address = socket.getaddrinfo(*where, type=socket.SOCK_DGRAM)[0]
        made = socket.socket(family, kind, protocol)
        try:
            made.connect(address)
        except OSError:
            made.close()
            raise
        return made

    def there(self) -> bool:
        return True

    def end(self) -> bool:
        self.close()
        return True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Tls:
    """RFC 5425 over one connection that is kept. Syslog has no answer: see `there` for what stands in its place."""

    confirms = True

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._socket: TlsSocket | None = None

    def send(self, messages: Sequence[bytes]) -> None:
        try:
            if self._socket is None:
                self._socket = self._open()
            elif not self.there():
                # Not opened anew unseen: what went over it just now may be lost.
                raise ConnectionResetError("it closed the connection")
            for message in messages:
                self._socket.sendall(framed(message))
            self._acknowledged(self._socket)
        except OSError as fault:
            self.close()
            raise _down(self._audit, fault) from fault
        except SettingsInvalid as fault:
            self.close()
            raise PeerUnreachable(f"audit repository: {fault}") from fault

    def _open(self) -> TlsSocket:
        raw = socket.create_connection((self._audit.host, self._audit.port), PATIENCE_S)
        try:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            # A new context for every connection: certificates may have been renewed.
            made = client_socket(raw, self._audit.tls, self._audit.host)
        except BaseException:
            raw.close()
            raise
        try:
            made.settimeout(PATIENCE_S)
            made.do_handshake()
        except OSError as fault:
            made.close()
            raise OSError(fault.errno, why(fault)) from fault
        return made

    def _acknowledged(self, made: socket.socket) -> None:
        """Wait until the peer's system has every byte. Raises TimeoutError."""
        deadline = time.monotonic() + PATIENCE_S
        while _unacknowledged(made):
            if time.monotonic() > deadline:
                raise TimeoutError("it does not take what is sent")
            time.sleep(0.005)

    def there(self) -> bool:
        made = self._socket
        if made is None:
            return False
        try:
            if not select.select([made], [], [], 0)[0]:
                return True
            made.settimeout(0)
            try:
                # Session tickets come unasked; a repository says nothing else but that it goes.
                return bool(made.recv(1024))
            except ssl.SSLWantReadError:
                return True
            finally:
                made.settimeout(PATIENCE_S)
        except OSError:
            return False

    def end(self) -> bool:
        # Whoever answers a close_notify has read what came before it. Source: RFC 5425 4.4, RFC 8446 6.1.
        if self._socket is None:
            return False
        try:
            self._socket.settimeout(END_S)
            self._socket.unwrap()
        except (OSError, ValueError):
            return False
        finally:
            self.close()
        return True

    def close(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None


def _unacknowledged(made: socket.socket) -> int:
    left = bytearray(4)
    # Other systems than Linux can't say.
    with contextlib.suppress(OSError):
        fcntl.ioctl(made.fileno(), SIOCOUTQ, left)
    return int(struct.unpack("=i", left)[0])


def _down(audit: Audit, fault: OSError) -> PeerUnreachable:
    found = "it closed the connection" if isinstance(fault, ssl.SSLError) else fault.strerror or str(fault)
    remedy = "" if ": " in found else ": check audit.host, audit.port and whether it runs"
    return PeerUnreachable(f"audit repository {audit.host}:{audit.port} ({audit.transport}): {found}{remedy}")
