"""The sending loop: every destination in a thread of its own, so that a dead one holds up no other.

Owns leases, retries, pauses and parking. The broad `except` of the sender is here.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from dicom_node import retry
from dicom_node.confirm import Confirming
from dicom_node.destinations import Answer, DestinationPort, Parcel, open_destination
from dicom_node.errors import (
    Blame,
    EvenrayError,
    IllegalStep,
    LostClaim,
    PeerBusy,
    PeerRefused,
    PeerUnreachable,
    place_of,
)
from dicom_node.integrity import check, settle, yield_to_others
from dicom_node.keeping import Deciding, Reporting, stored_classes
from dicom_node.ledger import DeliveryRow, Ledger, Spooled
from dicom_node.ledger.trail import NOT_TRIED
from dicom_node.liveness import Liveness
from dicom_node.outage import Outage
from dicom_node.records import Receipt
from dicom_node.settings import DicomWeb, Dimse, Folder, Settings
from dicom_node.spool import Spool
from dicom_node.steps import reached
from dicom_node.stopping import Stopping

log = logging.getLogger(__name__)

POLL_S = 0.05
"""How often a line looks whether something is due; a look reads one row of an index."""
SWEEP_S = 5.0
ASK_EVERY_S = 10.0
"""While objects are being sent, their commitment is asked for this often."""
ASK_AFTER_S = 1.5
"""With nothing left to send, it is asked for after this long: a report that follows its images goes first."""
AT_ONCE = 32
"""Deliveries claimed and sent in one association."""
PARK_AT_ONCE = 200
"""Rows changed in a row by one look."""
BUSY_IN_A_ROW = 3
"""So many objects refused for the moment, one after the other, are the destination's trouble and not theirs."""
DRAIN_S = 20.0
"""How long the object in hand may take after a request to stop."""


class _Draining(Exception):
    """The object in hand took too long after a request to stop: it is sent again after the next start."""


def run(settings: Settings, stopping: Stopping) -> None:
    """Deliver until asked to stop; the object in hand is finished first."""
    liveness = Liveness(settings.state_dir / "locks", "deliver")
    ledger = Ledger(settings.state_dir / "ledger.sqlite")
    lines = [Line(name, found, settings, ledger, liveness.name) for name, found in settings.destinations.items()]
    threads = [threading.Thread(target=line.run, args=(stopping,), name=f"deliver-{line.name}") for line in lines]
    promising = Promising(settings, ledger, liveness.name)
    threads += [
        threading.Thread(target=turning, args=(name, turn, stopping), name=name) for name, turn in promising.turns
    ]
    for thread in threads:
        thread.start()
    try:
        while not stopping.asked:
            liveness.beat()
            try:
                ledger.sweep(liveness.alive, longest_s=settings.longest_wait_s, now=time.time())
                park_unknown(ledger, settings.destinations)
            except Exception as fault:  # noqa: BLE001 - a full disk passes, and the lines go on meanwhile
                log.error("sweeping: %s", place_of(fault))
            stopping.wait(SWEEP_S)
    finally:
        stopping.ask()
        for thread in threads:
            thread.join()
        promising.close()
        ledger.close()
        liveness.close()
        log.info("stopped delivering")


def turning(name: str, turn: Callable[[Stopping], bool], stopping: Stopping) -> None:
    while not stopping.asked:
        try:
            busy = turn(stopping)
        except Exception as fault:  # noqa: BLE001 - a full disk passes
            log.error("%s: %s", name, place_of(fault))
            stopping.wait(SWEEP_S)
            continue
        if not busy:
            stopping.wait(POLL_S)


class Promising:
    """Answers peers that ask whether we keep their objects: one loop decides, one tells."""

    def __init__(self, settings: Settings, ledger: Ledger, owner: str) -> None:
        self._ledger, self._spool = ledger, Spool(settings.state_dir / "spool")
        # As with the sweep: only the reading has a low priority.
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="promise", initializer=yield_to_others)
        listen = settings.listen
        deciding = Deciding(
            ledger,
            whole=lambda file: self._reading.submit(self._whole, file).result(),
            supported=stored_classes(listen.extra_sop_classes),
            elsewhere=listen.commitment_elsewhere,
        )
        self._reporting = Reporting(ledger, settings, owner, chance=random.random)
        self.turns = (("deciding what is kept", deciding.turn), ("telling what is kept", self._reporting.turn))

    def close(self) -> None:
        self._reading.shutdown()
        self._reporting.close()

    def _whole(self, file: Spooled) -> bool:
        """Whether a file has on the disk what the ledger knows of it; where not, a person is told."""
        return not settle(self._ledger, self._spool, file, check(self._spool, file), now=time.time())


def park_unknown(ledger: Ledger, configured: Mapping[str, object]) -> None:
    """Park what is on its way to a destination that is not configured any more."""
    for name in ledger.deliveries.destinations():
        if name not in configured:
            for row in ledger.deliveries.unfinished(name, limit=PARK_AT_ONCE):
                reason = f"no destination is called {name} any more: configure it, then retry"
                try:
                    ledger.deliveries.park(row, reason, now=time.time())
                except IllegalStep:
                    # A report or another process settled it in the meantime.
                    log.info("%s: %s was settled in the meantime", name, row.sop_instance_uid)


class Line:
    """The deliveries of one destination."""

    def __init__(
        self,
        name: str,
        where: Dimse | Folder | DicomWeb,
        settings: Settings,
        ledger: Ledger,
        owner: str,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`chance` (0 to 1) shortens the pauses while the destination takes nothing."""
        self.name = name
        self._settings = settings
        self._spool = Spool(settings.state_dir / "spool")
        self._ledger = ledger
        self._owner = owner
        calling_ae = (where.calling_ae if isinstance(where, Dimse) else None) or settings.listen.ae_title
        self._confirming: Confirming | None = None
        if isinstance(where, Dimse) and where.commitment:
            self._confirming = Confirming(name, where, settings.deliver, ledger, calling_ae)
        self._asked_at = self._sent_at = -ASK_EVERY_S
        self._port: DestinationPort = open_destination(name, where, calling_ae=calling_ae)
        self._sending = Outage(settings.deliver, chance)
        self._asking = Outage(settings.deliver, chance)
        self._busy = 0
        self._told = ledger.deliveries.all_down().get(name)
        self._down = self._told
        # After a restart, too, it is looked at with one object.
        self._sending.failures = int(self._down is not None)
        self._unsettled: list[tuple[DeliveryRow, Answer, bool]] = []
        """Answers that the ledger did not take yet: nothing else is sent before them."""
        self._stop_by = float("inf")
        self._next_parking = 0.0

    def run(self, stopping: Stopping) -> None:
        while not stopping.asked:
            try:
                busy = self.turn(stopping)
            except Exception as fault:  # noqa: BLE001 - a destination's line must outlive any of its faults
                log.error("%s: %s", self.name, place_of(fault))
                stopping.wait(SWEEP_S)
                busy = False
            if not busy:
                stopping.wait(POLL_S)

    def turn(self, stopping: Stopping) -> bool:
        """Send what is due, ask for what is stored, notice what is overdue; False when there was nothing to do."""
        self._write_unsettled()
        self._tell()
        if self._down and self._park_impatient(*self._down):
            return True
        if self._sending.pausing(now=time.monotonic()):
            return False
        # A destination that took nothing is tried with one object: whatever waits behind it waits in the ledger.
        limit = 1 if self._sending.doubted else AT_ONCE
        lease_s = self._settings.deliver.lease_s
        rows = self._ledger.deliveries.claim(self.name, self._owner, now=time.time(), lease_s=lease_s, limit=limit)
        if rows:
            self._send(rows, stopping)
            if self._sending.pausing(now=time.monotonic()):
                return False
        if not self._may_ask(sent=bool(rows), now=time.monotonic()):
            return bool(rows)
        self._asked_at = time.monotonic()
        if self._confirming:
            return self._confirm(self._confirming, stopping) or bool(rows)
        unconfirmed = self._ledger.deliveries.unconfirmed(self.name, limit=PARK_AT_ONCE)
        for row in unconfirmed:
            # Accepted while the destination was still configured to confirm.
            self._ledger.deliveries.accepted(row, "accepted; no confirmation is asked for any more", now=time.time())
        return bool(rows or unconfirmed)

    def _may_ask(self, *, sent: bool, now: float) -> bool:
        """Whether now is the time to ask for commitments: many at once while much is sent, else after what follows."""
        if not sent:
            return now - self._sent_at >= ASK_AFTER_S
        if now - self._sent_at > ASK_EVERY_S:
            self._asked_at = now
        self._sent_at = now
        return now - self._asked_at >= ASK_EVERY_S

    def _send(self, rows: Sequence[DeliveryRow], stopping: Stopping) -> None:
        reached("deliver.claimed")
        # What failed before comes last: if it breaks the association once more, the others are through.
        left = {self._spool.at(row.path): row for row in sorted(rows, key=lambda row: row.attempts)}
        parcels = [Parcel(row.sop_class_uid, row.sop_instance_uid, path, row.digest) for path, row in left.items()]
        try:
            with closing(self._port.send(parcels, beat=self._beat(rows[0].fence, stopping))) as sending:
                for parcel, answer in sending:
                    reached("deliver.answered")
                    if not self._settle(left.pop(parcel.path), answer) or stopping.asked:
                        break
        except _Draining:
            log.warning("%s: stopped while an object was under way; it is sent again", self.name)
        except Exception as fault:  # noqa: BLE001 - whatever breaks the sender is settled with the object in hand
            if left:
                broken = PeerUnreachable(f"the sending broke off: {place_of(fault)}")
                self._settle(left.pop(next(iter(left))), broken)
        for row in left.values():
            try:
                self._ledger.deliveries.release(row, NOT_TRIED, next_try=None, failed=False, now=time.time())
            except LostClaim as lost:
                log.warning("%s", lost)

    def _beat(self, fence: int | None, stopping: Stopping) -> Callable[[], None]:
        """What is called every few seconds while something is waited for."""

        def beat() -> None:
            if stopping.asked:
                self._stop_by = min(self._stop_by, time.monotonic() + DRAIN_S)
                if time.monotonic() > self._stop_by:
                    raise _Draining
            if fence is not None:
                try:
                    self._ledger.renew("delivery", fence, lease_until=time.time() + self._settings.deliver.lease_s)
                except Exception as fault:  # noqa: BLE001 - a full disk is no reason to leave an object half sent
                    log.error("%s: %s", self.name, place_of(fault))

        return beat

    def _settle(self, row: DeliveryRow, answer: Answer) -> bool:
        """Note an answer; whether the destination takes more now."""
        doubted = self._sending.doubted
        more = self._judge(answer, again=row.attempts > 0)
        self._unsettled.append((row, answer, doubted))
        try:
            self._write_unsettled()
        except Exception as fault:  # noqa: BLE001 - what the destination has said must not be lost with the disk's room
            log.error("%s: %s", self.name, place_of(fault))
            return False
        return more

    def _judge(self, answer: Answer, *, again: bool) -> bool:
        """What an answer says about the destination; whether it takes more now. `again`: the object failed before."""
        if isinstance(answer, Receipt) or (isinstance(answer, PeerRefused) and answer.blame is Blame.OBJECT):
            # Also a refusal is an answer of one that works.
            self._busy = 0
            self._sending.ended()
            self._down = None
            return True
        if not isinstance(answer, PeerUnreachable | PeerBusy | PeerRefused):
            return True
        if isinstance(answer, PeerBusy) and answer.blame is Blame.OBJECT and not self._sending.doubted:
            self._busy += int(not again)
            if self._busy < BUSY_IN_A_ROW:
                return True
        self._fails(self._sending, answer, again=again and answer.blame is Blame.OBJECT)
        # One failure in between is an accident of one object.
        if self._sending.failures > 1:
            self._goes_down(answer)
        return False

    def _fails(self, outage: Outage, fault: EvenrayError, *, again: bool = False) -> None:
        wait = outage.failed(now=time.monotonic(), again=again)
        if fault.blame is Blame.PEER:
            self._goes_down(fault)
        log.warning("%s: left alone for %.1f s: %s", self.name, wait, fault)

    def _goes_down(self, fault: EvenrayError) -> None:
        if self._down is None:
            self._down = (time.time(), str(fault))

    def _tell(self) -> None:
        """Keep in the ledger since when the destination takes nothing: for `status`, and for after a restart."""
        if self._down == self._told:
            return
        if self._down:
            self._ledger.deliveries.down(self.name, *self._down)
        else:
            self._ledger.deliveries.up(self.name)
            log.warning("%s is back", self.name)
        self._told = self._down

    def _write_unsettled(self) -> None:
        while self._unsettled:
            try:
                self._write(*self._unsettled[0])
            except LostClaim as lost:
                log.warning("%s", lost)
            self._unsettled.pop(0)

    def _write(self, row: DeliveryRow, answer: Answer, doubted: bool) -> None:
        """Put an answer into the ledger. Raises LostClaim, and what the disk raises."""
        now, uid, deliveries = time.time(), row.sop_instance_uid, self._ledger.deliveries
        if isinstance(answer, Receipt):
            confirms = self._confirming is not None
            deliveries.stored(row, answer.status, answer.detail, commitment=confirms, now=now)
            log.info("%s has %s %s: %s", self.name, row.kind.value, uid, answer.detail)
        elif answer.blame is Blame.PEER:
            # It was not even tried: it stays as due as it was.
            deliveries.release(row, str(answer), next_try=None, failed=False, now=now)
        elif answer.blame is Blame.EITHER and doubted:
            # Another object is tried next time: this one may be what the destination has no room for.
            pause = max(0.0, self._sending.next_look - time.monotonic())
            deliveries.release(row, str(answer), next_try=now + pause, failed=False, now=now)
        else:
            then = retry.decide(answer, failures=row.attempts + 1, now=now, rules=self._settings.deliver.retry)
            if isinstance(then, retry.TryAt):
                deliveries.release(row, str(answer), next_try=then.at, now=now)
                log.warning("%s: %s is tried again in %.0f s: %s", self.name, uid, then.at - now, answer)
            else:
                deliveries.park(row, then.reason, now=now)
                log.error("%s: parked %s: %s", self.name, uid, then.reason)

    def _confirm(self, confirming: Confirming, stopping: Stopping) -> bool:
        """Notice what is overdue and ask for what is stored, unless the destination was just not there for it."""
        confirming.overdue()
        if stopping.asked or self._asking.pausing(now=time.monotonic()):
            return False

        def leave() -> bool:
            return stopping.asked or self._ledger.deliveries.due(self.name, now=time.time())

        try:
            answer = confirming.ask(beat=self._beat(None, stopping), leave=leave)
        except _Draining:
            return False
        except Exception:
            self._asking.failed(now=time.monotonic())
            raise
        if isinstance(answer, EvenrayError):
            self._fails(self._asking, answer)
            return False
        if answer:
            self._asking.ended()
            if not self._sending.doubted:
                self._down = None
        return answer

    def _park_impatient(self, since: float, why: str) -> bool:
        """Park what waits for a destination that has been gone for longer than anybody should be left to believe in it.

        Returns whether there may be more of it.
        """
        rules, now = self._settings.deliver, time.time()
        patience_s = rules.patience_days * retry.DAY_S
        if now - since < patience_s or time.monotonic() < self._next_parking:
            return False
        rows = self._ledger.deliveries.waited(self.name, made_before=now - patience_s, limit=PARK_AT_ONCE)
        if len(rows) < PARK_AT_ONCE:
            self._next_parking = time.monotonic() + rules.longest_pause_s
        for row in rows:
            days = (now - since) / retry.DAY_S
            reason = f"{self.name} has taken nothing for {days:.1f} days ({why}): mend it, then retry"
            try:
                self._ledger.deliveries.park(row, reason, now=now)
            except IllegalStep:
                log.info("%s: %s was settled in the meantime", self.name, row.sop_instance_uid)
        return len(rows) == PARK_AT_ONCE
