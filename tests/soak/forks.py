"""The node's processes, forked from one that has loaded every module: the same code, started in a tenth of a second.

Run as a program it is that process; imported, it is the test's end of it. Knows nothing of what the processes do.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Nursery:
    """The loaded process, seen from a test."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "tests.soak.forks", str(theirs.fileno())]
        # Every forked process has this pipe as its standard input and ends when we do.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[theirs.fileno()], cwd=ROOT)
        theirs.close()
        self._control = ours
        self._answers = ours.makefile("r")
        self._codes: dict[int, int] = {}
        self._changed = threading.Condition()
        self._started: list[int] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in self._answers:
                told = json.loads(line)
                with self._changed:
                    if "code" in told:
                        self._codes[told["pid"]] = told["code"]
                    else:
                        self._started.append(told["pid"])
                    self._changed.notify_all()

    def start(self, arguments: Sequence[str], log: Path, *, port: int = 0, environment: Mapping[str, str]) -> int:
        """Run `evenray ARGUMENTS`; with `port` the word {socket} in them becomes the port's listening socket."""
        asked = {"arguments": list(arguments), "log": str(log), "port": port, "environment": dict(environment)}
        with self._changed:
            self._control.sendall(json.dumps(asked).encode() + b"\n")
            while not self._started:
                if not self._changed.wait(60):
                    raise RuntimeError("the loaded process does not answer")
            return self._started.pop()

    def code(self, pid: int) -> int | None:
        """How a forked process ended, negative for a signal; None while it runs."""
        with self._changed:
            return self._codes.get(pid)

    def wait(self, pid: int, timeout_s: float) -> int | None:
        with self._changed:
            self._changed.wait_for(lambda: pid in self._codes, timeout_s)
            return self._codes.get(pid)

    def close(self) -> None:
        self._control.shutdown(socket.SHUT_RDWR)
        self._process.wait(60)
        if self._process.stdin:
            self._process.stdin.close()
        self._control.close()


@contextmanager
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    try:
        yield made
    finally:
        made.close()


def _main(control: socket.socket) -> None:
    from dicom_node import cli, deliver, listen, worker  # noqa: F401, PLC0415 - loaded once, before any fork

    with contextlib.suppress(ImportError):
        from dicom_node import upkeep  # noqa: F401, PLC0415
    running: set[int] = set()
    doors: dict[int, socket.socket] = {}
    pending = b""
    while True:
        if select.select([control], [], [], 0.02)[0]:
            got = control.recv(65536)
            if not got:
                break
            *lines, pending = (pending + got).split(b"\n")
            for line in lines:
                pid = _fork(json.loads(line), doors, control)
                running.add(pid)
                control.sendall(json.dumps({"pid": pid}).encode() + b"\n")
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                running.discard(pid)
                control.sendall(json.dumps({"pid": pid, "code": os.waitstatus_to_exitcode(status)}).encode() + b"\n")
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def _fork(asked: dict[str, Any], doors: dict[int, socket.socket], control: socket.socket) -> int:
    port = asked["port"]
    if port and port not in doors:
        # As the supervisor does: bound once, so that connections wait while a receiver is started again.
        doors[port] = socket.create_server(("127.0.0.1", port), backlog=128)
        doors[port].setblocking(False)
        doors[port].set_inheritable(True)
    pid = os.fork()
    if pid:
        return pid
    control.close()
    for other, door in doors.items():
        if other != port:
            door.close()
    out = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ.update(asked["environment"])
    words = [str(doors[port].fileno()) if word == "{socket}" else word for word in asked["arguments"]]
    sys.argv = ["evenray", *words]
    code = 1
    try:
        _run()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        os._exit(code)
    return 0


def _run() -> None:
    from dicom_node.__main__ import main  # noqa: PLC0415 - loaded already

    go: Callable[[], None] = main
    go()


if __name__ == "__main__":
    _main(socket.socket(fileno=int(sys.argv[1])))
