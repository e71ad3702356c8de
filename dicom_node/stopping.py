"""When a process should end: SIGTERM, SIGINT, or the end of its supervisor. Knows nothing of what it stops."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType


class Stopping:
    """A flag that every loop waits on."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.why = ""
        """Who asked, once somebody has."""

    def on_signals(self) -> None:
        """SIGTERM and SIGINT ask to drain; must be called in the main thread."""

        def ask(number: int, _frame: FrameType | None) -> None:
            self.why = self.why or signal.Signals(number).name
            self._event.set()

        signal.signal(signal.SIGTERM, ask)
        signal.signal(signal.SIGINT, ask)

    def with_parent(self) -> None:
        """End when standard input closes: the supervisor holds its other end, even when it is killed."""

        def watch() -> None:
            while os.read(sys.stdin.fileno(), 1):
                pass
            self.why = self.why or "the end of the supervisor"
            self._event.set()

        threading.Thread(target=watch, name="parent-watch", daemon=True).start()

    def ask(self) -> None:
        self._event.set()

    @property
    def asked(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep, but wake when asked to stop; True when it is time to stop."""
        return self._event.wait(seconds)
