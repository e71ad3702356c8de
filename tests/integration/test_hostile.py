"""A node among peers that mean harm: it goes on receiving, forgets them when they are gone, and says what happened."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import raw_peer
from tests.attack import HOLDS, LINE, fire, holding, shape
from tests.mutation import CORPUS
from tests.node import Node, node, radiograph, uid_of
from tests.peers import wait_until
from tests.raw_peer import CR_IMAGE, EXPLICIT, RELEASE_RQ, VERIFICATION, RawPeer, associate_rq, pdu

pytestmark = [pytest.mark.filterwarnings("ignore::ResourceWarning")]
SOON = {"acse_timeout_s": 2, "dimse_timeout_s": 2, "network_timeout_s": 3, "processes": 2}
"""Time-outs that a test can wait for."""


@pytest.fixture(scope="module", params=[True, False], ids=["own reader", "library"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("hostile")
    with node(folder, role="listen", listen={**SOON, "fast": request.param, "max_associations": 40}) as found:
        _ready(found)
        yield found


def _ready(made: Node) -> None:
    """Both receivers have the threads that they always have."""
    made.wait(lambda: len(made.pids("listen")) == 2, 30, "both receivers run")
    made.wait(lambda: min(shape(pid)[0] for pid in made.pids("listen")) >= 3, 30, "both receivers are up")
    _at_rest(made)


def _at_rest(made: Node) -> None:
    made.wait(lambda: not _open(made), 30, "every connection is let go")


def _open(made: Node) -> list[tuple[int, int, int]]:
    """Receivers with a connection: one at rest has no socket but the listening one and a thread or two besides."""
    return [seen for seen in map(shape, made.pids("listen")) if seen[0] > 4 or seen[1] > 2]


def _log(made: Node) -> list[str]:
    """What the processes said; each line is one event."""
    lines = made.log().splitlines()
    assert [line for line in lines if not LINE.match(line)] == []
    return lines


def test_an_honest_sender_is_served_while_others_hold_connections_and_all_are_let_go(
    made: Node, tmp_path: Path
) -> None:
    good = radiograph(tmp_path, "1.2.70.1", study="1.2.70", size=64)
    pids = made.pids("listen")
    # The library answers each request of a deaf one, which takes it half a minute.
    kinds = [name for name in HOLDS if name != "deaf" or made.settings["listen"]["fast"]]
    with holding(made.port, 4, kinds):
        made.insist([good], 30)
        _at_rest(made)
    assert made.pids("listen") == pids
    assert not made.arriving()
    endings = {row["how"] for row in made.rows("SELECT how FROM association WHERE calling_ae = 'ATTACKER'")}
    assert "made no progress" in made.log() or not made.settings["listen"]["fast"]
    assert "asked for no association in time" in made.log()
    assert endings <= {"timed out", "aborted", "closed", "released", "protocol error"}
    assert None not in endings


def test_damaged_associations_leave_no_thread_no_socket_and_few_lines(made: Node) -> None:
    pids, lines = made.pids("listen"), len(_log(made))
    answers = fire(made.port, range(400))
    assert answers["no answer"] == 0
    _at_rest(made)
    assert made.pids("listen") == pids
    said = [line for line in _log(made)[lines:] if "received instance" not in line]
    assert said, "it says what happened"
    assert len(said) < 250, "and not without end"
    assert "Invalid value" not in made.log(), "nor what a library could not read"
    good = [row["n"] for row in made.rows("SELECT count(*) AS n FROM association WHERE how IS NULL")]
    assert good == [0]


_ASKED = [
    ("nothing", []),
    ("one context twice", [(1, CR_IMAGE, [EXPLICIT]), (1, VERIFICATION, [EXPLICIT])]),
    ("even numbers", [(2, CR_IMAGE, [EXPLICIT]), (0, CR_IMAGE, [EXPLICIT])]),
    ("no transfer syntax", [(1, CR_IMAGE, [])]),
    ("128 contexts of 100", [(2 * n + 1, CR_IMAGE, [*(f"1.2.{m}" for m in range(99)), EXPLICIT]) for n in range(128)]),
    ("300 contexts", [((2 * n + 1) % 256, CR_IMAGE, [EXPLICIT]) for n in range(300)]),
    ("long names", [(1, "1." * 15000, ["1." * 15000])]),
]


@pytest.mark.parametrize(("name", "contexts"), _ASKED, ids=[name for name, _ in _ASKED])
def test_whatever_is_asked_is_answered_and_nothing_is_left(
    made: Node, name: str, contexts: list[tuple[int, str, list[str]]]
) -> None:
    with RawPeer.connect(made.port) as peer:
        peer.send(associate_rq(contexts))
        answer = peer.read()
        if answer is not None and answer.kind == 2:
            # Whatever was accepted: the object is kept, refused, or the association is aborted.
            peer.send(raw_peer.store(b"12345678", instance="1.2.71.1"))
            assert (peer.read() or raw_peer.Answer(7, b"")).kind in (4, 7)
    _at_rest(made)


@pytest.mark.parametrize("length", [0, 0xFFFF])
@pytest.mark.parametrize("kind", [0x10, 0x20, 0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x58, 0x99])
def test_an_item_that_claims_another_length_is_answered_and_nothing_is_left(made: Node, kind: int, length: int) -> None:
    good = associate_rq([(1, CR_IMAGE, [EXPLICIT])])[6:]
    item = struct.pack(">BBH", kind, 0, length) + b"1.2.3"
    with RawPeer.connect(made.port) as peer:
        peer.send(pdu(1, good + item))
        answer = peer.read()
        assert answer is None or answer.kind in (2, 3, 7)
        if answer is not None and answer.kind == 2:
            peer.send(RELEASE_RQ)
            peer.read()
    _at_rest(made)


def test_titles_that_forge_lines_stay_in_theirs(made: Node) -> None:
    forged = "\n2026-01-01T00"
    for title in (forged, "\x1b[2J\x1b[31mRED", "../../etc", "\0\0\0\0", " " * 16, "\xe4\xf6\xfc\x85\u00a0"):
        with RawPeer.connect(made.port) as peer:
            peer.send(associate_rq([(1, CR_IMAGE, [EXPLICIT])], calling=title, called=title))
            answer = peer.read()
            assert answer is None or answer.kind in (3, 7)
        with RawPeer.connect(made.port) as peer:
            peer.send(associate_rq([(1, CR_IMAGE, [EXPLICIT])], calling=title))
            if (peer.read() or raw_peer.Answer(0, b"")).kind == 2:
                peer.send(pdu(0x77, b"?"))
                peer.read()
    _at_rest(made)
    assert all(re.match(r"[\x20-\x7e\u00a1-\uffff]*$", line) for line in _log(made))


def test_a_file_that_ends_its_decoder_is_parked_and_the_others_are_processed(tmp_path: Path) -> None:
    """The library that decodes JPEG ends its process at some damaged files, whatever calls it."""
    (tmp_path / "in").mkdir()
    deadly = min((CORPUS / "deadly").iterdir())
    with node(tmp_path) as found:
        found.runs("work")
        found.accept(deadly, radiograph(tmp_path / "in", "1.2.72.1", study="1.2.72"))
        found.wait_settled()
        assert found.outcomes().get("1.2.72.1") not in (None, "unreadable")
        (parked,) = found.rows("SELECT sop_instance_uid AS uid, note FROM instance WHERE state = 'parked'")
        assert parked["uid"] == uid_of(deadly)
        assert parked["note"]
    wait_until(lambda: not found.alive(), 60, "the node has ended")


def test_one_host_can_not_take_every_association(tmp_path: Path) -> None:
    """The attacker and the honest sender have two addresses of this machine."""
    listen = {"max_associations": 8, "max_associations_per_host": 3, "processes": 2}
    with node(tmp_path, role="listen", listen=listen) as found:
        _ready(found)
        with ExitStack() as stack:
            held = [stack.enter_context(_from("127.0.0.2", found.port)) for _ in range(12)]
            accepted = [peer for peer in held if _is_accepted(peer)]
            assert len(accepted) == 3, "over both receivers"
            with _from("127.0.0.3", found.port) as honest:
                assert _is_accepted(honest)
        _at_rest(found)
        assert "a connection from 127.0.0.2 was closed at once" in found.log()


def _from(address: str, port: int) -> RawPeer:
    sock = socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(address, 0))
    return RawPeer(sock)


def _is_accepted(peer: RawPeer) -> bool:
    try:
        peer.send(associate_rq([(1, CR_IMAGE, [EXPLICIT])]))
        answer = peer.read()
    except OSError:
        return False
    return answer is not None and answer.kind == 2
