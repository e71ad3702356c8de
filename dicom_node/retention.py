"""Let originals and results leave the spool once every destination has answered for them and their days are over.

Knows no network. What was never delivered, is parked or in conflict never leaves; see the ledger's queries.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dicom_node.errors import IllegalStep
from dicom_node.ledger import Leaving, Ledger
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from dicom_node.steps import reached

log = logging.getLogger(__name__)

DAY_S = 86400.0
AT_ONCE = 100
"""Files that leave under one commit."""
ASSOCIATIONS_S = 7 * DAY_S
"""What is known of an association is kept this long after its end."""
NEAR_RESERVE = 1.25
NEAR_PERCENT = 2.0
"""Near the limits: within a quarter of the reserve, or two points of the watermark."""
LOCK = "nothing-leaves.lock"


@contextlib.contextmanager
def holding(spool_root: Path, *, wait: bool) -> Iterator[bool]:
    """Be the one who lets files leave, or who needs that none does (a backup); False when another is.

    The kernel lets go of it when its holder dies.
    """
    handle = os.open(spool_root.parent / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


class Retention:
    """What may leave, and its leaving."""

    def __init__(
        self,
        ledger: Ledger,
        spool: Spool,
        settings: Settings,
        before: Callable[[Sequence[Leaving]], None] = lambda _files: None,
    ) -> None:
        """`before` is called with what is about to leave."""
        self._ledger, self._spool, self._before = ledger, spool, before
        self._rules, self._storage = settings.retention, settings.storage

    def turn(self, *, now: float, beat: Callable[[], None]) -> int:
        """Let everything leave whose time has come; how many files have left."""
        while self._ledger.upkeep.settle():
            beat()
        gone = self._by_age(now, beat)
        if self._rules.when_full == "early":
            gone += self._early(now, beat)
        while self._ledger.upkeep.prune(ended_before=now - ASSOCIATIONS_S):
            beat()
        return gone

    def _by_age(self, now: float, beat: Callable[[], None]) -> int:
        gone, upkeep = 0, self._ledger.upkeep
        only_copies = self._rules.only_copies == "expire"
        days = self._rules.originals_days, self._rules.results_days
        upkeep.under_rules((days[0] is None) + 2 * (days[1] is None) + 4 * only_copies)
        past = [None if kind is None else now - kind * DAY_S for kind in days]
        for settled_at, batch in self._batches(max((at for at in past if at is not None), default=None), beat):
            over = [at is not None and settled_at <= at for at in past]
            files = upkeep.leaving(batch, originals=over[0], results=over[1], only_copies=only_copies)
            left = self._leave(files, f"its days after the last receipt are over: batch {batch}", now, beat)
            if left < len(files):
                return gone
            gone += left
            if all(at is None or settled_at <= at for at in past):
                upkeep.clear(batch)
        if past[0] is not None:
            while left := self._leave(
                upkeep.own_due(before=past[0], only_copies=only_copies, limit=AT_ONCE), "its days are over", now, beat
            ):
                gone += left
                beat()
        return gone

    def _batches(self, settled_before: float | None, beat: Callable[[], None]) -> Iterator[tuple[float, int]]:
        """Batches of which something may leave, oldest first."""
        at = (-math.inf, 0)
        while settled_before is not None:
            found = self._ledger.upkeep.due(settled_before=settled_before, after=at)
            if not found:
                return
            for one in found:
                beat()
                yield one
            at = found[-1]

    def _early(self, now: float, beat: Callable[[], None]) -> int:
        """Make room of what has its receipts, oldest first, while the disk is nearly full."""
        if not self._nearly_full():
            return 0
        gone = 0
        kinds = {"originals": self._rules.originals_days is not None, "results": self._rules.results_days is not None}
        for _, batch in self._batches(now, beat):
            if not (why := self._nearly_full()):
                return gone
            files = self._ledger.upkeep.leaving(batch, **kinds, only_copies=False)
            left = self._leave(files, f"early, it has its receipts: {why}", now, beat)
            if left < len(files):
                return gone
            gone += left
        if why := self._nearly_full():
            log.error("%s, and nothing more may leave: make room, or see what waits (evenray status)", why)
        return gone

    def _nearly_full(self) -> str:
        return self._spool.full(
            reserve_mib=int(self._storage.reserve_mib * NEAR_RESERVE),
            watermark_percent=max(0.0, self._storage.watermark_percent - NEAR_PERCENT),
        )

    def _leave(self, files: list[Leaving], why: str, now: float, beat: Callable[[], None]) -> int:
        """First the rows, then the files: what is left of a crash in between is an orphan, and goes like one."""
        if not files:
            return 0
        with holding(self._spool.root, wait=False) as alone:
            if not alone:
                log.info("%d files may leave, after the backup that runs", len(files))
                return 0
            self._before(files)
            try:
                self._ledger.upkeep.expire(files, why, now=now)
            except IllegalStep as changed:
                log.info("nothing left this time: %s", changed)
                return 0
            reached("retention.expired")
            for file in files:
                beat()
                self._spool.discard(file.path)
        log.info("%d files have left the spool: %s", len(files), why)
        return len(files)
