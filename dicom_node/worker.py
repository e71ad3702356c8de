"""The working loop: admit what arrived, process what waits, report what is complete. Owns leases, retries, parking.

The only place of the worker with a broad `except`: a fault of one image must not stop the others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dicom_node import assembly, retry
from dicom_node.admit import admit
from dicom_node.errors import (
    DiskFull,
    EvenrayError,
    IllegalStep,
    LedgerUnavailable,
    LostClaim,
    RetryLater,
    Stop,
    place_of,
)
from dicom_node.ledger import Batches, BatchRow, InstanceRow, Instances, Ledger
from dicom_node.liveness import Liveness
from dicom_node.process import Processor
from dicom_node.quiet import Patience, Steady
from dicom_node.report import report
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from dicom_node.stopping import Stopping
from dicom_node.watchdog import Watchdog

log = logging.getLogger(__name__)

POLL_S = 0.1
"""How long an idle worker waits before it looks again."""
SWEEP_S = 5.0
AT_ONCE = 100
"""New instances that are looked at before anything else is done."""
NO_ROOM_S = 10.0
"""How long a worker waits after it found no room for a result."""
FAULT_S = (1.0, 30.0)
"""Shortest and longest wait after a fault that is of no image: a ledger that can't be written, say."""
FROZEN_SHARE = 0.75
"""Of the time after which the supervisor kills a silent worker: it ends itself before that, and shows where it was."""


def run(settings: Settings, stopping: Stopping) -> None:
    """Work until asked to stop; the image in hand is finished first."""
    worker = Worker(settings)
    try:
        log.info("working on %s, banks: %s", worker.processor.device, ", ".join(worker.processor.exams) or "none")
        wait_s = FAULT_S[0]
        while not stopping.asked:
            try:
                worked = worker.turn()
            except Stop:
                raise
            except Exception as fault:  # noqa: BLE001 - whatever is wrong with disk or ledger may heal
                log.error("no work for %.0f s: %s", wait_s, _as_fault(fault))
                worker.rest(wait_s, stopping)
                wait_s = min(2 * wait_s, FAULT_S[1])
                continue
            wait_s = FAULT_S[0]
            if not worked:
                stopping.wait(POLL_S)
    finally:
        worker.close()
        log.info("stopped working")


class Worker:
    """One worker. `turn` does one piece of work."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._spool = Spool(settings.state_dir / "spool")
        self._ledger = Ledger(settings.state_dir / "ledger.sqlite")
        self._liveness = Liveness(settings.state_dir / "locks", "work")
        self.processor = Processor(settings)
        self._liveness.tell(device=str(self.processor.device), banks=sorted(self.processor.exams))
        self._swept = 0.0
        self._no_room_until = 0.0
        self._patience = Patience()
        self._steady = Steady()
        self._watchdog = Watchdog(
            limit_s=settings.work.image_timeout_s,
            frozen_s=min(settings.work.image_timeout_s, FROZEN_SHARE * settings.supervise.hang_s),
            keep_every_s=settings.work.lease_s / 3,
            alive=self._liveness.beat,
        )

    def close(self) -> None:
        self._watchdog.close()
        self._ledger.close()
        self._liveness.close()

    def turn(self) -> bool:
        """Look at everything that arrived, then do one image or one report; False when there was nothing to do."""
        self._liveness.beat()
        now = time.time()
        if now - self._swept > SWEEP_S:
            self._ledger.sweep(self._liveness.alive, longest_s=self._settings.longest_wait_s, now=now)
            self._swept = now
        admitted = self._admit()
        self._close_batches()
        if time.monotonic() < self._no_room_until:
            return admitted
        lease_s, owner = self._settings.work.lease_s, self._liveness.name
        batch = self._ledger.batches.claim(owner, now=time.time(), lease_s=lease_s)
        if batch is not None:
            self._report(batch)
            return True
        instance = self._ledger.instances.claim(owner, now=time.time(), lease_s=lease_s)
        if instance is not None:
            self._process(instance)
            return True
        return admitted

    def rest(self, seconds: float, stopping: Stopping) -> None:
        """Do nothing for a while, and say all the while that this is no hang."""
        until = time.monotonic() + seconds
        while not stopping.wait(max(0.0, min(1.0, until - time.monotonic()))) and time.monotonic() < until:
            self._liveness.beat()

    def _admit(self) -> bool:
        """Look at up to AT_ONCE new instances; True when there was one."""
        lease_s, owner = self._settings.work.lease_s, self._liveness.name
        for n in range(AT_ONCE):
            row = self._ledger.instances.read(owner, now=time.time(), lease_s=lease_s)
            if row is None:
                return n > 0
            with self._in_hand("instance", row, "looking at") as fault:
                admit(
                    row,
                    ledger=self._ledger,
                    spool=self._spool,
                    settings=self._settings,
                    banks=self.processor.exams,
                    clock=time.time,
                )
            self._settle(self._ledger.instances, row, fault)
        return True

    def _close_batches(self) -> None:
        rules, monotonic = self._settings.assembly, time.monotonic()
        wall = self._steady.now(wall=time.time(), monotonic=monotonic, hold_s=rules.quiet_s)
        waiting = self._ledger.batches.to_decide(now=wall, rules=rules)
        self._patience.keep_only([row.id for row, _ in waiting])
        for row, snapshot in waiting:
            now = self._patience.now_for(row.id, snapshot, wall=wall, monotonic=monotonic)
            decided = assembly.decide(snapshot, now=now, rules=rules)
            if isinstance(decided, assembly.Ready):
                try:
                    self._ledger.batches.close(row, decided.reason, now=time.time())
                except IllegalStep:
                    # Another worker was quicker.
                    continue
                log.info("batch %d is complete: %s", row.id, decided.reason)

    def _process(self, row: InstanceRow) -> None:
        with self._in_hand("instance", row, "working on") as fault:
            self.processor.process(row, spool=self._spool, ledger=self._ledger, clock=time.time)
        self._settle(self._ledger.instances, row, fault)

    def _report(self, row: BatchRow) -> None:
        with self._in_hand("batch", row, "reporting") as fault:
            report(row, self._settings, self._spool, self._ledger, clock=time.time)
        self._settle(self._ledger.batches, row, fault)

    @contextmanager
    def _in_hand(self, table: str, row: InstanceRow | BatchRow, doing: str) -> Iterator[list[EvenrayError]]:
        """Do one piece of work under a watched lease; its fault, if any, is left in the list that is given."""
        faults: list[EvenrayError] = []
        lease_s = self._settings.work.lease_s

        def keep() -> None:
            self._ledger.renew(table, row.fence, lease_until=time.time() + lease_s)

        with self._watchdog.over(f"{doing} {table} {row.id}", keep):
            try:
                yield faults
            except LostClaim as lost:
                # Somebody else has it now; nothing was changed here, so nothing is to be settled.
                log.warning("%s", lost)
            except Exception as fault:  # noqa: BLE001 - a fault of one thing must not stop the others
                faults.append(_as_fault(fault))

    def _settle(self, part: Instances | Batches, row: InstanceRow | BatchRow, faults: list[EvenrayError]) -> None:
        """Try again later, or park, what failed."""
        if not faults:
            return
        fault, now, what = faults[0], time.time(), f"{type(row.state).__name__.lower()} {row.id}"
        try:
            if isinstance(fault, DiskFull | LedgerUnavailable):
                # No fault of the image: it loses no attempt, and nothing more is begun for a while.
                part.release(row, str(fault), next_try=now, counted=False, now=now)  # type: ignore[arg-type]
                self._no_room_until = time.monotonic() + NO_ROOM_S
                log.error("%s waits: %s", what, fault)
                return
            then = retry.decide(fault, failures=row.attempts + 1, now=now, rules=self._settings.work.retry)
            if isinstance(then, retry.TryAt):
                part.release(row, str(fault), next_try=then.at, now=now)  # type: ignore[arg-type]
                log.warning("%s failed, tried again in %.0f s: %s", what, then.at - now, fault)
            else:
                part.park(row, then.reason, now=now)  # type: ignore[arg-type]
                log.error("parked %s: %s", what, then.reason)
        except LostClaim as lost:
            log.warning("%s", lost)


def _as_fault(fault: Exception) -> EvenrayError:
    """A fault of our tree as it is; anything else by type and place."""
    if isinstance(fault, EvenrayError):
        return fault
    log.error("unexpected fault: %s", place_of(fault))
    return RetryLater(f"unexpected fault: {place_of(fault)}")
