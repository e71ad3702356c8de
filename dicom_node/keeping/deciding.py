"""Decide of every object that a peer asked for whether it is promised. Knows no network."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from pynetdicom import AllStoragePresentationContexts

from dicom_node.errors import IllegalStep
from dicom_node.ledger import Ledger, PromiseRow, Spooled
from dicom_node.states import Instance, Object
from dicom_node.status import CommitFailure
from dicom_node.steps import reached
from dicom_node.stopping import Stopping

log = logging.getLogger(__name__)

KEPT = 0
"""In the place of a Failure Reason."""
UNREAD_S = 600.0
"""What was received before a request is looked at first, unless that takes longer than this."""
MARKED_AT_ONCE = 500


def judge(
    sop_class_uid: str,
    held: Sequence[Spooled],
    *,
    whole: Callable[[Spooled], bool],
    supported: bool,
    unread: bool,
    elsewhere: Callable[[Spooled], bool],
) -> tuple[int, list[Spooled]]:
    """KEPT or a Failure Reason for one reference, and the files that are to stay because of it.

    `held`: what the ledger has under its UID. `unread`: objects that nobody has looked at may be this one.
    `elsewhere`: whether what has left our spool counts as kept. Source: PS3.3 C.14.1.1.
    """
    here = [file for file in held if file.state not in (Instance.EXPIRED, Object.EXPIRED)]
    meant = [file for file in here if file.sop_class_uid == sop_class_uid]
    if unread or any(file.state == Instance.CONFLICT for file in here):
        # Two objects claim this UID: until a person has decided, nobody can say which one was meant.
        return CommitFailure.PROCESSING_FAILURE, []
    if here and not meant:
        return CommitFailure.CLASS_INSTANCE_CONFLICT, []
    if meant:
        return (KEPT, meant) if all(map(whole, meant)) else (CommitFailure.PROCESSING_FAILURE, [])
    if any(file.sop_class_uid == sop_class_uid and elsewhere(file) for file in held):
        return KEPT, []
    return (CommitFailure.NO_SUCH_OBJECT_INSTANCE if supported else CommitFailure.SOP_CLASS_NOT_SUPPORTED), []


def stored_classes(extra: Sequence[str]) -> frozenset[str]:
    """The SOP classes whose objects are accepted."""
    return frozenset({str(context.abstract_syntax) for context in AllStoragePresentationContexts} | set(extra))


class Deciding:
    """Decides what was asked, one request after the other. `turn` does one."""

    def __init__(
        self, ledger: Ledger, *, whole: Callable[[Spooled], bool], supported: frozenset[str], elsewhere: bool
    ) -> None:
        """`whole` reads a file from the disk; `supported`: SOP classes that we store.

        `elsewhere`: what has left our spool after a destination's own commitment counts as kept.
        """
        self._ledger, self._whole = ledger, whole
        self._supported, self._elsewhere = supported, elsewhere
        self._waiting: tuple[int, float] = (0, 0.0)
        self._stuck: tuple[float, float] = (-1.0, 0.0)

    def turn(self, stopping: Stopping) -> bool:
        """Decide the oldest request; False when there is none, or it waits for images that came before it."""
        oldest = self._ledger.promises.next_asked()
        if oldest is None:
            return False
        ref, asked_at = oldest
        since = self._ledger.promises.unread_since()
        unread = since is not None and since <= asked_at
        if since is not None and unread and not self._too_late(ref, since):
            return False
        row = self._ledger.promises.get(ref)
        if row is None:
            return False
        answer = row.answer or self._answer(row, unread=unread, stopping=stopping)
        if answer is None:
            return False
        try:
            self._ledger.promises.decide(row, answer, now=time.time())
        except IllegalStep as changed:
            log.info("%s", changed)
            return True
        failed = sum(reason != KEPT for reason in answer)
        log.info("commitment request %d: %d objects are kept, %d not", ref, len(answer) - failed, failed)
        return True

    def _too_late(self, ref: int, since: float) -> bool:
        now = time.monotonic()
        if self._waiting[0] != ref:
            self._waiting = (ref, now)
        if self._stuck[0] != since:
            self._stuck = (since, now)
        # Where nobody looks at anything, one request after the other would wait so long.
        return now - min(self._waiting[1], self._stuck[1]) > UNREAD_S

    def _answer(self, row: PromiseRow, *, unread: bool, stopping: Stopping) -> list[int] | None:
        """The reasons; None when asked to stop, or when something has left meanwhile: then it is all done anew."""
        answer: list[int] = []
        stay: list[Spooled] = []
        for sop_class_uid, sop_instance_uid in row.wanted:
            if stopping.asked:
                return None
            reason, files = self._judge(sop_class_uid, sop_instance_uid, unread=unread)
            answer.append(reason)
            stay += files
        for n in range(0, len(stay), MARKED_AT_ONCE):
            if not self._ledger.promises.keep(stay[n : n + MARKED_AT_ONCE]):
                return None
        reached("keeping.kept")
        return answer

    def _judge(self, sop_class_uid: str, sop_instance_uid: str, *, unread: bool) -> tuple[int, list[Spooled]]:
        held = self._ledger.promises.held(sop_instance_uid)
        return judge(
            sop_class_uid,
            held,
            whole=self._whole,
            supported=sop_class_uid in self._supported,
            # Only what is not there could still be among them.
            unread=unread and not held,
            elsewhere=lambda file: self._elsewhere and self._ledger.promises.held_elsewhere(file),
        )
