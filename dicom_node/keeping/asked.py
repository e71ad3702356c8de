"""Take commitment requests in a receiver, and answer each on its own association while that is open."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import cast

from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_ACTION

from dicom_node.complaints import complaints
from dicom_node.destinations.commitment_scp import MOST_REFERENCES, RequestInvalid, Speaker, read_request
from dicom_node.errors import DiskFull, EvenrayError, place_of
from dicom_node.keeping.telling import Telling, address_of
from dicom_node.ledger import Ledger, Reference, TooMany
from dicom_node.settings import Settings
from dicom_node.status import CommitFailure, EventStatus
from dicom_node.steps import reached

log = logging.getLogger(__name__)

WAITING_AT_MOST = 10 * MOST_REFERENCES
"""References of one peer that wait for their answer; what is asked beyond them is refused."""
SAME_ASSOCIATION_S = 30.0
"""A report goes on the association of its request if that is still open, and the answer known, within this time."""
HOLD_S = 10.0
"""So long nobody else reports: then it goes on an association of ours, too, where the peer has a port."""
LOOK_S = 0.05
FOLLOWED_AT_MOST = 100
"""Requests of one association that are answered on it; the others are answered on one of ours."""


class Asked:
    """Takes requests in a receiver, and answers them on their own association while it is open."""

    def __init__(self, ledger: Ledger, settings: Settings, owner: str, full: Callable[[], str]) -> None:
        """`full`: why nothing may be accepted, empty while there is room."""
        self._ledger, self._settings, self._full = ledger, settings, full
        self._telling = Telling(ledger, settings.deliver, owner)

    def handle(self, event: evt.Event) -> tuple[int, None]:
        """Answer one N-ACTION; Success only once the request is in the ledger. Source: PS3.4 J.3.2, PS3.7 10.1.4."""
        association, request = event.assoc, cast(N_ACTION, event.request)
        calling_ae = str(association.requestor.ae_title).strip()
        if not self._settings.listen.commitment:
            return EventStatus.NOT_AUTHORIZED, None
        information = request.ActionInformation
        try:
            asked = read_request(
                int(request.ActionTypeID or 0),
                str(request.RequestedSOPInstanceUID),
                information.getvalue() if information else b"",
                implicit=event.context.transfer_syntax == ImplicitVRLittleEndian,
            )
        except RequestInvalid as fault:
            complaints.tell(log, logging.WARNING, "refused a commitment request of %r: %s", calling_ae, fault)
            return fault.status, None
        if why := self._full():
            complaints.tell(log, logging.ERROR, "refused a commitment request of %r: %s", calling_ae, why)
            return EventStatus.RESOURCE_LIMITATION, None
        try:
            ref = self._record(association, calling_ae, asked.transaction_uid, asked.references)
        except (DiskFull, TooMany) as fault:
            why = str(fault) or "too much that it has asked waits for its answer"
            complaints.tell(log, logging.ERROR, "refused a commitment request of %r: %s", calling_ae, why)
            return EventStatus.RESOURCE_LIMITATION, None
        except EvenrayError as fault:
            complaints.tell(log, logging.ERROR, "refused a commitment request of %r: %s", calling_ae, fault)
            return EventStatus.PROCESSING_FAILURE, None
        reached("keeping.asked")
        log.info("commitment request %d of %r: %d objects", ref, calling_ae, len(asked.references))
        self._follow(association, calling_ae, ref)
        return EventStatus.SUCCESS, None

    def _record(
        self, association: Association, calling_ae: str, transaction_uid: str, references: Sequence[Reference]
    ) -> int:
        requestor, now = association.requestor, time.time()
        called = getattr(requestor.primitive, "called_ae_title", "") or ""
        return self._ledger.promises.ask(
            transaction_uid,
            references,
            calling_ae=calling_ae,
            called_ae=str(called).strip(),
            address=str(requestor.address),
            most=WAITING_AT_MOST,
            duplicate=CommitFailure.DUPLICATE_TRANSACTION,
            report_after=now + HOLD_S,
            now=now,
        )

    def _follow(self, association: Association, calling_ae: str, ref: int) -> None:
        """Called in the association's own thread, before the request is answered."""
        follower = getattr(association, "evenray_follower", None)
        if follower is None:
            follower = _Follower(association, self._ledger, self._telling)
            association.evenray_follower = follower  # type: ignore[attr-defined]
            if address_of(self._settings.listen.peers, calling_ae, str(association.requestor.address)) is None:
                # It has no other way to learn what it asked on associations that ended too soon.
                for earlier in self._ledger.promises.untold(calling_ae, limit=FOLLOWED_AT_MOST // 2):
                    follower.add(earlier)
        follower.add(ref)


class _Follower:
    """Waits for the answers of one association's requests, and sends each on it."""

    def __init__(self, association: Association, ledger: Ledger, telling: Telling) -> None:
        self._association, self._ledger, self._telling = association, ledger, telling
        self._speaker = Speaker(association)
        self._lock = threading.Lock()
        self._refs: dict[int, float] = {}
        self._running = False

    def add(self, ref: int) -> None:
        with self._lock:
            if len(self._refs) < FOLLOWED_AT_MOST:
                self._refs[ref] = time.monotonic() + SAME_ASSOCIATION_S
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="commitment", daemon=True).start()

    def _run(self) -> None:
        try:
            while refs := self._left():
                for ref, until in refs.items():
                    if self._settled(ref, until):
                        with self._lock:
                            self._refs.pop(ref, None)
                time.sleep(LOOK_S)
        except Exception as fault:  # noqa: BLE001 - the process may be ending: what is left is told by others
            complaints.tell(log, logging.WARNING, "a commitment report is left to others: %s", place_of(fault))
            with self._lock:
                self._running = False

    def _left(self) -> dict[int, float]:
        with self._lock:
            self._running = bool(self._refs)
            return dict(self._refs)

    def _settled(self, ref: int, until: float) -> bool:
        """Whether nothing more is to be done about a request on this association."""
        if not self._association.is_established or time.monotonic() > until:
            self._ledger.promises.free(ref)
            return True
        if not self._ledger.promises.decided(ref):
            return False
        row = self._telling.claim(ref)
        if row is not None:
            self._telling.tell(row, self._speaker, wait_s=SAME_ASSOCIATION_S)
        return True
