"""Send files to a DICOMweb server by STOW-RS, several in one request, and honour its answer for each of them.

Knows no ledger and no retry: an answer says what happened, the caller decides when to come back. Bodies are built
here and sent on the session, because the DICOMweb client library encodes data sets anew, holds a request in memory
and keeps no list of failures.
"""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom.dsutils import split_dataset

from dicom_node.destinations.outgoing import inspect
from dicom_node.destinations.parcel import Answer, Parcel, Sending, damage
from dicom_node.destinations.sameness import same_there
from dicom_node.destinations.transcode import transcode
from dicom_node.dicomweb import (
    AnswerTooLarge,
    Body,
    Part,
    StoreAnswer,
    Web,
    read_store_answer,
    refusal_of,
    retry_after_s,
)
from dicom_node.errors import Blame, EvenrayError, PeerBusy, PeerRefused, PeerUnreachable, SpoolDamaged, Unreadable
from dicom_node.marks import IMPLEMENTATION_CLASS_UID
from dicom_node.records import Receipt
from dicom_node.settings import DicomWeb
from dicom_node.status import Next, StoreStatus, after_store, no_room

MIB = 1 << 20
LISTING = (400, 409)
"""Statuses other than of success whose body may name each instance. Source: PS3.18 table 10.5.3-1."""
DUPLICATES = (0x0111, 0xB00E)
"""Failure Reasons of a server that has an object of this UID: PS3.7 C.5.5, and what the Azure service says."""
SYNTAX_REFUSED = 0xC122
"""Source: PS3.18 table I.2-2."""
UNSUPPORTED_MEDIA_TYPE = 415
NO_SEARCH = (400, 405, 406, 501)
"""What a server that only stores may say to a search."""


@dataclass(frozen=True, slots=True, eq=False)
class _Object:
    """What is sent of a parcel: its file, or a decompressed copy of it."""

    parcel: Parcel
    path: Path
    size: int
    syntax: str
    remark: str = ""


@dataclass(frozen=True, slots=True)
class _Reply:
    """What came back; an empty body where there was too much of it."""

    status: int
    wait_s: float | None
    body: bytes


Found = list[tuple[_Object, Answer | None]]
"""None: the answer leaves it open, and asking for it alone may tell."""


class DicomWebDestination:
    """A DICOMweb origin server. Source: PS3.18 10.5."""

    def __init__(self, name: str, destination: DicomWeb, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._destination = destination
        self._clock = clock
        self._closed_until = -float("inf")

    def send(self, parcels: Sequence[Parcel], *, beat: Callable[[], None]) -> Sending:
        """Send in groups up to `at_once_mib`; what the answer about a group leaves open is sent alone.

        Answers are a Receipt, SpoolDamaged (the file is missing, no Part 10 file, or another object), PeerRefused,
        PeerBusy or PeerUnreachable. Of a group, what is stored is answered first. While the server has asked to be left
        alone (Retry-After), everything gets PeerBusy and nothing is sent.
        """
        objects = []
        for parcel in parcels:
            found = _look(parcel)
            if isinstance(found, _Object):
                objects.append(found)
            else:
                yield parcel, found
        waiting = deque(_groups(objects, self._destination.at_once_mib * MIB))
        try:
            self._check_open()
            with Web(self._destination, beat=beat) as web:
                yield from self._send_all(web, waiting)
        except (PeerUnreachable, PeerBusy, PeerRefused) as fault:
            yield from ((one.parcel, fault) for group in waiting for one in group)

    def _check_open(self) -> None:
        left = self._closed_until - self._clock()
        if left > 0:
            raise PeerBusy(f"{self._destination.url}: asked to be left alone for {left:.0f} s more").about(Blame.PEER)

    def _send_all(self, web: Web, waiting: deque[list[_Object]]) -> Sending:
        """Empties `waiting` as it goes. Raises what is about the server and so about all that waits."""
        broken = False
        while waiting:
            found = self._send_group(web, waiting[0])
            group = waiting.popleft()
            waiting.extendleft([one] for one, answer in reversed(found) if answer is None)
            known = [(one.parcel, answer) for one, answer in found if answer is not None]
            # A caller may leave after a failure: what is known to be stored has been told by then.
            yield from sorted(known, key=lambda pair: not isinstance(pair[1], Receipt))
            again = len(group) == 1 and isinstance(found[0][1], PeerUnreachable)
            if again and broken:
                raise PeerUnreachable(f"{web.peer}: the connection broke twice without an answer").about(Blame.PEER)
            broken = again

    def _send_group(self, web: Web, group: list[_Object]) -> Found:
        found: Found = []
        sound = []
        for one in group:
            # Looked at right before it is sent: the same bytes are read again at once, from memory then.
            damaged = web.call(partial(_damage, one))
            if damaged:
                found.append((one, damaged))
            else:
                sound.append(one)
        return [*found, *self._store(web, sound)] if sound else found

    def _store(self, web: Web, group: list[_Object]) -> Found:
        """One request and what its answer says. Raises what is about the server."""
        alone = len(group) == 1
        try:
            reply = web.call(partial(_post, web, group))
        except (PeerUnreachable, SpoolDamaged) as fault:
            if fault.blame is Blame.PEER:
                raise
            return [(one, fault if alone else None) for one in group]
        success = 200 <= reply.status < 300
        answer = read_store_answer(reply.body) if success or reply.status in LISTING else None
        if answer is None and success:
            answer = StoreAnswer()
        if answer is None:
            return self._refused(web, group, reply)
        return [(one, self._judge(web, one, answer, alone=alone)) for one in group]

    def _refused(self, web: Web, group: list[_Object], reply: _Reply) -> Found:
        """The request as a whole was. Raises what is about the server."""
        fault = refusal_of(web.peer, reply.status, wait_s=reply.wait_s)
        if fault.blame is Blame.PEER:
            if reply.wait_s:
                self._closed_until = self._clock() + reply.wait_s
            raise fault
        if len(group) > 1:
            return [(one, None) for one in group]
        (one,) = group
        if reply.status == UNSUPPORTED_MEDIA_TYPE:
            return [(one, self._uncompressed(web, one, fault))]
        return [(one, fault)]

    def _judge(self, web: Web, one: _Object, answer: StoreAnswer, *, alone: bool) -> Answer | None:
        """What the answer says about one object; None: nothing, but if sent alone it may."""
        uid = one.parcel.sop_instance_uid
        stored = answer.stored.get(uid)
        # An answer about another class of this UID is about another object.
        if stored and stored.sop_class_uid in ("", one.parcel.sop_class_uid):
            return _receipt(stored.warning, one.remark)
        reason = answer.failed.get(uid)
        if reason is None and alone and len(answer.others) == 1:
            reason = answer.others[0]
        if reason is None:
            silence = f"{web.peer}: answered without saying whether it has {uid}: see its log"
            return PeerBusy(silence) if alone else None
        if reason in DUPLICATES:
            return same_there(web, uid, one.path) or Receipt(
                accepted=True, status=StoreStatus.SUCCESS, detail=f"was there already, with the same bytes{one.remark}"
            )
        fault = _failure(web.peer, reason, one.remark)
        return self._uncompressed(web, one, fault) if reason == SYNTAX_REFUSED else fault

    def _uncompressed(self, web: Web, one: _Object, refusal: EvenrayError) -> Answer:
        """Send it decompressed, as its transfer syntax was refused; the refusal where it is in the plainest already."""
        target = str(ExplicitVRLittleEndian)
        if one.syntax == target:
            return refusal
        was = UID(one.syntax).name
        with tempfile.TemporaryDirectory(prefix="evenray-") as folder:
            changed = Path(folder) / "object.dcm"
            try:
                web.call(lambda: _transcode(one.path, changed, target))
                size = changed.stat().st_size
            except Unreadable as exc:
                return PeerRefused(f"{web.peer}: does not take {was}, and it can't be decompressed: {exc}")
            except _NoRoom as exc:
                return PeerBusy(f"{one.parcel.sop_instance_uid}: no room to decompress it for {web.peer} ({exc})")
            remark = f", sent as {UID(target).name} instead of {was}"
            ((_, answer),) = self._store(web, [_Object(one.parcel, changed, size, target, remark)])
        return answer or refusal


def verify(server: DicomWeb) -> str:
    """Ask the server whether it is there and takes our credentials, by a search that finds nothing; what it said.

    Raises PeerUnreachable, PeerBusy or PeerRefused. Source: PS3.18 10.6.
    """
    query = {"StudyInstanceUID": IMPLEMENTATION_CLASS_UID, "limit": "1"}
    with Web(server) as web:

        def ask() -> int:
            accept = {"Accept": "application/dicom+json"}
            with web.session.get(f"{web.url}/studies", params=query, headers=accept, stream=True) as response:
                return response.status_code

        status = web.call(ask)
        if status in NO_SEARCH:
            return f"{web.peer} answered, but does not search ({status})"
        if not 200 <= status < 300:
            raise refusal_of(web.peer, status)
        return f"{web.peer} answered a search"


def _look(parcel: Parcel) -> _Object | SpoolDamaged:
    found = inspect(parcel)
    if isinstance(found, SpoolDamaged):
        return found
    try:
        return _Object(parcel, parcel.path, parcel.path.stat().st_size, found.syntax)
    except OSError as exc:
        return SpoolDamaged(f"{parcel.path}: can't be read ({exc.strerror})")


def _groups(objects: Iterable[_Object], most: int) -> Iterator[list[_Object]]:
    """Runs of no more bytes, or of one object; no UID twice in one, as the answer would be about both."""
    group: list[_Object] = []
    for one in objects:
        same = one.parcel.sop_instance_uid in {other.parcel.sop_instance_uid for other in group}
        if group and (same or sum(other.size for other in group) + one.size > most):
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def _damage(one: _Object) -> SpoolDamaged | None:
    if one.parcel.digest is None:
        return None
    try:
        return damage(one.parcel, split_dataset(one.path)[1])
    except OSError as exc:
        return SpoolDamaged(f"{one.path}: can't be read ({exc.strerror})")


def _post(web: Web, group: list[_Object]) -> _Reply:
    """Blocks. Raises SpoolDamaged where a file can't be read to its end, and what breaks the connection."""
    body = Body([Part(one.path, one.size) for one in group], web.moved)
    headers = {"Content-Type": body.content_type, "Accept": "application/dicom+json"}
    try:
        response = web.session.post(f"{web.url}/studies", data=body, headers=headers)
    except AnswerTooLarge:
        return _Reply(200, None, b"")
    return _Reply(response.status_code, retry_after_s(response.headers, time.time()), response.content)


class _NoRoom(Exception):
    """The disk of the decompressed copy; not the connection."""


def _transcode(source: Path, target: Path, syntax: str) -> None:
    try:
        transcode(source, target, syntax)
    except OSError as exc:
        raise _NoRoom(exc.strerror or "disk fault") from exc


def _receipt(warning: int | None, remark: str) -> Receipt:
    """Named as stored it is, whatever the warning; the standard's are in words. Source: PS3.18 table I.2-1."""
    status = warning or int(StoreStatus.SUCCESS)
    step, words = after_store(status)
    detail = words if step is Next.DONE else f"stored, with warning 0x{status:04X}"
    return Receipt(accepted=True, status=status, detail=detail + remark)


def _failure(peer: str, reason: int, remark: str) -> EvenrayError:
    """As for C-STORE, whose statuses these are. Source: PS3.18 table I.2-2."""
    step, words = after_store(reason)
    if reason == SYNTAX_REFUSED:
        words = "transfer syntax not supported"
    if step is Next.DONE:
        return PeerBusy(f"{peer}: named it as failed with 0x{reason:04X}, which is no failure: see its log")
    sentence = f"{peer}: did not store it, reason 0x{reason:04X}, {words}{remark}"
    if step is Next.RETRY:
        # What lacks room for this object may lack it for any.
        return PeerBusy(sentence).about(Blame.EITHER if no_room(reason) else Blame.OBJECT)
    return PeerRefused(sentence)
