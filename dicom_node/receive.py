"""One C-STORE from its first byte to the ledger: room, spool, row, and only then Success. Decodes nothing."""

from __future__ import annotations

import errno
import logging
from typing import cast

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from dicom_node.arrivals import Arrivals
from dicom_node.errors import EvenrayError
from dicom_node.incoming import Incoming
from dicom_node.ledger import Ledger
from dicom_node.part10 import file_header
from dicom_node.records import Arrival
from dicom_node.settings import Storage
from dicom_node.spool import Spool
from dicom_node.status import StoreStatus
from dicom_node.steps import reached
from dicom_node.stream import Sink
from dicom_node.upper_layer import CommandField, Request

log = logging.getLogger(__name__)

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Receiver:
    """Keeps what arrives in this process. Called in association threads; only moves bytes."""

    def __init__(self, spool: Spool, ledger: Ledger, arrivals: Arrivals, storage: Storage, name: str) -> None:
        """`name`: of the process, as its lock has it; its incomplete files lie in a folder of that name."""
        self.spool = spool
        self.ledger = ledger
        self.arrivals = arrivals
        self.storage = storage
        self.name = name

    def full(self) -> str:
        """Why nothing may be accepted; empty while there is room."""
        return self.spool.full(reserve_mib=self.storage.reserve_mib, watermark_percent=self.storage.watermark_percent)

    def temporary_file(self) -> Incoming:
        """What the library writes an object to."""
        incoming = self.spool.receive()
        incoming.full = self.full
        return incoming

    def store(self, event: evt.Event) -> int:
        """Answer one C-STORE request that the library has received. Source: PS3.4 B.2.3, PS3.7 9.1.1."""
        primitive = cast(C_STORE, event.request)
        uid = str(primitive.AffectedSOPInstanceUID)
        received = cast(object, primitive._dataset_file)
        if not isinstance(received, Incoming):
            log.error("refused %s: the request carries no data set", uid)
            return StoreStatus.CANNOT_UNDERSTAND
        full = self.full()
        if full and received.fault is None:
            received.fault = OSError(errno.ENOSPC, full)
        request = Request(CommandField.C_STORE_RQ, 0, True, str(primitive.AffectedSOPClassUID), uid)
        return Desk(self, event.assoc).keep(request, str(event.context.transfer_syntax), received)


class Desk:
    """What keeps the objects of one association."""

    def __init__(self, receiver: Receiver, association: Association) -> None:
        self._receiver = receiver
        self._association = association
        self._calling_ae = str(association.requestor.ae_title).strip()
        self._called_ae = called_ae(association)

    def begin(self, request: Request, transfer_syntax_uid: str) -> Incoming:
        """A file for an object that is coming. Without room it takes nothing, and the answer will say so."""
        full = self._receiver.full()
        fault = OSError(errno.ENOSPC, full) if full else None
        incoming = self._receiver.spool.receive(fault)
        incoming.full = self._receiver.full
        incoming.append([file_header(request.sop_class_uid, request.sop_instance_uid, transfer_syntax_uid)])
        return incoming

    def keep(self, request: Request, transfer_syntax_uid: str, sink: Sink) -> int:
        """Answer one object that is complete.

        Any status but Success tells the sender that we do not have the object: it must keep and send it again.
        """
        received, uid = cast(Incoming, sink), request.sop_instance_uid
        try:
            self._spool(received)
            ref = self._commit(request, transfer_syntax_uid, received)
        except OSError as fault:
            log.error("refused %s: %s", uid, fault.strerror)
            return StoreStatus.OUT_OF_RESOURCES if fault.errno in NO_ROOM else StoreStatus.PROCESSING_FAILURE
        except EvenrayError as fault:
            log.error("refused %s: %s", uid, fault)
            return StoreStatus.OUT_OF_RESOURCES
        except Exception as fault:  # noqa: BLE001 - whatever it is, the sender must hear that we do not have it
            log.error("refused %s: unexpected fault %s", uid, type(fault).__name__)
            return StoreStatus.PROCESSING_FAILURE
        reached("receive.committed")
        received.release()
        log.info("received instance %d: %s, %d bytes", ref, uid, received.size)
        return StoreStatus.SUCCESS

    def _spool(self, received: Incoming) -> None:
        """Force the object to the disk. Raises OSError, and nothing of it is left."""
        self._receiver.arrivals.expect()
        try:
            reached("receive.begun")
            if received.fault is not None:
                raise received.fault
            self._receiver.spool.keep(received)
            reached("receive.kept")
        except BaseException:
            self._receiver.arrivals.give_up()
            received.discard()
            raise

    def _commit(self, request: Request, transfer_syntax_uid: str, received: Incoming) -> int:
        """Give it its row. Raises what the ledger raises; then the file goes only where it has no row."""
        arrival = Arrival(
            sop_class_uid=request.sop_class_uid,
            sop_instance_uid=request.sop_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            calling_ae=self._calling_ae,
            called_ae=self._called_ae,
            association=getattr(self._association, "evenray_id", ""),
            path=received.path,
            size=received.size,
        )
        try:
            return self._receiver.arrivals.commit(arrival)
        except Exception:
            self._forget(received)
            raise

    def _forget(self, received: Incoming) -> None:
        """Give the room of a file back whose row was not committed: senders try again, and a full disk stays full."""
        received.close()
        try:
            if not self._receiver.ledger.instances.has_path(received.path):
                received.discard()
        except EvenrayError as fault:
            # Whether it has a row can't be known now; the next start finds out.
            log.warning("%s is left where it is: %s", received.path, fault)


def called_ae(association: Association) -> str:
    """The title that the requestor called; empty before its request was read."""
    request = association.requestor.primitive
    return str(request.called_ae_title).strip() if request else ""
