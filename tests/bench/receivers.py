"""The receivers that are compared: how each is started durably or not, when it is ready, and what it holds.

Every one is a real program in a session of its own, listening on loopback. Knows no corpus.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.bench.measured import program
from tests.bench.process_tree import cpu
from tests.peers import LOOPBACK, free_port, listening

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0
END_S = 45.0
ASIDE = 2
"""Rounds of what no goal compares with."""
SHIM = Path(__file__).with_name("fsync_shim.c")
UNDELAYED = {"TCP_NODELAY": "1"}
"""DCMTK writes each PDU in two pieces: with Nagle's algorithm that costs 40 ms a response."""


class NotReady(Exception):
    """A receiver ended, or did not answer in time, when it was started."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """One kind of receiver. `held` counts the instances that it really has."""

    name: str
    aet: str
    command: Callable[[Path, int], list[str]]
    held: Callable[[Path, int], int]
    environment: Mapping[str, str] = field(default_factory=dict)
    about: str = ""
    is_receiver: Callable[[str], bool] = lambda _command: True
    """Whether a command line of its tree is a process that receives."""
    ours: bool = False
    rounds: int = 1000
    """What no goal compares with is measured in the first rounds only."""


@dataclass(slots=True)
class Running:
    """A started receiver."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path

    def log_end(self) -> str:
        """The last lines that it wrote."""
        return (self.folder / "log").read_text(errors="replace")[-1500:]


@contextmanager
def running(receiver: Receiver, folder: Path) -> Iterator[Running]:
    """A fresh receiver, waited for until it answers a C-ECHO and has become idle."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if k != "TCP_NODELAY"} | receiver.environment
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            receiver.command(folder, port),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=ROOT,
            start_new_session=True,
        )
    try:
        ready(process, port, receiver.aet, log)
        yield Running(process, port, folder)
    finally:
        end(process)


def ready(process: subprocess.Popen[bytes], port: int, aet: str, log: Path) -> None:
    """Wait until the port answers as a DICOM peer and every process behind it has done its start-up work."""
    deadline = time.monotonic() + START_S

    def before(what: str) -> None:
        if process.poll() is not None or time.monotonic() > deadline:
            ended = "" if process.poll() is None else f", ended with {process.poll()}"
            raise NotReady(f"{aet}: {what}{ended}\n{log.read_text(errors='replace')[-2000:]}")

    # The port alone says little: a supervisor may hold it before anyone accepts.
    while not listening(port):
        before("does not listen")
        time.sleep(0.02)
    while not echo(port, aet):
        before("does not answer a C-ECHO")
        time.sleep(0.02)
    spent = sum(cpu(process.pid))
    while True:
        time.sleep(0.3)
        now = sum(cpu(process.pid))
        if now - spent <= 0.02:
            return
        before("does not become idle")
        spent = now


def echo(port: int, aet: str) -> bool:
    """Whether a C-ECHO is answered."""
    command = [program("echoscu") or "echoscu", "-to", "5", "-ta", "5", "-td", "5", "-aec", aet, LOOPBACK, str(port)]
    return subprocess.run(command, capture_output=True, check=False, env=os.environ | UNDELAYED).returncode == 0


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL to what is left of the session."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            print(f"process {process.pid} did not end within {END_S:g} s of SIGTERM: killed", file=sys.stderr)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def evenray(name: str, rounds: int = 1000, **listen: object) -> Receiver:
    """The node's receiving side alone, started as its users start it; `listen` is merged into its settings."""

    def command(folder: Path, port: int) -> list[str]:
        config = folder / "node.yaml"
        settings = {
            "state_dir": "state",
            "listen": {"port": port, **listen},
            # A test machine's disk may be nearly full; what is received here is removed at once.
            "storage": {"reserve_mib": 0, "watermark_percent": 100},
        }
        config.write_text(yaml.safe_dump(settings))
        return [sys.executable, "-m", "dicom_node", "serve", "listen", "--config", str(config)]

    about = "durable: file and folder synced and the ledger's row committed before Success"
    return Receiver(
        name,
        "EVENRAY",
        command,
        lambda folder, _port: ledger_holds(folder / "state"),
        about=about,
        is_receiver=lambda words: "--receiver" in words,
        ours=True,
        rounds=rounds,
    )


def ledger_holds(state: Path) -> int:
    """Instances that the ledger names and the spool has, of the size that the ledger says."""
    with closing(sqlite3.connect(f"file:{state / 'ledger.sqlite'}?mode=ro", uri=True, timeout=30)) as db:
        rows = db.execute("SELECT path, size FROM instance GROUP BY sop_instance_uid").fetchall()
    sizes = ((state / "spool" / path, size) for path, size in rows)
    return sum(path.exists() and path.stat().st_size == size for path, size in sizes)


def ledger_rows(state: Path) -> int:
    """Instances in a ledger."""
    with closing(sqlite3.connect(f"file:{state / 'ledger.sqlite'}?mode=ro", uri=True, timeout=30)) as db:
        return int(db.execute("SELECT count(*) FROM instance").fetchone()[0])


def evenray_settings() -> set[str]:
    """The settings that this version knows."""
    command = [sys.executable, "-m", "dicom_node", "settings"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return {line.split()[0] for line in said.splitlines() if line and not line.startswith(" ")}


def storescp(
    name: str, *flags: str, about: str, shim: Path | None = None, undelayed: bool = True, rounds: int = 1000
) -> Receiver:
    """DCMTK's receiver, a process for each association."""

    def command(folder: Path, port: int) -> list[str]:
        received = folder / "received"
        received.mkdir()
        path = program("storescp") or "storescp"
        return [path, "-q", "--fork", "-aet", "STORESCP", "-od", str(received), *flags, str(port)]

    environment = {**(UNDELAYED if undelayed else {}), **({"LD_PRELOAD": str(shim)} if shim else {})}
    return Receiver(name, "STORESCP", command, lambda folder, _port: _files(folder), environment, about, rounds=rounds)


def pynetdicom_app(name: str) -> Receiver:
    """The receiver that pynetdicom ships as an application."""

    def command(folder: Path, port: int) -> list[str]:
        received = folder / "received"
        received.mkdir()
        return [sys.executable, "-m", "pynetdicom", "storescp", str(port), "-q", "-aet", "PNDAPP", "-od", str(received)]

    about = "not durable"
    return Receiver(name, "PNDAPP", command, lambda folder, _port: _files(folder), about=about, rounds=ASIDE)


def orthanc(name: str, *, undelayed: bool = True) -> Receiver:
    """Orthanc with its defaults (SyncStorageArea on, no compression) and no plug-ins."""

    def command(folder: Path, port: int) -> list[str]:
        web = free_port()
        settings = {
            "Name": "bench",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "DicomAet": "ORTHANC",
            "DicomPort": port,
            "HttpPort": web,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "UnknownSopClassAccepted": True,
            "Plugins": [],
        }
        config = folder / "orthanc.json"
        config.write_text(json.dumps(settings))
        return [program("Orthanc") or "Orthanc", str(config)]

    about = "files synced by default (SyncStorageArea), index in SQLite"
    environment = UNDELAYED if undelayed else {}
    return Receiver(name, "ORTHANC", command, lambda folder, _port: _in_orthanc(folder), environment, about)


def compiled_shim(folder: Path) -> Path | None:
    """The library that makes storescp durable, compiled now; None where there is no compiler."""
    compiler = program("cc") or program("gcc")
    if compiler is None:
        return None
    library = folder / "fsync_shim.so"
    subprocess.run([compiler, "-O2", "-fPIC", "-shared", "-o", str(library), str(SHIM), "-ldl"], check=True)
    return library


def _files(folder: Path) -> int:
    return sum(path.is_file() for path in (folder / "received").iterdir())


def _in_orthanc(folder: Path) -> int:
    web = json.loads((folder / "orthanc.json").read_text())["HttpPort"]
    with urllib.request.urlopen(f"http://{LOOPBACK}:{web}/statistics", timeout=30) as answer:
        return int(json.loads(answer.read())["CountInstances"])
