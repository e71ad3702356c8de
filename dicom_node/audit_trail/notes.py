"""Durable notes about what the ledger does not know: starts, stops, refused callers, questions asked of archives.

Small, for processes that must stay so: no XML, no DICOM. A note is a file of its own, gone once its message is
spooled. Notes may name patients (a question does): they are for the node alone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
import uuid
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_node.durable import fsync, write_durably
from dicom_node.errors import DiskFull
from dicom_node.settings import Settings

log = logging.getLogger(__name__)

FOLDER = "audit"
"""In the state directory."""
WINDOW_S = 60.0
"""Alerts of one kind about one address are gathered for so long."""
MOST_KINDS = 50
"""Addresses that are told apart in one window; alerts about further ones are counted together."""
MOST_NOTES = 5000
"""Notes that lie there at most: nobody fills the disk with them while no process reads them."""
ELSEWHERE = "elsewhere"
PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600


class Notes:
    """The notes of one node. Without an audit repository in the settings nothing is written."""

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.state_dir / FOLDER / "notes"
        self.wanted = settings.audit.transport != "none"

    def write(self, kind: str, **facts: Any) -> None:
        """Keep one note; it survives a power cut once this returns. A disk that takes none is said in the log."""
        if not self.wanted:
            return
        at = float(facts.pop("at", time.time()))
        content = json.dumps({"kind": kind, "at": at, **facts}).encode()
        try:
            self.folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
            self.folder.parent.chmod(PRIVATE_FOLDER)
            if sum(1 for _ in self.folder.iterdir()) >= MOST_NOTES:
                log.error("%d audit notes wait, one more (%s) is not kept: start `evenray serve`", MOST_NOTES, kind)
                return
            name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.json"
            write_durably(self.folder / name, content, mode=PRIVATE_FILE)
        except (OSError, DiskFull) as fault:
            log.error("an audit note (%s) could not be kept: %s", kind, fault)

    def asked(self, archive: str, *, sop_class_uid: str, transfer_syntax_uid: str, query: bytes, why: str = "") -> None:
        """A question that was put to an archive of the settings. `query`: the identifier or URL, as it was sent;
        `why`: what was wrong where it failed.
        """
        self.write(
            "query",
            archive=archive,
            sop_class=sop_class_uid,
            syntax=transfer_syntax_uid,
            query=b64encode(query).decode(),
            why=why,
        )

    def pending(self) -> list[Path]:
        """Every note, oldest first."""
        return sorted(self.folder.glob("*.json"))


def read(path: Path) -> dict[str, Any]:
    """One note; {} where it is damaged."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and {"kind", "at"} <= found.keys() else {}


class Presence:
    """The start and the end of a node as notes. A start that finds no end of the one before says that it was killed."""

    def __init__(self, settings: Settings, heard_at: float) -> None:
        """`heard_at`: when the node before was heard last, in seconds since the epoch; 0: never."""
        self._notes = Notes(settings)
        self._mark = settings.state_dir / FOLDER / "running"
        self._heard_at = heard_at

    def started(self) -> None:
        if not self._notes.wanted:
            # Whoever switches it on again has not been killed.
            with contextlib.suppress(OSError):
                self._mark.unlink(missing_ok=True)
            return
        if self._mark.exists():
            self._notes.write("killed", at=self._heard_at or self._mark.stat().st_mtime)
        self._notes.write("start", pid=os.getpid(), launcher=launcher())
        with contextlib.suppress(OSError):
            self._mark.touch(PRIVATE_FILE)
            fsync(self._mark.parent)

    def stopped(self, why: str) -> None:
        if self._notes.wanted:
            self._notes.write("stop", pid=os.getpid(), launcher=launcher(), why=why)
            with contextlib.suppress(OSError):
                self._mark.unlink(missing_ok=True)
                fsync(self._mark.parent)


def launcher() -> str:
    """The account under which this process runs."""
    return f"uid-{os.getuid()}@{os.uname().nodename}"


@dataclass(slots=True)
class _Gathered:
    """What was refused of one address for one reason, since the last note about it."""

    title: str
    first: float
    count: int = 0


class Alerts:
    """Refused callers as notes, so gathered that no caller can make many of them. Shared by the threads of a process.

    Whoever tells waits for no disk: a thread of its own writes.
    """

    def __init__(self, notes: Notes, *, window_s: float = WINDOW_S) -> None:
        self._notes = notes
        self._window_s = window_s
        self._gathered: dict[tuple[str, str], _Gathered] = {}
        self._written: dict[tuple[str, str], float] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False

    def refused(self, why: str, address: str, title: str = "") -> None:
        """Somebody was not let in. `why`: one of a few sentences of ours, never the caller's words."""
        if not self._notes.wanted:
            return
        with self._changed:
            key = (why, address)
            if key not in self._told() and len(self._told()) >= MOST_KINDS:
                key, title = (why, ELSEWHERE), ""
            found = self._gathered.setdefault(key, _Gathered(title, time.time()))
            found.count += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="audit-notes", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _told(self) -> set[tuple[str, str]]:
        """Whatever was told of in this window."""
        return self._gathered.keys() | self._written.keys()

    def close(self) -> None:
        """Write what is left."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(5)

    def _run(self) -> None:
        while True:
            with self._changed:
                due = self._due()
                if not due and self._closing:
                    return
                if not due:
                    self._changed.wait(self._window_s if self._gathered else None)
                    continue
            # Outside of the lock: nobody who tells waits for the disk.
            self._write(due)

    def _due(self) -> Mapping[tuple[str, str], _Gathered]:
        now = time.monotonic()
        self._written = {key: at for key, at in self._written.items() if now - at < self._window_s}
        due = {key: one for key, one in self._gathered.items() if self._closing or key not in self._written}
        for key in due:
            del self._gathered[key]
            self._written[key] = now
        return due

    def _write(self, due: Mapping[tuple[str, str], _Gathered]) -> None:
        for (why, address), one in due.items():
            self._notes.write("refused", at=one.first, why=why, address=address, title=one.title, count=one.count)
