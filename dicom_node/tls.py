"""TLS by the BCP 195 profile: contexts for both sides, their renewal when files change, what to say of our certificate.

Knows no DICOM, and no setting beyond those of TLS. Source: PS3.15 B.12 with RFC 8996 and RFC 9325.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import ssl
import stat
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, cast

from dicom_node.errors import SettingsInvalid
from dicom_node.settings_peers import TlsClient, TlsServer
from dicom_node.tls_faults import NotTls, plain, why, why_refused

__all__ = [
    "NotTls",
    "Renewing",
    "TlsSocket",
    "accept",
    "client_context",
    "client_socket",
    "days_left",
    "remarks_on",
    "server_context",
    "server_name",
    "speaks_tls",
    "why",
    "why_refused",
]

log = logging.getLogger(__name__)

SUITES = ":".join(
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
    )
)
"""Those of TLS 1.2; every suite of TLS 1.3 is a good one. Source: RFC 9325 4.2, which advises against DHE in 4.1."""
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
SOON_DAYS = 30.0
"""A certificate that expires sooner is spoken of."""
DAY_S = 86400.0
HANDSHAKE = 0x16
"""First byte of a TLS connection. Source: RFC 8446 5.1, ContentType."""
MAJOR_VERSION = 3
"""Its second byte. Source: RFC 8446 5.1, legacy_record_version."""
FIRST = re.compile(r"-----BEGIN ([A-Z0-9 ]*CERTIFICATE)-----.*?-----END \1-----", re.DOTALL)
"""The first certificate of a PEM file: the one that is shown. Source: RFC 7468 5.1."""
ROUNDS = 10
"""A handshake takes fewer turns of each side."""


class TlsSocket(ssl.SSLSocket):
    """A connection under TLS that another thread may shut down.

    Differs from ssl: one thread at a time is in it, as OpenSSL demands, and `shutdown` says that nothing more comes
    (RFC 8446 6.1) instead of going on without encryption.
    """

    fault: OSError | None = None
    """What went wrong; a library may hide it."""
    _busy: threading.Lock

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        # The module makes its sockets without __init__.
        made = super().__new__(cls, *args, **kwargs)
        made._busy = threading.Lock()
        return made

    def do_handshake(self, block: bool = False) -> None:
        self._enter()
        try:
            super().do_handshake(block)
        except OSError as fault:
            self.fault = fault
            raise
        finally:
            self._busy.release()

    def read(self, len: int = 1024, buffer: Any = None) -> bytes:  # noqa: A002 - the module's own name
        self._enter()
        try:
            return super().read(len, buffer)
        except (ssl.SSLError, ConnectionError) as fault:
            # An alert of the peer says more than the failed write that it may have caused.
            self.fault = fault if isinstance(fault, ssl.SSLError) else self.fault or fault
            raise
        finally:
            self._busy.release()

    def send(self, data: Any, flags: int = 0) -> int:
        self._enter()
        try:
            return super().send(data, flags)
        except (ssl.SSLError, ConnectionError) as fault:
            self.fault = self.fault or fault
            raise
        finally:
            self._busy.release()

    def shutdown(self, how: int) -> None:
        # Whoever is in a read or a write comes out of it by the connection's end.
        if how != socket.SHUT_RD and self._busy.acquire(blocking=False):
            try:
                self._say_the_end()
            finally:
                self._busy.release()
        socket.socket.shutdown(self, how)

    def _say_the_end(self) -> None:
        """Without waiting for the peer to say the same."""
        before = self.gettimeout()
        with contextlib.suppress(OSError, ValueError):
            self.settimeout(0)
            self.unwrap()
        with contextlib.suppress(OSError):
            self.settimeout(before)

    def _enter(self) -> None:
        patience = self.gettimeout()
        if not self._busy.acquire(timeout=-1 if patience is None else patience):
            raise TimeoutError("another thread uses the connection")


def server_context(tls: TlsServer) -> ssl.SSLContext:
    """A context for our port. Raises SettingsInvalid: which file can't be used, and the remedy."""
    made = _context(ssl.PROTOCOL_TLS_SERVER, tls.minimum)
    # No resumption: each association shows its certificate anew, to the authorities that are trusted now.
    made.num_tickets = 0
    # A cut connection is seen by its PDUs, and an A-ABORT may still be sent on what is only half closed.
    made.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    _show(made, tls.certificate, tls.key)
    if tls.clients == "authenticated" and tls.trusted:
        made.verify_mode = ssl.CERT_REQUIRED
        _trust(made, tls.trusted)
        # The node connects to itself, too: to see whether its port answers, and to hand over what it has fetched.
        # Its certificate alone: the chain above it vouches for others as well.
        own = FIRST.search(tls.certificate.read_text(encoding="ascii", errors="replace"))
        if own and own[1] == "CERTIFICATE":
            made.load_verify_locations(cadata=own[0])
    return made


def client_context(tls: TlsClient) -> ssl.SSLContext:
    """A context for connections to a peer, from the files as they are now: make one for each connection.

    Raises SettingsInvalid: which file can't be used, and the remedy.
    """
    made = _context(ssl.PROTOCOL_TLS_CLIENT, tls.minimum)
    made.check_hostname = tls.check_hostname
    if tls.trusted:
        _trust(made, tls.trusted)
    else:
        made.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if tls.certificate and tls.key:
        _show(made, tls.certificate, tls.key)
    return made


def server_name(tls: TlsClient, host: str) -> str:
    """The name that the peer's certificate must be for, and that it is told (SNI)."""
    return tls.server_name or host


def client_socket(sock: socket.socket, tls: TlsClient, host: str) -> TlsSocket:
    """The socket under TLS: `connect` shakes hands too; on a connected one call `do_handshake`, after `settimeout`.

    Raises SettingsInvalid as `client_context` does.
    """
    made = client_context(tls).wrap_socket(
        sock, server_hostname=server_name(tls, host), do_handshake_on_connect=not _connected(sock)
    )
    return cast(TlsSocket, made)


def _connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def accept(
    sock: socket.socket, context: ssl.SSLContext, patience_s: float, begun: Callable[[TlsSocket], None]
) -> TlsSocket | None:
    """Shake hands with who has connected; None where it left without a word, as a port scan or a health check does.

    `begun` gets the socket before, so that another thread can end it. Raises TimeoutError after `patience_s`, NotTls
    where the peer does not speak TLS, and other OSErrors: see `why_refused`.
    """
    deadline = time.monotonic() + patience_s
    sock.settimeout(patience_s)
    first = sock.recv(1, socket.MSG_PEEK)
    if not first:
        return None
    if first[0] != HANDSHAKE:
        raise NotTls
    wrapped = cast(TlsSocket, context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False))
    begun(wrapped)
    try:
        wrapped.settimeout(max(0.001, deadline - time.monotonic()))
        wrapped.do_handshake()
    except BaseException:
        wrapped.close()
        raise
    return wrapped


def speaks_tls(header: bytes | bytearray) -> bool:
    """Whether what should be a PDU's header is the beginning of a TLS handshake. Source: RFC 8446 5.1."""
    return len(header) > 1 and header[0] == HANDSHAKE and header[1] == MAJOR_VERSION


class Renewing:
    """The context of our port, renewed when its files change; files that can't be used leave the old one in force."""

    def __init__(self, tls: TlsServer) -> None:
        """Raises SettingsInvalid where the files can't be used."""
        self._tls = tls
        self._stamp = _stamp(tls)
        self._broken: Any = None
        self._told: Any = None
        self.context = server_context(tls)
        """The one in force."""

    def look(self) -> None:
        """Renew it if a file has changed. Called about once a second; raises nothing."""
        stamp = _stamp(self._tls)
        if stamp in (self._stamp, self._told):
            return
        try:
            made = server_context(self._tls)
        except SettingsInvalid as fault:
            # Certificate and key are replaced one after the other: what is broken at the second look stays so.
            if stamp == self._broken:
                self._told = stamp
                log.error("the renewed TLS files can't be used, the old certificate stays in force: %s", fault)
            self._broken = stamp
            return
        self.context, self._stamp, self._broken, self._told = made, stamp, None, None
        log.info("the TLS files have changed: new associations get the new certificate")
        for remark in remarks_on(self._tls, now=time.time()):
            log.warning("%s", remark)


def _stamp(tls: TlsServer) -> tuple[tuple[int, int, int] | None, ...]:
    """What changes when a file does."""

    def one(path: Path | None) -> tuple[int, int, int] | None:
        try:
            found = path.stat() if path else None
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size, found.st_ino) if found else None

    return tuple(map(one, (tls.certificate, tls.key, tls.trusted)))


def remarks_on(tls: TlsServer | TlsClient, *, now: float) -> list[str]:
    """What a person should know of our certificate and key, a sentence each: days left, who may read the key.

    Raises SettingsInvalid where the files can't be used.
    """
    if isinstance(tls, TlsServer):
        server_context(tls)
    else:
        client_context(tls)
    if not tls.certificate or not tls.key:
        return []
    found = []
    if tls.key.stat().st_mode & stat.S_IRWXO:
        found.append(f"{tls.key}: everybody on this machine may read this key: chmod 600 it, owned by the node's user")
    left = days_left(tls, now=now)
    if isinstance(left, str):
        found.append(f"{tls.certificate}: peers will not accept this certificate ({left}): renew it, or set the clock")
    elif left is not None and left < SOON_DAYS:
        found.append(f"{tls.certificate}: expires in {max(0.0, left):.0f} day(s): renew it; no restart is needed")
    return found


def days_left(tls: TlsServer | TlsClient, *, now: float) -> float | str | None:
    """The days until our certificate expires; None: we have none; a text: why no peer takes it even now.

    The module reads only certificates that it has verified, so one of ours is shown to ourselves.
    """
    if not tls.certificate or not tls.key:
        return None
    shower = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if isinstance(tls, TlsServer) else ssl.PROTOCOL_TLS_CLIENT)
    looker = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if isinstance(tls, TlsServer) else ssl.PROTOCOL_TLS_SERVER)
    for context in (shower, looker):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        _show(context, tls.certificate, tls.key)
    looker.verify_mode = ssl.CERT_REQUIRED
    looker.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    _trust(looker, tls.certificate)
    try:
        seen = _shown(shower, looker, by_server=isinstance(tls, TlsServer))
    except ssl.SSLCertVerificationError as fault:
        return fault.verify_message
    except ssl.SSLError as fault:
        return plain(fault)
    return (ssl.cert_time_to_seconds(str(seen["notAfter"])) - now) / DAY_S if seen else None


def _shown(shower: ssl.SSLContext, looker: ssl.SSLContext, *, by_server: bool) -> Mapping[str, Any]:
    """The certificate of one as the other sees it, by a handshake in memory."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = shower.wrap_bio(there, back, server_side=by_server)
    other = looker.wrap_bio(back, there, server_side=not by_server)
    for _ in range(ROUNDS):
        for side in (one, other):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return other.getpeercert() or {}


def _context(protocol: int, minimum: str) -> ssl.SSLContext:
    made = ssl.SSLContext(protocol)
    made.minimum_version = VERSIONS[minimum]
    made.set_ciphers(SUITES)
    # Source: RFC 9325 3.3 (compression), 3.5 (renegotiation).
    made.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    # `trusted` may hold a peer's own certificate instead of its authority's.
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    made.sslsocket_class = TlsSocket
    return made


class _Locked(Exception):
    """A key asks for its password."""


def _locked() -> str:
    # Without an answer of ours OpenSSL would ask the terminal.
    raise _Locked


def _show(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Have the context show a certificate."""
    _readable("certificate", certificate)
    _readable("key", key)
    try:
        context.load_cert_chain(certificate, key, password=_locked)
    except _Locked as fault:
        raise SettingsInvalid(
            f"{key}: this key has a password, which nobody could enter at a start: "
            "take it off (openssl pkey) and keep the file readable by the node alone"
        ) from fault
    except ssl.SSLError as fault:
        raise SettingsInvalid(_unusable(certificate, key, fault)) from fault


def _unusable(certificate: Path, key: Path, fault: ssl.SSLError) -> str:
    reason = fault.reason or ""
    if "MISMATCH" in reason:
        return f"{key}: this is not the key of {certificate}: give the two that belong together"
    if "TOO_SMALL" in reason or "TOO_WEAK" in reason:
        return f"{certificate}: too weak ({plain(fault)}): use RSA of 2048 bits or more, or ECDSA, with SHA-256"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(certificate)
    except ssl.SSLError:
        return f"{certificate}: holds no certificate in PEM form: give the certificate and the chain above it"
    return f"{key}: holds no private key in PEM form: give the key of {certificate}"


def _trust(context: ssl.SSLContext, trusted: Path) -> None:
    _readable("trusted", trusted)
    try:
        context.load_verify_locations(trusted)
    except ssl.SSLError as fault:
        raise SettingsInvalid(
            f"{trusted}: holds no certificate in PEM form: give those of the peers or of their authorities"
        ) from fault


def _readable(setting: str, path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as fault:
        raise SettingsInvalid(
            f"{path}: can't be read ({(fault.strerror or str(fault)).lower()}): check {setting} of tls, and the rights"
        ) from fault
