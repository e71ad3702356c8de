"""The receiving process: one DICOM listener until it is asked to stop. Decides nothing about what it keeps."""

from __future__ import annotations

import logging
import time
import uuid
from pathlib import Path
from typing import cast

from pynetdicom import AE, AllStoragePresentationContexts, _config, dimse_messages, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from dicom_node import retry
from dicom_node.destinations.commitment import CommitReport, report_contexts, report_handler
from dicom_node.errors import PeerBusy, Stop
from dicom_node.ledger import Ledger
from dicom_node.liveness import Liveness
from dicom_node.receive import Receiver, called_ae
from dicom_node.settings import Listen, Settings
from dicom_node.spool import Incoming, Spool
from dicom_node.stopping import Stopping
from dicom_node.syntaxes import STORABLE

log = logging.getLogger(__name__)

DRAIN_S = 30.0
"""How long associations may finish after a request to stop, before they are aborted."""


def run(settings: Settings, stopping: Stopping) -> None:
    """Listen until asked to stop. Raises Stop when the port is taken, AlreadyRunning."""
    spool = Spool(settings.state_dir / "spool")
    liveness = Liveness(settings.state_dir / "locks", "listen", alone=True)
    ledger = Ledger(settings.state_dir / "ledger.sqlite")
    spool.clear_incoming()
    ledger.sweep(lambda name: name != liveness.name and liveness.alive(name), now=time.time())
    _stream_to(spool)
    server = _listening(settings.listen, _handlers(spool, ledger, settings, liveness.name))
    where = f"{settings.listen.host}:{settings.listen.port}"
    log.info("listening as %s on %s", settings.listen.ae_title, where)
    try:
        while not stopping.wait(3600):
            pass
    finally:
        _drain(server)
        ledger.close()
        liveness.close()
        log.info("stopped listening")


def _stream_to(spool: Spool) -> None:
    """Have the library write data sets straight to files beside the spool, so that memory stays flat.

    These switches of pynetdicom are process-wide; this process does nothing but listen.
    """
    _config.STORE_RECV_CHUNKED_DATASET = True
    # It writes in the thread that reads the socket, which must outlive a full disk: see Incoming.
    dimse_messages.NamedTemporaryFile = lambda **_options: spool.receive()  # type: ignore[attr-defined,assignment]


def _handlers(spool: Spool, ledger: Ledger, settings: Settings, listener: str) -> list[evt.EventHandlerType]:
    receiver = Receiver(spool, ledger, settings.storage, time.time)

    def opened(event: evt.Event) -> None:
        ref = uuid.uuid4().hex
        event.assoc.evenray_id = ref  # type: ignore[attr-defined]
        calling = str(event.assoc.requestor.ae_title).strip()
        ledger.association_opened(ref, listener, calling, called_ae(event.assoc), now=time.time())

    def ended(event: evt.Event) -> None:
        ref = getattr(event.assoc, "evenray_id", None)
        how = {"EVT_RELEASED": "released", "EVT_ABORTED": "aborted"}.get(event.event.name, "closed")
        if ref is not None:
            ledger.association_ended(ref, how, now=time.time())
        elif event.assoc.requestor.primitive is None:
            # A probe that only connected: wake its thread, which else counts as an association until a time-out.
            event.assoc.dul.to_user_queue.put(None)
        _drop_partial(event)

    def committed(report: CommitReport) -> None:
        failed = {uid: f"reason 0x{reason:04X}" for uid, reason in report.failed}
        now = time.time()
        settled = ledger.deliveries.reported(
            report.transaction_uid,
            report.committed,
            failed,
            then=lambda asked, reason: retry.decide(
                PeerBusy(reason), failures=asked, now=now, rules=settings.deliver.retry
            ),
            now=now,
        )
        log.info("storage commitment report %s: %d settled", report.transaction_uid, settled)

    handlers: list[evt.EventHandlerType] = [
        (evt.EVT_ACCEPTED, opened),
        (evt.EVT_RELEASED, ended),
        (evt.EVT_ABORTED, ended),
        (evt.EVT_CONN_CLOSE, ended),
        (evt.EVT_C_STORE, receiver.store),
        (evt.EVT_C_ECHO, lambda _event: 0x0000),
        report_handler(committed),
    ]
    return handlers


def _drop_partial(event: evt.Event) -> None:
    """Remove what an ended association had received of an object that never became complete."""
    partial = getattr(event.assoc.dimse.message, "_data_set_file", None)
    if isinstance(partial, Incoming):
        partial.close()
        Path(partial.name).unlink(missing_ok=True)


def _listening(listen: Listen, handlers: list[evt.EventHandlerType]) -> ThreadedAssociationServer:
    ae = AE(listen.ae_title)
    ae.maximum_pdu_size = listen.max_pdu
    ae.maximum_associations = listen.max_associations
    ae.acse_timeout = listen.acse_timeout_s
    ae.dimse_timeout = listen.dimse_timeout_s
    ae.network_timeout = listen.network_timeout_s
    ae.require_called_aet = listen.check_called_ae
    ae.require_calling_aet = list(listen.allowed_calling)
    ae.add_supported_context(Verification)
    classes = {str(context.abstract_syntax) for context in AllStoragePresentationContexts}
    for uid in sorted(classes | set(listen.extra_sop_classes)):
        ae.add_supported_context(uid, list(STORABLE))
    ae.supported_contexts = [*ae.supported_contexts, *report_contexts()]
    try:
        # Not blocking, so it always returns the server.
        return cast(
            ThreadedAssociationServer,
            ae.start_server((listen.host, listen.port), block=False, evt_handlers=handlers),
        )
    except OSError as fault:
        raise Stop(
            f"listen: {listen.host}:{listen.port} can't be opened ({fault.strerror}): "
            "stop what uses the port, or change listen.host / listen.port"
        ) from fault


def _drain(server: ThreadedAssociationServer) -> None:
    """Take no new association, let the running ones finish, abort what is left."""
    server.shutdown()
    deadline = time.monotonic() + DRAIN_S
    while server.active_associations and time.monotonic() < deadline:
        time.sleep(0.05)
    for association in server.active_associations:
        association.abort()
