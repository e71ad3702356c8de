"""Send what the message spool holds, oldest first: pace, pauses while the repository is away, and sending again.

Knows no event and no network. Syslog has no answers, so a message is gone from the disk only when its connection still
stood a while after it was sent; what was sent shortly before a connection broke is sent again.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import replace

from dicom_node.audit_trail.spool import MessageSpool, Segment
from dicom_node.audit_trail.syslog import Repository
from dicom_node.errors import PeerUnreachable

log = logging.getLogger(__name__)

PER_S = 100.0
"""Messages a second at most: a repository that comes back is not overrun by what has waited."""
CONFIRM_S = 5.0
"""A connection that stands so long after a message has brought it."""
FIRST_S, LONGEST_S = 1.0, 60.0
"""Pauses while the repository is away: each twice as long as the last, up to this."""


class Sender:
    """The way of one spool's messages to one repository."""

    def __init__(
        self,
        spool: MessageSpool,
        repository: Repository,
        *,
        per_s: float = PER_S,
        confirm_s: float = CONFIRM_S,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`clock` never jumps; `chance` (0 to 1) shortens the pauses."""
        self._spool, self._repository = spool, repository
        self._per_s, self._confirm_s = per_s, confirm_s if repository.confirms else 0.0
        self._clock, self._chance = clock, chance
        self._unconfirmed: list[tuple[Segment, float]] = []
        self._failures = 0
        self._next = 0.0

    def turn(self, *, now: float) -> bool:
        """Send one segment if it is time; whether another may follow soon. `now`: seconds since the epoch."""
        self._confirm()
        if self._clock() < self._next:
            return False
        last = self._unconfirmed[-1][0].number if self._unconfirmed else 0
        segment = self._spool.next(after=last)
        if segment is None:
            return False
        messages = self._spool.read(segment)
        try:
            if messages:
                self._repository.send(messages)
        except PeerUnreachable as fault:
            self._away(fault, now)
            return False
        self._back()
        self._next = self._clock() + len(messages) / self._per_s
        self._unconfirmed.append((segment, self._clock()))
        return True

    def pause_s(self, longest_s: float) -> float:
        """How long to wait for the next turn at most."""
        return min(longest_s, max(0.0, self._next - self._clock()))

    def _confirm(self) -> None:
        if not self._repository.there():
            self._repository.close()
            if self._unconfirmed:
                # What its system took and it never read is lost with the connection.
                log.info("the connection to the audit repository broke: what was sent last is sent again")
                self._unconfirmed.clear()
        until = self._clock() - self._confirm_s
        while self._unconfirmed and self._unconfirmed[0][1] <= until:
            self._spool.done(self._unconfirmed.pop(0)[0])

    def _away(self, fault: PeerUnreachable, now: float) -> None:
        self._unconfirmed.clear()
        wait = min(LONGEST_S, FIRST_S * 2.0 ** min(self._failures, 10)) * (1 - self._chance() / 2)
        self._failures += 1
        self._next = self._clock() + wait
        known = self._spool.trouble
        if not known.down_since:
            log.warning("%s; messages are kept (%d)", fault, self._spool.messages)
        self._spool.note(replace(known, down_since=known.down_since or now, reason=str(fault)))

    def _back(self) -> None:
        self._failures = 0
        known = self._spool.trouble
        if known.down_since:
            log.warning("the audit repository is back: %d messages have waited", self._spool.messages)
            self._spool.note(replace(known, down_since=0.0, reason=""))

    def close(self) -> None:
        """End the connection: what the repository has read for certain is not sent again after the next start."""
        if self._unconfirmed and self._repository.end():
            for segment, _ in self._unconfirmed:
                self._spool.done(segment)
        self._unconfirmed.clear()
        self._repository.close()
