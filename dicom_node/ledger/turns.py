"""Whose turn it is to write: processes that want to change the ledger wait in a queue. Knows no SQL.

SQLite lets one connection write and has the others look again after pauses that grow to 100 ms: under load one process
takes every gap and another waits for seconds. Here a waiting process is woken at once, and the next one stands ready
already, so that no process can take two turns while another waits. SQLite's own lock stays what keeps the file whole:
this only orders who asks for it. The kernel drops both locks when a process dies.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Turns:
    """The two lock files beside one ledger. One thread of a process at a time may ask."""

    def __init__(self, ledger: Path) -> None:
        """Raises OSError where they can't be made."""
        self._next = _open(ledger, "next")
        self._turn = _open(ledger, "turn")

    @contextmanager
    def mine(self) -> Iterator[None]:
        """Wait for the turn, and have it."""
        # Who is next holds `next` until it has the turn; who just had one must queue for `next` again.
        fcntl.flock(self._next, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._turn, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._next, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._next)
        os.close(self._turn)


def _open(ledger: Path, name: str) -> int:
    return os.open(ledger.with_name(f"{ledger.name}.{name}"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
