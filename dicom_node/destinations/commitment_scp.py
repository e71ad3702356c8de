"""Storage commitment as SCP, on the wire: read a request, write the report, and send it on an association.

Source: PS3.4 annex J. Knows no ledger and no spool: what is kept is the caller's business. Data sets are read and
written here byte by byte, since a request may name ten thousands of objects: pydicom takes 40 times as long and 3 kB
of memory for each, in a process that receives images meanwhile.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]

from dicom_node.destinations.commitment import ALL_COMMITTED, INSTANCE, REQUEST, SOME_FAILED, UID_FORM
from dicom_node.destinations.repairs import repair
from dicom_node.status import EventStatus

MOST_REFERENCES = 50_000
"""Objects that one request may name."""
MOST_BYTES = 16 << 20
"""Length of a request's data set: longer than so many references can make it."""
TRANSACTION_UID, SOP_CLASS, SOP_INSTANCE = 0x00081195, 0x00081150, 0x00081155
REFERENCED, FAILED, FAILURE_REASON = 0x00081199, 0x00081198, 0x00081197
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
UNDEFINED = 0xFFFFFFFF
LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
"""Explicit VRs with a length of four bytes. Source: PS3.5 7.1.2."""
DEEPEST = 8
LOOK_S = 0.1


class RequestInvalid(ValueError):
    """A request that can't be taken; `status` is what the peer is answered."""

    def __init__(self, status: EventStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """What a peer asks: (SOP Class UID, SOP Instance UID) of each object, each once, in the order of the request."""

    transaction_uid: str
    references: tuple[tuple[str, str], ...]


def read_request(action_type: int, sop_instance_uid: str, encoded: bytes, *, implicit: bool) -> CommitRequest:
    """The request in an N-ACTION; `encoded` is its Action Information. Source: PS3.4 J.3.2.1, PS3.7 10.1.4.1.10.

    Raises RequestInvalid: another action or instance than the standard's, a data set that can't be read, no
    Transaction UID, no reference, one without its UIDs, one UID under two classes, or too many of them.
    """
    if sop_instance_uid != INSTANCE:
        raise RequestInvalid(EventStatus.NO_SUCH_INSTANCE, "it is not about the well-known instance")
    if action_type != REQUEST:
        raise RequestInvalid(EventStatus.NO_SUCH_ACTION, f"action type {action_type} is no commitment request")
    if len(encoded) > MOST_BYTES:
        raise RequestInvalid(EventStatus.RESOURCE_LIMITATION, f"its data set has {len(encoded)} bytes")
    transaction, references = "", {}
    try:
        for tag, at, end in _elements(encoded, 0, len(encoded), implicit=implicit):
            if tag == TRANSACTION_UID:
                transaction = _text(encoded[at:end])
            elif tag == REFERENCED:
                references = _references(encoded, at, end, implicit=implicit)
    except struct.error as exc:
        raise RequestInvalid(EventStatus.INVALID_ARGUMENT, "its data set can't be read") from exc
    if not UID_FORM.fullmatch(transaction):
        raise RequestInvalid(EventStatus.INVALID_ARGUMENT, "it has no Transaction UID")
    if not references:
        raise RequestInvalid(EventStatus.INVALID_ARGUMENT, "it names no object")
    return CommitRequest(transaction, tuple((sop_class, uid) for uid, sop_class in references.items()))


def _references(encoded: bytes, at: int, end: int, *, implicit: bool) -> dict[str, str]:
    """SOP Class UID by SOP Instance UID; an object that is named twice is there once."""
    found: dict[str, str] = {}
    for start, stop in _items(encoded, at, end, implicit=implicit):
        values = {
            tag: _text(encoded[first:last])
            for tag, first, last in _elements(encoded, start, stop, implicit=implicit)
            if tag in (SOP_CLASS, SOP_INSTANCE)
        }
        sop_class, uid = values.get(SOP_CLASS, ""), values.get(SOP_INSTANCE, "")
        if not (UID_FORM.fullmatch(sop_class) and UID_FORM.fullmatch(uid)):
            raise RequestInvalid(EventStatus.INVALID_ARGUMENT, "a reference has no SOP Class or SOP Instance UID")
        if found.setdefault(uid, sop_class) != sop_class:
            raise RequestInvalid(EventStatus.INVALID_ARGUMENT, "one object is named with two SOP classes")
        if len(found) > MOST_REFERENCES:
            raise RequestInvalid(EventStatus.RESOURCE_LIMITATION, f"it names more than {MOST_REFERENCES} objects")
    return found


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace").strip("\0 ")


def _elements(data: bytes, at: int, end: int, *, implicit: bool, depth: int = 0) -> Iterator[tuple[int, int, int]]:
    """Tag, start and end of the value of each element of a data set, or of an item. Raises struct.error."""
    while at < end:
        tag, at, length = _head(data, at, implicit=implicit)
        if tag in (ITEM_END, SEQUENCE_END):
            return
        stop = _end_of_items(data, at, end, implicit=implicit, depth=depth) if length == UNDEFINED else at + length
        if stop > end:
            raise struct.error
        yield tag, at, stop
        at = stop
        if length == UNDEFINED:
            # Its delimiter.
            at += 8


def _items(data: bytes, at: int, end: int, *, implicit: bool) -> Iterator[tuple[int, int]]:
    """Start and end of each item of a sequence's value. Raises struct.error."""
    while at < end:
        tag, at, length = _head(data, at, implicit=True)
        if tag != ITEM:
            raise struct.error
        stop = _end_of_item(data, at, end, implicit=implicit, depth=0) if length == UNDEFINED else at + length
        if stop > end:
            raise struct.error
        yield at, stop
        at = stop + 8 * (length == UNDEFINED)


def _end_of_items(data: bytes, at: int, end: int, *, implicit: bool, depth: int) -> int:
    """Where the delimiter of a sequence of undefined length is that begins here."""
    if depth > DEEPEST:
        raise struct.error
    while at < end:
        tag, after, length = _head(data, at, implicit=True)
        if tag == SEQUENCE_END:
            return at
        if tag != ITEM:
            raise struct.error
        if length == UNDEFINED:
            at = _end_of_item(data, after, end, implicit=implicit, depth=depth + 1) + 8
        else:
            at = after + length
    raise struct.error


def _end_of_item(data: bytes, at: int, end: int, *, implicit: bool, depth: int) -> int:
    """Where the delimiter of an item of undefined length is that begins here."""
    for _, _, stop in _elements(data, at, end, implicit=implicit, depth=depth):
        at = stop
    while at < end:
        tag, after, length = _head(data, at, implicit=True)
        if tag == ITEM_END:
            return at
        if tag != SEQUENCE_END or length:
            raise struct.error
        at = after
    raise struct.error


def _head(data: bytes, at: int, *, implicit: bool) -> tuple[int, int, int]:
    """Tag, start of the value, and its length. Source: PS3.5 7.1, 7.5."""
    group, element = struct.unpack_from("<HH", data, at)
    tag = group << 16 | element
    if implicit or group == 0xFFFE:
        return tag, at + 8, struct.unpack_from("<I", data, at + 4)[0]
    if data[at + 4 : at + 6] in LONG_VRS:
        return tag, at + 12, struct.unpack_from("<I", data, at + 8)[0]
    return tag, at + 8, struct.unpack_from("<H", data, at + 6)[0]


def report_data_set(
    transaction_uid: str, references: Sequence[tuple[str, str]], answer: Sequence[int], *, implicit: bool
) -> tuple[int, bytes]:
    """Event type and Event Information of a report: `answer` has a Failure Reason for each reference, or 0.

    It names no Retrieve AE Title, since objects can't be retrieved from here. Source: PS3.4 table J.3-2.
    """
    committed, failed = [], []
    for (sop_class, uid), reason in zip(references, answer, strict=True):
        item = _uid(SOP_CLASS, sop_class, implicit) + _uid(SOP_INSTANCE, uid, implicit)
        if reason:
            failed.append(item + _element(FAILURE_REASON, b"US", struct.pack("<H", reason), implicit))
        else:
            committed.append(item)
    transaction = _uid(TRANSACTION_UID, transaction_uid, implicit)
    sequences = [_sequence(FAILED, failed, implicit), _sequence(REFERENCED, committed, implicit)]
    return SOME_FAILED if failed else ALL_COMMITTED, b"".join([transaction, *sequences])


def _uid(tag: int, uid: str, implicit: bool) -> bytes:
    value = uid.encode("ascii")
    return _element(tag, b"UI", value + b"\0" * (len(value) % 2), implicit)


def _sequence(tag: int, items: Sequence[bytes], implicit: bool) -> bytes:
    if not items:
        return b""
    value = b"".join(struct.pack("<HHI", ITEM >> 16, ITEM & 0xFFFF, len(item)) + item for item in items)
    return _element(tag, b"SQ", value, implicit)


def _element(tag: int, vr: bytes, value: bytes, implicit: bool) -> bytes:
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if implicit:
        return head + struct.pack("<I", len(value)) + value
    length = struct.pack("<HI", 0, len(value)) if vr in LONG_VRS else struct.pack("<H", len(value))
    return head + vr + length + value


class Speaker:
    """Sends reports on an open association, whichever side opened it, while the library serves what else comes.

    Differs from the library's own call, which takes whatever comes next for the answer: a peer may send its next
    request first.
    """

    def __init__(self, association: Association) -> None:
        """Where we were asked: to be made in the association's own thread."""
        if association.is_acceptor:
            repair(association)
        self._association = association
        self._heard = threading.Condition()
        self._answers: dict[int, int] = {}
        self._last_id = 0
        self.silent = False
        """The last report had no answer."""
        association.bind(evt.EVT_DIMSE_RECV, self._listen)

    def report(
        self, transaction_uid: str, references: Sequence[tuple[str, str]], answer: Sequence[int], *, wait_s: float
    ) -> int | None:
        """Send one report; the status that the peer answered, None where none came in time. Source: PS3.4 J.3.3."""
        context = self._context()
        if context is None or context.context_id is None:
            return None
        syntax = UID(context.transfer_syntax[0])
        event_type, information = report_data_set(
            transaction_uid, references, answer, implicit=bool(syntax == ImplicitVRLittleEndian)
        )
        message = N_EVENT_REPORT()
        self._last_id = self._last_id % 0xFFFF + 1
        message.MessageID = self._last_id
        message.AffectedSOPClassUID = StorageCommitmentPushModel
        message.AffectedSOPInstanceUID = UID(INSTANCE)
        message.EventTypeID = event_type
        message.EventInformation = BytesIO(information)
        self._send(message, context.context_id)
        status = self._wait(self._last_id, wait_s)
        self.silent = status is None
        return status

    def _context(self) -> PresentationContext | None:
        # A peer that took the class and said nothing of roles takes reports all the same: many say nothing.
        for context in self._association.accepted_contexts:
            if context.abstract_syntax == StorageCommitmentPushModel:
                return context
        return None

    def _send(self, message: N_EVENT_REPORT, context_id: int) -> None:
        """Put one whole message on its way: the pieces of two must not mix."""
        gate = self._association._reactor_checkpoint
        gate.clear()
        try:
            if self._association.is_established:
                self._association.dimse.send_msg(message, context_id)
        except ConnectionError:
            # It has just ended: no answer will come.
            return
        finally:
            gate.set()

    def _listen(self, event: evt.Event) -> None:
        command: Any = event.message.command_set
        if command.get("CommandField") == 0x8100:
            with self._heard:
                status = int(command.get("Status", EventStatus.PROCESSING_FAILURE))
                self._answers[int(command.MessageIDBeingRespondedTo)] = status
                self._heard.notify_all()

    def _wait(self, message_id: int, wait_s: float) -> int | None:
        deadline = time.monotonic() + wait_s
        with self._heard:
            while message_id not in self._answers:
                if not self._association.is_established or time.monotonic() > deadline:
                    return self._answers.pop(message_id, None)
                self._heard.wait(LOOK_S)
            return self._answers.pop(message_id)
