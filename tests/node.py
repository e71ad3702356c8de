"""A real node for tests: its processes, its configuration file, its ledger and a modality that sends to it.

Nothing here sleeps: what is waited for is a condition with a deadline.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.association import Association
from pynetdicom.dsutils import split_dataset

from dicom_node.demo.archive import Archive
from dicom_node.ledger import Ledger
from engine.phantom import Phantom, make_phantom
from tests import dicom_files
from tests.peers import LOOPBACK, free_port, listening, wait_until

# Process-wide: a file is sent as it lies on the disk, never decoded.
_config.STORE_SEND_CHUNKED_DATASET = True

ROOT = Path(__file__).resolve().parents[1]
ROLES = ("listen", "work", "deliver", "upkeep")
START_S = 90.0
"""A worker loads torch, on a machine that others use at the same time."""
SETTLE_S = 180.0
NEVER_S = 3600.0
"""A quiet time that does not end within a test: batches stay open until the test says otherwise."""
SETTLED = """
SELECT (SELECT count(*) FROM instance WHERE state IN ('received', 'reading', 'waiting', 'claimed'))
     + (SELECT count(*) FROM batch WHERE state IN ('open', 'closed', 'reporting'))
     + (SELECT count(*) FROM delivery WHERE state IN ('pending', 'sending', 'stored', 'awaiting'))
"""
PACS = "PACS"


@dataclass
class Node:
    """One node, or one of its processes alone (`role`), and its folder.

    "serve" is the supervisor. "listen" are the receivers, several on one port: `pid` and `runs` give one of them,
    `pids` all, `kill` kills all at once. A node of role "listen" is a supervisor with receivers alone.
    """

    folder: Path
    port: int
    settings: dict[str, Any]
    role: str | None = None
    process: subprocess.Popen[bytes] | None = None
    _groups: list[int] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.folder / "node.yaml"

    @property
    def state(self) -> Path:
        return self.folder / str(self.settings["state_dir"])

    @property
    def spool(self) -> Path:
        return self.state / "spool"

    def spooled(self) -> list[Path]:
        """Every file of the spool that holds something; receivers keep empty ones ready."""
        found = []
        for path in self.spool.rglob("*"):
            with suppress(FileNotFoundError):
                if path.is_file() and path.stat().st_size:
                    found.append(path)
        return sorted(found)

    def arriving(self) -> bool:
        """Whether a part of an object that is not complete has come in."""
        return any("incoming" in path.parts for path in self.spooled())

    def log(self) -> str:
        return (self.folder / "node.log").read_text(errors="replace")

    def configure(self, **sections: Any) -> None:
        """Change sections of the configuration file; a process reads it when it starts."""
        for name, section in sections.items():
            old = self.settings.get(name)
            both = isinstance(section, Mapping) and isinstance(old, Mapping)
            self.settings[name] = {**old, **section} if both else section
        self.config.write_text(yaml.safe_dump(json.loads(json.dumps(self.settings, default=str))))

    def start(self, *, ready: bool = True) -> None:
        # It ends with us, even when we are killed: we hold the other end of its standard input.
        command = [sys.executable, "-m", "dicom_node", "serve", *([self.role] if self.role else []), "--supervised"]
        self._close_input()
        with (self.folder / "node.log").open("ab") as out:
            # A group of its own, so that children of a killed supervisor can be found and ended.
            self.process = subprocess.Popen(
                [*command, "--config", str(self.config)],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                start_new_session=True,
            )
        self._groups.append(self.process.pid)
        if ready and self.role in (None, "listen"):
            self.wait(lambda: listening(self.port), START_S, "the node listens")

    def wait(self, condition: Any, timeout_s: float, what: str) -> None:
        """`wait_until` that shows the end of the node's log when it fails."""
        try:
            wait_until(condition, timeout_s, what)
        except pytest.fail.Exception as failed:
            pytest.fail(f"{failed}\n{json.dumps(self.counts())}\n{self.log()[-3000:]}")

    def pids(self, role: str) -> list[int]:
        """Every process of a role that runs now; "serve" is the supervisor."""
        if self.process is None:
            return []
        if role == "serve" or (role == self.role and role != "listen"):
            return [self.process.pid] if self.process.poll() is None else []
        # A supervisor of receivers alone has their role in its command line, too.
        return [pid for pid in _group(self.process.pid) if _role(pid) == role and pid != self.process.pid]

    def pid(self, role: str) -> int | None:
        """One process of a role that runs now, None while there is none."""
        return next(iter(self.pids(role)), None)

    def runs(self, role: str) -> int:
        """The id of a process of a role, waited for."""
        self.wait(lambda: self.pid(role), START_S, f"{role} runs")
        found = self.pid(role)
        assert found
        return found

    def kill(self, role: str) -> int:
        """SIGKILL every process of a role; returns the id that the first of them had."""
        self.runs(role)
        found = self.pids(role)
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if role == "serve" or (role == self.role and role != "listen"):
            assert self.process
            self.process.wait()
        else:
            self.wait(lambda: not [pid for pid in found if _role(pid) == role], 10, f"{role} is dead")
        return found[0]

    def crash(self) -> None:
        """SIGKILL the supervisor and all of its processes at once, as a power cut does."""
        assert self.process
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.wait(lambda: not self.alive(), 10, "every process is dead")

    def alive(self) -> list[int]:
        """Processes of this node that run, those whose supervisor is gone included."""
        return [pid for group in self._groups for pid in _group(group)]

    def terminate(self, timeout_s: float = 90) -> int:
        """SIGTERM; the exit code."""
        assert self.process
        self.process.terminate()
        return self.process.wait(timeout_s)

    def restart(self) -> None:
        self.terminate()
        self.start()

    def close(self) -> None:
        for group in self._groups:
            # Whose number may have passed to somebody else is left alone.
            if any(_role(pid) for pid in _group(group)):
                os.killpg(group, signal.SIGKILL)
        if self.process:
            self.process.wait()
        self._close_input()

    def _close_input(self) -> None:
        if self.process and self.process.stdin:
            self.process.stdin.close()

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """The node's ledger, to be read."""
        opened = Ledger(self.state / "ledger.sqlite")
        try:
            yield opened
        finally:
            opened.close()

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """What an SQL query says about the ledger right now; nothing before there is one."""
        file = self.state / "ledger.sqlite"
        if not file.exists():
            return []
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute(query, values)]

    def one(self, query: str, *values: object) -> Any:
        """The first value of a query's first row."""
        rows = self.rows(query, *values)
        return next(iter(rows[0].values())) if rows else None

    def counts(self) -> dict[str, dict[str, int]]:
        """How many rows are in each state that occurs."""
        kinds = ("instance", "batch", "delivery")
        query = "SELECT state, count(*) AS n FROM {} GROUP BY state ORDER BY state"
        return {kind: {row["state"]: row["n"] for row in self.rows(query.format(kind))} for kind in kinds}

    def settled(self) -> bool:
        """Whether there is nothing left to do: no instance, batch or delivery is under way."""
        return bool(self.one(SETTLED) == 0)

    def wait_settled(self, timeout_s: float = SETTLE_S) -> None:
        self.wait(self.settled, timeout_s, "the node has nothing left to do")

    def outcomes(self) -> dict[str, str]:
        """SOP Instance UID to outcome, of everything decided."""
        query = "SELECT sop_instance_uid AS uid, json_extract(decision, '$.outcome') AS o FROM instance WHERE decision"
        return {row["uid"]: row["o"] for row in self.rows(f"{query} IS NOT NULL")}

    def results(self, kind: str = "%") -> list[str]:
        """UIDs of what the node made: secondary captures and reports."""
        query = "SELECT sop_instance_uid AS uid FROM object WHERE kind <> 'original' AND kind LIKE ? ORDER BY uid"
        return [row["uid"] for row in self.rows(query, kind)]

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of `evenray` about this node."""
        command = [sys.executable, "-m", "dicom_node", *arguments, "--config", str(self.config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)

    def send(self, *files: Path, called: str = "EVENRAY", calling: str = "MODALITY") -> list[int | None]:
        """Send files over one association; the status of each, None where no answer came."""
        with association(self.port, files, called=called, calling=calling) as link:
            return [store(link, path) for path in files]

    def accept(self, *files: Path) -> None:
        """Send files that must all be accepted."""
        assert self.send(*files) == [0] * len(files)

    def insist(self, files: Sequence[Path], timeout_s: float = SETTLE_S) -> dict[Path, int]:
        """Send like a good modality: again and again until each file is acknowledged; attempts by file."""
        attempts = dict.fromkeys(files, 0)
        left, deadline = list(files), time.monotonic() + timeout_s
        while left:
            if time.monotonic() > deadline:
                pytest.fail(f"{len(left)} files not accepted within {timeout_s:g} s\n{self.log()[-3000:]}")
            self.wait(lambda: listening(self.port), START_S, "the node listens again")
            link = open_association(self.port, left)
            for path in list(left):
                if not link.is_established:
                    break
                attempts[path] += 1
                if store(link, path) == 0:
                    left.remove(path)
            end(link)
        return attempts


@contextmanager
def node(
    folder: Path,
    destinations: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    role: str | None = None,
    port: int | None = None,
    start: bool = True,
    **sections: Any,
) -> Iterator[Node]:
    """A running node whose images and reports go to `destinations`; `sections` are merged into its settings."""
    folder.mkdir(parents=True, exist_ok=True)
    destinations = destinations or {}
    port = port or free_port()
    settings: dict[str, Any] = {
        "state_dir": "state",
        "listen": {"port": port},
        "storage": {"reserve_mib": 0, "watermark_percent": 99.9},
        "assembly": {"quiet_s": 2, "quiet_after_release_s": 0.5, "cap_s": 2 * NEVER_S},
        "deliver": {"retry": {"attempts": 1000, "first_s": 0.2, "factor": 1.5, "longest_s": 2}},
        "destinations": {name: dict(where) for name, where in destinations.items()},
        "routes": [{"name": "radiographs", "destinations": list(destinations)}],
        "passed_by": {"destinations": list(destinations)},
    }
    made = Node(folder, port, settings, role)
    made.configure(**sections)
    try:
        if start:
            made.start()
        yield made
    finally:
        made.close()


@contextmanager
def archive(folder: Path, node_port: int, **options: Any) -> Iterator[Archive]:
    """The embedded archive as the PACS of a node that will listen on `node_port`."""
    options = {"peers": {"EVENRAY": (LOOPBACK, node_port)}, "port": free_port(), **options}
    port = options.pop("port")
    made = Archive(folder / "pacs", PACS, LOOPBACK, port, **options)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def to_archive(port: int, **more: Any) -> dict[str, dict[str, Any]]:
    """The destination that `archive` is."""
    where = {"kind": "dimse", "ae_title": PACS, "host": LOOPBACK, "port": port, "commitment": True}
    # A request that a killed process never sent is found out soon.
    return {"pacs": {**where, "commitment_timeout_s": 4, "commitment_wait_s": 0.2, **more}}


def contents(held: Archive) -> dict[str, bytes]:
    """Every object of an archive: its data set's bytes by UID."""
    return {one.sop_instance_uid: data_set(one.path) for one in held.instances()}


def data_set(path: Path) -> bytes:
    """The bytes behind the File Meta Information."""
    return path.read_bytes()[split_dataset(path)[1] :]


def open_association(
    port: int, files: Sequence[Path], *, called: str = "EVENRAY", calling: str = "MODALITY", pdu: int = 131072
) -> Association:
    """An association, which may have failed, with a context for every class and transfer syntax of the files."""
    ae = AE(calling)
    ae.maximum_pdu_size = pdu
    ae.acse_timeout = ae.dimse_timeout = ae.connection_timeout = 60
    metas = (read_file_meta_info(path) for path in files)
    wanted = {(m.MediaStorageSOPClassUID, m.TransferSyntaxUID) for m in metas}
    contexts = [build_context(sop_class, syntax) for sop_class, syntax in sorted(wanted)]
    handlers = [(evt.EVT_CONN_OPEN, _undelayed), (evt.EVT_CONN_CLOSE, _awake)]
    return ae.associate(LOOPBACK, port, contexts=contexts, ae_title=called, evt_handlers=handlers)


@contextmanager
def association(port: int, files: Sequence[Path], **titles: str) -> Iterator[Association]:
    """An open association for these files; released at the end."""
    link = open_association(port, files, **titles)
    assert link.is_established, "the node did not accept the association"
    try:
        yield link
    finally:
        end(link)


def end(link: Association) -> None:
    """Release, or whatever is left to do."""
    if link.is_established:
        link.release()
    if not link.is_released:
        link.abort()
    if link.ident:
        link.join(10)
    # The library leaves the socket of a peer that died to the garbage collector, which warns.
    opened = getattr(link, "evenray_socket", None)
    if isinstance(opened, socket.socket):
        opened.close()


def store(link: Association, path: Path) -> int | None:
    """Send one file as it lies on the disk; the status, None where no answer came."""
    try:
        answer = link.send_c_store(path)
    except (RuntimeError, OSError):
        return None
    return int(answer.Status) if "Status" in answer else None


@cache
def phantom(seed: int, vendor: str, size: int = 256) -> Phantom:
    return make_phantom(seed, vendor, size)


def radiograph(
    folder: Path,
    uid: str,
    *,
    study: str,
    vendor: str = "Meridian",
    seed: int = 1,
    size: int = 256,
    syntax: str = "1.2.840.10008.1.2.1",
    **attributes: Any,
) -> Path:
    """A chest radiograph of nobody as a file; of seed 1, all vendors but Norlund and Graven get harmonized."""
    made = phantom(seed, vendor, size)
    facts: dict[str, Any] = {
        "PhotometricInterpretation": "MONOCHROME1" if made.inverted else "MONOCHROME2",
        "ViewPosition": str(made.view),
        "PixelSpacing": [made.spacing_mm] * 2,
        "Manufacturer": vendor,
        **attributes,
    }
    # The builder may reuse the array.
    ds = dicom_files.dataset(
        "CR", made.codes.copy(), bits=made.bits, instance=uid, study=study, series=f"{study}.9", **facts
    )
    folder.mkdir(parents=True, exist_ok=True)
    return dicom_files.write(folder / f"{uid}.dcm", ds, syntax)


VENDORS = ("Meridian", "Umbra", "Pallas", "Norlund", "Graven")


def study(folder: Path, uid: str, count: int = 3, **options: Any) -> list[Path]:
    """Radiographs of one study, of one vendor after the other."""
    return [
        radiograph(folder, f"{uid}.{n}", study=uid, **{"vendor": VENDORS[(n - 1) % len(VENDORS)], **options})
        for n in range(1, count + 1)
    ]


def uid_of(path: Path) -> str:
    return str(read_file_meta_info(path).MediaStorageSOPInstanceUID)


def read(path: Path) -> Dataset:
    return dcmread(path)


def _group(group: int) -> list[int]:
    """The processes of a process group that are no zombies."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in brackets, may hold anything. Source: proc_pid_stat(5).
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == group and state not in ("Z", "X"):
            found.append(int(stat.parent.name))
    return found


def _role(pid: int) -> str:
    """The role in a process's command line; "" where it is none of ours or has ended."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return next((role for role in ROLES if role.encode() in words and b"serve" in words), "")


def _awake(event: evt.Event) -> None:
    """Whoever waits for an answer on a connection that is gone waits until a time-out, if it was gone at once."""
    event.assoc.dimse.msg_queue.put((None, None))


def _undelayed(event: evt.Event) -> None:
    wrapped = event.assoc.dul.socket
    if wrapped and wrapped.socket:
        wrapped.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        event.assoc.evenray_socket = wrapped.socket
