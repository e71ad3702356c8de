"""Pass fetched objects on to a Storage SCP, in the transfer syntax in which they came: safe there before they count.

Knows no source, and no ledger.
"""

from __future__ import annotations

from pydicom.uid import UID
from pynetdicom import build_context

from dicom_node.destinations.association import Link
from dicom_node.destinations.dimse import MAX_CONTEXTS, store_file
from dicom_node.errors import EvenrayError, PeerRefused, PeerUnreachable
from dicom_node.records import Receipt
from dicom_node.settings_peers import Address
from dicom_node.sources.query import Received
from dicom_node.status import StoreStatus


class PassingOn:
    """A `Keep`. One association while the objects are of kinds that it knows; another one when the SCP ended it.

    Not for several threads at once.
    """

    def __init__(self, receiver: Address, *, calling_ae: str) -> None:
        self._receiver = receiver
        self._calling_ae = calling_ae
        self._kinds: list[tuple[str, str]] = []
        self._link: Link | None = None
        self._sent = 0
        self.fault: EvenrayError | None = None
        """Why the last object was not taken, None when it was."""

    def __call__(self, received: Received) -> int:
        """Send one object; the status for whoever it came from. Success is the SCP's, given after it has the object."""
        self.fault = self._pass(received)
        if self.fault is None:
            return StoreStatus.SUCCESS
        # What the SCP said about the object concerns us, not the archive; only "later" and "never" matter to it.
        refused = isinstance(self.fault, PeerRefused)
        return StoreStatus.CANNOT_UNDERSTAND if refused else StoreStatus.OUT_OF_RESOURCES

    def close(self) -> None:
        """End the association, if there is one."""
        link, self._link = self._link, None
        if link is not None:
            link.__exit__(None, None, None)

    def _pass(self, received: Received) -> EvenrayError | None:
        kind = (received.sop_class_uid, received.transfer_syntax_uid)
        while True:
            link = self._link if self._link and self._link.alive and kind in self._kinds else None
            try:
                answer = self._store(link or self._open(kind), received)
            except EvenrayError as fault:
                return fault
            if isinstance(answer, Receipt):
                return None
            if link is None or not isinstance(answer, PeerUnreachable):
                return answer
            # It had been silent for longer than the SCP waits: once more on a new one.
            self.close()

    def _open(self, kind: tuple[str, str]) -> Link:
        self.close()
        if kind not in self._kinds:
            # A study has few kinds: the oldest is forgotten before there are too many.
            self._kinds = [*self._kinds[-MAX_CONTEXTS + 1 :], kind]
        contexts = [build_context(sop_class, syntax) for sop_class, syntax in self._kinds]
        link = Link(self._receiver, calling_ae=self._calling_ae, contexts=contexts)
        link.__enter__()
        self._link = link
        return link

    def _store(self, link: Link, received: Received) -> Receipt | EvenrayError:
        sop_class, syntax = received.sop_class_uid, received.transfer_syntax_uid
        if syntax not in link.accepted(sop_class):
            return PeerRefused(f"{link.peer}: does not take {UID(sop_class).name} as {UID(syntax).name}")
        self._sent += 1
        answer = store_file(link, received.path, self._sent)
        link.broken = isinstance(answer, PeerUnreachable)
        return answer
