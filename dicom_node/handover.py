"""The DICOM library's server on a socket that several processes share, and the way an accepted association leaves it.

The library listens, negotiates and serves whatever is not plain storage; a storage association's socket goes to a
`Stream`. Knows no file and no ledger.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from socketserver import BaseServer
from typing import Any, cast

from pynetdicom import AE, evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from dicom_node import tls
from dicom_node.callers import BY_USER, CALLING_NOT_RECOGNISED, REJECTED_PERMANENT, Caller, names_in
from dicom_node.complaints import complaints
from dicom_node.headcount import Frequency, Headcount
from dicom_node.held_socket import LONGEST_DATA, LONGEST_OTHER, HeldSocket
from dicom_node.stream import LAST_WORD_S, Ending, Keeper, Limits, Stream
from dicom_node.upper_layer import AbortReason, abort_pdu

log = logging.getLogger(__name__)

SLACK = 32
"""Connections over the limit of associations that are still answered, by a rejection; further ones are closed."""
YIELD_S = 0.001
"""How long a receiver lets the others take a new connection, for each association that it has itself."""


class SharedLimit(AE):
    """An application entity whose limits of associations hold over all receivers of the node."""

    def __init__(
        self,
        ae_title: str,
        *,
        limit: int,
        limit_per_host: int,
        limit_per_minute: int,
        headcount: Headcount,
        frequency: Frequency,
    ) -> None:
        """`limit_per_host`: connections of one address; `limit_per_minute`: its new ones in a minute; 0: any."""
        super().__init__(ae_title)
        self.limit = limit
        self.limit_per_host = limit_per_host
        self.limit_per_minute = limit_per_minute
        self.headcount = headcount
        self.frequency = frequency

    @property  # type: ignore[misc] # set by the limit alone
    def maximum_associations(self) -> int:
        """What is left of the limit for this process. The library asks when it negotiates."""
        return max(0, self.limit - self.headcount.others())


class _Negotiation(ACSE):
    """The library's negotiation, which asks first whether the peer may have an association."""

    def negotiate_association(self) -> None:
        assoc = cast(_Association, self.assoc)
        if assoc.is_acceptor and (why := cast(Server, assoc._server).refusal(assoc)):
            address = assoc.requestor.address
            title = str(assoc.requestor.ae_title)
            complaints.tell(log, logging.WARNING, f"rejected an association of %r from %s: {why}", title, address)
            cast(Server, assoc._server).refused(why, str(address), title)
            assoc.told = True
            self.send_reject(REJECTED_PERMANENT, BY_USER, CALLING_NOT_RECOGNISED)
            evt.trigger(assoc, evt.EVT_REJECTED, {})
            assoc.kill()
            return
        super().negotiate_association()


class _Association(Association):
    """The library's association, whose end is always noticed."""

    began = 0.0
    told = False
    """Why there was none has been said."""
    certificate_names: frozenset[str] | None = None
    """The names in the peer's certificate, where it had to show one."""

    def run_reactor(self) -> None:
        try:
            if self._shakes_hands():
                super().run_reactor()
        except Exception as fault:  # noqa: BLE001 - it believes what a request says, and fails on some
            address, kind = self.requestor.address, type(fault).__name__
            complaints.tell(log, logging.WARNING, "an association with %s broke off (%s): aborted", address, kind)
            self._last_word()
        finally:
            self._let_go()
            self._tell()
            cast(Server, self._server).left(self)

    def _shakes_hands(self) -> bool:
        """Put the connection under TLS, where there is any, in this thread: nobody else waits for a slow peer."""
        server, held = cast(Server, self._server), cast(HeldSocket, self.dul.socket)
        if server.tls is None:
            return True
        context = server.tls.context
        try:
            secured = tls.accept(cast(socket.socket, held.socket), context, held.patience_s, held.become)
        except OSError as fault:
            why, address = tls.why_refused(fault), str(self.requestor.address)
            # A kind of complaint for each reason: many of one must not hide another.
            sentence = f"refused a connection from %s: {why.replace('%', '%%')}"
            complaints.tell(log, logging.WARNING, sentence, address)
            server.refused(why, address, "")
            secured = None
        if secured is None:
            self.told = True
            return False
        if context.verify_mode is ssl.CERT_REQUIRED:
            self.certificate_names = names_in(secured.getpeercert())
        return True

    def _tell(self) -> None:
        """A line about what never became an association."""
        address = self.requestor.address
        if self.told:
            return
        if self.is_rejected:
            title = str(self.requestor.ae_title)
            complaints.tell(log, logging.WARNING, "rejected an association of %r from %s", title, address)
            answer = cast(A_ASSOCIATE, self.acceptor.primitive)
            if answer.result == REJECTED_PERMANENT:
                cast(Server, self._server).refused("it called another title than ours", str(address), title)
        elif self.requestor.primitive is None and time.monotonic() - self.began >= (self.acse_timeout or 0):
            complaints.tell(log, logging.WARNING, "%s asked for no association in time: closed", address)

    def _raw(self) -> socket.socket | None:
        return self.dul.socket.socket if self.dul.socket else None

    def _last_word(self) -> None:
        raw = self._raw()
        if raw is not None:
            with contextlib.suppress(OSError):
                raw.settimeout(LAST_WORD_S)
                raw.sendall(abort_pdu(AbortReason.INVALID_PARAMETER_VALUE))

    def _let_go(self) -> None:
        """Neither its second thread nor its connection outlives it."""
        self.dul.kill_dul()
        raw = self._raw()
        if raw is not None:
            with contextlib.suppress(OSError):
                raw.shutdown(socket.SHUT_RDWR)
        if self.dul.is_alive():
            self.dul.join(LAST_WORD_S)
        if raw is not None:
            raw.close()


class _Handler(RequestHandler):
    """Makes an association of a connection."""

    def handle(self) -> None:
        assoc = self._create_association()
        try:
            assoc.start()
        except RuntimeError:
            # No thread left: the server's loop closes the connection.
            cast(Server, self.server).left(assoc)
            raise

    def _create_association(self) -> Association:
        """Differs from the library: the list of contexts is shared, not copied (27 ms for 170 of them)."""
        server = cast(Server, self.server)
        assoc = _Association(self.ae, MODE_ACCEPTOR)
        assoc._server = server
        assoc.acse = _Negotiation(assoc)
        assoc.began = time.monotonic()
        assoc.name = f"AcceptorThread-{id(assoc):x}"
        made = HeldSocket(assoc, self.request, hold=server.fast)
        made.patience_s = float(self.ae.acse_timeout or made.patience_s)
        assoc.set_socket(made)
        assoc.acceptor.maximum_length = self.ae.maximum_pdu_size
        assoc.acceptor.ae_title = server.ae_title
        assoc.acceptor.address_info = self.local
        assoc.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        assoc.acceptor.implementation_version_name = self.ae.implementation_version_name
        assoc.acceptor.supported_contexts = list(server.contexts)
        assoc.requestor.address_info = self.remote
        for event, bound in server._handlers.items():
            if event.is_intervention:
                assoc.bind(event, *cast(tuple[Any, Any], bound))
            else:
                for handler in cast(list[tuple[Any, Any]], bound):
                    assoc.bind(event, *handler)
        server.joined(assoc)
        return assoc


class Server(ThreadedAssociationServer):
    """The library's server on a listening socket that was opened elsewhere and that other processes accept from too."""

    def __init__(
        self,
        ae: SharedLimit,
        listening: socket.socket,
        handlers: list[evt.EventHandlerType],
        *,
        fast: bool,
        on_end: Callable[[Association], None],
        refusal: Callable[[Caller], str] = lambda _caller: "",
        renewing: tls.Renewing | None = None,
        refused: Callable[[str, str, str], None] = lambda _why, _address, _title: None,
    ) -> None:
        """`refusal`: why a peer may have no association, "" where it may; `renewing`: TLS, None for none.

        `refused` is told of who was not let in: why, address, title.
        """
        self.fast = fast
        self.tls = renewing
        self._refusal = refusal
        self.refused = refused
        self._listening = listening
        self._on_end = on_end
        self._shared = ae
        self._present: set[Association] = set()
        self._arriving: list[str] = []
        """The address of a connection that was let in and has no association yet."""
        self._lock = threading.Lock()
        self.streams: dict[Association, Stream] = {}
        super().__init__(
            ae,
            listening.getsockname(),
            ae.ae_title,
            ae.supported_contexts,
            evt_handlers=handlers,
            request_handler=_Handler,
        )

    def server_bind(self) -> None:
        cast(socket.socket, self.socket).close()
        # Of several processes that see a connection one gets it: the others must not wait for the next in `accept`.
        self._listening.setblocking(False)
        self.socket = self._listening
        self.server_address = self._listening.getsockname()

    def server_activate(self) -> None:
        """It listens already."""

    def server_close(self) -> None:
        """Our copy of it only: a shutdown would end it for every process."""
        self._listening.close()

    def shutdown(self) -> None:
        """Accept nothing more; running associations go on."""
        BaseServer.shutdown(self)
        self.server_close()

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        time.sleep(YIELD_S * len(self._present))
        return super().get_request()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether the connection gets a thread at all."""
        address = str(client_address[0])
        if (most := self._shared.limit_per_minute) and not self._shared.frequency.admit(address, most):
            if self._shared.frequency.worth_telling(address):
                log.warning("connections from %s are closed at once: it had %d in a minute", address, most)
                self.refused("too many connections in a minute", address, "")
            return False
        if len(self._present) >= self._shared.limit + SLACK:
            complaints.tell(log, logging.WARNING, "too many connections: one from %s was closed at once", address)
            return False
        if (most := self._shared.limit_per_host) and not self._takes_place(address, most):
            sentence = "a connection from %s was closed at once: it has %d already"
            complaints.tell(log, logging.WARNING, sentence, address, most)
            return False
        return True

    def _takes_place(self, address: str, most: int) -> bool:
        """Whether the address has fewer connections than `most`; then this one is known to the other receivers at once.

        Its association joins in the same thread, or never.
        """
        with self._lock, self._shared.headcount.alone():
            ours = sum(assoc.requestor.address == address for assoc in self._present)
            if ours + self._shared.headcount.others_of(address) >= most:
                return False
            self._arriving = [address]
            self._publish()
            return True

    def refusal(self, assoc: _Association) -> str:
        """Why a peer that asks for an association may have none, "" where it may."""
        assoc.requestor.ae_title = cast(A_ASSOCIATE, assoc.requestor.primitive).calling_ae_title
        title, address = str(assoc.requestor.ae_title), str(assoc.requestor.address)
        return "" if self._asks_itself(assoc) else self._refusal(Caller(title, address, assoc.certificate_names))

    def _asks_itself(self, assoc: _Association) -> bool:
        """Whether it is the node's own question whether somebody answers: see `probe`."""
        raw, asked = assoc._raw(), cast(A_ASSOCIATE, assoc.requestor.primitive).presentation_context_definition_list
        with contextlib.suppress(OSError):
            here = raw is not None and raw.getsockname()[0] == raw.getpeername()[0]
            only_that = {context.abstract_syntax for context in asked} == {Verification}
            return here and only_that and str(assoc.requestor.ae_title).strip() == self.ae.ae_title.strip()
        return False

    def process_request(self, request: Any, client_address: Any) -> None:
        # An association has two threads of its own; making it takes a millisecond and needs no third.
        try:
            self.finish_request(request, client_address)
        finally:
            if self._arriving:
                with self._lock:
                    self._arriving = []
                    self._publish()

    def joined(self, assoc: Association) -> None:
        with self._lock:
            self._present.add(assoc)
            self._arriving = []
            self._publish()

    def left(self, assoc: Association) -> None:
        with self._lock:
            self._present.discard(assoc)
            self._publish()
        self._on_end(assoc)

    def _publish(self) -> None:
        self._shared.headcount.publish([*(str(assoc.requestor.address) for assoc in self._present), *self._arriving])

    @property
    def present(self) -> Sequence[Association]:
        with self._lock:
            return tuple(self._present)


def is_plain_storage(contexts: Sequence[PresentationContext], storage: frozenset[str]) -> bool:
    """Whether an association can carry nothing but storage and verification."""
    classes = {str(context.abstract_syntax) for context in contexts}
    return bool(classes & storage) and classes <= storage | {str(Verification)}


def take_over(assoc: Association, keeper: Keeper, *, silence_s: float, message_timeout_s: float) -> Ending:
    """Serve an accepted storage association by a stream until it ends. Called in its thread, once it is established."""
    held = cast(HeldSocket, assoc.dul.socket)
    artim_s = held.patience_s
    server = cast(Server, assoc._server)
    # The library's reader has only to send the acceptance; then the connection is ours alone.
    held.accepted.wait(artim_s)
    assoc.dul.kill_dul()
    assoc.dul.join()
    contexts = {cast(int, cx.context_id): str(cx.transfer_syntax[0]) for cx in assoc.accepted_contexts}
    limits = Limits(
        max_pdu=assoc.acceptor.maximum_length or 0,
        peer_max_pdu=assoc.requestor.maximum_length or 0,
        silence_s=silence_s,
        message_timeout_s=message_timeout_s,
        artim_s=artim_s,
    )
    if held.socket is None:
        # The peer was gone before it could be told.
        assoc.is_established = False
        assoc.kill()
        return Ending.CLOSED
    stream = Stream(held.socket, contexts, keeper, limits)
    server.streams[assoc] = stream
    try:
        ending = stream.run()
    finally:
        server.streams.pop(assoc, None)
        assoc.is_established = False
        assoc.kill()
    title = str(assoc.requestor.ae_title)
    if stream.nameless:
        sentence = "refused %d object(s) of %r: they carry no data set, or no UIDs"
        complaints.tell(log, logging.WARNING, sentence, stream.nameless, title)
    if stream.fault:
        complaints.tell(log, logging.WARNING, "aborted the association of %r: %s", title, stream.fault)
    return ending


def leave_to_library(assoc: Association) -> None:
    """Let the library serve an accepted association after all."""
    held = assoc.dul.socket
    if isinstance(held, HeldSocket):
        # The thread that sends the acceptance holds the socket when it does: not before may it be let go.
        held.accepted.wait(held.patience_s)
        held.longest_data = (assoc.acceptor.maximum_length or LONGEST_DATA) + LONGEST_OTHER
        held.patience_s = float(assoc.network_timeout or held.patience_s)
        held.held = False
