"""The P-DATA stream of one accepted storage association: objects from the socket to whoever keeps them, and answers.

Obeys the upper layer protocol as acceptor from state Sta6 on (PS3.8 9.2): whatever it does not expect ends in an
A-ABORT. Knows no file, ledger or DICOM library. Written for speed: one large buffer, headers parsed in place, the
bytes of a data set handed on as they came.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from dicom_node.status import StoreStatus
from dicom_node.upper_layer import (
    COMMAND,
    LAST,
    PDU_HEADER,
    PDV_HEADER,
    PDV_OVERHEAD,
    RELEASE_RP,
    AbortReason,
    CommandField,
    Pdu,
    Request,
    abort_pdu,
    command_pdus,
    read_request,
    response,
)

BUFFER = 1 << 18
"""Bytes asked of the socket at once; one such buffer is all the memory that an association needs."""
PDUS = frozenset(int(kind) for kind in Pdu)
LONGEST_COMMAND = 1 << 14
"""A storage command is two UIDs, two AE titles and numbers: a few hundred bytes."""
LEAST_PROGRESS = 1 << 12
"""Bytes that a message which has begun must bring in every `message_timeout_s`: a slow line does, a loris does not."""
AT_ONCE = 512
"""Pieces handed on together; the kernel takes 1024 in one call."""
LAST_WORD_S = 2.0
"""Longest wait until the kernel takes an A-ABORT for a peer that has stopped reading."""


class Ending(StrEnum):
    """How an association ended."""

    RELEASED = "released"
    ABORTED = "aborted"
    """By the peer."""
    CLOSED = "closed"
    """The connection was gone without a word."""
    TIMED_OUT = "timed out"
    VIOLATED = "protocol error"
    """We aborted it."""
    STOPPED = "stopped"
    """We aborted it, since this process ends."""


class Sink(Protocol):
    """Where one object's bytes go. What goes wrong is kept until the object is complete, never raised."""

    def append(self, pieces: Sequence[memoryview]) -> None: ...

    def discard(self) -> None: ...


class Keeper(Protocol):
    """Who keeps objects."""

    def begin(self, request: Request, transfer_syntax_uid: str) -> Sink:
        """An object is coming."""

    def keep(self, request: Request, transfer_syntax_uid: str, sink: Sink) -> int:
        """It is complete: keep it for good. The status of the answer; Success only if it is safe."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What was agreed with the peer, and how long to wait for it."""

    max_pdu: int
    """Longest variable field of a P-DATA-TF PDU that we take; 0: any. Source: PS3.8 D.1."""
    peer_max_pdu: int
    """The same of the peer."""
    silence_s: float
    """Longest silence on the connection."""
    message_timeout_s: float
    """A message that has begun must make progress in this time."""
    artim_s: float
    """Longest wait for the peer to close the connection. Source: PS3.8 9.1.5."""


class _Violation(Exception):
    """The peer broke the protocol."""

    def __init__(self, sentence: str, reason: AbortReason = AbortReason.UNEXPECTED_PDU) -> None:
        super().__init__(sentence)
        self.reason = reason


class _Closed(Exception):
    """The connection is gone."""


@dataclass(slots=True)
class _Object:
    """One object that is coming in. Without a sink its bytes are dropped, and the answer is `status`."""

    context_id: int
    request: Request
    sink: Sink | None
    status: int = StoreStatus.CANNOT_UNDERSTAND


class Stream:
    """One association. `run` serves it until it ends; `fault` then says what was wrong, "" if nothing."""

    def __init__(self, sock: socket.socket, contexts: Mapping[int, str], keeper: Keeper, limits: Limits) -> None:
        """`contexts`: the transfer syntax of every accepted presentation context."""
        self._sock = sock
        self._contexts = contexts
        self._keeper = keeper
        self._limits = limits
        self._buffer = bytearray(BUFFER)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._pieces: list[memoryview] = []
        self._command = bytearray()
        self._command_context = 0
        self._object: _Object | None = None
        self._deadline = 0.0
        self._brought = 0
        self._stopped = False
        self.fault = ""
        self.nameless = 0
        """Objects that were refused because their request names none: nobody kept them, so nobody else tells of it."""

    def run(self) -> Ending:
        """Serve the association. The socket is left to the caller to close. Raises nothing of the network."""
        try:
            self._sock.settimeout(self._limits.silence_s)
            ending = self._serve()
        except _Violation as fault:
            self.fault = str(fault)
            self._abort(fault.reason)
            ending = Ending.VIOLATED
        except TimeoutError:
            self.fault = "it made no progress in time" if self._busy else "it was silent for too long"
            self._abort(AbortReason.NOT_SPECIFIED)
            ending = Ending.TIMED_OUT
        except (_Closed, OSError):
            ending = Ending.CLOSED
            if self._stopped:
                self._abort(AbortReason.NOT_SPECIFIED)
                ending = Ending.STOPPED
        finally:
            self._drop()
        return ending

    def stop(self) -> None:
        """End the association from another thread."""
        self._stopped = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RD)

    @property
    def idle(self) -> bool:
        """Whether the peer is between two messages."""
        return not self._busy

    @property
    def _busy(self) -> bool:
        return self._object is not None or bool(self._command) or self._start != self._end

    def _serve(self) -> Ending:
        while True:
            self._need(PDU_HEADER.size)
            kind, length = PDU_HEADER.unpack_from(self._buffer, self._start)
            self._start += PDU_HEADER.size
            if kind == Pdu.P_DATA_TF:
                self._p_data(length)
            elif kind == Pdu.RELEASE_RQ and length == 4:
                self._drop()
                self._sock.sendall(RELEASE_RP)
                self._wait_for_close()
                return Ending.RELEASED
            elif kind == Pdu.ABORT:
                return Ending.ABORTED
            elif kind in PDUS:
                raise _Violation(f"a PDU of type {kind} and length {length} has no place here")
            else:
                raise _Violation(f"no PDU is of type {kind}", AbortReason.UNRECOGNIZED_PDU)

    def _p_data(self, left: int) -> None:
        """One P-DATA-TF PDU: one or more PDVs. Source: PS3.8 9.3.5."""
        if self._limits.max_pdu and left > self._limits.max_pdu:
            agreed = self._limits.max_pdu
            raise _Violation(f"a PDU of {left} bytes, {agreed} were agreed", AbortReason.INVALID_PARAMETER_VALUE)
        if left == 0:
            raise _Violation("a PDU without a PDV", AbortReason.INVALID_PARAMETER_VALUE)
        while left:
            if left < PDV_OVERHEAD:
                raise _Violation("a PDU ends inside a PDV", AbortReason.INVALID_PARAMETER_VALUE)
            self._need(PDV_OVERHEAD)
            length, context_id, control = PDV_HEADER.unpack_from(self._buffer, self._start)
            self._start += PDV_OVERHEAD
            # Its length counts context and control header. Source: PS3.8 9.3.5.1.
            left -= length + 4
            if length < 2 or left < 0:
                raise _Violation("a PDV's length is wrong", AbortReason.INVALID_PARAMETER_VALUE)
            if context_id not in self._contexts:
                raise _Violation(
                    f"presentation context {context_id} was not accepted", AbortReason.INVALID_PARAMETER_VALUE
                )
            if control & COMMAND:
                self._command_fragment(context_id, length - 2, last=bool(control & LAST))
            else:
                self._object_fragment(context_id, length - 2, last=bool(control & LAST))

    def _command_fragment(self, context_id: int, size: int, *, last: bool) -> None:
        if self._object is not None:
            raise _Violation("a command inside of a data set")
        if self._command and context_id != self._command_context:
            raise _Violation("a command changes its presentation context")
        if len(self._command) + size > LONGEST_COMMAND:
            raise _Violation("a command set is too long", AbortReason.INVALID_PARAMETER_VALUE)
        self._command_context = context_id
        for piece in self._take(size):
            self._command += piece
        if last:
            command, self._command = self._command, bytearray()
            self._on_command(context_id, command)

    def _object_fragment(self, context_id: int, size: int, *, last: bool) -> None:
        coming = self._object
        if coming is None or coming.context_id != context_id:
            raise _Violation("a data set without its command")
        for piece in self._take(size):
            if coming.sink is not None:
                self._pieces.append(piece)
                if len(self._pieces) >= AT_ONCE:
                    self._flush()
        if last:
            self._on_object(coming)

    def _on_command(self, context_id: int, command: bytearray) -> None:
        try:
            request = read_request(command)
        except ValueError as fault:
            raise _Violation(str(fault), AbortReason.INVALID_PARAMETER_VALUE) from fault
        if request.field == CommandField.C_STORE_RQ:
            known = request.names_an_object
            self.nameless += not (known and request.has_data_set)
            if not request.has_data_set:
                self._answer(context_id, request, StoreStatus.CANNOT_UNDERSTAND)
                return
            sink = self._keeper.begin(request, self._contexts[context_id]) if known else None
            self._object = _Object(context_id, request, sink)
        elif request.field == CommandField.C_ECHO_RQ and not request.has_data_set:
            self._answer(context_id, request, StoreStatus.SUCCESS)
        elif request.field != CommandField.C_CANCEL_RQ:
            # A C-CANCEL has nothing to cancel here: no operation of ours has more than one response.
            raise _Violation(f"command 0x{request.field:04X} has no place on a storage association")

    def _on_object(self, coming: _Object) -> None:
        self._flush()
        status = coming.status
        # From here on whoever keeps it owns the sink, whatever happens.
        self._object = None
        if coming.sink is not None:
            syntax = self._contexts[coming.context_id]
            status = self._keeper.keep(coming.request, syntax, coming.sink)
        self._answer(coming.context_id, coming.request, status)

    def _answer(self, context_id: int, request: Request, status: int) -> None:
        try:
            pdus = b"".join(command_pdus(context_id, response(request, status), self._limits.peer_max_pdu))
        except ValueError as fault:
            raise _Violation(str(fault), AbortReason.INVALID_PARAMETER_VALUE) from fault
        self._sock.sendall(pdus)
        self._begin_window(time.monotonic())

    def _take(self, size: int) -> Iterator[memoryview]:
        """The next `size` bytes of the connection, in pieces that stay valid until more is received."""
        while size:
            if self._start == self._end:
                self._fill()
            piece = self._view[self._start : min(self._end, self._start + size)]
            self._start += len(piece)
            size -= len(piece)
            yield piece

    def _need(self, count: int) -> None:
        """Have `count` bytes in one piece; only headers ask for it."""
        while self._end - self._start < count:
            self._fill()

    def _fill(self) -> None:
        """Receive what has come, behind what is not read yet. Raises _Closed, TimeoutError, OSError."""
        self._flush()
        idle = not self._busy
        if self._start:
            # At most the rest of a header is left.
            rest = bytes(self._view[self._start : self._end])
            self._view[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        count = self._sock.recv_into(self._view[self._end :])
        if not count:
            raise _Closed
        self._end += count
        now = time.monotonic()
        if idle:
            self._begin_window(now)
            return
        self._brought += count
        if now > self._deadline:
            if self._brought < LEAST_PROGRESS:
                raise TimeoutError
            self._begin_window(now)

    def _begin_window(self, now: float) -> None:
        self._deadline, self._brought = now + self._limits.message_timeout_s, 0

    def _flush(self) -> None:
        if self._pieces and self._object is not None and self._object.sink is not None:
            self._object.sink.append(self._pieces)
        self._pieces.clear()

    def _drop(self) -> None:
        """Let go of an object that never became complete; its sender was told nothing."""
        self._pieces.clear()
        if self._object is not None and self._object.sink is not None:
            self._object.sink.discard()
        self._object = None

    def _abort(self, reason: AbortReason) -> None:
        self._drop()
        with contextlib.suppress(OSError):
            self._sock.settimeout(min(LAST_WORD_S, self._limits.artim_s))
            self._sock.sendall(abort_pdu(reason))
            self._sock.shutdown(socket.SHUT_WR)
        self._wait_for_close()

    def _wait_for_close(self) -> None:
        """State Sta13: what still comes is dropped until the peer closes or ARTIM runs out. Source: PS3.8 9.2."""
        deadline = time.monotonic() + self._limits.artim_s
        with contextlib.suppress(OSError):
            while (left := deadline - time.monotonic()) > 0 and not self._stopped:
                self._sock.settimeout(left)
                if not self._sock.recv_into(self._view):
                    return
