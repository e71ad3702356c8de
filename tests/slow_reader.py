"""What an acceptor of storage does with a byte string, written for clearness alone: nothing is fast, all is in memory.

The measure for the node's own reader. Knows no node code. Source: PS3.8 9.2, 9.3, annexes D and E; PS3.7 6.3, 9.3.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

UNRECOGNIZED, UNEXPECTED, INVALID = 1, 2, 6
CANNOT_UNDERSTAND = 0xC000
LONGEST_COMMAND = 16384


class Broken(Exception):
    """The peer broke the protocol: the association is aborted for this reason (PS3.8 table 9-26)."""


class Gone(Exception):
    """The bytes are at their end, and so is the connection."""


class Over(Exception):
    """The association has ended as its peer wished."""


@dataclass
class Kept:
    """One object that was kept."""

    sop_class: str
    instance: str
    syntax: str
    content: bytes


@dataclass
class Story:
    """Everything that can be seen of one association from outside."""

    ending: str = ""
    abort: int | None = None
    kept: list[Kept] = field(default_factory=list)
    answers: list[tuple[int, int, int, int, list[bytes]]] = field(default_factory=list)
    """Of every answer: context, Command Field, Message ID Being Responded To, Status, and the UIDs said back."""
    let_go: int = 0
    """Objects that were begun and never became complete."""
    granted: bool = False
    """A release was granted."""


@dataclass
class _Message:
    command: bytes = b""
    command_context: int = 0
    fields: dict[int, bytes] | None = None
    context: int = 0
    content: bytes = b""


def read(stream: bytes, contexts: Mapping[int, str], *, max_pdu: int, peer_max: int, status: int) -> Story:
    """The story of an association whose peer sends these bytes and then closes; `status` answers what was kept."""
    story = Story()
    message = _Message()
    try:
        while True:
            message, stream = _pdu(stream, message, story, contexts, (max_pdu, peer_max, status))
    except Broken as broken:
        story.ending, story.abort = "protocol error", int(broken.args[0])
    except Gone:
        story.ending = "closed"
    except Over as over:
        story.ending = str(over)
    if message.fields is not None and _names_an_object(message.fields):
        story.let_go = 1
    return story


def _split(stream: bytes, count: int) -> tuple[bytes, bytes]:
    if len(stream) < count:
        raise Gone
    return stream[:count], stream[count:]


def _pdu(
    stream: bytes, message: _Message, story: Story, contexts: Mapping[int, str], limits: tuple[int, int, int]
) -> tuple[_Message, bytes]:
    head, stream = _split(stream, 6)
    kind, length = head[0], int.from_bytes(head[2:6], "big")
    if kind == 7:
        raise Over("aborted")
    if kind == 5 and length == 4:
        story.granted = True
        raise Over("released")
    if kind in (1, 2, 3, 5, 6):
        raise Broken(UNEXPECTED)
    if kind != 4:
        raise Broken(UNRECOGNIZED)
    if length == 0 or (limits[0] and length > limits[0]):
        raise Broken(INVALID)
    # The body may be cut off; what of it has come counts.
    body, rest = stream[:length], stream[length:]
    missing = length - len(body)
    while body or missing:
        if len(body) + missing < 6:
            raise Broken(INVALID)
        head, body = _split(body, 6)
        size, context, control = int.from_bytes(head[:4], "big"), head[4], head[5]
        if size < 2 or size - 2 > len(body) + missing or context not in contexts:
            raise Broken(INVALID)
        _check_place(message, context, control, size - 2)
        # From here on the sender has begun something, whether it completes it or not.
        fragment, body = _split(body, size - 2)
        _fragment(message, context, control, fragment, story, contexts, limits)
    return message, rest


def _check_place(message: _Message, context: int, control: int, size: int) -> None:
    if control & 1:
        if message.fields is not None:
            raise Broken(UNEXPECTED)
        if message.command and context != message.command_context:
            raise Broken(UNEXPECTED)
        if len(message.command) + size > LONGEST_COMMAND:
            raise Broken(INVALID)
    elif message.fields is None or message.context != context:
        raise Broken(UNEXPECTED)


def _fragment(
    message: _Message,
    context: int,
    control: int,
    fragment: bytes,
    story: Story,
    contexts: Mapping[int, str],
    limits: tuple[int, int, int],
) -> None:
    last = bool(control & 2)
    if control & 1:
        message.command += fragment
        message.command_context = context
        if last:
            command, message.command = message.command, b""
            _command(message, context, command, story, limits[1])
        return
    message.content += fragment
    if last:
        fields, content = message.fields, message.content
        message.fields, message.content = None, b""
        assert fields is not None
        status = CANNOT_UNDERSTAND
        if _names_an_object(fields):
            status = limits[2]
            uids = (_text(fields.get(0x0002, b"")), _text(fields.get(0x1000, b"")))
            story.kept.append(Kept(*uids, contexts[context], content))
        _answer(context, fields, status, story, limits[1])


def _command(message: _Message, context: int, command: bytes, story: Story, peer_max: int) -> None:
    fields: dict[int, bytes] = {}
    while command:
        if len(command) < 8:
            raise Broken(INVALID)
        group, element, length = struct.unpack("<HHI", command[:8])
        if group != 0 or length > len(command) - 8:
            raise Broken(INVALID)
        fields[element] = command[8 : 8 + length]
        command = command[8 + length :]
    numbers = [fields.get(0x0100), fields.get(0x0800), fields.get(0x0110, b"\0\0")]
    if any(number is None or len(number) != 2 for number in numbers):
        raise Broken(INVALID)
    kind, with_data = _short(fields[0x0100]), _short(fields[0x0800]) != 0x0101
    if kind == 0x0001 and with_data:
        message.fields, message.context = fields, context
    elif kind == 0x0001:
        _answer(context, fields, CANNOT_UNDERSTAND, story, peer_max)
    elif kind == 0x0030 and not with_data:
        _answer(context, fields, 0, story, peer_max)
    elif kind != 0x0FFF:
        raise Broken(UNEXPECTED)


def _answer(context: int, fields: dict[int, bytes], status: int, story: Story, peer_max: int) -> None:
    echoed = [trimmed(fields.get(0x0002, b""))]
    if _short(fields[0x0100]) == 1:
        echoed.append(trimmed(fields.get(0x1000, b"")))
    # Who can receive not one byte can't be told anything.
    if 0 < peer_max < 7:
        raise Broken(INVALID)
    message_id = _short(fields.get(0x0110, b"\0\0"))
    story.answers.append((context, _short(fields[0x0100]) | 0x8000, message_id, status, echoed))


def _names_an_object(fields: dict[int, bytes]) -> bool:
    uids = (trimmed(fields.get(0x0002, b"")), trimmed(fields.get(0x1000, b"")))
    return all(1 <= len(uid) <= 64 and all(32 <= byte < 127 for byte in uid) for uid in uids)


def trimmed(raw: bytes) -> bytes:
    while raw and raw[-1:] in (b"\0", b" "):
        raw = raw[:-1]
    return raw


def _text(raw: bytes) -> str:
    return trimmed(raw).decode("ascii")


def _short(raw: bytes) -> int:
    return raw[0] + 256 * raw[1]
