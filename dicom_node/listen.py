"""A receiving process: associations on the supervisor's listening socket until it is asked to stop.

Decides nothing about what it keeps.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from functools import partial
from socket import socket

from pydicom.uid import UID
from pynetdicom import AllStoragePresentationContexts, _config, dimse_messages, evt
from pynetdicom.association import Association
from pynetdicom.dsutils import create_file_meta
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from dicom_node.arrivals import Arrivals
from dicom_node.audit_trail import Alerts, Notes
from dicom_node.callers import refusal
from dicom_node.complaints import complaints
from dicom_node.confirm import settle
from dicom_node.destinations.commitment import report_contexts, report_handler
from dicom_node.destinations.commitment_scp import MOST_BYTES
from dicom_node.errors import EvenrayError, SettingsInvalid, StartLater, place_of
from dicom_node.handover import SLACK, Server, SharedLimit, is_plain_storage, leave_to_library, take_over
from dicom_node.headcount import Frequency, Headcount
from dicom_node.incoming import Incoming
from dicom_node.keeping import Asked
from dicom_node.ledger import Ledger
from dicom_node.liveness import Liveness
from dicom_node.marks import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from dicom_node.receive import Desk, Receiver, called_ae
from dicom_node.settings import Dimse, Listen, Settings
from dicom_node.settings_peers import TlsServer
from dicom_node.spool import Spool
from dicom_node.stopping import Stopping
from dicom_node.stream import Ending
from dicom_node.syntaxes import STORABLE
from dicom_node.tls import Renewing

log = logging.getLogger(__name__)

LONGEST_MESSAGE = MOST_BYTES + (1 << 20)
"""Longest message that carries no object: a commitment request."""
LAST_WORDS_S = 3.0
"""How long aborted associations may take to end."""


def run(settings: Settings, stopping: Stopping, *, socket: socket, slot: int, slots: int) -> None:
    """Receive on the supervisor's listening socket until asked to stop; it is receiver `slot` of `slots`."""
    renewing = _renewing(settings.listen.tls)
    spool = Spool(settings.state_dir / "spool")
    liveness = Liveness(settings.state_dir / "locks", "receive")
    ledger = Ledger(settings.state_dir / "ledger.sqlite")
    spool.clear_incoming(liveness.alive, partial(_is_kept, spool, ledger))
    spool.prepare(liveness.name)
    ledger.make_room()
    ledger.sweep(liveness.alive, now=time.time())
    receiver = Receiver(spool, ledger, Arrivals(ledger, time.time), settings.storage, liveness.name)
    _stream_to(receiver)
    listen, locks = settings.listen, settings.state_dir / "locks"
    headcount = Headcount(locks / "associations.count", slot=slot, slots=slots, most=listen.max_associations + SLACK)
    frequency = Frequency(locks / "connections.count", slot=slot, slots=slots)
    node = _Associations(ledger, receiver, settings)
    alerts = Alerts(Notes(settings))
    server = Server(
        _entity(listen, headcount, frequency, commitment=_speaks_of_commitment(settings)),
        socket,
        node.handlers(),
        fast=listen.fast,
        on_end=node.ended,
        refusal=partial(refusal, listen=listen),
        renewing=renewing,
        refused=alerts.refused,
    )
    threading.Thread(target=server.serve_forever, name="accept", daemon=True).start()
    where = (listen.ae_title, listen.host, listen.port)
    log.info("receiver %d of %d listens as %s on %s:%d", slot + 1, slots, *where)
    try:
        while not stopping.wait(1):
            liveness.beat()
            if renewing:
                renewing.look()
    finally:
        _drain(server, listen.drain_s, liveness)
        for held in (spool, headcount, frequency, alerts, ledger, liveness):
            held.close()
        log.info("stopped listening")


def _renewing(tls: TlsServer | None) -> Renewing | None:
    """Raises StartLater: the supervisor has seen files that can be used, so these are just being renewed."""
    try:
        return Renewing(tls) if tls else None
    except SettingsInvalid as fault:
        raise StartLater(str(fault)) from fault


def _is_kept(spool: Spool, ledger: Ledger, path: str) -> bool:
    """Whether a file that a dead receiver had in hand stays.

    It does without a row, too, when it is older than the ledger: then that is a new one, or an older copy.
    """
    if ledger.instances.has_path(path):
        return True
    file = spool.at(path)
    return file.exists() and file.stat().st_size > 0 and file.stat().st_mtime < ledger.upkeep.born()


def _stream_to(receiver: Receiver) -> None:
    """Have the library write data sets straight to files beside the spool, so that memory stays flat.

    These switches of pynetdicom are process-wide; this process does nothing but listen.
    """
    _config.STORE_RECV_CHUNKED_DATASET = True
    # It writes in the thread that reads the socket, which must outlive a full disk: see Incoming.
    dimse_messages.NamedTemporaryFile = lambda **_options: receiver.temporary_file()  # type: ignore[attr-defined,assignment]
    # The same bytes, whichever way an object comes in.
    dimse_messages.create_file_meta = partial(  # type: ignore[attr-defined]
        create_file_meta,
        implementation_uid=UID(IMPLEMENTATION_CLASS_UID),
        implementation_version=IMPLEMENTATION_VERSION,
    )


class _Associations:
    """What this process does when an association begins, carries something, and ends."""

    def __init__(self, ledger: Ledger, receiver: Receiver, settings: Settings) -> None:
        self._ledger = ledger
        self._receiver = receiver
        self._settings = settings
        self._asked = Asked(ledger, settings, receiver.name, receiver.full)
        extra = set(settings.listen.extra_sop_classes)
        self._storage = frozenset({str(found.abstract_syntax) for found in AllStoragePresentationContexts} | extra)

    def handlers(self) -> list[evt.EventHandlerType]:
        return [
            (evt.EVT_ACCEPTED, self._accepted),
            (evt.EVT_ESTABLISHED, self._established),
            (evt.EVT_CONN_CLOSE, self._closed),
            (evt.EVT_C_STORE, self._receiver.store),
            (evt.EVT_C_ECHO, lambda _event: 0x0000),
            report_handler(lambda report: settle(report, self._ledger, self._settings.deliver)),
            (evt.EVT_N_ACTION, self._asked.handle),
            (evt.EVT_PDU_RECV, self._bound),
        ]

    def _accepted(self, event: evt.Event) -> None:
        association = event.assoc
        ref = uuid.uuid4().hex
        calling = str(association.requestor.ae_title).strip()
        try:
            address = str(association.requestor.address)
            called = called_ae(association)
            self._ledger.association_opened(ref, self._receiver.name, calling, called, address, now=time.time())
        except EvenrayError as fault:
            # Only the quiet time is told from it: without a row an association counts as ended.
            log.warning("an association has no row: %s", fault)
            return
        association.evenray_id = ref  # type: ignore[attr-defined]

    def _established(self, event: evt.Event) -> None:
        association, listen = event.assoc, self._settings.listen
        if not (listen.fast and is_plain_storage(association.accepted_contexts, self._storage)):
            leave_to_library(association)
            return
        try:
            association.evenray_ending = take_over(  # type: ignore[attr-defined]
                association,
                Desk(self._receiver, association),
                silence_s=listen.network_timeout_s,
                message_timeout_s=listen.dimse_timeout_s,
            )
        except Exception as fault:  # noqa: BLE001 - a fault of one association must not stop the others
            complaints.tell(log, logging.ERROR, "an association broke off: %s", place_of(fault))

    def _bound(self, event: evt.Event) -> None:
        """End an association whose message grows without end: whatever is no object is gathered in memory."""
        message = event.assoc.dimse.message
        parts = (message.data_set, message.encoded_command_set) if message else ()
        if sum(part.tell() for part in parts if part) > LONGEST_MESSAGE:
            title = str(event.assoc.requestor.ae_title)
            complaints.tell(log, logging.WARNING, "aborted the association of %r: a message without end", title)
            event.assoc.abort(block=False)

    def _closed(self, event: evt.Event) -> None:
        if getattr(event.assoc, "evenray_id", None) is None and event.assoc.requestor.primitive is None:
            # A probe that only connected: wake its thread, which else counts as an association until a time-out.
            event.assoc.dul.to_user_queue.put(None)

    def ended(self, association: Association) -> None:
        """Its thread ends, whichever way."""
        partial_file = getattr(association.dimse.message, "_data_set_file", None)
        if isinstance(partial_file, Incoming):
            partial_file.discard()
        ref = getattr(association, "evenray_id", None)
        if ref is None:
            return
        ending = getattr(association, "evenray_ending", None)
        how = str(ending) if ending else "released" if association.is_released else "aborted"
        if how != Ending.RELEASED:
            title = str(association.requestor.ae_title)
            complaints.tell(log, logging.INFO, "the association of %r ended: %s", title, how)
        try:
            self._ledger.association_ended(ref, how, now=time.time())
        except EvenrayError as fault:
            log.warning("an association's row stays open until this process ends: %s", fault)


def _speaks_of_commitment(settings: Settings) -> bool:
    """Whether peers may ask what we keep, or are to report on what we asked."""
    asking = any(isinstance(where, Dimse) and where.commitment for where in settings.destinations.values())
    return settings.listen.commitment or asking


def _entity(listen: Listen, headcount: Headcount, frequency: Frequency, *, commitment: bool) -> SharedLimit:
    ae = SharedLimit(
        listen.ae_title,
        limit=listen.max_associations,
        limit_per_host=listen.max_associations_per_host,
        limit_per_minute=listen.max_associations_per_minute,
        headcount=headcount,
        frequency=frequency,
    )
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION
    ae.maximum_pdu_size = listen.max_pdu
    ae.acse_timeout = listen.acse_timeout_s
    ae.dimse_timeout = listen.dimse_timeout_s
    ae.network_timeout = listen.network_timeout_s
    ae.require_called_aet = listen.check_called_ae
    ae.add_supported_context(Verification)
    classes = {str(context.abstract_syntax) for context in AllStoragePresentationContexts}
    for uid in sorted(classes | set(listen.extra_sop_classes)):
        ae.add_supported_context(uid, list(STORABLE))
    for context in report_contexts() if commitment else ():
        # One by one: a list set as a whole loses its roles in the library.
        roles = {"scu_role": context.scu_role, "scp_role": context.scp_role}
        ae.add_supported_context(str(context.abstract_syntax), context.transfer_syntax, **roles)
    return ae


def _drain(server: Server, drain_s: float, liveness: Liveness) -> None:
    """Take no new association, let the running ones finish, abort what is left."""
    server.shutdown()
    _wait_for_end(server, drain_s, liveness)
    for association in server.present:
        stream = server.streams.get(association)
        if stream is not None:
            stream.stop()
        else:
            with contextlib.suppress(RuntimeError):
                association.abort()
    _wait_for_end(server, LAST_WORDS_S, liveness)


def _wait_for_end(server: Server, longest_s: float, liveness: Liveness) -> None:
    deadline = time.monotonic() + longest_s
    while server.present and time.monotonic() < deadline:
        liveness.beat()
        time.sleep(0.05)
