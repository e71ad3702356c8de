"""Wait until the node has settled everything that was sent to it. Reads the ledger, changes nothing in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from dicom_node.ledger import Ledger
from dicom_node.states import Batch, Delivery, Instance

STALLED_S = 90.0
"""Nothing changed for this long: it is not going to. A worker on a busy machine takes ten seconds to load torch."""
LOOK_EVERY_S = 0.1
UNDECIDED = (Instance.RECEIVED, Instance.WAITING, Instance.CLAIMED)
UNSETTLED = (*UNDECIDED, Instance.DECIDED)
UNREPORTED = (Batch.OPEN, Batch.CLOSED, Batch.REPORTING)


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the node is, in numbers."""

    received: int
    decided: int
    settled: int
    open_batches: int
    objects: int
    kept: int
    parked: int

    def done(self, expected: int) -> bool:
        """Every instance is reported or set aside, and every object is with the archive or parked."""
        everyone = self.received >= expected and self.settled == self.received
        return everyone and self.open_batches == 0 and self.kept + self.parked == self.objects

    def words(self, expected: int) -> str:
        decided = f"{self.decided} of {expected} images decided"
        confirmed = f"{self.kept} of {self.objects} objects confirmed by the archive"
        return f"{decided}, {confirmed}" + (f", {self.parked} parked" if self.parked else "")

    def share(self, expected: int) -> float:
        """Half for the decisions, half for the deliveries: good enough for a bar."""
        decided = self.decided / max(expected, 1)
        return min(1.0, 0.5 * decided + 0.5 * decided * self.kept / max(self.objects, 1))


def standing(ledger: Ledger) -> Standing:
    counts = ledger.counts()
    instances, batches, deliveries = counts["instance"], counts["batch"], counts["delivery"]
    received = sum(instances.values())
    return Standing(
        received=received,
        decided=received - sum(instances[state] for state in UNDECIDED),
        settled=received - sum(instances[state] for state in UNSETTLED),
        open_batches=sum(batches[state] for state in UNREPORTED),
        objects=sum(deliveries.values()),
        kept=deliveries[Delivery.DELIVERED],
        parked=deliveries[Delivery.PARKED],
    )


def wait_until_settled(
    ledger: Ledger, *, expected: int, check: Callable[[], None], tell: Callable[[str, float], None]
) -> Standing:
    """Return once all is done, or once nothing has changed for a long time; `Standing.done` says which.

    check: raises what makes waiting pointless. tell: hears how far it is.
    """
    last = standing(ledger)
    changed_at = time.monotonic()
    while not last.done(expected) and time.monotonic() - changed_at < STALLED_S:
        check()
        tell(last.words(expected), last.share(expected))
        time.sleep(LOOK_EVERY_S)
        now = standing(ledger)
        if now != last:
            last, changed_at = now, time.monotonic()
    tell(last.words(expected), last.share(expected))
    return last
