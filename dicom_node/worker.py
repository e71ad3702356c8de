"""The working loop: admit what arrived, process what waits, report what is complete. Owns leases, retries, parking.

The only place of the worker with a broad `except`: a fault of one image must not stop the others.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from dicom_node import assembly, retry
from dicom_node.admit import admit
from dicom_node.errors import EvenrayError, LostClaim, Park, RetryLater, Stop
from dicom_node.ledger import BatchRow, InstanceRow, Ledger
from dicom_node.liveness import Liveness
from dicom_node.process import Processor
from dicom_node.recover import recover
from dicom_node.report import report
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from dicom_node.stopping import Stopping

log = logging.getLogger(__name__)

POLL_S = 0.2
"""How long an idle worker waits before it looks again."""
SWEEP_S = 5.0


def run(settings: Settings, stopping: Stopping) -> None:
    """Work until asked to stop; the image in hand is finished first."""
    worker = Worker(settings)
    try:
        log.info("working on %s, banks: %s", worker.processor.device, ", ".join(worker.processor.exams) or "none")
        while not stopping.asked:
            if not worker.turn():
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
        recover(self._spool, self._ledger, now=time.time())
        self._swept = 0.0

    def close(self) -> None:
        self._ledger.close()
        self._liveness.close()

    def turn(self) -> bool:
        """Look at everything that arrived, then do one image or one report; False when there was nothing to do."""
        now = time.time()
        if now - self._swept > SWEEP_S:
            self._ledger.sweep(self._liveness.alive, now=now)
            self._swept = now
        admitted = self._admit()
        self._close_batches()
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

    def _admit(self) -> bool:
        rows = self._ledger.instances.unread()
        for row in rows:
            try:
                self._admit_one(row)
            except Exception as fault:  # noqa: BLE001 - an object that breaks its reader must not stop the others
                # A ledger that can't be written fails again here: then the process ends and is started anew.
                reason = str(_as_fault(fault))
                self._ledger.instances.park(row, reason, now=time.time())
                log.error("parked instance %d: %s", row.id, reason)
        return bool(rows)

    def _admit_one(self, row: InstanceRow) -> None:
        admit(
            row,
            ledger=self._ledger,
            spool=self._spool,
            settings=self._settings,
            banks=self.processor.exams,
            now=time.time(),
        )

    def _close_batches(self) -> None:
        for row, snapshot in self._ledger.batches.open():
            now = time.time()
            decided = assembly.decide(snapshot, now=now, rules=self._settings.assembly)
            if isinstance(decided, assembly.Ready):
                self._ledger.batches.close(row, decided.reason, now=now)
                log.info("batch %d is complete: %s", row.id, decided.reason)

    def _process(self, row: InstanceRow) -> None:
        try:
            with self._beat("instance", row.fence):
                if row.attempts > self._settings.work.retry.attempts:
                    # Counted at the claim: its worker died every time, before it could say why.
                    raise Park(f"its worker died {row.attempts - 1} times on it")
                self.processor.process(row, spool=self._spool, ledger=self._ledger, clock=time.time)
        except LostClaim as lost:
            log.warning("%s", lost)
        except Stop:
            self._ledger.instances.release(row, "the worker stops", next_try=time.time(), now=time.time())
            raise
        except Exception as fault:  # noqa: BLE001 - one image's fault must not stop the others
            self._failed_instance(row, _as_fault(fault))

    def _failed_instance(self, row: InstanceRow, fault: EvenrayError) -> None:
        now = time.time()
        then = retry.decide(fault, failures=row.attempts, now=now, rules=self._settings.work.retry)
        if isinstance(then, retry.TryAt):
            self._ledger.instances.release(row, str(fault), next_try=then.at, now=now)
            log.warning("instance %d failed, tried again in %.0f s: %s", row.id, then.at - now, fault)
        else:
            self._ledger.instances.park(row, then.reason, now=now)
            log.error("parked instance %d: %s", row.id, then.reason)

    def _report(self, row: BatchRow) -> None:
        try:
            with self._beat("batch", row.fence):
                report(row, self._settings, self._spool, self._ledger, clock=time.time)
        except LostClaim as lost:
            log.warning("%s", lost)
        except Stop:
            self._ledger.batches.release(row, "the worker stops", next_try=time.time(), now=time.time())
            raise
        except Exception as fault:  # noqa: BLE001 - one study's fault must not stop the others
            self._failed_batch(row, _as_fault(fault))

    def _failed_batch(self, row: BatchRow, fault: EvenrayError) -> None:
        now = time.time()
        then = retry.decide(fault, failures=row.attempts, now=now, rules=self._settings.work.retry)
        if isinstance(then, retry.TryAt):
            self._ledger.batches.release(row, str(fault), next_try=then.at, now=now)
            log.warning("batch %d failed, tried again in %.0f s: %s", row.id, then.at - now, fault)
        else:
            self._ledger.batches.park(row, then.reason, now=now)
            log.error("parked batch %d: %s", row.id, then.reason)

    @contextmanager
    def _beat(self, table: str, fence: int) -> Iterator[None]:
        """Renew the lease while a long step runs."""
        done = threading.Event()
        lease_s = self._settings.work.lease_s

        def beat() -> None:
            while not done.wait(lease_s / 3):
                self._ledger.renew(table, fence, lease_until=time.time() + lease_s)

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _as_fault(fault: Exception) -> EvenrayError:
    """A fault of our tree as it is; anything else by type and place, since its text might quote a patient's data."""
    if isinstance(fault, EvenrayError):
        return fault
    place = traceback.extract_tb(fault.__traceback__)[-1]
    where = f"{type(fault).__name__} in {place.name} ({place.filename.rsplit('/', 1)[-1]}:{place.lineno})"
    log.error("unexpected fault: %s", where)
    return RetryLater(f"unexpected fault: {where}")
