"""An attacker of a running node: damaged requests and streams over real sockets, and connections that only hold on.

Everything is a function of its seed. Knows no node code.
"""

from __future__ import annotations

import random
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests import raw_peer
from tests.mutation import association, corpus, damaged
from tests.peers import LOOPBACK
from tests.raw_peer import COMMAND, CR_IMAGE, EXPLICIT, IMPLICIT, LAST, NO_DATA, VERIFICATION, command, p_data, pdu, pdv

CONTEXTS = [
    *((number, CR_IMAGE, [EXPLICIT]) for number in (1, 19)),
    *((number, CR_IMAGE, [IMPLICIT]) for number in (3, 37)),
    (5, VERIFICATION, [IMPLICIT]),
]
GOOD = raw_peer.associate_rq(CONTEXTS, calling="ATTACKER")
BEGUN = p_data(pdv(command(1, instance="1.2.9"), control=COMMAND | LAST))
ECHO = p_data(pdv(command(0x30, sop_class=VERIFICATION, instance="", data=NO_DATA), context=5, control=COMMAND | LAST))
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR) ")
HOLDS: dict[str, Callable[[socket.socket], None]] = {}
"""Ways to hold a connection without ever ending what was begun."""


def _hold(name: str) -> Callable[[Callable[[socket.socket], None]], Callable[[socket.socket], None]]:
    def put(how: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
        HOLDS[name] = how
        return how

    return put


@_hold("connected")
def _connected(_sock: socket.socket) -> None: ...


@_hold("half a request")
def _half_a_request(sock: socket.socket) -> None:
    sock.sendall(GOOD[:100])


@_hold("a request that claims more")
def _claims_more(sock: socket.socket) -> None:
    sock.sendall(pdu(1, GOOD[6:], length=len(GOOD) + 5000))


@_hold("accepted")
def _accepted(sock: socket.socket) -> None:
    sock.sendall(GOOD)
    sock.recv(4096)


@_hold("half a PDU header")
def _half_a_header(sock: socket.socket) -> None:
    _accepted(sock)
    sock.sendall(b"\x04\0\0")


@_hold("half a command")
def _half_a_command(sock: socket.socket) -> None:
    _accepted(sock)
    sock.sendall(BEGUN[:50])


@_hold("half a data set")
def _half_a_data_set(sock: socket.socket) -> None:
    _accepted(sock)
    sock.sendall(BEGUN + p_data(pdv(bytes(5000))) + pdu(4, bytes(10), length=9000))


@_hold("deaf")
def _deaf(sock: socket.socket) -> None:
    """Asks and never listens, until neither side can send."""
    _accepted(sock)
    sock.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            sock.send(ECHO * 50)


@contextmanager
def holding(port: int, each: int, names: Sequence[str] = ()) -> Iterator[list[socket.socket]]:
    """So many connections of each kind (of all kinds, where none are named)."""
    with ExitStack() as stack:
        held = []
        for name in names or tuple(HOLDS):
            for _ in range(each):
                sock = stack.enter_context(socket.socket())
                # A small window, so that who does not listen is felt soon.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.settimeout(10)
                with suppress(OSError):
                    sock.connect((LOOPBACK, port))
                    HOLDS[name](sock)
                held.append(sock)
        yield held


def fire(port: int, numbers: range, *, at_once: int = 12) -> Counter[str]:
    """Damaged associations, each from its request to its end; what came back first, counted by type of PDU."""
    requests, streams = [*corpus("requests"), GOOD], corpus("associations")
    answers: Counter[str] = Counter()

    def one(number: int) -> None:
        chance = random.Random(number)
        request = damaged(chance.choice(requests), chance, most=4) if chance.random() < 0.5 else GOOD
        with socket.socket() as sock:
            sock.settimeout(30)
            try:
                sock.connect((LOOPBACK, port))
                sock.sendall(request)
                if request is not GOOD:
                    sock.shutdown(socket.SHUT_WR)
                if chance.random() < 0.1:
                    return
                first = sock.recv(1 << 16)
                answers[f"PDU {first[0]}" if first else "closed"] += 1
                if request is GOOD and first[:1] == b"\x02":
                    sock.sendall(association(streams, chance))
                    sock.shutdown(socket.SHUT_WR)
                while sock.recv(1 << 16):
                    pass
            except TimeoutError:
                answers["no answer"] += 1
            except OSError:
                answers["reset"] += 1

    with ThreadPoolExecutor(at_once) as threads:
        list(threads.map(one, numbers))
    return answers


def shape(pid: int) -> tuple[int, int, int]:
    """Threads, sockets and resident kilobytes of a process."""
    folder = Path("/proc") / str(pid)
    sockets = 0
    for handle in (folder / "fd").iterdir():
        with suppress(FileNotFoundError):
            sockets += str(handle.readlink()).startswith("socket:")
    status = (folder / "status").read_text()
    resident = re.search(r"VmRSS:\s+(\d+)", status)
    return len(list((folder / "task").iterdir())), sockets, int(resident[1]) if resident else 0
