"""The bytes of an established association: PDU and PDV headers, storage commands and their responses, aborts.

Knows no socket, file or DICOM library. Source: PS3.8 9.3, PS3.7 9.3.1, 9.3.5, annex E.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

PDU_HEADER = struct.Struct(">BxI")
"""Type and length of every PDU. Source: PS3.8 9.3.1."""
PDV_HEADER = struct.Struct(">IBB")
"""Length, presentation context, message control header. Source: PS3.8 9.3.5.1, E.2."""
PDV_OVERHEAD = PDV_HEADER.size
COMMAND, LAST = 1, 2
"""Bits of the message control header. Source: PS3.8 E.2."""
NO_DATA_SET = 0x0101
"""Command Data Set Type of a message without data set. Source: PS3.7 E.1-1."""


class Pdu(IntEnum):
    """PDU types. Source: PS3.8 9.3.1."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    P_DATA_TF = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


class AbortReason(IntEnum):
    """Reasons of an A-ABORT by the service provider. Source: PS3.8 table 9-26."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    INVALID_PARAMETER_VALUE = 6


class CommandField(IntEnum):
    """The commands that a storage association may carry. Source: PS3.7 table E.1-1."""

    C_STORE_RQ = 0x0001
    C_ECHO_RQ = 0x0030
    C_CANCEL_RQ = 0x0FFF


RESPONSE = 0x8000
"""This bit makes a request's Command Field that of its response. Source: PS3.7 table E.1-1."""

# Element numbers of group 0000. Source: PS3.7 table E.1-1.
_GROUP_LENGTH, _AFFECTED_CLASS, _COMMAND_FIELD = 0x0000, 0x0002, 0x0100
_MESSAGE_ID, _RESPONDED_TO, _DATA_SET_TYPE, _STATUS = 0x0110, 0x0120, 0x0800, 0x0900
_AFFECTED_INSTANCE = 0x1000
_ELEMENT = struct.Struct("<HHI")
_US = struct.Struct("<H")
_MAX_UID = 64


@dataclass(frozen=True, slots=True)
class Request:
    """One command as far as storage needs it. UIDs are "" where they are absent."""

    field: int
    message_id: int
    has_data_set: bool
    sop_class_uid: str
    sop_instance_uid: str

    @property
    def names_an_object(self) -> bool:
        """Whether both UIDs are there and could be UIDs: printable, 1 to 64 characters. Source: PS3.5 9.1.

        Their digits are not looked at: a modality whose UIDs are a little wrong has its images kept all the same.
        """
        uids = (self.sop_class_uid, self.sop_instance_uid)
        return all(0 < len(uid) <= _MAX_UID and uid.isascii() and uid.isprintable() for uid in uids)


def read_request(command: bytes | bytearray) -> Request:
    """Read a complete command set. Raises ValueError, whose text names no value, when it is none.

    Source: PS3.7 6.3.1: implicit VR little endian, group 0000 alone.
    """
    found = _elements(command)
    return Request(
        field=_number(found, _COMMAND_FIELD),
        message_id=_number(found, _MESSAGE_ID) if _MESSAGE_ID in found else 0,
        has_data_set=_number(found, _DATA_SET_TYPE) != NO_DATA_SET,
        sop_class_uid=_uid(found, _AFFECTED_CLASS),
        sop_instance_uid=_uid(found, _AFFECTED_INSTANCE),
    )


def _elements(command: bytes | bytearray) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at, end = 0, len(command)
    while at < end:
        if end - at < _ELEMENT.size:
            raise ValueError("a command set ends inside an element")
        group, element, length = _ELEMENT.unpack_from(command, at)
        at += _ELEMENT.size
        if group != 0:
            raise ValueError("a command set has an element of another group")
        if length > end - at:
            raise ValueError("an element of a command set is longer than the set")
        found[element] = bytes(command[at : at + length])
        at += length
    return found


def _number(found: Mapping[int, bytes], element: int) -> int:
    value = found.get(element)
    if value is None or len(value) != _US.size:
        raise ValueError(f"a command set has no number in (0000,{element:04X})")
    return int(_US.unpack(value)[0])


def _uid(found: Mapping[int, bytes], element: int) -> str:
    # Byte by byte, so that what is no UID is seen to be none and is said back as it came.
    return found.get(element, b"").rstrip(b"\0 ").decode("latin-1")


def response(request: Request, status: int) -> bytes:
    """The command set that answers a C-STORE or C-ECHO request. Source: PS3.7 9.3.1.2, 9.3.5.2."""
    elements = [
        _text(_AFFECTED_CLASS, request.sop_class_uid),
        _short(_COMMAND_FIELD, request.field | RESPONSE),
        _short(_RESPONDED_TO, request.message_id),
        _short(_DATA_SET_TYPE, NO_DATA_SET),
        _short(_STATUS, status),
    ]
    if request.field == CommandField.C_STORE_RQ:
        elements.append(_text(_AFFECTED_INSTANCE, request.sop_instance_uid))
    body = b"".join(elements)
    return _ELEMENT.pack(0, _GROUP_LENGTH, 4) + struct.pack("<I", len(body)) + body


def _short(element: int, value: int) -> bytes:
    return _ELEMENT.pack(0, element, _US.size) + _US.pack(value)


def _text(element: int, uid: str) -> bytes:
    raw = uid.encode("latin-1")
    raw += b"\0" * (len(raw) % 2)
    return _ELEMENT.pack(0, element, len(raw)) + raw


def command_pdus(context_id: int, command: bytes, peer_maximum: int) -> Iterator[bytes]:
    """A command as P-DATA-TF PDUs, each within what the peer can receive (0: any length). Source: PS3.8 D.1."""
    room = peer_maximum - PDV_OVERHEAD if peer_maximum else len(command)
    if room < 1:
        raise ValueError(f"a peer that receives at most {peer_maximum} bytes can't be answered")
    for at in range(0, len(command), room):
        piece = command[at : at + room]
        control = COMMAND | (LAST if at + room >= len(command) else 0)
        # The PDV's own length counts context and control header, not itself.
        item = PDV_HEADER.pack(len(piece) + 2, context_id, control) + piece
        yield PDU_HEADER.pack(Pdu.P_DATA_TF, len(item)) + item


RELEASE_RP = PDU_HEADER.pack(Pdu.RELEASE_RP, 4) + bytes(4)
"""Source: PS3.8 9.3.7."""


def abort_pdu(reason: AbortReason) -> bytes:
    """An A-ABORT by the service provider. Source: PS3.8 9.3.8."""
    by_provider = 2
    return PDU_HEADER.pack(Pdu.ABORT, 4) + bytes((0, 0, by_provider, reason))
