"""Tell a peer what was decided about the objects that it asked for, and note what it answered. Decides nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from pynetdicom import build_context, build_role
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]

from dicom_node import retry
from dicom_node.callers import comes_from
from dicom_node.complaints import complaints
from dicom_node.destinations.association import Link
from dicom_node.destinations.commitment import PASSING, SYNTAXES
from dicom_node.destinations.commitment_scp import Speaker
from dicom_node.errors import EvenrayError, LostClaim, PeerBusy, PeerRefused, PeerUnreachable, place_of
from dicom_node.ledger import Ledger, PromiseRow
from dicom_node.outage import Outage
from dicom_node.settings import Deliver, Peer, Settings
from dicom_node.settings_peers import Address
from dicom_node.steps import reached
from dicom_node.stopping import Stopping

log = logging.getLogger(__name__)

LEASE_S = 900.0
"""Longer than any wait for a peer's answer; what a dead process held is free at once, whatever its lease says."""
AT_ONCE = 4
"""Peers that are told something at the same time: one that does not answer holds up no other."""
CONNECT_S = 15.0
ANSWER_S = 60.0
"""How long a peer may take for a connection, and for the answer to a report."""
# Source: PS3.7 annex C: warnings. The peer has taken the report.
TAKEN = (0x0000, 0x0001, 0x0107, 0x0116)


def address_of(peers: Mapping[str, Peer], calling_ae: str, address: str) -> Address | None:
    """Where a peer takes reports that asked from `address`; None where no port of it is known."""
    for peer in peers.values():
        if peer.ae_title == calling_ae and peer.port and comes_from(peer, address):
            return Address(
                ae_title=calling_ae,
                host=peer.host or address,
                port=peer.port,
                tls=peer.tls,
                connect_timeout_s=CONNECT_S,
                dimse_timeout_s=ANSWER_S,
            )
    return None


class Telling:
    """Tells a peer what was decided, on an association of its own or of ours, and notes what it answered."""

    def __init__(self, ledger: Ledger, rules: Deliver, owner: str) -> None:
        self._ledger, self._rules, self._owner = ledger, rules, owner

    def claim(self, ref: int) -> PromiseRow | None:
        return self._ledger.promises.claim(ref, self._owner, now=time.time(), lease_s=LEASE_S)

    def tell(self, row: PromiseRow, speaker: Speaker, *, wait_s: float) -> bool:
        """Send the report on an open association; whether the peer took it. What it answered is in the ledger then."""
        status = speaker.report(row.transaction_uid, row.wanted, row.answer or (), wait_s=wait_s)
        reached("keeping.told")
        who, now = row.calling_ae, time.time()
        if status in TAKEN:
            failed = sum(reason != 0 for reason in row.answer or ())
            detail = f"{len(row.wanted) - failed} kept, {failed} not"
            self._ledger.promises.reported(row, detail, now=now)
            log.info("commitment request %d: %s has the answer", row.id, who)
            return True
        if status is None:
            self.release(row, PeerUnreachable(f"{who} did not answer our report"), next_try=0.0, failed=False)
            return False
        words = f"{who} answered our report with 0x{status:04X}"
        fault: EvenrayError = PeerBusy(words) if status in PASSING else PeerRefused(words)
        then = retry.decide(fault, failures=row.attempts + 1, now=now, rules=self._rules.retry)
        if isinstance(then, retry.GiveUp):
            self._ledger.promises.park(row, then.reason, now=now)
            log.error("commitment request %d is parked: %s", row.id, then.reason)
        else:
            self.release(row, fault, next_try=then.at)
        return False

    def too_late(self, row: PromiseRow) -> bool:
        return time.time() - row.asked_at > self._rules.patience_days * retry.DAY_S

    def release(self, row: PromiseRow, fault: EvenrayError, *, next_try: float, failed: bool = True) -> None:
        """Give it back, or park it where the peer was not to be told for so long that nobody should wait for it.

        `failed` False: the peer has answered nothing, which is not the fault of this report.
        """
        now = time.time()
        if self.too_late(row):
            reason = f"not told for {self._rules.patience_days:g} days: {fault}"
            self._ledger.promises.park(row, reason, now=now)
            log.error("commitment request %d is parked: %s", row.id, reason)
            return
        self._ledger.promises.release(row, str(fault), next_try=next_try, failed=failed, now=now)
        log.warning("commitment request %d is to be answered later: %s", row.id, fault)


class Reporting:
    """Tells peers on associations of our own. `turn` begins what is due."""

    def __init__(self, ledger: Ledger, settings: Settings, owner: str, *, chance: Callable[[], float]) -> None:
        """`chance` (0 to 1) shortens the pauses while a peer takes nothing."""
        self._ledger, self._settings, self._chance = ledger, settings, chance
        self._telling = Telling(ledger, settings.deliver, owner)
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="report")
        self._running: dict[str, Future[None]] = {}
        self._outages: dict[str, Outage] = {}

    def close(self) -> None:
        self._pool.shutdown()

    def turn(self, stopping: Stopping) -> bool:
        """Begin to tell every peer that is due and has no report under way; False when there was none."""
        began = False
        for calling_ae in self._ledger.promises.callers():
            running = self._running.get(calling_ae)
            outage = self._outages.setdefault(calling_ae, Outage(self._settings.deliver, self._chance))
            if (running and not running.done()) or outage.pausing(now=time.monotonic()):
                continue
            row = self._ledger.promises.due(calling_ae, now=time.time())
            if row is None:
                continue
            where = address_of(self._settings.listen.peers, calling_ae, row.address)
            if where is None:
                self._wait_for_it(row)
            else:
                self._running[calling_ae] = self._pool.submit(self._guarded, row, where, outage, stopping)
            began = True
        return began

    def _wait_for_it(self, row: PromiseRow) -> None:
        """A peer without a port is told when it asks again, on that association, or when a person gives it a port."""
        words = f"listen.peers has no port of {row.calling_ae} at {row.address}, and its association has ended"
        self._unreached(row, PeerUnreachable(words))
        self._ledger.promises.free(row.id, at=time.time() + self._settings.deliver.retry.longest_s)

    def _unreached(self, row: PromiseRow, fault: EvenrayError) -> None:
        """It was not even tried: that leaves no trace, until nobody should wait for it any more."""
        complaints.tell(log, logging.WARNING, "commitment request %d is to be answered later: %s", row.id, fault)
        claimed = self._telling.claim(row.id) if self._telling.too_late(row) else None
        if claimed is not None:
            self._telling.release(claimed, fault, next_try=0.0, failed=False)

    def _guarded(self, row: PromiseRow, where: Address, outage: Outage, stopping: Stopping) -> None:
        try:
            self._tell(row, where, outage, stopping)
        except LostClaim as lost:
            log.warning("%s", lost)
        except EvenrayError as fault:
            outage.failed(now=time.monotonic())
            self._unreached(row, fault)
        except Exception as fault:  # noqa: BLE001 - one report must not stop the others
            outage.failed(now=time.monotonic())
            log.error("commitment request %d: %s", row.id, place_of(fault))

    def _tell(self, row: PromiseRow, where: Address, outage: Outage, stopping: Stopping) -> None:
        """Tell a peer everything that is due. Raises PeerUnreachable, PeerBusy or PeerRefused: nothing was sent."""
        with self._link(where, row) as link:
            speaker = Speaker(link.association)
            told = self._next(row.calling_ae)
            while told is not None and self._telling.tell(told, speaker, wait_s=where.dimse_timeout_s):
                told = None if stopping.asked else self._next(row.calling_ae)
            link.broken = speaker.silent
        if told is None:
            outage.ended()
        else:
            outage.failed(now=time.monotonic())

    def _link(self, where: Address, row: PromiseRow) -> Link:
        # We open the association, but we are the provider of the service. Source: PS3.4 J.3.3.1.1.
        return Link(
            where,
            calling_ae=row.called_ae or self._settings.listen.ae_title,
            contexts=[build_context(StorageCommitmentPushModel, SYNTAXES)],
            roles=[build_role(StorageCommitmentPushModel, scp_role=True)],
        )

    def _next(self, calling_ae: str) -> PromiseRow | None:
        row = self._ledger.promises.due(calling_ae, now=time.time())
        return None if row is None else self._telling.claim(row.id)
