"""Storage commitment of one destination: what is asked for, how long a report is waited for, what it settles.

Knows no association and no pause: when a destination may be asked is for its line to say.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Sequence

from dicom_node import retry
from dicom_node.destinations.commitment import CommitReport, request_commitment
from dicom_node.errors import Blame, EvenrayError, IllegalStep, PeerBusy, PeerRefused, PeerUnreachable
from dicom_node.ledger import DeliveryRow, Ledger
from dicom_node.settings import Deliver, Dimse
from dicom_node.steps import reached

log = logging.getLogger(__name__)

ASK_AT_ONCE = 200
"""Objects named in one storage commitment request."""


class Confirming:
    """The commitments of one destination."""

    def __init__(self, name: str, where: Dimse, rules: Deliver, ledger: Ledger, calling_ae: str) -> None:
        self.name = name
        self._where = where
        self._rules = rules
        self._ledger = ledger
        self._calling_ae = calling_ae

    def overdue(self) -> None:
        """Notice what was asked for too long ago."""
        for row in self._ledger.deliveries.overdue(self.name, now=time.time(), limit=ASK_AT_ONCE):
            waited = self._wait(row.asked)
            if self._another(row.asked + 1) is None:
                reason = f"not committed: no report in {self._rules.patience_days:g} days ({row.asked} requests)"
                self._give_up(row, reason)
            else:
                self._unanswered(row, row.asked, PeerUnreachable(f"no commitment report within {waited:g} s"))

    def ask(self, *, beat: Callable[[], None], leave: Callable[[], bool]) -> EvenrayError | bool:
        """Ask for what is stored: True when that was done, False when nothing is to be asked, else what went wrong."""
        rows = self._ledger.deliveries.to_ask(self.name, now=time.time(), limit=ASK_AT_ONCE)
        if not rows:
            return False
        transaction_uid, begun = f"2.25.{uuid.uuid4().int}", False

        def begin() -> None:
            # Not earlier: a destination that is not there leaves no trace in every row.
            nonlocal begun
            self._ledger.deliveries.asked(rows, transaction_uid, now=time.time(), wait=self._wait)
            begun = True
            reached("deliver.asked")

        try:
            request_commitment(
                self._where,
                calling_ae=self._calling_ae,
                transaction_uid=transaction_uid,
                references=[(row.sop_class_uid, row.sop_instance_uid) for row in rows],
                on_report=self._reported,
                wait_s=self._where.commitment_wait_s,
                begin=begin,
                leave=leave,
                beat=beat,
            )
        except IllegalStep:
            # A late report settled one of them in the meantime; the others are asked for in the next round.
            return True
        except EvenrayError as fault:
            self._failed(rows, fault, begun=begun)
            return fault
        log.info("%s: asked for commitment of %d objects", self.name, len(rows))
        return True

    def _wait(self, asked: int) -> float:
        return self._another(asked) or retry.DAY_S

    def _another(self, asked: int) -> float | None:
        patience_s = self._rules.patience_days * retry.DAY_S
        return retry.report_wait(asked, first_s=self._where.commitment_timeout_s, patience_s=patience_s)

    def _failed(self, rows: Sequence[DeliveryRow], fault: EvenrayError, *, begun: bool) -> None:
        if isinstance(fault, PeerRefused) and fault.blame is Blame.OBJECT:
            remedy = f"if it does not offer storage commitment, set destinations.{self.name}.commitment: false"
            fault = PeerRefused(f"{fault}; {remedy}")
        elif not begun:
            return
        for row in rows:
            if begun:
                # The row was read before it was asked for.
                self._unanswered(row, row.asked + 1, fault)
            else:
                self._give_up(row, f"not committed: {fault}", asked=False)

    def _reported(self, report: CommitReport) -> None:
        settle(report, self._ledger, self._rules)

    def _unanswered(self, row: DeliveryRow, failures: int, fault: EvenrayError) -> None:
        now = time.time()
        then = retry.decide(fault, failures=failures, now=now, rules=self._rules.retry)
        if isinstance(then, retry.GiveUp):
            self._give_up(row, f"not committed: {then.reason}")
            return
        try:
            self._ledger.deliveries.ask_again(row, str(fault), next_try=then.at, now=now)
        except IllegalStep:
            # The report came in the meantime, by the listener: nothing to do.
            log.info("%s: %s was settled in the meantime", self.name, row.sop_instance_uid)

    def _give_up(self, row: DeliveryRow, reason: str, *, asked: bool = True) -> None:
        park = self._ledger.deliveries.give_up_asking if asked else self._ledger.deliveries.park
        try:
            park(row, reason, now=time.time())
        except IllegalStep:
            log.info("%s: %s was settled in the meantime", self.name, row.sop_instance_uid)
        else:
            log.error("%s: parked %s: %s", self.name, row.sop_instance_uid, reason)


def settle(report: CommitReport, ledger: Ledger, rules: Deliver) -> None:
    """Apply a report, whichever way it came: on the association of its request, or on one of the destination's own."""
    reached("deliver.reported")
    failed = {uid: f"reason 0x{reason:04X}" for uid, reason in report.failed}
    now = time.time()
    settled = ledger.deliveries.reported(
        report.transaction_uid,
        report.committed,
        failed,
        then=lambda asked, reason: retry.decide(PeerBusy(reason), failures=asked, now=now, rules=rules.retry),
        now=now,
    )
    log.info("storage commitment report %s: %d settled", report.transaction_uid, settled)
