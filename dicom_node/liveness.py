"""Who is alive: every process holds a locked file under its name, and the kernel drops the lock when it dies.

Robust against reused process ids. Knows no ledger.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_node.errors import AlreadyRunning, Stop

LOOK_S = 0.5
BEAT_S = 1.0
"""A heartbeat is written at most this often, however quick a loop turns."""


class Liveness:
    """A process's own lock file, and the test whether another one's is still held."""

    def __init__(self, folder: Path, role: str, *, alone: bool = False) -> None:
        """`alone`: the role may be held once per state directory.

        Raises AlreadyRunning when it is held, Stop when the folder can't be used.
        """
        self._folder = folder
        self.name = role if alone else f"{role}-{uuid.uuid4().hex[:12]}"
        self._path = folder / self.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            while not self._open(role):
                pass
        except OSError as fault:
            raise Stop(
                f"state_dir {folder.parent}: {fault.strerror}: check path, owner, rights and free space"
            ) from fault
        self._alone = alone
        self._beat_at = 0.0
        self.tell()

    def _open(self, role: str) -> bool:
        """Open our file and lock it; False where it was taken for one of the dead and removed before it was locked."""
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        if not self._lock():
            os.close(self._handle)
            raise AlreadyRunning(
                f"{self._folder.parent}: another `{role}` runs with this state directory: stop it, or use another "
                "state_dir"
            )
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._handle), self._path.stat()):
                return True
        os.close(self._handle)
        return False

    def tell(self, **facts: str | int | list[str]) -> None:
        """Write down whose heartbeat it is, and what else others may want to know of this process."""
        content = json.dumps({"pid": os.getpid(), **facts}).encode()
        # On a full disk nobody learns it; that is no reason not to run.
        with contextlib.suppress(OSError):
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, content, 0)

    def beat(self) -> None:
        """Say that the main loop turns, or that a long piece of its work is still in time. Every 5 s or oftener."""
        now = time.monotonic()
        if now - self._beat_at >= BEAT_S:
            self._beat_at = now
            # A disk that can't take it makes us look silent: the truth.
            with contextlib.suppress(OSError):
                os.utime(self._handle)

    def _lock(self) -> bool:
        # Whoever looks whether we are alive holds the lock for an instant: that must not keep us from starting.
        deadline = time.monotonic() + LOOK_S
        while True:
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.02)
            else:
                return True

    def alive(self, name: str) -> bool:
        """Whether the process of that name still runs (our own counts)."""
        if name == self.name:
            return True
        try:
            handle = os.open(self._folder / name, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        else:
            # A role's file stays: another process may have opened it to lock it.
            if "-" in name:
                (self._folder / name).unlink(missing_ok=True)
            return False
        finally:
            os.close(handle)

    def close(self) -> None:
        # A name used once is removed; a role's file stays, or two processes could hold two files of one name.
        if not self._alone:
            self._path.unlink(missing_ok=True)
        os.close(self._handle)


@dataclass(frozen=True, slots=True)
class Present:
    """One process that runs, as its lock file shows it."""

    role: str
    pid: int
    beat: float
    """When its main loop said last that it turns, in seconds since the epoch."""
    facts: dict[str, Any]


def present(folder: Path) -> list[Present]:
    """Every process that holds a lock right now."""
    found = []
    for path in sorted(folder.glob("*")):
        if not _held(path):
            continue
        # Its process may just have ended, or not have written anything yet.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            facts = json.loads(path.read_text())
            found.append(Present(path.name.partition("-")[0], int(facts.pop("pid")), path.stat().st_mtime, facts))
    return found


def running(folder: Path) -> list[str]:
    """The roles that hold a lock right now."""
    return sorted({path.name.partition("-")[0] for path in folder.glob("*") if _held(path)})


def _held(path: Path) -> bool:
    """Whether it is the lock of a process and held; takes none for longer than the look."""
    if path.suffix:
        # What receivers share beside the locks.
        return False
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        # Its process has just ended.
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def remove_dead(folder: Path) -> None:
    """Remove the files that processes which were killed have left; those of roles stay, see `Liveness.close`."""
    for path in folder.glob("*-*"):
        if path.suffix:
            continue
        # Its process has just ended, or the folder can't be written: nothing depends on it.
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(handle)


def beats(folder: Path) -> dict[int, float]:
    """The time of the last heartbeat of the living, by process id.

    A file that nobody holds was left by a process that was killed: after a restart its number is soon another's.
    """
    found: dict[int, float] = {}
    for path in folder.glob("*"):
        if not _held(path):
            continue
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            pid = int(json.loads(path.read_text())["pid"])
            found[pid] = max(path.stat().st_mtime, found.get(pid, 0.0))
    return found
