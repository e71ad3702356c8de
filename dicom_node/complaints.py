"""What a peer did wrong, told in the log so that no peer can fill the disk with it. Knows no peer and no file."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

AT_MOST = 20
"""Lines of one kind that are written in `EVERY_S`; further ones are counted."""
EVERY_S = 10.0


@dataclass(slots=True)
class _Kind:
    """What was said with one sentence, whatever its values were."""

    since: float
    said: int = 0
    kept_back: int = 0


class Complaints:
    """Shared by the threads of a process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[str, _Kind] = {}
        self._lock = threading.Lock()

    def tell(self, log: logging.Logger, level: int, sentence: str, *values: object) -> None:
        """Write a line, unless there were many of this sentence just now; a later line says how many were kept back."""
        now = self._clock()
        with self._lock:
            kind = self._kinds.setdefault(sentence, _Kind(now))
            kept_back = 0
            if now - kind.since >= EVERY_S:
                kept_back = kind.kept_back
                kind.since, kind.said, kind.kept_back = now, 0, 0
            kind.said += 1
            if kind.said > AT_MOST:
                kind.kept_back += 1
                return
        if kept_back:
            sentence, values = f"{sentence} (%d more of this kind were not written)", (*values, kept_back)
        log.log(level, sentence, *values)


complaints = Complaints()
"""Those of this process."""
