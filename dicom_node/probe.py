"""Ask our own port whether somebody answers: an association for verification, a C-ECHO less. Knows no library of DICOM.

The supervisor must stay small, so it speaks these few bytes itself.
"""

from __future__ import annotations

import socket
import struct

from dicom_node.errors import SettingsInvalid
from dicom_node.marks import IMPLEMENTATION_CLASS_UID
from dicom_node.settings import Listen

ACCEPTED, REJECTED = 2, 3
"""PDU types A-ASSOCIATE-AC and -RJ. Source: PS3.8 9.3.3, 9.3.4."""
RELEASE_REQUEST = bytes((5, 0, 0, 0, 0, 4, 0, 0, 0, 0))
"""Source: PS3.8 9.3.6."""
TOO_MANY = 2
"""Reason `local limit exceeded` of a rejection by the presentation service provider. Source: PS3.8 table 9-21."""
PROVIDER_PRESENTATION = 3
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def refusal(listen: Listen, *, patience_s: float = 5.0) -> str:
    """Why nobody takes an association on our port, "" when one was taken, or refused only for being one too many."""
    try:
        with _connected(listen, patience_s) as link:
            # Our own title: whoever else may come, it may ask this from this machine.
            link.sendall(_request(listen.ae_title, listen.ae_title))
            head = _exactly(link, 6)
            length = int.from_bytes(head[2:], "big")
            body = _exactly(link, min(length, 1 << 16))
            if head[0] == ACCEPTED:
                link.sendall(RELEASE_REQUEST)
                _exactly(link, 10)
                return ""
    except SettingsInvalid as fault:
        return str(fault)
    except OSError as fault:
        return _why(fault)
    if head[0] == REJECTED and len(body) == 4:
        full = body[2:] == bytes((PROVIDER_PRESENTATION, TOO_MANY))
        return "" if full else f"the association was rejected (source {body[2]}, reason {body[3]})"
    return f"an answer of another kind (PDU type {head[0]})"


def _connected(listen: Listen, patience_s: float) -> socket.socket:
    """A connection to our own port, under TLS where it speaks that. Raises OSError, SettingsInvalid."""
    host = EVERYWHERE.get(listen.host, listen.host)
    plain = socket.create_connection((host, listen.port), timeout=patience_s)
    if listen.tls is None:
        return plain
    # Imported here: the supervisor stays smaller without.
    from dicom_node.tls import client_socket

    with plain:
        link = client_socket(plain, listen.tls.to_itself(), host)
    try:
        link.do_handshake()
    except BaseException:
        link.close()
        raise
    return link


def _why(fault: OSError) -> str:
    """What is wrong, "" where the port has only refused our certificate: one of a server may be none for a client."""
    if not (reason := getattr(fault, "reason", None)):
        return fault.strerror or str(fault) or type(fault).__name__
    from dicom_node.tls_faults import REFUSES_OURS, why

    return "" if reason in REFUSES_OURS else why(fault)


def _request(called: str, calling: str) -> bytes:
    """A-ASSOCIATE-RQ with one context: Verification in Implicit VR Little Endian. Source: PS3.8 9.3.2."""
    context = bytes((1, 0, 0, 0)) + _item(0x30, b"1.2.840.10008.1.1") + _item(0x40, b"1.2.840.10008.1.2")
    user = _item(0x51, struct.pack(">I", 16384)) + _item(0x52, IMPLEMENTATION_CLASS_UID.encode())
    items = _item(0x10, b"1.2.840.10008.3.1.1.1") + _item(0x20, context) + _item(0x50, user)
    fixed = struct.pack(">HH16s16s32x", 1, 0, called.encode().ljust(16), calling.encode().ljust(16))
    return struct.pack(">BBI", 1, 0, len(fixed + items)) + fixed + items


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def _exactly(link: socket.socket, count: int) -> bytes:
    """So many bytes. Raises OSError when the peer closes before."""
    found = b""
    while len(found) < count:
        more = link.recv(count - len(found))
        if not more:
            raise ConnectionResetError(0, "the connection was closed without an answer")
        found += more
    return found
