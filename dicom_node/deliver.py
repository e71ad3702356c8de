"""The sending loop: every destination in a thread of its own, so that a dead one holds up no other.

Owns leases, retries, parking and the asking for storage commitment. The broad `except` of the sender is here.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from dicom_node import retry
from dicom_node.destinations import DestinationPort, Parcel, open_destination
from dicom_node.destinations.commitment import CommitReport, request_commitment
from dicom_node.errors import EvenrayError, IllegalStep, LostClaim, PeerBusy, PeerRefused, PeerUnreachable
from dicom_node.ledger import DeliveryRow, Ledger
from dicom_node.liveness import Liveness
from dicom_node.records import Receipt
from dicom_node.settings import Dimse, Folder, Settings
from dicom_node.spool import Spool
from dicom_node.stopping import Stopping

log = logging.getLogger(__name__)

POLL_S = 0.2
SWEEP_S = 5.0
ASK_EVERY_S = 10.0
"""While objects are being sent, their commitment is asked for this often."""
AT_ONCE = 32
"""Deliveries claimed and sent in one association."""
ASK_AT_ONCE = 200
"""Objects named in one storage commitment request."""


def run(settings: Settings, stopping: Stopping) -> None:
    """Deliver until asked to stop; the object in hand is finished first."""
    liveness = Liveness(settings.state_dir / "locks", "deliver")
    ledger = Ledger(settings.state_dir / "ledger.sqlite")
    lines = [Line(name, found, settings, ledger, liveness.name) for name, found in settings.destinations.items()]
    threads = [threading.Thread(target=line.run, args=(stopping,), name=f"deliver-{line.name}") for line in lines]
    for thread in threads:
        thread.start()
    try:
        while not stopping.asked:
            ledger.sweep(liveness.alive, now=time.time())
            park_unknown(ledger, settings.destinations)
            stopping.wait(SWEEP_S)
    finally:
        stopping.ask()
        for thread in threads:
            thread.join()
        ledger.close()
        liveness.close()
        log.info("stopped delivering")


def park_unknown(ledger: Ledger, configured: Mapping[str, object]) -> None:
    """Park what is on its way to a destination that is not configured any more."""
    for name in ledger.deliveries.destinations():
        if name not in configured:
            for row in ledger.deliveries.unfinished(name):
                reason = f"no destination is called {name} any more: configure it, then retry"
                try:
                    ledger.deliveries.park(row, reason, now=time.time())
                except IllegalStep:
                    # A report or another process settled it in the meantime.
                    log.info("%s: %s was settled in the meantime", name, row.sop_instance_uid)


def _place(fault: Exception) -> str:
    """Type and place of an unexpected fault: its text might quote a patient's data."""
    place = traceback.extract_tb(fault.__traceback__)[-1]
    return f"{type(fault).__name__} in {Path(place.filename).name}:{place.lineno}"


class Line:
    """The deliveries of one destination."""

    def __init__(self, name: str, where: Dimse | Folder, settings: Settings, ledger: Ledger, owner: str) -> None:
        self.name = name
        self._where = where
        self._settings = settings
        self._spool = Spool(settings.state_dir / "spool")
        self._ledger = ledger
        self._owner = owner
        self._calling_ae = (where.calling_ae if isinstance(where, Dimse) else None) or settings.listen.ae_title
        self._confirms = isinstance(where, Dimse) and where.commitment
        self._asked_at = -ASK_EVERY_S
        self._port: DestinationPort = open_destination(name, where, calling_ae=self._calling_ae)

    def run(self, stopping: Stopping) -> None:
        while not stopping.asked:
            try:
                busy = self.turn(stopping)
            except Exception as fault:  # noqa: BLE001 - a destination's line must outlive any of its faults
                log.error("%s: %s", self.name, _place(fault))
                stopping.wait(SWEEP_S)
                busy = False
            if not busy:
                stopping.wait(POLL_S)

    def turn(self, stopping: Stopping) -> bool:
        """Send what is due, ask for what is stored, notice what is overdue; False when there was nothing to do."""
        lease_s = self._settings.deliver.lease_s
        rows = self._ledger.deliveries.claim(self.name, self._owner, now=time.time(), lease_s=lease_s, limit=AT_ONCE)
        if rows:
            self._send(rows, stopping)
        if rows and time.monotonic() - self._asked_at < ASK_EVERY_S:
            # While much is to be sent, many objects are asked for at once.
            return True
        self._asked_at = time.monotonic()
        if self._confirms:
            return self._commitments(cast(Dimse, self._where), stopping) or bool(rows)
        for row in self._ledger.deliveries.unconfirmed(self.name):
            # Accepted while the destination was still configured to confirm.
            self._ledger.deliveries.accepted(row, "accepted; no confirmation is asked for any more", now=time.time())
        return bool(rows)

    def _send(self, rows: Sequence[DeliveryRow], stopping: Stopping) -> None:
        fence, lease_s = rows[0].fence, self._settings.deliver.lease_s
        left = {self._spool.at(row.path): row for row in rows}
        parcels = [Parcel(row.sop_class_uid, row.sop_instance_uid, path) for path, row in left.items()]

        def beat() -> None:
            self._ledger.renew("delivery", fence, lease_until=time.time() + lease_s)

        try:
            for parcel, answer in self._port.send(parcels, beat=beat):
                self._settle(left.pop(parcel.path), answer)
                if stopping.asked:
                    break
        except Exception as fault:  # noqa: BLE001 - whatever breaks the sender is settled with the object in hand
            if left:
                self._settle(left.pop(next(iter(left))), PeerUnreachable(f"the sending broke off: {_place(fault)}"))
        for row in left.values():
            now = time.time()
            try:
                self._ledger.deliveries.release(row, "not sent this time", next_try=now, failed=False, now=now)
            except LostClaim as lost:
                log.warning("%s", lost)

    def _settle(self, row: DeliveryRow, answer: Receipt | EvenrayError) -> None:
        now, uid = time.time(), row.sop_instance_uid
        try:
            if isinstance(answer, Receipt):
                self._ledger.deliveries.stored(row, answer.status, answer.detail, commitment=self._confirms, now=now)
                log.info("%s has %s %s: %s", self.name, row.kind.value, uid, answer.detail)
                return
            then = retry.decide(answer, failures=row.attempts + 1, now=now, rules=self._settings.deliver.retry)
            if isinstance(then, retry.TryAt):
                self._ledger.deliveries.release(row, str(answer), next_try=then.at, now=now)
                log.warning("%s: %s is tried again in %.0f s: %s", self.name, uid, then.at - now, answer)
            else:
                self._ledger.deliveries.park(row, then.reason, now=now)
                log.error("%s: parked %s: %s", self.name, uid, then.reason)
        except LostClaim as lost:
            log.warning("%s", lost)

    def _commitments(self, where: Dimse, stopping: Stopping) -> bool:
        """Ask for what is stored, and notice what was asked for too long ago."""
        now = time.time()
        for row in self._ledger.deliveries.overdue(self.name, asked_before=now - where.commitment_timeout_s):
            self._unanswered(
                row, row.asked, PeerUnreachable(f"no commitment report within {where.commitment_timeout_s:g} s")
            )
        rows = self._ledger.deliveries.to_ask(self.name, now=now, limit=ASK_AT_ONCE)
        if not rows or stopping.asked:
            return False
        transaction_uid = f"2.25.{uuid.uuid4().int}"
        self._ledger.deliveries.asked(rows, transaction_uid, now=now)
        try:
            request_commitment(
                where,
                calling_ae=self._calling_ae,
                transaction_uid=transaction_uid,
                references=[(row.sop_class_uid, row.sop_instance_uid) for row in rows],
                on_report=self._reported,
                wait_s=where.commitment_wait_s,
            )
            log.info("%s: asked for commitment of %d objects", self.name, len(rows))
        except PeerRefused as fault:
            remedy = f"if it does not offer storage commitment, set destinations.{self.name}.commitment: false"
            for row in rows:
                self._unanswered(row, row.asked + 1, PeerRefused(f"{fault}; {remedy}"))
        except EvenrayError as fault:
            for row in rows:
                # The row was read before it was asked for.
                self._unanswered(row, row.asked + 1, fault)
        return True

    def _reported(self, report: CommitReport) -> None:
        failed = {uid: f"reason 0x{reason:04X}" for uid, reason in report.failed}
        now = time.time()
        settled = self._ledger.deliveries.reported(
            report.transaction_uid,
            report.committed,
            failed,
            then=lambda asked, reason: retry.decide(
                PeerBusy(reason), failures=asked, now=now, rules=self._settings.deliver.retry
            ),
            now=now,
        )
        log.info("%s: commitment report, %d settled", self.name, settled)

    def _unanswered(self, row: DeliveryRow, failures: int, fault: EvenrayError) -> None:
        now = time.time()
        then = retry.decide(fault, failures=failures, now=now, rules=self._settings.deliver.retry)
        try:
            if isinstance(then, retry.TryAt):
                self._ledger.deliveries.ask_again(row, str(fault), next_try=then.at, now=now)
            else:
                self._ledger.deliveries.give_up_asking(row, f"not committed: {then.reason}", now=now)
                log.error("%s: parked %s: %s", self.name, row.sop_instance_uid, then.reason)
        except IllegalStep:
            # The report came in the meantime, by the listener: nothing to do.
            log.info("%s: %s was settled in the meantime", self.name, row.sop_instance_uid)
