"""The housekeeping loop: what may leave the spool leaves, files are compared with their digests, orphans go.

Knows no socket and no engine. Its broad `except` is here: a fault of one kind of work must not stop the others.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from dicom_node.auditing import AuditThread, before_leaving
from dicom_node.errors import EvenrayError, place_of
from dicom_node.integrity import Sweep, recheck
from dicom_node.ledger import Ledger
from dicom_node.liveness import Liveness
from dicom_node.recover import recover
from dicom_node.retention import Retention
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from dicom_node.stopping import Stopping

log = logging.getLogger(__name__)

IDLE_S = 1.0
RECHECK_S = 600.0
ORPHANS_S = 3600.0


def run(settings: Settings, stopping: Stopping) -> None:
    """Keep house until asked to stop."""
    house = Upkeep(settings)
    # A thread of its own: a repository that does not answer must not keep the house waiting.
    auditing = threading.Thread(target=house.audit.run, args=(stopping,), name="audit")
    auditing.start()
    try:
        while not stopping.asked:
            stopping.wait(0.0 if house.turn() else IDLE_S)
    finally:
        stopping.ask()
        auditing.join()
        house.close()
        log.info("stopped housekeeping")


class Upkeep:
    """One housekeeper. `turn` does what is due."""

    def __init__(self, settings: Settings) -> None:
        self._ledger = Ledger(settings.state_dir / "ledger.sqlite")
        self._spool = Spool(settings.state_dir / "spool")
        self._liveness = Liveness(settings.state_dir / "locks", "upkeep")
        whose = before_leaving(settings, self._ledger, self._spool)
        self._retention = Retention(self._ledger, self._spool, settings, whose)
        self.audit = AuditThread(settings, self._ledger, self._spool)
        rules = settings.integrity
        self._sweep = Sweep(self._ledger, self._spool, every_days=rules.every_days, mib_per_s=rules.mib_per_s)
        self._due: dict[str, float] = {}
        # By the steady clock: a clock that is set must neither skip nor repeat a round.
        self._work: tuple[tuple[str, float, Callable[[], object]], ...] = (
            ("orphans", ORPHANS_S, self._orphans),
            ("retention", settings.retention.every_s, self._leave),
            ("recheck", RECHECK_S, self._recheck),
        )

    def close(self) -> None:
        self._sweep.close()
        self._ledger.close()
        self._liveness.close()

    def turn(self) -> bool:
        """Do what is due; True while files are being read."""
        self._liveness.beat()
        for name, every_s, work in self._work:
            if time.monotonic() >= self._due.get(name, 0.0):
                self._guarded(name, work)
                self._due[name] = time.monotonic() + every_s
        return bool(self._guarded("integrity", lambda: self._sweep.turn(now=time.time())))

    def _orphans(self) -> None:
        recover(self._spool, self._ledger, now=time.time(), beat=self._liveness.beat)

    def _leave(self) -> None:
        self._retention.turn(now=time.time(), beat=self._liveness.beat)

    def _recheck(self) -> None:
        recheck(self._ledger, self._spool, now=time.time(), beat=self._liveness.beat)

    def _guarded(self, name: str, work: Callable[[], object]) -> object:
        try:
            return work()
        except EvenrayError as fault:
            log.error("%s: %s", name, fault)
        except Exception as fault:  # noqa: BLE001 - one kind of work must not stop the others
            log.error("%s: %s", name, place_of(fault))
        return False
