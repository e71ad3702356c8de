"""The reader of a storage association, over a real socket pair, with a peer that writes every byte by script."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.stream import BUFFER, Ending, Limits, Stream
from dicom_node.upper_layer import Request
from tests import raw_peer
from tests.raw_peer import ABORT, COMMAND, LAST, NO_DATA, RELEASE_RQ, RawPeer, command, p_data, pdu, pdv, store

CONTEXTS = {1: raw_peer.EXPLICIT, 3: raw_peer.IMPLICIT}
UNEXPECTED, UNRECOGNIZED, INVALID, UNSPECIFIED = (2, 2), (2, 1), (2, 6), (2, 0)


@dataclass
class Memory:
    """One object in memory."""

    content: bytearray = field(default_factory=bytearray)
    discarded: bool = False

    def append(self, pieces: Sequence[memoryview]) -> None:
        for piece in pieces:
            self.content += piece

    def discard(self) -> None:
        self.discarded = True


@dataclass
class Shelf:
    """Keeps objects in memory and answers what it is told to."""

    status: int = 0
    begun: list[Memory] = field(default_factory=list)
    kept: list[tuple[Request, str, bytes]] = field(default_factory=list)

    def begin(self, request: Request, transfer_syntax_uid: str) -> Memory:
        self.begun.append(Memory())
        return self.begun[-1]

    def keep(self, request: Request, transfer_syntax_uid: str, sink: Memory) -> int:  # type: ignore[override]
        assert sink is self.begun[-1]
        self.kept.append((request, transfer_syntax_uid, bytes(sink.content)))
        return self.status

    @property
    def contents(self) -> list[bytes]:
        return [content for _, _, content in self.kept]


@dataclass
class Served:
    peer: RawPeer
    shelf: Shelf
    stream: Stream
    thread: threading.Thread
    endings: list[Ending]

    @property
    def ending(self) -> Ending:
        """How it ended; the peer's side is closed first, as every peer does at last."""
        self.peer.close()
        self.thread.join(20)
        assert not self.thread.is_alive(), "the stream has ended"
        return self.endings[0]

    def abort_reason(self) -> tuple[int, int]:
        answer = self.peer.read()
        assert answer is not None
        assert answer.kind == 7, "an A-ABORT came"
        return answer.abort_reason

    def status(self) -> int:
        answer = self.peer.read()
        assert answer is not None
        assert answer.kind == 4, "a response came"
        return answer.status


@contextmanager
def serving(
    *, max_pdu: int = 0, peer_max: int = 0, silence_s: float = 20, message_s: float = 20, status: int = 0
) -> Iterator[Served]:
    ours, theirs = socket.socketpair()
    shelf, endings = Shelf(status), []
    limits = Limits(max_pdu, peer_max, silence_s, message_s, artim_s=5)
    stream = Stream(ours, CONTEXTS, shelf, limits)  # type: ignore[arg-type]
    thread = threading.Thread(target=lambda: endings.append(stream.run()))
    thread.start()
    served = Served(RawPeer(theirs), shelf, stream, thread, endings)
    try:
        yield served
    finally:
        served.peer.close()
        thread.join(20)
        ours.close()


def test_an_object_is_kept_as_sent_and_answered_with_what_its_keeper_says() -> None:
    with serving(status=0xA700) as it:
        it.peer.send(store(b"pixels" * 100, message=77, instance="1.2.34"))
        answer = it.peer.read()
        assert answer is not None
        assert raw_peer.response_fields(answer.body[6:]) == {0x0100: 0x8001, 0x0120: 77, 0x0800: 0x0101, 0x0900: 0xA700}
        request, syntax, content = it.shelf.kept[0]
        assert (request.sop_instance_uid, syntax, content) == ("1.2.34", raw_peer.EXPLICIT, b"pixels" * 100)
        it.peer.send(RELEASE_RQ)
        released = it.peer.read()
        assert released == raw_peer.Answer(6, bytes(4))
        assert it.ending is Ending.RELEASED


@pytest.mark.parametrize("piece", [1, 2, 7, 4096, 1 << 17, BUFFER - 13, BUFFER, BUFFER + 1, 3 * BUFFER])
def test_pieces_of_every_size_make_the_same_object(piece: int) -> None:
    content = bytes(range(256)) * (40 if piece < 100 else 8000)
    with serving() as it:
        it.peer.send(store(content, piece=piece))
        assert it.status() == 0
        assert it.shelf.contents == [content]


@given(st.data())
def test_any_fragmentation_and_any_split_of_the_bytes_makes_the_same_objects(data: st.DataObject) -> None:
    """Commands and data sets cut anywhere, several PDVs in a PDU, PDUs cut anywhere by the network."""
    objects = data.draw(st.lists(st.binary(max_size=60), min_size=1, max_size=3))
    with serving() as it:
        for number, content in enumerate(objects):
            pdvs: list[bytes] = []
            for part, bit in ((command(1, message=number), COMMAND), (content, 0)):
                cuts = sorted(data.draw(st.lists(st.integers(0, len(part)), max_size=3)))
                ends = [*cuts, len(part)]
                for n, (start, end) in enumerate(zip([0, *cuts], ends, strict=True)):
                    last = LAST if n == len(ends) - 1 else 0
                    pdvs.append(pdv(part[start:end], control=bit | last, context=3))
            stream = b""
            while pdvs:
                count = data.draw(st.integers(1, len(pdvs)))
                stream += p_data(*pdvs[:count])
                del pdvs[:count]
            split = data.draw(st.integers(0, len(stream)))
            it.peer.send(stream[:split])
            it.peer.send(stream[split:])
            assert it.status() == 0
        assert it.shelf.contents == objects
        assert {syntax for _, syntax, _ in it.shelf.kept} == {raw_peer.IMPLICIT}


def test_objects_that_are_sent_without_waiting_for_answers_are_all_kept_in_order() -> None:
    with serving() as it:
        it.peer.send(b"".join(store(bytes([n]) * 10, message=n, instance=f"1.{n}") for n in range(50)))
        answers = [it.peer.read() for _ in range(50)]
        numbers = [raw_peer.response_fields(found.body[6:])[0x0120] for found in answers if found]
        assert numbers == list(range(50))
        assert it.shelf.contents == [bytes([n]) * 10 for n in range(50)]


def test_an_echo_is_answered_between_objects() -> None:
    with serving() as it:
        echo = command(0x30, message=9, sop_class=raw_peer.VERIFICATION, instance="", data=NO_DATA)
        it.peer.send(store(b"one") + p_data(pdv(echo, control=COMMAND | LAST)) + store(b"two"))
        kinds = [raw_peer.response_fields(found.body[6:])[0x0100] for _ in range(3) if (found := it.peer.read())]
        assert kinds == [0x8001, 0x8030, 0x8001]
        assert it.shelf.contents == [b"one", b"two"]


def test_a_cancel_has_nothing_to_cancel_and_changes_nothing() -> None:
    with serving() as it:
        cancel = command(0x0FFF, data=NO_DATA, instance="")
        it.peer.send(p_data(pdv(cancel, control=COMMAND | LAST)) + store(b"one"))
        assert it.status() == 0
        assert it.shelf.contents == [b"one"]


@pytest.mark.parametrize(
    ("instance", "data"),
    [
        ("", raw_peer.DATA),
        ("1." * 33, raw_peer.DATA),
        ("1\x012", raw_peer.DATA),
        ("1.\xe4", raw_peer.DATA),
        ("1.2", NO_DATA),
    ],
)
def test_a_request_that_names_no_object_is_refused_and_the_association_goes_on(instance: str, data: int) -> None:
    with serving() as it:
        bad = p_data(pdv(command(1, instance=instance, data=data), control=COMMAND | LAST))
        it.peer.send(bad + (p_data(pdv(b"dropped", control=LAST)) if data == raw_peer.DATA else b"") + store(b"good"))
        assert it.status() == 0xC000
        assert it.status() == 0
        assert it.shelf.contents == [b"good"]
        assert it.stream.nameless == 1


def test_a_hostile_uid_reaches_its_keeper_as_text_and_nothing_else() -> None:
    with serving() as it:
        it.peer.send(store(b"x", instance="../../../etc/passwd"))
        assert it.status() == 0
        assert it.shelf.kept[0][0].sop_instance_uid == "../../../etc/passwd"


_BEGUN = p_data(pdv(command(1), control=COMMAND | LAST))
VIOLATIONS = {
    "an unknown PDU": (pdu(0x2A, b"1234"), UNRECOGNIZED),
    "a PDU of type 0": (pdu(0, b""), UNRECOGNIZED),
    "a second request for an association": (pdu(1, bytes(68)), UNEXPECTED),
    "an acceptance": (pdu(2, bytes(68)), UNEXPECTED),
    "a release response nobody asked for": (pdu(6, bytes(4)), UNEXPECTED),
    "a release request of a wrong length": (pdu(5, bytes(8)), UNEXPECTED),
    "a PDU without a PDV": (pdu(4, b""), INVALID),
    "a PDU too short for a PDV": (pdu(4, b"\0\0\0"), INVALID),
    "a PDV without a control header": (p_data(pdv(b"", length=1)), INVALID),
    "a PDV of length 0": (p_data(pdv(b"", length=0)), INVALID),
    "a PDV longer than its PDU": (p_data(pdv(b"abc", control=COMMAND, length=4000)), INVALID),
    "a PDV of 4 GB": (p_data(pdv(b"abc", control=COMMAND, length=0xFFFFFFFF)), INVALID),
    "a context that was not accepted": (p_data(pdv(command(1), context=5, control=COMMAND | LAST)), INVALID),
    "a data set without a command": (p_data(pdv(b"data", control=LAST)), UNEXPECTED),
    "a data set in another context": (_BEGUN + p_data(pdv(b"data", context=3)), UNEXPECTED),
    "a command inside of a data set": (_BEGUN + p_data(pdv(command(1), control=COMMAND | LAST)), UNEXPECTED),
    "a command in two contexts": (
        p_data(pdv(command(1)[:20], control=COMMAND), pdv(command(1)[20:], context=3, control=COMMAND | LAST)),
        UNEXPECTED,
    ),
    "a command without end": (p_data(pdv(bytes(20000), control=COMMAND)), INVALID),
    "a command that is none": (p_data(pdv(b"garbage!", control=COMMAND | LAST)), INVALID),
    "a command that is empty": (p_data(pdv(b"", control=COMMAND | LAST)), INVALID),
    "an element longer than its command": (
        p_data(pdv(struct.pack("<HHI", 0, 2, 0xFFFFFFFE), control=COMMAND | LAST)),
        INVALID,
    ),
    "a C-FIND": (p_data(pdv(command(0x20), control=COMMAND | LAST)), UNEXPECTED),
    "a response": (p_data(pdv(command(0x8001), control=COMMAND | LAST)), UNEXPECTED),
    "an echo with a data set": (p_data(pdv(command(0x30), control=COMMAND | LAST)), UNEXPECTED),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_what_breaks_the_protocol_ends_in_an_abort_that_says_why(name: str) -> None:
    content, reason = VIOLATIONS[name]
    with serving() as it:
        it.peer.send(store(b"good") + content)
        assert it.status() == 0
        assert it.abort_reason() == reason
        assert it.ending is Ending.VIOLATED
        assert it.stream.fault
        assert it.shelf.contents == [b"good"], "what was complete before stays"
        assert all(found.discarded for found in it.shelf.begun[1:]), "what was not complete is let go"


def test_a_pdu_longer_than_was_agreed_is_a_violation_and_one_of_that_length_is_not() -> None:
    with serving(max_pdu=1000) as it:
        it.peer.send(p_data(pdv(command(1), control=COMMAND | LAST)) + p_data(pdv(bytes(994), control=LAST)))
        assert it.status() == 0
        it.peer.send(pdu(4, b"", length=1001))
        assert it.abort_reason() == INVALID


@pytest.mark.parametrize("peer_max", [7, 16, 100, 4096])
def test_answers_keep_to_what_the_peer_can_receive(peer_max: int) -> None:
    with serving(peer_max=peer_max) as it:
        it.peer.send(store(b"x", instance="1.2.3"))
        found = b""
        control = 0
        while not control & LAST:
            answer = it.peer.read()
            assert answer is not None
            assert len(answer.body) <= peer_max
            control = answer.body[5]
            assert control & COMMAND
            found += answer.body[6:]
        assert raw_peer.response_fields(found)[0x0900] == 0


def test_a_peer_that_can_receive_nothing_is_aborted() -> None:
    with serving(peer_max=6) as it:
        it.peer.send(store(b"x"))
        assert it.abort_reason() == INVALID


@pytest.mark.parametrize("ending", [ABORT, b""])
def test_an_object_that_breaks_off_is_let_go(ending: bytes) -> None:
    whole = store(b"y" * 5000, piece=1000)
    with serving() as it:
        it.peer.send(store(b"x") + whole[: len(whole) // 2] if not ending else store(b"x") + _BEGUN + ending)
        assert it.status() == 0
        assert it.ending is (Ending.ABORTED if ending else Ending.CLOSED)
        assert it.shelf.contents == [b"x"]
        assert [found.discarded for found in it.shelf.begun] == [False, True]


def test_a_release_in_the_middle_of_an_object_is_granted_and_keeps_nothing_of_it() -> None:
    with serving() as it:
        it.peer.send(_BEGUN + p_data(pdv(b"half")) + RELEASE_RQ)
        answer = it.peer.read()
        assert answer is not None
        assert answer.kind == 6
        assert it.shelf.kept == []
        assert it.shelf.begun[0].discarded


def test_silence_ends_the_association() -> None:
    with serving(silence_s=0.2) as it:
        it.peer.send(store(b"x"))
        assert it.status() == 0
        assert it.abort_reason() == UNSPECIFIED
        assert it.ending is Ending.TIMED_OUT


@pytest.mark.parametrize("begun", [b"\x04", _BEGUN, p_data(pdv(b"", control=COMMAND))])
def test_a_message_that_comes_byte_by_byte_ends_the_association(begun: bytes) -> None:
    with serving(silence_s=5, message_s=0.3) as it:
        it.peer.send(begun)
        drip = threading.Event()

        def loris() -> None:
            while not drip.wait(0.1):
                try:
                    it.peer.sock.send(p_data(pdv(b"z")) if begun == _BEGUN else b"\0")
                except OSError:
                    return

        thread = threading.Thread(target=loris)
        thread.start()
        try:
            assert it.abort_reason() == UNSPECIFIED
        finally:
            drip.set()
            thread.join()
        assert it.ending is Ending.TIMED_OUT
        assert it.shelf.kept == []


def test_a_slow_line_that_makes_progress_is_not_cut() -> None:
    content = bytes(30 * 5000)
    whole = store(content, piece=5000)
    with serving(message_s=0.2) as it:
        pause = threading.Event()
        for at in range(0, len(whole), 5006):
            it.peer.send(whole[at : at + 5006])
            pause.wait(0.02)
        assert it.status() == 0
        assert it.shelf.contents == [content]


def test_a_request_to_stop_ends_an_association_that_waits() -> None:
    with serving() as it:
        it.peer.send(store(b"x"))
        assert it.status() == 0
        it.stream.stop()
        assert it.abort_reason() == UNSPECIFIED
        assert it.ending is Ending.STOPPED


def test_a_peer_that_does_not_close_after_its_release_is_left_after_a_while() -> None:
    ours, theirs = socket.socketpair()
    stream = Stream(ours, CONTEXTS, Shelf(), Limits(0, 0, 20, 20, artim_s=0.2))  # type: ignore[arg-type]
    theirs.sendall(RELEASE_RQ)
    try:
        assert stream.run() is Ending.RELEASED
    finally:
        ours.close()
        theirs.close()


def test_the_memory_of_an_association_does_not_grow_with_its_objects() -> None:
    with serving() as it:
        for n in range(3):
            it.peer.send(store(bytes(2_000_000), message=n))
            assert it.status() == 0
        assert len(it.stream._buffer) == BUFFER
        assert it.stream._pieces == []
