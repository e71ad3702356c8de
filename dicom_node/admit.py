"""Look at one received instance for the first time: header, digest, place in its study, original sent on."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from dicom_node import routing
from dicom_node.errors import SpoolDamaged, Unreadable
from dicom_node.header import dataset_digest, read_header
from dicom_node.ledger import InstanceRow, Ledger
from dicom_node.routing import Exam
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from dicom_node.states import Instance

log = logging.getLogger(__name__)


def admit(
    row: InstanceRow, *, ledger: Ledger, spool: Spool, settings: Settings, banks: Mapping[str, Exam], now: float
) -> None:
    """Admit one instance, or park it with the reason when it can't even be placed in a study."""
    try:
        path = spool.at(row.path)
        if not path.exists():
            raise SpoolDamaged(f"{row.path}: the spooled file is gone")
        header, digest = read_header(path), dataset_digest(path)
        if header.sop_instance_uid != row.sop_instance_uid:
            raise Unreadable("its data set has another SOP Instance UID than its C-STORE request: send it again")
    except (Unreadable, SpoolDamaged) as fault:
        ledger.instances.park(row, str(fault), now=now)
        log.warning("parked instance %d: %s", row.id, fault)
        return
    chosen = routing.decide(header, calling_ae=row.calling_ae, settings=settings, banks=banks)
    placed = ledger.instances.admit(row, header, digest, forward_to=_forward_to(chosen, settings), now=now)
    log.info("instance %d is %s", row.id, placed.state.value)
    if placed.state is Instance.DUPLICATE:
        # The first instance holds the same bytes (the digests are equal), so nothing is lost.
        spool.discard(row.path)


def _forward_to(chosen: routing.Routed | routing.PassBy, settings: Settings) -> list[tuple[str, bool]]:
    if isinstance(chosen, routing.Routed):
        forward, names = chosen.route.originals == "forward", chosen.route.destinations
    else:
        forward = chosen.forward
        names = chosen.destinations if chosen.route is None else chosen.route.destinations
    return routing.with_commitment(names, settings) if forward else []
