"""What systemd is told, on real datagram sockets."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node import service_manager
from dicom_node.service_manager import ServiceManager


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """The value of NOTIFY_SOCKET, and the socket behind it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@evenray-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        line.settimeout(10)
        yield name, line


def test_everything_is_said_in_the_manager_s_words(manager: tuple[str, socket.socket]) -> None:
    name, line = manager
    node = ServiceManager(name, watchdog_s=30)
    node.ready("receiving")
    # Said once, not as often as the supervisor looks.
    node.alive()
    node.alive()
    node.status("receiving")
    node.status("not running: work")
    node.stopping()
    said = [line.recv(1000) for _ in range(4)]
    assert said == [
        b"READY=1\nSTATUS=receiving",
        b"WATCHDOG=1",
        b"STATUS=not running: work",
        b"STOPPING=1\nSTATUS=draining",
    ]


def test_without_a_watchdog_it_gets_no_signs_of_life(manager: tuple[str, socket.socket]) -> None:
    name, line = manager
    node = ServiceManager(name)
    node.alive()
    node.stopping()
    assert line.recv(1000).startswith(b"STOPPING=1")


def test_a_manager_that_is_gone_or_does_not_read_holds_nothing_up(
    manager: tuple[str, socket.socket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _line = manager
    with monkeypatch.context() as impatient:
        impatient.setattr(service_manager, "PATIENCE_S", 0.01)
        for n in range(40):
            ServiceManager(name).ready(str(n))
    ServiceManager(str(tmp_path / "gone")).stopping()
    ServiceManager().stopping()
