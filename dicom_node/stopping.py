"""When a process should end: SIGTERM, SIGINT, or the end of its supervisor. Knows nothing of what it stops."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import weakref
from types import FrameType


class Stopping:
    """A flag that every loop waits on.

    Made of a pipe and no lock: a signal's handler runs in the middle of whatever the main thread does, and a lock that
    it holds there, as `threading.Event` does for a moment, would never be released. The byte in the pipe is never read,
    so it wakes every thread that waits.
    """

    def __init__(self) -> None:
        self._asked = False
        self._reading, self._writing = os.pipe()
        # Not at the program's end: a signal may still come then, and find other files under these numbers.
        weakref.finalize(self, _close, self._reading, self._writing).atexit = False
        self.why = ""
        """Who asked, once somebody has."""

    def on_signals(self) -> None:
        """SIGTERM and SIGINT ask to drain; must be called in the main thread."""

        def ask(number: int, _frame: FrameType | None) -> None:
            self.why = self.why or signal.Signals(number).name
            self.ask()

        signal.signal(signal.SIGTERM, ask)
        signal.signal(signal.SIGINT, ask)

    def with_parent(self) -> None:
        """End when standard input closes: the supervisor holds its other end, even when it is killed."""

        def watch() -> None:
            while os.read(sys.stdin.fileno(), 1):
                pass
            self.why = self.why or "the end of the supervisor"
            self.ask()

        threading.Thread(target=watch, name="parent-watch", daemon=True).start()

    def ask(self) -> None:
        # Asked twice at once, there are two bytes. Asked again and again, the pipe does not fill.
        if not self._asked:
            self._asked = True
            os.write(self._writing, b"!")

    @property
    def asked(self) -> bool:
        return self._asked

    def wait(self, seconds: float) -> bool:
        """Sleep, but wake when asked to stop; True when it is time to stop."""
        if not self._asked:
            asking = select.poll()
            asking.register(self._reading, select.POLLIN)
            asking.poll(1000 * seconds)
        return self._asked


def _close(*handles: int) -> None:
    for handle in handles:
        os.close(handle)
