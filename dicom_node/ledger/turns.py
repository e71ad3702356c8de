"""Whose turn it is to write: processes that want to change the ledger wait in a queue. Knows no SQL.

SQLite lets one connection write and has the others look again after pauses that grow to 100 ms: under load one process
takes every gap and another waits for seconds. Here whoever is next looks again after a fraction of a millisecond, and
no process can take two turns while another stands next. SQLite's own lock stays what keeps the file whole: this only
orders who asks for it. The kernel drops both locks when a process dies. One that was stopped in its turn keeps them: it
is waited for only so long, and then nobody queues until it has gone on.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PATIENCE_S = 5.0
"""A turn takes milliseconds, and seconds on a slow disk: who has it for longer hangs, or was stopped by somebody."""
IN_VAIN_S = 0.05
"""How long the turn is waited for after it was waited for in vain, until it is to be had again."""
QUEUE_LOOK_S = 0.001
"""Pause between two looks of those who queue."""
TURN_LOOK_S = 0.0001
"""Pause between two looks of the one that is next: for so long the ledger is idle."""


class Turns:
    """The two lock files beside one ledger. One thread of a process at a time may ask."""

    def __init__(self, ledger: Path) -> None:
        """Raises OSError where they can't be made."""
        self._next = _open(ledger, "next")
        self._turn = _open(ledger, "turn")
        self._patience_s = PATIENCE_S

    @contextmanager
    def mine(self) -> Iterator[None]:
        """Wait for the turn, and have it; or go on without where somebody keeps it."""
        came = self._queue()
        self._patience_s = PATIENCE_S if came else IN_VAIN_S
        try:
            yield
        finally:
            if came:
                _let_go(self._turn)

    def _queue(self) -> bool:
        """Whether the turn came."""
        until = time.monotonic() + self._patience_s
        # Who is next holds `next` until it has the turn; who just had one must queue for `next` again.
        if not _get(self._next, until, QUEUE_LOOK_S):
            return False
        try:
            return _get(self._turn, until, TURN_LOOK_S)
        finally:
            _let_go(self._next)

    def close(self) -> None:
        os.close(self._next)
        os.close(self._turn)


def _get(handle: int, until: float, look_s: float) -> bool:
    """Lock a file; False where it was not to be had until then. A wait in the kernel could not be ended."""
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(look_s)
        else:
            return True


def _let_go(handle: int) -> None:
    # What was done in the turn is done, whatever becomes of the lock.
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_UN)


def _open(ledger: Path, name: str) -> int:
    return os.open(ledger.with_name(f"{ledger.name}.{name}"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
