"""Who is alive: every process holds a locked file under its name, and the kernel drops the lock when it dies.

Robust against reused process ids. Knows no ledger.
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from pathlib import Path

from dicom_node.errors import AlreadyRunning, Stop

LOOK_S = 0.5


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
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as fault:
            raise Stop(f"state_dir {folder.parent}: {fault.strerror}: check path, owner and rights") from fault
        if not self._lock():
            os.close(self._handle)
            raise AlreadyRunning(
                f"{folder.parent}: another `{role}` runs with this state directory: stop it, or use another state_dir"
            )
        self._alone = alone

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


def running(folder: Path) -> list[str]:
    """The roles that hold a lock right now; takes no lock of its own for longer than the look."""
    roles = set()
    for path in folder.glob("*"):
        try:
            handle = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            # Its process has just ended.
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            roles.add(path.name.partition("-")[0])
        finally:
            os.close(handle)
    return sorted(roles)
