"""Look at one received instance for the first time: header, digest, place in its study, original sent on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from dicom_node import marks, routing
from dicom_node.errors import SpoolDamaged, Unreadable
from dicom_node.header import dataset_digest, read_header
from dicom_node.ledger import InstanceRow, Ledger
from dicom_node.records import Header
from dicom_node.routing import Exam
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from dicom_node.states import Instance

log = logging.getLogger(__name__)


def admit(
    row: InstanceRow,
    *,
    ledger: Ledger,
    spool: Spool,
    settings: Settings,
    banks: Mapping[str, Exam],
    clock: Callable[[], float],
) -> None:
    """Admit one instance that is being read, or park it when it can't even be placed in a study. Raises LostClaim."""
    path = spool.at(row.path)
    try:
        if not path.exists():
            raise SpoolDamaged(f"{row.path}: the spooled file is gone")
        header, digest = read_header(path), dataset_digest(path)
        if header.sop_instance_uid != row.sop_instance_uid:
            raise Unreadable("its data set has another SOP Instance UID than its C-STORE request: send it again")
        if row.digest not in (None, digest):
            # Looked at before: these are not the bytes that were received, and must never pass for them.
            raise SpoolDamaged(f"{row.path}: its bytes have changed on the disk: send it again, then retry")
    except (Unreadable, SpoolDamaged) as fault:
        ledger.instances.park(row, str(fault), now=clock())
        log.warning("parked instance %d: %s", row.id, fault)
        return
    _mend_holder(row, digest, ledger, spool)
    own = marks.is_our_uid(row.sop_instance_uid)
    # What this node made came from here: sending it on again would let it go round for ever.
    returned = own and ledger.is_result(row.sop_instance_uid)
    to = () if returned else _forward_to(header, row.calling_ae, settings, banks)
    placed = ledger.instances.admit(row, header, digest, forward_to=to, own=own, now=clock())
    log.info("instance %d is %s", row.id, placed.state.value)
    if placed.state is Instance.DUPLICATE:
        # The first instance holds the same bytes, or held them until its receipts: that was looked at just now.
        spool.discard(row.path)


def _mend_holder(row: InstanceRow, digest: str, ledger: Ledger, spool: Spool) -> None:
    """Put the bytes just received in the place of the same ones received before, if those were lost or damaged.

    Only then may this copy count as a repetition and go.
    """
    holder = ledger.instances.holder(row, digest)
    if holder is None or holder.state is Instance.EXPIRED:
        # What has left after its receipts is a repetition all the same: it is held by whoever gave the receipts.
        return
    if not _intact(spool.at(holder.path), digest):
        spool.restore(holder.path, row.path)
        log.warning("instance %d: its damaged file was replaced by the copy of instance %d", holder.id, row.id)


def _intact(path: Path, digest: str) -> bool:
    try:
        return dataset_digest(path) == digest
    except (OSError, Unreadable):
        return False


def _forward_to(header: Header, calling_ae: str, settings: Settings, banks: Mapping[str, Exam]) -> tuple[str, ...]:
    chosen = routing.decide(header, calling_ae=calling_ae, settings=settings, banks=banks)
    if isinstance(chosen, routing.Routed):
        return chosen.route.destinations if chosen.route.originals == "forward" else ()
    return chosen.destinations if chosen.forward else ()
