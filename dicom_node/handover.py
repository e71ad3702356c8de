"""The DICOM library's server on a socket that several processes share, and the way an accepted association leaves it.

The library listens, negotiates and serves whatever is not plain storage; a storage association's socket goes to a
`Stream`. Knows no file and no ledger.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from socketserver import BaseServer
from typing import Any, cast

from pynetdicom import AE, evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from dicom_node.complaints import complaints
from dicom_node.stream import LAST_WORD_S, Ending, Keeper, Limits, Stream
from dicom_node.upper_layer import AbortReason, Pdu, abort_pdu

log = logging.getLogger(__name__)

LONGEST_OTHER = 1 << 20
"""Longest PDU that is no P-DATA: an A-ASSOCIATE-RQ with 128 contexts of 30 syntaxes each stays below."""
LONGEST_DATA = 1 << 26
"""Longest P-DATA PDU that the library may gather in memory where no maximum was agreed."""
SLACK = 32
"""Connections over the limit of associations that are still answered, by a rejection; further ones are closed."""
YIELD_S = 0.001
"""How long a receiver lets the others take a new connection, for each association that it has itself."""


class Headcount:
    """How many associations each receiver of the node has, and with whom, in a file that they share.

    A slot is the count, and for each association a number that stands for the peer's address.
    """

    _NUMBER = struct.Struct("=I")

    def __init__(self, path: Path, *, slot: int, slots: int, most: int) -> None:
        """`most`: associations of one receiver."""
        self._most = most
        self._length = self._NUMBER.size * (1 + most)
        self._slot, self._slots = slot, slots
        size = self._length * slots
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if os.fstat(handle).st_size < size:
                # With its room on the disk: a hole in it would kill who writes there when the disk is full.
                os.posix_fallocate(handle, 0, size)
            self._map = mmap.mmap(handle, size)
        finally:
            os.close(handle)
        self.publish([])

    def publish(self, addresses: Sequence[str]) -> None:
        """The peers of this receiver's associations."""
        numbers = [zlib.crc32(address.encode()) for address in addresses[: self._most]]
        struct.pack_into(f"={1 + len(numbers)}I", self._map, self._slot * self._length, len(addresses), *numbers)

    def others(self) -> int:
        """The associations of all other receivers."""
        return sum(count for count, _ in self._other_slots())

    def others_of(self, address: str) -> int:
        """Those with one peer."""
        number = zlib.crc32(address.encode())
        return sum(numbers.count(number) for _, numbers in self._other_slots())

    def _other_slots(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        for slot in range(self._slots):
            if slot != self._slot:
                start = slot * self._length
                (count,) = self._NUMBER.unpack_from(self._map, start)
                there = min(count, self._most)
                yield count, struct.unpack_from(f"={there}I", self._map, start + self._NUMBER.size)

    def close(self) -> None:
        self.publish([])
        self._map.close()


class SharedLimit(AE):
    """An application entity whose limit of associations holds over all receivers of the node."""

    def __init__(self, ae_title: str, *, limit: int, limit_per_host: int, headcount: Headcount) -> None:
        """`limit_per_host`: connections of one address; 0: any."""
        super().__init__(ae_title)
        self.limit = limit
        self.limit_per_host = limit_per_host
        self.headcount = headcount

    @property  # type: ignore[misc] # set by the limit alone
    def maximum_associations(self) -> int:
        """What is left of the limit for this process. The library asks when it negotiates."""
        return max(0, self.limit - self.headcount.others())


class _Socket(AssociationSocket):
    """The library's socket, which stops reading once the association is accepted, and never reads without a limit."""

    held = False
    """Nothing is read from it: what comes next is for the stream."""
    longest_data = LONGEST_DATA
    patience_s = 30.0

    def __init__(self, assoc: Association, client_socket: socket.socket, *, hold: bool) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self._hold = hold
        self.accepted = threading.Event()
        client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A peer that vanished without a word is noticed, whatever the time-outs are.
        client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    @property
    def ready(self) -> bool:
        return not self.held and super().ready

    def send(self, bytestream: bytes) -> None:
        accepts = bytestream[:1] == bytes((Pdu.ASSOCIATE_AC,))
        if accepts and self._hold:
            # Before the peer has it, so that not one byte of its answer is read by the library.
            self.held = True
        super().send(bytestream)
        if accepts:
            self.accepted.set()

    def recv(self, nr_bytes: int) -> bytearray:
        """Differs from the library: a PDU must be complete in time, and may not be of any length it claims."""
        sock = cast(socket.socket, self.socket)
        if nr_bytes > (self.longest_data if self.accepted.is_set() else LONGEST_OTHER):
            complaints.tell(log, logging.WARNING, "a connection was closed: its PDU claims %d bytes", nr_bytes)
            raise OSError("the PDU is too long")
        content, at = bytearray(nr_bytes), 0
        deadline = time.monotonic() + self.patience_s
        view = memoryview(content)
        while at < nr_bytes:
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            count = sock.recv_into(view[at:])
            if not count:
                view.release()
                return content[:at]
            at += count
        sock.settimeout(self.patience_s)
        return content


class _Association(Association):
    """The library's association, whose end is always noticed."""

    began = 0.0

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        except Exception as fault:  # noqa: BLE001 - it believes what a request says, and fails on some
            address, kind = self.requestor.address, type(fault).__name__
            complaints.tell(log, logging.WARNING, "an association with %s broke off (%s): aborted", address, kind)
            self._last_word()
        finally:
            self._let_go()
            self._tell()
            cast(Server, self._server).left(self)

    def _tell(self) -> None:
        """A line about what never became an association."""
        address = self.requestor.address
        if self.is_rejected:
            title = str(self.requestor.ae_title)
            complaints.tell(log, logging.WARNING, "rejected an association of %r from %s", title, address)
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
        assoc.began = time.monotonic()
        assoc.name = f"AcceptorThread-{id(assoc):x}"
        made = _Socket(assoc, self.request, hold=server.fast)
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
    ) -> None:
        self.fast = fast
        self._listening = listening
        self._on_end = on_end
        self._shared = ae
        self._present: set[Association] = set()
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
        if (most := self._shared.limit_per_host) and self._connections_of(address) >= most:
            sentence = "a connection from %s was closed at once: it has %d already"
            complaints.tell(log, logging.WARNING, sentence, address, most)
            return False
        if len(self._present) < self._shared.limit + SLACK:
            return True
        complaints.tell(log, logging.WARNING, "too many connections: one from %s was closed at once", client_address[0])
        return False

    def _connections_of(self, address: str) -> int:
        ours = sum(assoc.requestor.address == address for assoc in self.present)
        return ours + self._shared.headcount.others_of(address)

    def process_request(self, request: Any, client_address: Any) -> None:
        # An association has two threads of its own; making it takes a millisecond and needs no third.
        self.finish_request(request, client_address)

    def joined(self, assoc: Association) -> None:
        with self._lock:
            self._present.add(assoc)
            self._publish()

    def left(self, assoc: Association) -> None:
        with self._lock:
            self._present.discard(assoc)
            self._publish()
        self._on_end(assoc)

    def _publish(self) -> None:
        self._shared.headcount.publish([str(assoc.requestor.address) for assoc in self._present])

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
    held = cast(_Socket, assoc.dul.socket)
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
    if isinstance(held, _Socket):
        # The thread that sends the acceptance holds the socket when it does: not before may it be let go.
        held.accepted.wait(held.patience_s)
        held.longest_data = (assoc.acceptor.maximum_length or LONGEST_DATA) + LONGEST_OTHER
        held.patience_s = float(assoc.network_timeout or held.patience_s)
        held.held = False
