"""Real DICOM peers for tests, each a process on loopback that a test starts, asks and ends.

Knows nothing of the node. Nothing here sleeps: what is waited for is a condition with a deadline.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

LOOPBACK = "127.0.0.1"
START_S = 30.0
DICOM_WEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1", "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin"}
"""DCMTK writes each PDU in two pieces: with Nagle's algorithm that costs 40 ms a response."""


def require(*programs: str) -> None:
    """Skip the test where a program is missing; fail it where the run demands the peers."""
    missing = [p for p in programs if not shutil.which(p, path=ENVIRONMENT["PATH"])]
    if not missing:
        return
    sentence = f"{', '.join(missing)} not installed: run `make peers`"
    if os.environ.get("EVENRAY_REQUIRE_PEERS") == "1":
        pytest.fail(sentence)
    pytest.skip(sentence)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    """Return once the condition holds; fail the test, saying what never happened, at the deadline."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.01)


def listening(port: int) -> bool:
    """Whether something accepts connections on the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0


@dataclass
class Peer:
    """A running program with a DICOM port."""

    process: subprocess.Popen[bytes]
    aet: str
    port: int
    folder: Path
    log: Path

    def kill(self) -> None:
        """End it as a power cut would, with every process that it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def files(self) -> list[Path]:
        """What it has written."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())


@dataclass
class Orthanc(Peer):
    """A running Orthanc; its REST interface says what it really holds."""

    url: str = ""
    authorization: str = ""

    @property
    def dicom_port(self) -> int:
        return self.port

    def get(self, path: str) -> bytes:
        return self._ask(path)

    def json(self, path: str) -> Any:
        return json.loads(self.get(path))

    def post(self, path: str, content: object) -> Any:
        return json.loads(self._ask(path, "POST", json.dumps(content).encode()) or b"null")

    def instances(self) -> list[dict[str, Any]]:
        """Every instance with its main tags and Orthanc's own identifier under "ID"."""
        found: list[dict[str, Any]] = self.json("/instances?expand")
        return found

    def uids(self) -> list[str]:
        """The SOP Instance UIDs that it holds, sorted."""
        return sorted(str(found["MainDicomTags"]["SOPInstanceUID"]) for found in self.instances())

    def file(self, uid: str) -> bytes:
        """The Part 10 file of an instance."""
        found = [held["ID"] for held in self.instances() if held["MainDicomTags"]["SOPInstanceUID"] == uid]
        assert len(found) == 1, f"Orthanc holds {len(found)} objects of UID {uid}"
        return self.get(f"/instances/{found[0]}/file")

    def delete_all(self) -> None:
        for found in self.json("/patients"):
            self._ask(f"/patients/{found}", "DELETE")

    def _ask(self, path: str, method: str = "GET", body: bytes | None = None) -> bytes:
        shown = {"Authorization": self.authorization} if self.authorization else {}
        request = urllib.request.Request(f"{self.url}{path}", data=body, method=method, headers=shown)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bytes(answer.read())

    def ready(self) -> bool:
        try:
            self.get("/system")
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        return listening(self.port)


@contextmanager
def orthanc(
    tmp_path: Path,
    *,
    node: tuple[str, str, int] | None = None,
    aet: str = "ORTHANC",
    more: Mapping[str, object] | None = None,
    user: tuple[str, str] | None = None,
) -> Iterator[Orthanc]:
    """An Orthanc that knows `node` (AE title, host, port) as a modality; `more` is merged into its settings.

    In the same folder again it holds what it held. `user`, a name and a password, is who may use its web services.
    """
    require("Orthanc")
    state = tmp_path / f"orthanc-{aet}"
    state.mkdir(exist_ok=True)
    dicom, http = free_port(), free_port()
    settings: dict[str, object] = {
        "Name": aet,
        "StorageDirectory": str(state / "storage"),
        "IndexDirectory": str(state / "storage"),
        "DicomAet": aet,
        "DicomPort": dicom,
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": bool(user),
        "RegisteredUsers": dict([user]) if user else {},
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "UnknownSopClassAccepted": True,
        "Plugins": [str(DICOM_WEB_PLUGIN)] if DICOM_WEB_PLUGIN.exists() else [],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        **(more or {}),
    }
    if node:
        settings["DicomModalities"] = {
            "evenray": {"AET": node[0], "Host": node[1], "Port": node[2], "AllowStorageCommitment": True}
        }
    config = state / "orthanc.json"
    config.write_text(json.dumps(settings))
    with _started(["Orthanc", str(config)], state / "log") as process:
        shown = f"Basic {base64.b64encode(':'.join(user).encode()).decode()}" if user else ""
        peer = Orthanc(process, aet, dicom, state / "storage", state / "log", f"http://{LOOPBACK}:{http}", shown)
        wait_until(lambda: peer.ready() or _ended(peer), START_S, f"Orthanc is ready ({peer.log})")
        try:
            yield peer
        finally:
            peer.kill()


@contextmanager
def storescp(
    folder: Path, *flags: str, aet: str = "STORESCP", port: int | None = None, preserve: bool = True
) -> Iterator[Peer]:
    """DCMTK's Storage SCP writing to `folder`, by default each data set byte for byte as received."""
    require("storescp")
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    log = folder.with_name(f"{folder.name}.log")
    command = ["storescp", "-aet", aet, "-od", str(folder), *(["+B"] if preserve else []), *flags, str(port)]
    with _started(command, log) as process:
        peer = Peer(process, aet, port, folder, log)
        wait_until(lambda: listening(port) or _ended(peer), START_S, f"storescp listens ({log})")
        try:
            yield peer
        finally:
            peer.kill()


def storescu(
    files: Sequence[Path], aet: str, host: str, port: int, *flags: str, timeout_s: float = 60
) -> subprocess.CompletedProcess[str]:
    """Send files with DCMTK; its output and exit status are the caller's to judge."""
    require("storescu")
    command = ["storescu", "-aec", aet, *flags, host, str(port), *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, env=ENVIRONMENT)


def echoscu(aet: str, host: str, port: int, *flags: str) -> subprocess.CompletedProcess[str]:
    """Verify with DCMTK."""
    require("echoscu")
    command = ["echoscu", "-aec", aet, *flags, host, str(port)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=ENVIRONMENT)


def dcmtk(program: str, *arguments: object) -> str:
    """Run a DCMTK tool that must succeed; its output."""
    require(program)
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False, env=ENVIRONMENT
    )
    assert done.returncode == 0, f"{program} failed: {done.stderr}"
    return done.stdout


@contextmanager
def _started(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        # A session of its own, so that what it forks can be ended with it.
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=ENVIRONMENT, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _ended(peer: Peer) -> bool:
    if peer.process.poll() is not None:
        pytest.fail(f"{peer.aet} ended at once: {peer.log.read_text(errors='replace')[-2000:]}")
    return False
