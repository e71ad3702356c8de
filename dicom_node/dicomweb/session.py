"""One HTTP session with a DICOMweb server: TLS, credentials, time-outs, bounded answers, and a lease kept alive.

Knows no object. What the libraries would do beyond the settings is switched off: proxies and credentials of the
environment, redirects, authorities beside those that are trusted, and logs of addresses that quote a query.
"""

from __future__ import annotations

import base64
import logging
import re
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from dicom_node import VERSION
from dicom_node.dicomweb.faults import BROKEN, fault_of, refusal_of
from dicom_node.errors import Blame, PeerUnreachable, SettingsInvalid
from dicom_node.settings import DicomWeb
from dicom_node.settings_peers import TlsClient
from dicom_node.tls import client_context, server_name

# Process-wide, so set here once: both write addresses, which may hold a Patient ID, and what a server warns of.
for _name in ("urllib3", "dicomweb_client"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

BEAT_S = 2.0
"""Longest time between two beats while something is waited for."""
CONNECT_S = 15.0
"""Longest wait for a connection, where `timeout_s` is not shorter."""
SLACK_S = 5.0
SLOWEST_BYTES_S = 4096.0
"""Whoever takes or gives data more slowly than this counts as not there."""
LARGEST_ANSWER = 8 << 20
"""Bytes of an answer that is read into memory: a page of search results is a tenth of it."""
PIECE = 1 << 16
TOKEN = re.compile(r"[\x21-\x7e]+")
"""What a header field may carry. Source: RFC 6750 2.1, RFC 9110 5.5."""

T = TypeVar("T")


class AnswerTooLarge(Exception):
    """An answer is longer than any that is right."""


class Web:
    """A session. Use as a context manager: leaving it closes every connection, whatever is under way.

    Blocking calls run in one helper thread, so that `beat` is called in the caller's thread meanwhile.
    """

    session: requests.Session
    """There once the context is entered."""

    def __init__(self, where: DicomWeb, *, beat: Callable[[], None] = lambda: None) -> None:
        """Nothing is opened yet."""
        self.url = self.peer = str(where.url).rstrip("/")
        self._where = where
        self._beat = beat
        self._beaten = time.monotonic()
        self._moved = 0
        self._dropped = threading.Event()
        self._socket: socket.socket | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="dicomweb")

    def __enter__(self) -> Self:
        """Raises PeerUnreachable where the files of `tls` can't be used now."""
        try:
            self.session = _Session(self._where, self._opened)
        except SettingsInvalid as fault:
            self._pool.shutdown(wait=False)
            raise PeerUnreachable(f"{self.peer}: {fault}").about(Blame.PEER) from fault
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._drop()
        self._pool.shutdown(wait=False)
        self.session.close()
        if self._socket:
            self._socket.close()

    def call(self, blocking: Callable[[], T]) -> T:
        """The result of a blocking call. Raises what that raises, what `beat` raises, and PeerUnreachable.

        The last is for a broken connection, and for a server that takes or gives next to nothing: without the limit
        one that sends a byte now and then would hold us for ever. A redirect, or a status that the library raises,
        becomes what `refusal_of` says.
        """
        future = self._pool.submit(blocking)
        begun, moved = time.monotonic(), self._moved
        while True:
            if time.monotonic() - self._beaten >= BEAT_S:
                self._beat()
                self._beaten = time.monotonic()
            if wait([future], timeout=BEAT_S).done:
                break
            longest = 2 * self._where.timeout_s + SLACK_S + (self._moved - moved) / SLOWEST_BYTES_S
            if time.monotonic() > begun + longest:
                self._end()
                raise PeerUnreachable(f"{self.peer}: no answer within {longest:.0f} s")
        try:
            return future.result()
        except requests.HTTPError as fault:
            status = 0 if fault.response is None else fault.response.status_code
            raise refusal_of(self.peer, status) from fault
        except BROKEN as fault:
            raise fault_of(self.peer, fault) from fault

    def moved(self, count: int) -> None:
        """So many bytes of a body were taken or given: to be told by who does that."""
        self._moved += count

    def _opened(self, opened: socket.socket) -> None:
        """Keep a second hold of the connection under way, by which another thread can end it."""
        # The library would hold the server to the time for connecting while it takes a body.
        opened.settimeout(self._where.timeout_s)
        if self._socket:
            self._socket.close()
        self._socket = opened.dup()
        if self._dropped.is_set():
            self._end()

    def _drop(self) -> None:
        self._dropped.set()
        self._end()

    def _end(self) -> None:
        if self._socket:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


class _Session(requests.Session):
    """A session with one server, by its settings alone."""

    def __init__(self, where: DicomWeb, opened: Callable[[socket.socket], None]) -> None:
        """Raises SettingsInvalid where the files of `tls` can't be used."""
        super().__init__()
        # Else a .netrc, a proxy or a bundle of authorities in the environment would count.
        self.trust_env = False
        self.auth = _Credentials(where)
        # An answer is read as it comes: an inflated one has no bound. Source: RFC 9110 12.5.3.
        self.headers.update({"User-Agent": f"evenray/{VERSION}", "Accept-Encoding": "identity"})
        self._timeout = (min(CONNECT_S, where.timeout_s), where.timeout_s)
        self.mount("http://", _Adapter(opened, {}))
        if where.url.scheme == "https":
            tls = where.tls or TlsClient()
            shown = {"server_hostname": server_name(tls, where.url.host or "")}
            # The library would hold the name against the certificate itself where the context does not.
            unchecked = {} if tls.check_hostname else {"assert_hostname": False}
            self.mount("https://", _Adapter(opened, {"ssl_context": client_context(tls), **shown, **unchecked}))

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """As the base, but never to another address, and with a bound on what is read into memory.

        Raises AnswerTooLarge, and HTTPError for a redirect, beside what the base raises.
        """
        # The DICOMweb client library names the host without its port.
        request.headers.pop("Host", None)
        streamed = options.get("stream", False)
        options.update(stream=True, timeout=self._timeout, allow_redirects=False)
        response = super().send(request, **options)
        if 300 <= response.status_code < 400:
            response.close()
            raise requests.HTTPError(response=response)
        if not streamed:
            response._content = _bounded(response)
            response._content_consumed = True
        return response


def _bounded(response: requests.Response) -> bytes:
    content = bytearray()
    with response:
        # To its very end: only there the library says that something is missing.
        while piece := response.raw.read(PIECE, decode_content=False):
            content += piece
            if len(content) > LARGEST_ANSWER:
                raise AnswerTooLarge
    return bytes(content)


class _Credentials(AuthBase):
    """What the request shows, from files that are read each time, so that another program may renew them."""

    def __init__(self, where: DicomWeb) -> None:
        self._where = where

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Raises PeerUnreachable where a file can't be used now."""
        where = self._where
        if where.token_file:
            token = _secret(where.token_file, "token_file")
            if not TOKEN.fullmatch(token):
                raise PeerUnreachable(f"{where.token_file}: holds no bearer token of one line").about(Blame.PEER)
            request.headers["Authorization"] = f"Bearer {token}"
        elif where.username is not None and where.password_file:
            pair = f"{where.username}:{_secret(where.password_file, 'password_file')}"
            # Source: RFC 7617 2.1.
            request.headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        return request


def _secret(path: Path, setting: str) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) else "it is no text in UTF-8"
        raise PeerUnreachable(f"{path}: can't be read ({reason}): check {setting}, and its rights").about(
            Blame.PEER
        ) from fault


class _Adapter(HTTPAdapter):
    """One connection at a time, each told of when it is opened."""

    def __init__(self, opened: Callable[[socket.socket], None], tls: dict[str, Any]) -> None:
        self._opened, self._tls = opened, tls
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, **options, **self._tls)
        opened = self._opened

        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                made = super()._new_conn()
                opened(made)
                return made

        class Secure(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                made = super()._new_conn()
                opened(made)
                return made

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
