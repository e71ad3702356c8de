"""Send files to a DICOM peer by C-STORE, each as it is or, where the peer can't take that, decompressed.

Knows no ledger and no retry: an answer says what happened, the caller decides when to come back.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import split_dataset
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from dicom_node.destinations.association import Link
from dicom_node.destinations.outgoing import Item, inspect
from dicom_node.destinations.parcel import Answer, Parcel, Sending, damage
from dicom_node.destinations.transcode import transcode
from dicom_node.errors import Blame, EvenrayError, PeerBusy, PeerRefused, PeerUnreachable, SpoolDamaged, Unreadable
from dicom_node.records import Receipt
from dicom_node.settings import Dimse
from dicom_node.status import Next, StoreStatus, after_store, no_room

MAX_CONTEXTS = 128
"""Presentation context IDs are the odd numbers from 1 to 255. Source: PS3.8 9.3.2.2."""
FALLBACKS = [str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)]
"""What a file is sent in where its own transfer syntax is refused. Source: PS3.5 10.1 (the default), A.4."""


class DimseDestination:
    """A Storage SCP."""

    def __init__(self, name: str, destination: Dimse, *, calling_ae: str) -> None:
        self.name = name
        self._destination = destination
        self._calling_ae = calling_ae

    def send(self, parcels: Sequence[Parcel], *, beat: Callable[[], None]) -> Sending:
        """Send over one association, or more where 128 contexts don't suffice. Source: PS3.4 B, PS3.7 9.1.1.

        Answers are a Receipt, SpoolDamaged (the file is missing, no Part 10 file, or another object), PeerRefused,
        PeerBusy or PeerUnreachable. An abort costs the object under way its turn: the others are tried on one new
        association, and get PeerUnreachable when that does not hold either.
        """
        items = []
        for parcel in parcels:
            found = inspect(parcel)
            if isinstance(found, Item):
                items.append(found)
            else:
                yield parcel, found
        for group in _groups(items):
            yield from self._send_group(group, beat)

    def _send_group(self, items: list[Item], beat: Callable[[], None]) -> Sending:
        waiting = deque(items)
        broken: EvenrayError | None = None
        while waiting:
            link = Link(self._destination, calling_ae=self._calling_ae, contexts=_contexts(items), beat=beat)
            answered = 0
            try:
                with link:
                    while waiting and link.alive and not link.broken:
                        item = waiting[0]
                        answer = _damaged(link, item.parcel) or _store(link, item.parcel, item.syntax, answered + 1)
                        link.broken = isinstance(answer, PeerUnreachable)
                        answered += not link.broken
                        yield waiting.popleft().parcel, answer
            except (PeerUnreachable, PeerBusy, PeerRefused) as fault:
                yield from ((item.parcel, fault) for item in waiting)
                return
            if not answered and broken:
                yield from ((item.parcel, broken) for item in waiting)
                return
            broken = PeerUnreachable(f"{link.peer}: the association broke twice without an answer").about(Blame.PEER)


def echo(destination: Dimse, *, calling_ae: str) -> Receipt:
    """Ask the destination whether it is there (C-ECHO). Source: PS3.4 A, PS3.7 9.1.5.

    Raises PeerUnreachable, PeerBusy or PeerRefused, as `DimseDestination.send` answers them.
    """
    with Link(destination, calling_ae=calling_ae, contexts=[build_context(Verification)]) as link:
        answer = link.call(link.association.send_c_echo)
        status = answer.get("Status")
        if status is None:
            raise PeerUnreachable(f"{link.peer}: no response to C-ECHO")
        if status != StoreStatus.SUCCESS:
            raise PeerRefused(f"{link.peer}: answered C-ECHO with 0x{status:04X}")
        return Receipt(accepted=True, status=int(status), detail="verified")


def _groups(items: list[Item]) -> Iterator[list[Item]]:
    """The items in runs that need no more presentation contexts than one association has."""
    group: list[Item] = []
    for item in items:
        if group and len(_contexts([*group, item])) > MAX_CONTEXTS:
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def _contexts(items: Sequence[Item]) -> list[PresentationContext]:
    """One context per class and transfer syntax in use, so that each is answered by itself, and one to fall back on."""
    wanted: dict[str, list[str]] = {}
    for item in items:
        syntaxes = wanted.setdefault(item.parcel.sop_class_uid, [])
        if item.syntax not in syntaxes:
            syntaxes.append(item.syntax)
    contexts = []
    for sop_class, syntaxes in wanted.items():
        contexts += [build_context(sop_class, syntax) for syntax in syntaxes]
        contexts.append(build_context(sop_class, list(FALLBACKS)))
    return contexts


def _damaged(link: Link, parcel: Parcel) -> SpoolDamaged | None:
    """Looked at right before it is sent: the same bytes are read again at once, from memory then."""
    if parcel.digest is None:
        return None
    try:
        return link.call(lambda: damage(parcel, split_dataset(parcel.path)[1]))
    except OSError as exc:
        return SpoolDamaged(f"{parcel.path}: can't be read ({exc.strerror})")


def _store(link: Link, parcel: Parcel, syntax: str, message_id: int) -> Answer:
    """Send one object in its own transfer syntax if the peer takes it, else in an uncompressed one."""
    accepted = link.accepted(parcel.sop_class_uid)
    if syntax in accepted:
        return store_file(link, parcel.path, message_id, "")
    target = next((s for s in FALLBACKS if s in accepted), None)
    if target is None:
        what = UID(syntax).name if accepted else UID(parcel.sop_class_uid).name
        return PeerRefused(f"{link.peer}: does not take {what}")
    with tempfile.TemporaryDirectory(prefix="evenray-") as folder:
        changed = Path(folder) / "object.dcm"
        try:
            link.call(lambda: transcode(parcel.path, changed, target))
        except Unreadable as exc:
            return PeerRefused(f"{link.peer}: does not take {UID(syntax).name}, and it can't be decompressed: {exc}")
        except OSError as exc:
            return PeerBusy(f"{parcel.sop_instance_uid}: no room to decompress it for {link.peer} ({exc.strerror})")
        return store_file(link, changed, message_id, f", sent as {UID(target).name} instead of {UID(syntax).name}")


def store_file(link: Link, path: Path, message_id: int, remark: str = "") -> Answer:
    """One C-STORE of a file as it is, on a link that accepted its class and transfer syntax. Source: PS3.7 9.1.1."""
    # Message IDs are 16 bits and must differ only among requests under way. Source: PS3.7 9.1.1.1.1.
    message_id %= 0x10000
    try:
        limit_s = link.longest_s(path.stat().st_size)
        response = link.call(lambda: link.association.send_c_store(path, message_id), limit_s=limit_s)
    except (RuntimeError, ConnectionError):
        response = Dataset()
    except OSError as exc:
        return SpoolDamaged(f"{path}: can't be read ({exc.strerror})")
    status = response.get("Status")
    if status is not None and link.answered() != [message_id]:
        # An answer that comes late or twice would count for the object behind it. Source: PS3.7 9.1.1.1.2.
        return PeerUnreachable(f"{link.peer}: answered another request than the one under way")
    step, words = after_store(None if status is None else int(status))
    if step is Next.DONE:
        return Receipt(accepted=True, status=status, detail=words + remark)
    if status is None:
        return PeerUnreachable(f"{link.peer}: {words} to C-STORE (time-out or abort)")
    sentence = f"{link.peer}: answered C-STORE with 0x{status:04X}, {words}{remark}"
    if step is Next.RETRY:
        # What lacks room for this object may lack it for any.
        return PeerBusy(sentence).about(Blame.EITHER if no_room(int(status)) else Blame.OBJECT)
    return PeerRefused(sentence)
