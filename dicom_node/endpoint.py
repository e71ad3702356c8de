"""The HTTP endpoint of the supervisor: /live, /ready and /metrics. Decides nothing that it tells.

Nobody who connects can hold it up: few connections at a time, each for a few seconds at most.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from dicom_node import health
from dicom_node.errors import Stop
from dicom_node.ledger import faults_in
from dicom_node.metrics import Metrics, ProcessFigures
from dicom_node.settings import Settings

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Connections that are served at a time; one more is closed."""
PATIENCE_S = 5.0
"""How long a client may take from connecting to its last byte. Past it, the connection is closed."""
FRESH_S = 5.0
"""An answer about readiness is given again for so long: whoever asks often costs little."""
WHOLE_S = 600.0
"""How often the inside of the ledger is looked through."""
FOLLOW_S = 5.0
WALK_EVERY_S = 300.0


class Endpoint:
    """The endpoint and its threads, all of which end with the process."""

    def __init__(self, settings: Settings, processes: Callable[[], Sequence[ProcessFigures]]) -> None:
        """Raises Stop when the port is taken."""
        self._settings = settings
        self._metrics = Metrics(settings, processes)
        self._lock = threading.Lock()
        self._ready: tuple[float, health.Health] | None = None
        self._whole: tuple[float, Sequence[str]] | None = None
        self._stopped = threading.Event()
        where = (settings.health.host, settings.health.port)
        try:
            self._server = _Server(where, self)
        except OSError as fault:
            raise Stop(
                f"health: {where[0]}:{where[1]} can't be opened ({fault.strerror}): "
                "stop what uses the port, or change health.host / health.port"
            ) from fault
        for name, run in (("health-http", self._server.serve_forever), ("figures", self._follow)):
            threading.Thread(target=run, name=name, daemon=True).start()
        log.info("health and metrics on http://%s:%d", *where)

    def close(self) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and content."""
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4; charset=utf-8", self._metrics.text()
        if path == "/live":
            checks = health.live(self._settings)
            return _json(all(check.ok for check in checks), {"live": [asdict(check) for check in checks]})
        if path == "/ready":
            found = self._look()
            return _json(found.is_ready, asdict(found))
        return 404, "text/plain; charset=utf-8", b"here are /live, /ready and /metrics\n"

    def _look(self) -> health.Health:
        with self._lock:
            if self._ready is None or time.monotonic() - self._ready[0] > FRESH_S:
                found = health.look(self._settings, whole=self._faults)
                self._ready = (time.monotonic(), found)
            return self._ready[1]

    def _faults(self, ledger: Path) -> Sequence[str]:
        if self._whole is None or time.monotonic() - self._whole[0] > WHOLE_S:
            self._whole = (time.monotonic(), faults_in(ledger))
        return self._whole[1]

    def _follow(self) -> None:
        walk_at, begun, ledger = 0.0, False, self._settings.state_dir / "ledger.sqlite"
        while not self._stopped.is_set():
            try:
                if not begun and ledger.exists():
                    self._metrics.tally.begin(ledger)
                    begun = True
                self._metrics.follow()
                if time.monotonic() >= walk_at:
                    self._metrics.walk(self._stopped)
                    walk_at = time.monotonic() + WALK_EVERY_S
            except Exception as fault:  # noqa: BLE001 - figures that can't be had must not end the supervisor
                log.warning("no figures: %s", type(fault).__name__)
            self._stopped.wait(FOLLOW_S)


def _json(fine: bool, content: dict[str, Any]) -> tuple[int, str, bytes]:
    body = json.dumps({"ok": fine, **content}, indent=1).encode() + b"\n"
    return 200 if fine else 503, "application/json", body


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, where: tuple[str, int], endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._free = threading.BoundedSemaphore(AT_ONCE)
        if ":" in where[0]:
            self.address_family = socket.AF_INET6
        super().__init__(where, _Handler)

    def server_bind(self) -> None:
        # The library would ask the name service for our name here, which can take long.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.socket.getsockname()[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        cut = threading.Timer(PATIENCE_S, _cut, (request,))
        cut.daemon = True
        cut.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            cut.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nothing to say; the library would print a traceback."""


def _cut(request: socket.socket) -> None:
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "evenray", ""
    timeout = PATIENCE_S

    def do_GET(self) -> None:
        try:
            status, kind, content = self.server.endpoint.answer(self.path.partition("?")[0])
        except Exception as fault:  # noqa: BLE001 - an answer that can't be made must not end the supervisor
            log.warning("%s could not be answered: %s", self.path[:40], type(fault).__name__)
            status, kind, content = 500, "text/plain; charset=utf-8", f"{type(fault).__name__}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def log_message(self, *_: Any) -> None:
        """Whoever asks every second needs no line each time."""
