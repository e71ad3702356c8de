"""One C-STORE from the socket to the ledger: room, spool, row, and only then Success. Decodes nothing."""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import cast

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from dicom_node.ledger import Ledger
from dicom_node.records import Arrival
from dicom_node.settings import Storage
from dicom_node.spool import Incoming, Spool
from dicom_node.status import StoreStatus

log = logging.getLogger(__name__)


class Receiver:
    """Keeps what arrives. Called in association threads; only moves bytes."""

    def __init__(self, spool: Spool, ledger: Ledger, storage: Storage, clock: Callable[[], float]) -> None:
        self._spool = spool
        self._ledger = ledger
        self._storage = storage
        self._clock = clock

    def store(self, event: evt.Event) -> int:
        """Answer one C-STORE request. Source: PS3.4 B.2.3, PS3.7 9.1.1.

        Any status but Success tells the sender that we do not have the object: it must keep and send it again.
        """
        request, context = cast(C_STORE, event.request), event.context
        uid = str(request.AffectedSOPInstanceUID)
        full = self._spool.full(
            reserve_mib=self._storage.reserve_mib, watermark_percent=self._storage.watermark_percent
        )
        if full:
            log.error("refused %s: %s", uid, full)
            return StoreStatus.OUT_OF_RESOURCES
        received = cast(object, request._dataset_file)
        if not isinstance(received, Incoming):
            log.error("refused %s: the request carries no data set", uid)
            return StoreStatus.CANNOT_UNDERSTAND
        try:
            if received.fault is not None:
                raise received.fault
            return self._keep(event, Path(received.name), str(context.transfer_syntax))
        except OSError as fault:
            log.error("refused %s: %s", uid, fault.strerror)
            no_room = fault.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            return StoreStatus.OUT_OF_RESOURCES if no_room else StoreStatus.PROCESSING_FAILURE
        except sqlite3.OperationalError as fault:
            # The file is spooled but has no row: the sender is told so, and the start-up sweep removes it.
            log.error("refused %s: the ledger can't be written (%s)", uid, fault)
            return StoreStatus.OUT_OF_RESOURCES

    def _keep(self, event: evt.Event, received: Path, transfer_syntax_uid: str) -> int:
        request, requestor = cast(C_STORE, event.request), event.assoc.requestor
        # Every fragment was flushed as it came, so the file is whole: only the disk has to be told.
        size = received.stat().st_size
        path = self._spool.keep(received)
        arrival = Arrival(
            sop_class_uid=str(request.AffectedSOPClassUID),
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            transfer_syntax_uid=transfer_syntax_uid,
            calling_ae=str(requestor.ae_title).strip(),
            called_ae=called_ae(event.assoc),
            association=getattr(event.assoc, "evenray_id", ""),
            path=path,
            size=size,
        )
        ref = self._ledger.instances.arrive(arrival, now=self._clock())
        log.info("received instance %d: %s, %d bytes", ref, arrival.sop_instance_uid, size)
        return StoreStatus.SUCCESS


def called_ae(association: Association) -> str:
    """The title that the requestor called; empty before its request was read."""
    request = association.requestor.primitive
    return str(request.called_ae_title).strip() if request else ""
