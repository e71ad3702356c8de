"""The named steps at which a fault can be asked for from outside, and the register of all of them.

Knows no file and no row: the code says `reached("spool.keep.synced")`, and nothing happens unless a test asked.

It can't happen in production by accident: a fault needs *two* variables in the environment of the process,
EVENRAY_FAULT (where and what) and EVENRAY_FAULT_MARKS (a folder, in which a file named after the step is made when its
fault happens, so that it happens once however often the process is started again). A process that has them says so
loudly when it starts, and one whose variables make no sense refuses to start.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Mapping
from errno import ENOSPC
from pathlib import Path

from dicom_node.errors import BadInput
from dicom_node.states import TABLE

log = logging.getLogger(__name__)

FAULT, MARKS = "EVENRAY_FAULT", "EVENRAY_FAULT_MARKS"

POINTS: Mapping[str, str] = {
    "spool.made": "the folders of a spool are there",
    "spool.incoming.made": "an empty file for what may be received has its two names",
    "spool.incoming.ready": "and they are on the disk",
    "spool.incoming.written": "a part of an object was written to it",
    "spool.incoming.released": "an object that has its row lost its second name",
    "spool.incoming.dropped": "a part of an object that will not be kept lost one of its names",
    "spool.shard.made": "a new folder of the spool exists",
    "spool.shard.synced": "and its name is on the disk",
    "spool.keep.begun": "a complete object is there, nothing of it was forced to the disk",
    "spool.keep.synced": "its bytes are on the disk, there is no row yet",
    "spool.restore.linked": "a good copy lies beside a damaged file",
    "spool.restore.replaced": "it has taken its place",
    "spool.discard.begun": "a file whose bytes are held elsewhere is about to go",
    "spool.discard.done": "and has gone",
    "spool.clear.removed": "a partial file of a dead receiver has gone",
    "durable.write.opened": "a temporary file is there, empty",
    "durable.write.written": "it has its content, not forced to the disk",
    "durable.write.synced": "its bytes are on the disk",
    "durable.write.renamed": "it has its name",
    "durable.write.published": "its name is on the disk",
    "receive.begun": "a whole object has arrived",
    "receive.kept": "it is spooled and has no row",
    "receive.committed": "it has its row, and Success was not sent",
    "process.begun": "the worker has claimed an image and looked at nothing",
    "process.decided": "the engine has decided, nothing of it is on the disk",
    "process.spooled": "the results are spooled, the ledger does not know them",
    "report.made": "a report exists in memory",
    "report.spooled": "it is spooled, the ledger does not know it",
    "audit.spooled": "audit messages are on the disk, the ledger does not know how far they go",
    "audit.sent": "the repository has audit messages that are still on the disk",
    "retention.expired": "rows say that files have left, the files are still there",
    "backup.ledger": "a copy of the ledger is in the backup's folder",
    "backup.copied": "everything is there, and the manifest still names the backup before",
    "backup.published": "the manifest names it, what it does not need is still there",
    "restore.copied": "everything of a backup lies checked beside the state, nothing is in its place",
    "restore.moved": "a part of it is in its place",
    "restore.fresh": "the ledger of a backup lies beside the one in use and says that it does not know all files",
    "restore.completed": "files that were lost are back in the spool, the ledger in use is still the old one",
    "restore.ledger": "a ledger is about to be in its place",
    "restore.born": "a new ledger is there and knows nothing",
    "deliver.claimed": "a sender has objects in hand and no association",
    "deliver.answered": "the destination has answered for one object, the ledger does not know it",
    "deliver.asked": "the transaction is recorded, the request for commitment was not sent",
    "deliver.reported": "a commitment report has arrived, the ledger does not know it",
    "keeping.asked": "a peer's request for commitment is recorded, and Success was not sent",
    "keeping.kept": "what a peer asked for is marked as promised, nothing is decided",
    "keeping.told": "a peer has taken our commitment report, the ledger does not know it",
}
"""The steps between the ledger's: what the disk or a peer knows already, and the ledger not yet, or the other way."""

BORN: tuple[tuple[str, str], ...] = (
    ("instance", "receive"),
    ("batch", "open"),
    ("delivery", "queue"),
    ("promise", "ask"),
)
"""What makes a row: these have no row in the state table."""
TOUCHED: tuple[str, ...] = (
    "association.open",
    "association.end",
    "lease.renew",
    "delivery.outage",
    "promise.keep",
    "promise.free",
    "ledger.sweep",
    "ledger.make",
    "upkeep.note",
)
"""Transactions of the ledger that may change no state."""


WHEN = ("begun", "done")
"""Just before a transaction of the ledger is committed (all is written), and just after."""


def of_row(what: str, before: str | None, step: str) -> str:
    """The name of one step of a row."""
    return f"{what}.{before or 'new'}.{step.replace(' ', '_')}"


LEDGER: tuple[str, ...] = (
    *(f"{name}.{when}" for name in TOUCHED for when in WHEN),
    *(f"{of_row(what, None, step)}.{when}" for what, step in BORN for when in WHEN),
    *(f"{of_row(type(at).__name__.lower(), at.value, step)}.{when}" for at, step, _ in TABLE for when in WHEN),
)
"""Two points for every step of the state table: a new one has its points without anybody's doing."""
REGISTER: tuple[str, ...] = (*POINTS, *LEDGER)


def _note() -> None:
    """Go on: the mark says that the step was reached."""


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _segfault() -> None:
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSEGV)


def _exit() -> None:
    os._exit(70)


def _hang() -> None:
    while True:
        time.sleep(3600)


def _no_space() -> None:
    raise OSError(ENOSPC, os.strerror(ENOSPC))


def _fail() -> None:
    raise RuntimeError("a fault that was asked for")


def _out_of_memory() -> None:
    """A real MemoryError, under a limit of our own: the machine keeps its memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), hard))
    held = []
    try:
        while True:
            held.append(bytearray(16 << 20))
    finally:
        held.clear()
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


ACTIONS: Mapping[str, Callable[[], None]] = {
    "note": _note,
    "kill": _kill,
    "stop": _stop,
    "segfault": _segfault,
    "exit": _exit,
    "hang": _hang,
    "oom": _out_of_memory,
    "nospace": _no_space,
    "fail": _fail,
}


class Fault:
    """One fault that was asked for: `action` at the `nth` time that this process reaches `point`, once in all."""

    def __init__(self, asked: str, marks: Path) -> None:
        """`asked` is POINT:ACTION or POINT:ACTION:N. Raises BadInput."""
        self.point, _, rest = asked.partition(":")
        action, _, nth = rest.partition(":")
        if self.point not in REGISTER or action not in ACTIONS or not (nth or "1").isdecimal():
            raise BadInput(f"{FAULT}={asked}: want POINT:ACTION or POINT:ACTION:N, N a number, of the known ones")
        self._act, self._left, self._mark = ACTIONS[action], int(nth or "1"), marks / self.point
        self._lock = threading.Lock()

    def hit(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left != 0 or not self._first():
                return
        self._act()

    def _first(self) -> bool:
        # Made or refused in one step: of several processes, and of a process and its successor, one does it.
        try:
            os.close(os.open(self._mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        except FileExistsError:
            return False
        return True


_faults: Mapping[str, Fault] | None = None


def arm(environment: Mapping[str, str]) -> None:
    """Ask for the faults that the environment names, separated by commas. Raises BadInput where they are wrong."""
    global _faults  # noqa: PLW0603 - one process, one set of faults
    asked, marks = environment.get(FAULT, ""), environment.get(MARKS, "")
    if not asked and not marks:
        return
    if not asked or not marks or not Path(marks).is_dir():
        raise BadInput(f"{FAULT} and {MARKS} (a folder) are for tests and belong together: unset both")
    _faults = {fault.point: fault for fault in (Fault(one, Path(marks)) for one in asked.split(","))}
    log.warning("FAULTS ARE INJECTED INTO THIS PROCESS (%s=%s): never set this where images matter", FAULT, asked)


def reached(name: str) -> None:
    """The code is at this step. Costs one comparison unless a fault was asked for."""
    if _faults is not None and name in _faults:
        _faults[name].hit()
