"""What the associations of one receiver have spooled, committed to the ledger in groups. Knows no association.

A commit is one wait for the disk: what becomes ready while one runs waits for the next, together.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from dicom_node.ledger import Ledger
from dicom_node.records import Arrival

LINGER_S = 0.001
"""Longest wait for others whose files are being forced to the disk right now: one commit more costs as much."""


@dataclass(slots=True)
class _Waiting:
    """One arrival whose association waits for its row."""

    arrival: Arrival
    ref: int = 0
    fault: Exception | None = None


class Arrivals:
    """The way of arrivals into the ledger. Shared by the threads of a receiver."""

    def __init__(self, ledger: Ledger, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._waiting: list[_Waiting] = []
        self._expected = 0
        self._changed = threading.Condition()
        self._committing = threading.Lock()

    def expect(self) -> None:
        """Say that an object is being forced to the disk: `commit`, or `give_up`, follows soon."""
        with self._changed:
            self._expected += 1

    def give_up(self) -> None:
        """What was expected does not come."""
        with self._changed:
            self._expected -= 1
            self._changed.notify()

    def commit(self, arrival: Arrival) -> int:
        """The number of the expected instance, once its row would survive a power cut; raises what the ledger does."""
        mine = _Waiting(arrival)
        with self._changed:
            self._waiting.append(mine)
            self._expected -= 1
            self._changed.notify()
        # Whoever gets the lock commits for all that wait; the others find theirs done. No thread hands over to one.
        with self._committing:
            if not mine.ref and mine.fault is None:
                self._commit_all()
        if mine.fault is not None:
            raise mine.fault
        return mine.ref

    def _commit_all(self) -> None:
        deadline = time.monotonic() + LINGER_S
        with self._changed:
            while self._expected and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            group, self._waiting = self._waiting, []
        try:
            refs = self._ledger.instances.arrive_all([one.arrival for one in group], now=self._clock())
        except Exception as fault:  # noqa: BLE001 - handed to every association of the group, which answers its sender
            for one in group:
                one.fault = fault
            return
        for one, ref in zip(group, refs, strict=True):
            one.ref = ref
