"""How late it is for an open batch, also when the clock of the machine jumps. Pure: both clocks are parameters."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from dicom_node.assembly import Snapshot

LEAP_S = 1.0
"""Two clocks that part by more than this between two looks: one of them was set."""


@dataclass(frozen=True, slots=True)
class _Sight:
    """One batch as it was first seen in its present form."""

    form: tuple[float, float, float | None]
    wall: float
    monotonic: float


class Patience:
    """From the moment at which a batch is seen, its time is counted by the monotonic clock.

    The wall clock only says how old it was then, and a batch from the future was not old at all. So a clock set back by
    a day holds no report back for a day, and one set forward closes no batch that is being received. What is left: a
    restart counts from the wall clock again.
    """

    def __init__(self) -> None:
        self._seen: dict[int, _Sight] = {}

    def now_for(self, batch: int, snapshot: Snapshot, *, wall: float, monotonic: float) -> float:
        """The `now` against which this batch is to be decided."""
        form = (snapshot.first_at, snapshot.last_at, snapshot.released_at)
        seen = self._seen.get(batch)
        if seen is None or seen.form != form:
            newest = max(snapshot.last_at, snapshot.released_at or snapshot.last_at)
            seen = self._seen[batch] = _Sight(form, max(wall, newest), monotonic)
        return seen.wall + (monotonic - seen.monotonic)

    def keep_only(self, batches: Collection[int]) -> None:
        """Forget the batches that are open no longer."""
        for gone in self._seen.keys() - set(batches):
            del self._seen[gone]


class Steady:
    """The wall clock without the leaps forward of the last while: none of them makes a batch old at once."""

    def __init__(self) -> None:
        self._offset: float | None = None
        self._leaps: list[tuple[float, float]] = []

    def now(self, *, wall: float, monotonic: float, hold_s: float) -> float:
        """The time to look for batches by; a leap counts after `hold_s`, when what is being received is dated anew."""
        offset = wall - monotonic
        if self._offset is not None and offset - self._offset > LEAP_S:
            self._leaps.append((monotonic, offset - self._offset))
        self._offset = offset
        self._leaps = [(at, by) for at, by in self._leaps if monotonic - at < hold_s]
        return wall - sum(by for _, by in self._leaps)
