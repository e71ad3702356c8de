"""One byte string read by the node's reader of storage associations and by the slow one; any difference is a fault.

The bytes lie in a socket before the reader starts, so that one thread does everything and a case takes microseconds.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from unittest.mock import patch

from dicom_node import stream
from dicom_node.stream import Ending, Limits, Stream
from dicom_node.upper_layer import Request
from tests import slow_reader
from tests.mutation import split_pdus, split_pdvs
from tests.raw_peer import EXPLICIT, IMPLICIT, response_fields
from tests.slow_reader import Kept, Story, trimmed

CONTEXTS = {1: EXPLICIT, 3: IMPLICIT, 19: EXPLICIT, 37: IMPLICIT}
"""Those of the recorded associations."""
BOUND_S = 20.0
"""No case waits for anything: one that takes this long has stopped."""


@dataclass(frozen=True)
class Case:
    """One association: what comes, in which pieces, and what was agreed."""

    stream: bytes
    buffer: int = 4096
    """Size of the reader's buffer; its records, where it is 0, are what it receives at once."""
    cuts: tuple[int, ...] = ()
    max_pdu: int = 0
    peer_max: int = 0
    status: int = 0

    @classmethod
    def by_chance(cls, content: bytes, chance: random.Random) -> Case:
        if chance.random() < 0.5:
            buffer, cuts = chance.choice((16, 17, 31, 64, 100, 256, 4096)), ()
        else:
            places = (chance.randint(0, len(content)) for _ in range(chance.randrange(6)))
            buffer, cuts = 0, tuple(sorted(places))
        return cls(
            stream=content,
            buffer=buffer,
            cuts=cuts,
            max_pdu=chance.choice((0, 0, 0, 16384, 300, 64)),
            peer_max=chance.choice((0, 0, 16384, 128, 40, 7, 6, 1)),
            status=chance.choice((0, 0, 0xA700, 0x0110)),
        )


@dataclass
class _Sink:
    content: bytearray = field(default_factory=bytearray)
    discarded: int = 0
    kept: int = 0

    def append(self, pieces: Sequence[memoryview]) -> None:
        assert not self.kept + self.discarded, "nothing comes behind the end"
        assert len(pieces) <= 512
        for piece in pieces:
            self.content += piece

    def discard(self) -> None:
        self.discarded += 1


@dataclass
class _Shelf:
    status: int
    begun: list[_Sink] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)

    def begin(self, request: Request, transfer_syntax_uid: str) -> _Sink:
        assert not self.begun or self.begun[-1].kept, "one object after the other"
        self.begun.append(_Sink())
        return self.begun[-1]

    def keep(self, request: Request, transfer_syntax_uid: str, sink: _Sink) -> int:  # type: ignore[override]
        assert sink is self.begun[-1]
        sink.kept += 1
        found = Kept(request.sop_class_uid, request.sop_instance_uid, transfer_syntax_uid, bytes(sink.content))
        self.kept.append(found)
        return self.status


def fast_story(case: Case) -> Story:
    """What the node's reader makes of it. Fails where it raises, or is not done with what it began."""
    kind = socket.SOCK_STREAM if case.buffer else socket.SOCK_SEQPACKET
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs:
        if case.buffer:
            theirs.sendall(case.stream)
        else:
            # A record is received at once and alone, as segments are that come one by one.
            for start, end in zip((0, *case.cuts), (*case.cuts, len(case.stream)), strict=True):
                if end > start:
                    theirs.sendall(case.stream[start:end])
        theirs.shutdown(socket.SHUT_WR)
        shelf = _Shelf(case.status)
        limits = Limits(case.max_pdu, case.peer_max, BOUND_S, BOUND_S, artim_s=BOUND_S)
        with patch.object(stream, "BUFFER", case.buffer or 1 << 15):
            reader = Stream(ours, CONTEXTS, shelf, limits)  # type: ignore[arg-type]
        ending = reader.run()
        assert bool(reader.fault) == (ending is Ending.VIOLATED)
        assert not reader._pieces
        ours.shutdown(socket.SHUT_WR)
        answers = b""
        while piece := theirs.recv(1 << 18):
            answers += piece
    for sink in shelf.begun:
        assert sink.kept + sink.discarded == 1, "each object is kept or let go, once"
    told = _told(answers, case)
    told.ending, told.kept = str(ending), shelf.kept
    told.let_go = sum(sink.discarded for sink in shelf.begun)
    return told


def _told(answers: bytes, case: Case) -> Story:
    """What the peer was told, every byte of it accounted for."""
    story, command, at = Story(), b"", 0
    for kind, body in split_pdus(answers):
        at += 6 + len(body)
        assert story.abort is None, "nothing follows an A-ABORT"
        assert not story.granted, "nothing follows a granted release"
        if kind == 4:
            assert not case.peer_max or len(body) <= case.peer_max
            ((_, context, control, content),) = split_pdvs(body)
            assert control & 1
            command += content
            if control & 2:
                assert struct.unpack_from("<I", command, 8)[0] == len(command) - 12
                fields, uids, command = response_fields(command), _uids(command), b""
                story.answers.append((context, fields[0x0100], fields[0x0120], fields[0x0900], uids))
        elif kind == 6:
            assert body == bytes(4)
            story.granted = True
        else:
            assert (kind, len(body), body[2]) == (7, 4, 2)
            story.abort = body[3]
    assert at == len(answers)
    assert not command
    return story


def _uids(command: bytes) -> list[bytes]:
    """What a response says back of class and instance. Source: PS3.7 9.3.1.2."""
    found, at = [], 0
    while at < len(command):
        _, element, length = struct.unpack_from("<HHI", command, at)
        assert length % 2 == 0
        if element in (0x0002, 0x1000):
            found.append(trimmed(command[at + 8 : at + 8 + length]))
        at += 8 + length
    return found


def compare(case: Case) -> Story:
    """Both stories, which must be one. Raises AssertionError with the case in its text."""
    right = slow_reader.read(case.stream, CONTEXTS, max_pdu=case.max_pdu, peer_max=case.peer_max, status=case.status)
    try:
        found = fast_story(case)
    except Exception as fault:
        raise AssertionError(f"{type(fault).__name__}: {fault}\n{case}") from fault
    assert found == right, f"the node: {found}\nit should be: {right}\n{case}"
    return found
