"""The node as the demo runs it: a real `evenray serve` with a configuration of its own, ended whatever happens.

Knows nothing of what is sent to it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import yaml

from dicom_node import settings_file
from dicom_node.demo.place import Place
from dicom_node.destinations import echo
from dicom_node.errors import BadInput, PeerBusy, PeerRefused, PeerUnreachable, Stop
from dicom_node.settings import Assembly, Dimse, Settings

LOOPBACK = "127.0.0.1"
CALLING_AE = "EVENRAY_DEMO"
QUIET = Assembly(quiet_s=10, quiet_after_release_s=1)
"""Short, because the demo knows that its study is complete."""
START_S = 60.0
DRAIN_S = 75.0
"""Longer than the supervisor gives its own processes."""
EXCERPT = 8


def configure(place: Place) -> Settings:
    """Write the demo's configuration: the embedded one on free ports, in this folder, with short quiet times."""
    default = settings_file.load(None)
    (name, pacs), *more = default.destinations.items()
    if more or not isinstance(pacs, Dimse):
        raise BadInput("the embedded configuration has another destination than one PACS: the demo can't play it")
    node_port, archive_port = _free_ports(2)
    changed = default.model_copy(
        update={
            "state_dir": place.state.relative_to(place.root),
            "listen": default.listen.model_copy(update={"host": LOOPBACK, "port": node_port}),
            "assembly": QUIET,
            "destinations": {name: pacs.model_copy(update={"host": LOOPBACK, "port": archive_port})},
        }
    )
    head = (
        "# Written by `evenray demo`: the embedded default on other ports, in this folder, with shorter quiet times.\n"
    )
    stated = changed.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    place.config.write_text(head + yaml.safe_dump(stated, sort_keys=False), encoding="utf-8")
    return settings_file.load(place.config)


def usual_quiet() -> Assembly:
    """The quiet times of the embedded configuration, to say what the demo changed."""
    return settings_file.load(None).assembly


def pacs_of(settings: Settings) -> Dimse:
    """The one destination of the demo's configuration."""
    return next(found for found in settings.destinations.values() if isinstance(found, Dimse))


@dataclass(frozen=True, slots=True)
class Node:
    """A running node."""

    process: subprocess.Popen[bytes]
    place: Place
    door: Dimse
    """Where it listens."""

    def check(self) -> None:
        """Raises Stop, with the end of the log, where it has ended by itself."""
        code = self.process.poll()
        if code is not None:
            raise Stop(f"the node ended by itself (exit code {code}): see {self.place.log}\n{self.excerpt()}")

    def wait_until_it_listens(self) -> None:
        """Raises Stop where it does not answer a C-ECHO in time."""
        deadline = time.monotonic() + START_S
        while True:
            self.check()
            try:
                echo(self.door, calling_ae=CALLING_AE)
            except (PeerUnreachable, PeerBusy, PeerRefused) as fault:
                if time.monotonic() > deadline:
                    where = f"the node does not answer after {START_S:g} s: see {self.place.log}"
                    raise Stop(f"{where}\n{self.excerpt()}") from fault
                time.sleep(0.1)
            else:
                return

    def excerpt(self) -> str:
        """The last lines of its log, which holds ids and actions only."""
        lines = self.place.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-EXCERPT:])

    def drain(self) -> None:
        """Let it finish what it has in hand and end. Its log says so where it had to be killed."""
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(DRAIN_S)


@contextmanager
def running(place: Place, settings: Settings) -> Iterator[Node]:
    """A node that is gone when the block is left, in whatever way."""
    command = [sys.executable, "-m", "dicom_node", "serve", "--supervised", "--config", str(place.config.resolve())]
    with place.log.open("wb") as log:
        # A session of its own: Ctrl-C reaches the demo alone, which then drains it. It also ends when the pipe closes,
        # which even the SIGKILL of the demo does.
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    door = Dimse(kind="dimse", ae_title=settings.listen.ae_title, host=settings.listen.host, port=settings.listen.port)
    node = Node(process, place, door)
    try:
        yield node
    finally:
        try:
            node.drain()
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of its process group, when draining took too long or was interrupted as well."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdin:
        process.stdin.close()


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; all held at once, so that they differ."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
