"""Storage commitment as SCU: ask a peer to take responsibility for objects, and read what it reports.

Source: PS3.4 annex J. Knows no ledger: what a report means for a delivery is the caller's business.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context, evt
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]

from dicom_node.destinations.association import BEAT_S, SLACK_S, Link
from dicom_node.errors import EvenrayError, PeerBusy, PeerRefused, PeerUnreachable
from dicom_node.settings import Dimse
from dicom_node.status import EventStatus

INSTANCE = "1.2.840.10008.1.20.1.1"
"""Storage Commitment Push Model SOP Instance. Source: PS3.4 J.3.5."""
REQUEST = 1
"""Action Type ID. Source: PS3.4 table J.3-1."""
ALL_COMMITTED, SOME_FAILED = 1, 2
"""Event Type IDs. Source: PS3.4 table J.3-2."""
SYNTAXES = [str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)]
# Source: PS3.7 10.1.4.1.10, annex C: these pass; any other failure is about us or the request.
PASSING = {0x0110: "processing failure", 0x0210: "duplicate invocation", 0x0213: "resource limitation"}
UID_FORM = re.compile(r"[0-9.]{1,64}")
AT_LEAST_S, LOOK_S = 0.5, 0.1
"""A peer that can report on this association only gets this long, whatever else is to be done."""


@dataclass(frozen=True, slots=True)
class CommitReport:
    """What a peer says about one transaction. UIDs are SOP Instance UIDs."""

    transaction_uid: str
    committed: tuple[str, ...]
    failed: tuple[tuple[str, int], ...]
    """With the Failure Reason; `status.CommitFailure` names the standard's."""


class ReportInvalid(ValueError):
    """A report that can't be used; `status` is what the peer is answered."""

    def __init__(self, status: EventStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def request_commitment(
    destination: Dimse,
    *,
    calling_ae: str,
    transaction_uid: str,
    references: Sequence[tuple[str, str]],
    on_report: Callable[[CommitReport], None],
    wait_s: float,
    begin: Callable[[], None] = lambda: None,
    leave: Callable[[], bool] = lambda: False,
    beat: Callable[[], None] = lambda: None,
) -> None:
    """Ask for commitment of `references`, (SOP Class UID, SOP Instance UID) each. Source: PS3.4 J.3.2.

    `begin` is called once the association is open, before anything is asked. The association stays open for `wait_s`
    for a report on it, or until `leave` says, after a short while, that there is something better to do; a report may
    also come later, on an association that the peer opens. `on_report` is called in another thread. Nothing is
    returned: only a report commits anything. Raises PeerUnreachable, PeerBusy or PeerRefused.
    """
    reports = _Reports(on_report, transaction_uid)
    link = Link(
        destination,
        calling_ae=calling_ae,
        contexts=[build_context(StorageCommitmentPushModel, SYNTAXES)],
        beat=beat,
        handlers=[(evt.EVT_N_EVENT_REPORT, reports.handle)],
    )
    with link:
        request = _request(transaction_uid, references)
        begin()
        # A peer that aborts here, or has aborted already, makes the library raise or answer nothing.
        try:
            response, _ = link.call(
                lambda: link.association.send_n_action(request, REQUEST, StorageCommitmentPushModel, INSTANCE),
                limit_s=destination.dimse_timeout_s + SLACK_S,
            )
        except RuntimeError:
            response = Dataset()
        status = response.get("Status")
        if status != EventStatus.SUCCESS:
            link.broken = status is None
            raise _refusal(link.peer, status)
        link.call(lambda: reports.wait(wait_s, leave))
        link.broken = not reports.settled()


def read_report(event_type_id: int, dataset: Dataset) -> CommitReport:
    """The report in an N-EVENT-REPORT. Source: PS3.4 table J.3-2.

    Raises ReportInvalid: an event type that the standard doesn't have, no Transaction UID, an item without SOP
    Instance UID, or one instance named twice.
    """
    if event_type_id not in (ALL_COMMITTED, SOME_FAILED):
        raise ReportInvalid(EventStatus.NO_SUCH_EVENT_TYPE, f"event type {event_type_id} is no commitment report")
    transaction = str(dataset.get("TransactionUID") or "")
    if not UID_FORM.fullmatch(transaction):
        raise ReportInvalid(EventStatus.INVALID_ARGUMENT, "the report names no transaction")
    committed = tuple(_instance(item) for item in dataset.get("ReferencedSOPSequence") or ())
    failed = tuple((_instance(item), _reason(item)) for item in dataset.get("FailedSOPSequence") or ())
    named = [*committed, *(uid for uid, _ in failed)]
    if not named or len(set(named)) != len(named):
        raise ReportInvalid(EventStatus.INVALID_ARGUMENT, "the report names no instance, or one of them twice")
    return CommitReport(transaction, committed, failed)


def report_handler(on_report: Callable[[CommitReport], None]) -> tuple[evt.EventType, Callable[..., Any]]:
    """The handler to bind to a listener that peers report to. Source: PS3.4 J.3.3, PS3.7 10.1.1.

    The peer is answered Success only after `on_report` has returned; what that raises becomes Processing Failure,
    so that a peer that reports again gets another chance.
    """

    def handle(event: evt.Event) -> tuple[int, None]:
        try:
            report = read_report(event.event_type or 0, event.event_information)
        except ReportInvalid as exc:
            return exc.status, None
        on_report(report)
        return EventStatus.SUCCESS, None

    return evt.EVT_N_EVENT_REPORT, handle


def report_contexts() -> list[PresentationContext]:
    """What a listener adds to its supported contexts, so that a peer can open an association and report on it.

    Source: PS3.4 J.3.3.1.1: the peer proposes itself as SCP. One that proposes no role is let in all the same.
    """
    context = build_context(StorageCommitmentPushModel, SYNTAXES)
    context.scu_role = True
    context.scp_role = True
    return [context]


class _Reports:
    """Reports on the association of the request: one of another transaction is passed on too, but not waited for."""

    def __init__(self, on_report: Callable[[CommitReport], None], transaction_uid: str) -> None:
        self._transaction_uid = transaction_uid
        self._on_report = on_report
        self._arrived = threading.Event()
        self._serving: list[threading.Thread] = []
        _, self._handle = report_handler(self._keep)

    def handle(self, event: evt.Event) -> tuple[int, None]:
        # The library serves each report in a thread of its own and answers from it after we return.
        self._serving.append(threading.current_thread())
        status: tuple[int, None] = self._handle(event)
        return status

    def _keep(self, report: CommitReport) -> None:
        self._on_report(report)
        if report.transaction_uid == self._transaction_uid:
            self._arrived.set()

    def wait(self, wait_s: float, leave: Callable[[], bool]) -> None:
        deadline = time.monotonic() + wait_s
        if self._arrived.wait(min(wait_s, AT_LEAST_S)):
            return
        while time.monotonic() < deadline and not leave():
            if self._arrived.wait(max(0.0, min(LOOK_S, deadline - time.monotonic()))):
                return

    def settled(self) -> bool:
        """Whether every report has been answered: releasing before that loses the answer, or never ends."""
        for thread in list(self._serving):
            thread.join(BEAT_S)
        return not any(thread.is_alive() for thread in self._serving)


def _request(transaction_uid: str, references: Sequence[tuple[str, str]]) -> Dataset:
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = []
    for sop_class, sop_instance in references:
        item = Dataset()
        item.ReferencedSOPClassUID = sop_class
        item.ReferencedSOPInstanceUID = sop_instance
        request.ReferencedSOPSequence.append(item)
    return request


def _refusal(peer: str, status: int | None) -> EvenrayError:
    if status is None:
        return PeerUnreachable(f"{peer}: no response to the request for storage commitment (time-out or abort)")
    sentence = f"{peer}: answered the request for storage commitment with 0x{status:04X}"
    if status in PASSING:
        return PeerBusy(f"{sentence}, {PASSING[status]}")
    return PeerRefused(f"{sentence}: it may not offer storage commitment, or not to us")


def _instance(item: Dataset) -> str:
    uid = str(item.get("ReferencedSOPInstanceUID") or "")
    if not UID_FORM.fullmatch(uid):
        raise ReportInvalid(EventStatus.INVALID_ARGUMENT, "an item of the report names no instance")
    return uid


def _reason(item: Dataset) -> int:
    """The Failure Reason; a failure without one is a failure all the same. Source: PS3.3 C.14.1.1."""
    reason = item.get("FailureReason")
    return int(reason) if isinstance(reason, int) else int(EventStatus.PROCESSING_FAILURE)
