"""Turn what the ledger and the notes say into audit messages, and have them sent: a thread of the housekeeping process.

A consumer of what is committed: nothing of it is on the way of an image.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from dicom_node.auditing.auditor import NOWHERE, POSITION, Auditor
from dicom_node.auditing.whose import before_leaving
from dicom_node.errors import EvenrayError, place_of
from dicom_node.ledger import Ledger
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from dicom_node.stopping import Stopping

__all__ = ["AuditThread", "before_leaving"]

log = logging.getLogger(__name__)

TICK_S = 0.5
AFTER_FAULT_S = 30.0


@dataclass(frozen=True, slots=True)
class AuditThread:
    """The audit trail's own loop, in a thread of a process."""

    settings: Settings
    ledger: Ledger
    spool: Spool

    def run(self, stopping: Stopping) -> None:
        """Until asked to stop. Where the settings want no messages, nothing is done but to forget the position."""
        if self.settings.audit.transport == "none":
            # Switched on later, it begins then.
            if self.ledger.upkeep.mark(POSITION) not in (None, NOWHERE):
                self.ledger.upkeep.set_mark(POSITION, NOWHERE)
            return
        auditor: Auditor | None = None
        while not stopping.asked:
            wait_s = TICK_S
            try:
                auditor = auditor or Auditor(self.settings, self.ledger, self.spool)
                auditor.turn(now=time.time())
            except Exception as fault:  # noqa: BLE001 - a full disk passes, and messages are made later
                _tell(fault)
                wait_s = AFTER_FAULT_S
            stopping.wait(wait_s)
        if auditor:
            try:
                auditor.finish()
            except Exception as fault:  # noqa: BLE001 - the rest is told after the next start
                _tell(fault)
            auditor.close()


def _tell(fault: Exception) -> None:
    """Without the text of what is not ours: it might quote an object."""
    log.error("audit messages: %s", fault if isinstance(fault, EvenrayError) else place_of(fault))
