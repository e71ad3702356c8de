"""Whether a destination takes nothing at the moment, and when it is looked at next. Pure: time and chance are passed.

Knows no delivery: while a destination is away, nothing of that is the fault of what waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dicom_node.settings import Deliver


@dataclass(slots=True)
class Outage:
    """One look a pause, each pause longer than the last up to a cap, shortened by chance.

    Times are of a clock that never jumps.
    """

    rules: Deliver
    chance: Callable[[], float]
    """From 0 to 1: lets destinations and nodes that lost their peer together not come back in step."""
    failures: int = 0
    next_look: float = 0.0

    def failed(self, *, now: float, again: bool = False) -> float:
        """The destination took nothing; returns how long it is left alone now.

        `again`: of an object that had failed before, which says little new about the destination.
        """
        self.failures += int(not again or not self.failures)
        first, factor = self.rules.retry.first_s, self.rules.retry.factor
        wait = min(self.rules.longest_pause_s, self.rules.retry.longest_s, first * factor ** min(self.failures - 1, 64))
        wait *= 1 - self.chance() / 2
        self.next_look = now + wait
        return wait

    def ended(self) -> None:
        """The destination took something."""
        self.failures, self.next_look = 0, 0.0

    @property
    def doubted(self) -> bool:
        """It took nothing when it was asked last."""
        return self.failures > 0

    def pausing(self, *, now: float) -> bool:
        return now < self.next_look
