"""The library's socket as a receiver needs it: it can be left alone once an association is accepted, and has limits.

Knows no association's contents.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import cast

from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket

from dicom_node import tls
from dicom_node.complaints import complaints
from dicom_node.upper_layer import Pdu

log = logging.getLogger(__name__)

LONGEST_OTHER = 1 << 20
"""Longest PDU that is no P-DATA: an A-ASSOCIATE-RQ with 128 contexts of 30 syntaxes each stays below."""
LONGEST_DATA = 1 << 26
"""Longest P-DATA PDU that the library may gather in memory where no maximum was agreed."""


class HeldSocket(AssociationSocket):
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

    def become(self, secured: socket.socket) -> None:
        """Go on with the same connection under TLS."""
        self.socket = secured

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
        if not self.accepted.is_set() and tls.speaks_tls(content):
            sentence = "refused a connection from %s: it speaks TLS, and listen.tls is not set"
            complaints.tell(log, logging.WARNING, sentence, self.assoc.requestor.address)
            raise OSError("this is no PDU")
        return content
