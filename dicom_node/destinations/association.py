"""One outgoing association: opened, used while the caller's lease is kept alive, and always ended.

Owns the switches of pynetdicom that are valid for the whole process. Knows no object that travels on it.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE, SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation, AssociationSocket

from dicom_node import tls
from dicom_node.destinations.repairs import repair
from dicom_node.errors import Blame, EvenrayError, PeerBusy, PeerRefused, PeerUnreachable, SettingsInvalid
from dicom_node.marks import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from dicom_node.settings_peers import Address

# Process-wide, so set here once, for every sender: a file is sent in pieces as it lies on the disk, never decoded
# (its bytes arrive unchanged and memory stays flat), and no PDU is turned into text for a log.
_config.STORE_SEND_CHUNKED_DATASET = True
_config.LOG_HANDLER_LEVEL = "none"

BEAT_S = 2.0
"""Longest time between two beats while something is waited for."""
SLACK_S = 5.0
"""What the library's own time-out has at most to be late by, before we end the association over its head."""

SLOWEST_BYTES_S = 4096.0
"""Whoever takes data more slowly than this counts as not there."""
SHORTEST_PDU = 64
"""A peer that takes no longer PDU than this would be sent every object byte by byte."""

T = TypeVar("T")
Handlers = Sequence[tuple[evt.EventType, Callable[..., Any]]]

# Source: PS3.8 9.3.4, table 9-21 (source, reason).
REJECTIONS = {
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    (1, 3): "our AE title is not known there",
    (1, 7): "its AE title is another one",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}
PERMANENT, TRANSIENT = 1, 2
PRESENTATION = 3
# Source: PS3.8 table 9-18, result/reason of a presentation context.
NO_SUCH_ABSTRACT_SYNTAX = 3


class Link:
    """An association with a destination. Use as a context manager: leaving it releases or, on a fault, aborts.

    Blocking calls run in one helper thread, so that `beat` is called in the caller's thread meanwhile.
    """

    def __init__(
        self,
        destination: Address,
        *,
        calling_ae: str,
        contexts: Sequence[PresentationContext],
        beat: Callable[[], None] = lambda: None,
        handlers: Handlers = (),
        roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    ) -> None:
        """Nothing is opened yet. `roles` are proposed as SCP/SCU role selections (PS3.7 D.3.3.4)."""
        self.peer = f"{destination.ae_title}@{destination.host}:{destination.port}"
        self._destination = destination
        self._calling_ae = destination.calling_ae or calling_ae
        self._contexts = list(contexts)
        self._beat = beat
        self._handlers = handlers
        self._roles = list(roles)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="association")
        self._beaten = time.monotonic()
        self._dropped = threading.Event()
        self._association: Association | None = None
        self._socket: socket.socket | None = None
        self._answered: list[int] = []
        self.broken = False
        """Set by the user where the peer stopped answering: nothing more is sent, the release included."""

    def __enter__(self) -> Self:
        """Open the association.

        Raises PeerUnreachable (no connection, no answer, abort), PeerBusy (transient rejection by the peer's
        presentation layer), PeerRefused (permanent rejection; none of the contexts accepted). Source: PS3.8 9.3.4.
        """
        try:
            self._association = self.call(self._open)
        except BaseException:
            self._drop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        try:
            # Leaving a generator early is no fault of the association.
            if self.alive and not self.broken and kind in (None, GeneratorExit):
                self.call(self.association.release, limit_s=self._destination.connect_timeout_s + SLACK_S)
        except PeerUnreachable:
            # It did not answer the release; what it answered before holds all the same.
            pass
        finally:
            self._drop()

    @property
    def association(self) -> Association:
        if self._association is None:
            raise PeerUnreachable(f"{self.peer}: the association is not open")
        return self._association

    @property
    def alive(self) -> bool:
        return self._association is not None and self._association.is_established

    def call(self, blocking: Callable[[], T], *, limit_s: float = math.inf) -> T:
        """The result of a blocking call. Raises what that raises, what `beat` raises, PeerUnreachable after `limit_s`.

        A limit is needed where a report of the peer may cross: the library then can wait for itself for ever.
        """
        future = self._pool.submit(blocking)
        deadline = time.monotonic() + limit_s
        while True:
            if time.monotonic() - self._beaten >= BEAT_S:
                self._beat()
                self._beaten = time.monotonic()
            if wait([future], timeout=BEAT_S).done:
                return future.result()
            if time.monotonic() > deadline:
                raise PeerUnreachable(f"{self.peer}: no answer within {limit_s:g} s")

    def accepted(self, sop_class_uid: str) -> list[str]:
        """The transfer syntaxes in which the peer takes objects of this class."""
        contexts = self.association.accepted_contexts
        return [str(c.transfer_syntax[0]) for c in contexts if c.abstract_syntax == sop_class_uid and c.as_scu]

    def answered(self) -> list[int]:
        """The Message IDs of the requests that were answered since the last call; the library doesn't look at them."""
        found, self._answered = self._answered, []
        return found

    def longest_s(self, size: int) -> float:
        """The longest that sending so many bytes may take, however the peer stalls."""
        return 2 * self._destination.dimse_timeout_s + SLACK_S + size / SLOWEST_BYTES_S

    def _received(self, event: evt.Event) -> None:
        request = event.message.command_set.get("MessageIDBeingRespondedTo")
        if request is not None:
            self._answered.append(int(request))

    def _open(self) -> Association:
        ae = _Entity(self._calling_ae, self._destination, self._keep_socket)
        try:
            association = ae.associate(
                self._destination.host,
                self._destination.port,
                contexts=self._contexts,
                ae_title=self._destination.ae_title,
                ext_neg=list(self._roles),
                evt_handlers=[
                    (evt.EVT_CONN_OPEN, self._connected),
                    (evt.EVT_DIMSE_RECV, self._received),
                    *self._handlers,
                ],
            )
        except OSError as exc:
            fault = PeerUnreachable(f"{self.peer}: {exc.strerror or exc}: check host and network")
            raise fault.about(Blame.PEER) from exc
        except SettingsInvalid as exc:
            raise PeerUnreachable(f"{self.peer}: no TLS: {exc}").about(Blame.PEER) from exc
        if self._dropped.is_set() and association.is_established:
            association.abort()
        if not association.is_established:
            raise self._not_opened(association)
        longest = int(association.acceptor.maximum_length or 0)
        if 0 < longest < SHORTEST_PDU:
            association.abort()
            words = f"{self.peer}: takes no PDU longer than {longest} bytes: correct its maximum length"
            raise PeerRefused(words).about(Blame.PEER)
        repair(association)
        return association

    def _keep_socket(self, opened: socket.socket) -> None:
        self._socket = opened

    def _connected(self, event: evt.Event) -> None:
        """Limit every read and write: the library has just removed the limit, and a stalled peer would block us."""
        if self._socket:
            self._socket.settimeout(self._destination.dimse_timeout_s)

    def _not_opened(self, association: Association) -> EvenrayError:
        # A peer that rejects and closes at once can outrun the library, which then leaves its answer in the queue.
        answer = association.acceptor.primitive or association.dul.receive_pdu(wait=False)
        if isinstance(answer, A_ASSOCIATE) and answer.result in (PERMANENT, TRANSIENT):
            return _rejection(self.peer, answer).about(Blame.PEER)
        if association.rejected_contexts and not association.accepted_contexts:
            unknown = {c.abstract_syntax for c in association.rejected_contexts if c.result == NO_SUCH_ABSTRACT_SYNTAX}
            what = "SOP classes" if unknown else "transfer syntaxes"
            return PeerRefused(f"{self.peer}: takes none of the proposed {what}: {_names(association)}")
        if isinstance(self._socket, tls.TlsSocket) and self._socket.fault:
            return PeerUnreachable(f"{self.peer}: {tls.why(self._socket.fault)}").about(Blame.PEER)
        silent = PeerUnreachable(f"{self.peer}: no association (no connection, no answer in time, or an abort)")
        return silent.about(Blame.PEER)

    def _drop(self) -> None:
        """End whatever is left, whatever its state, without waiting for the peer."""
        self._dropped.set()
        if self._socket and not (self._association and self._association.is_released):
            # A thread that is stuck in a write to a stalled peer ends only when its socket does.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        if self._association and self.alive:
            self._association.abort()
        self._pool.shutdown(wait=False)
        if self._socket:
            self._socket.close()


class _Entity(AE):
    """Our application entity towards one destination, with its time-outs and without Nagle's delay."""

    def __init__(self, title: str, destination: Address, opened: Callable[[socket.socket], None]) -> None:
        super().__init__(title)
        self.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        self.implementation_version_name = IMPLEMENTATION_VERSION
        self.connection_timeout = destination.connect_timeout_s
        self.acse_timeout = destination.connect_timeout_s
        self.dimse_timeout = destination.dimse_timeout_s
        self.network_timeout = destination.dimse_timeout_s
        self._destination = destination
        self._opened = opened

    def _create_socket(self, assoc: Association, address: AddressInformation, tls_args: Any) -> AssociationSocket:
        created = super()._create_socket(assoc, address, tls_args)
        if created.socket:
            # A command and its data set are separate writes: Nagle would hold the second for 40 ms.
            created.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._destination.tls:
                # The library's connect shakes hands, too, within the same time limit.
                with created.socket as plain:
                    created.socket = tls.client_socket(plain, self._destination.tls, self._destination.host)
            self._opened(created.socket)
        return created


def _rejection(peer: str, answer: A_ASSOCIATE) -> EvenrayError:
    """What a rejected association means for a retry. Source: PS3.8 9.3.4."""
    source, reason = int(answer.result_source or 0), int(answer.diagnostic or 0)
    words = f"{peer}: association rejected: {REJECTIONS.get((source, reason), f'reason {source}/{reason}')}"
    if answer.result != TRANSIENT:
        return PeerRefused(f"{words}: check both AE titles and the peer's list of known nodes")
    return PeerBusy(words) if source == PRESENTATION else PeerUnreachable(words)


def _names(association: Association) -> str:
    classes = {c.abstract_syntax.name for c in association.rejected_contexts if c.abstract_syntax}
    return ", ".join(sorted(classes))
