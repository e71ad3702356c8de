"""Watch over the piece of work in hand: keep its lease, say that the process lives, end the process when it hangs.

Knows not what is worked on, and no ledger: how a lease is kept and a sign of life given is passed in.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

log = logging.getLogger(__name__)

TICK_S = 1.0
"""How often it looks; a sign of life is due every few seconds."""
HUNG = 70
"""Exit code of a process that ended itself because it hung."""


@dataclass(slots=True)
class _Piece:
    """What is in hand. Times are monotonic: a jump of the clock ends nothing."""

    what: str
    keep: Callable[[], object]
    since: float
    kept_at: float


class Watchdog:
    """One thread for all pieces of work of a process, which has one in hand at a time.

    A hang has two kinds. While Python runs, this thread sees it and says what hangs. A library that never comes back
    and lets no other thread run is seen by a timer of the C library, which this thread sets anew at every tick.
    """

    def __init__(self, *, limit_s: float, frozen_s: float, keep_every_s: float, alive: Callable[[], object]) -> None:
        """`limit_s`: longest time for one piece; `frozen_s`: longest time in which no thread of Python runs."""
        self._limit_s, self._frozen_s, self._keep_every_s, self._alive = limit_s, frozen_s, keep_every_s, alive
        self._lock = threading.Lock()
        self._piece: _Piece | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    @contextmanager
    def over(self, what: str, keep: Callable[[], object]) -> Iterator[None]:
        """Watch over the block; `keep` keeps its lease, in the watchdog's thread. `what` names ids, never a patient."""
        now = time.monotonic()
        with self._lock:
            self._piece = _Piece(what, keep, now, now)
        try:
            yield
        finally:
            with self._lock:
                self._piece = None

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _run(self) -> None:
        while not self._ended.wait(min(TICK_S, self._keep_every_s, self._limit_s)):
            faulthandler.dump_traceback_later(self._frozen_s, exit=True, file=sys.stderr)
            with self._lock:
                if self._piece is not None:
                    self._look(self._piece)

    def _look(self, piece: _Piece) -> None:
        now = time.monotonic()
        if now - piece.since > self._limit_s:
            # Not by an exception: nothing reaches a thread that does not come back from a library.
            log.critical("%s hangs for %.0f s: this process ends itself", piece.what, now - piece.since)
            faulthandler.dump_traceback(file=sys.stderr)
            with contextlib.suppress(OSError):
                sys.stderr.flush()
            os._exit(HUNG)
        self._alive()
        if now - piece.kept_at > self._keep_every_s:
            piece.kept_at = now
            try:
                piece.keep()
            except Exception as fault:  # noqa: BLE001 - a lease that can't be kept now is tried again, or runs out
                log.warning("the lease of %s could not be kept (%s)", piece.what, type(fault).__name__)
