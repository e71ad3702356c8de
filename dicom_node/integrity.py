"""Compare the spool's files with what the ledger knows of their bytes, and say so where they differ.

Knows no destination and no engine. A damaged file is flagged and its bytes are kept from being used; nothing is
repaired or removed here: the same object sent again mends its file.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from dicom_node.errors import IllegalStep
from dicom_node.header import dataset_digest
from dicom_node.ledger import Ledger, Spooled
from dicom_node.spool import MIB, Spool

log = logging.getLogger(__name__)

DAY_S = 86400.0
AT_ONCE = 100
SLICE_S = 0.5
"""How long one turn takes at most, but for the last part of a file."""
KINDS = ("instance", "object")
STARTED, POSITION, FINISHED = "sweep started", "sweep position {}", "sweep finished"
"""Marks: when the present round began, the last row looked at of each kind, when the last round ended."""
# Source: ioprio_set(2); best effort, the lowest of its levels. Not idle, which could wait for ever on a busy disk.
IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
LOWEST = 2 << 13 | 7


@dataclass(frozen=True, slots=True)
class Checked:
    """One file that was looked at: what is wrong with it ("" nothing), its digest if that was read, its size."""

    reason: str
    digest: str | None
    size: int


def check(spool: Spool, file: Spooled) -> Checked:
    """Read one file from the disk and compare it with its row."""
    path = spool.at(file.path)
    try:
        size = path.stat().st_size
        _forget(path)
        if file.digest is None and file.what == "instance":
            whole = size == file.size
            return Checked("" if whole else f"it has {size} bytes, {file.size} were received", None, size)
        digest = dataset_digest(path)
    except FileNotFoundError:
        return Checked("its file is gone", None, 0)
    except OSError as fault:
        return Checked(f"its file can't be read ({fault.strerror})", None, 0)
    if file.digest is not None and digest != file.digest:
        return Checked("its bytes have changed on the disk (digest differs)", digest, size)
    return Checked(_wrong_meta(path, file), digest, size)


def _wrong_meta(path: Path, file: Spooled) -> str:
    """The data set's digest leaves out the File Meta Information: what of it is used must be as it was."""
    try:
        meta = read_file_meta_info(path)
    except (InvalidDicomError, ValueError, AttributeError, LookupError, NotImplementedError, EOFError):
        return "its File Meta Information can't be read any more"
    found = (str(meta.get("MediaStorageSOPClassUID", "")), str(meta.get("MediaStorageSOPInstanceUID", "")))
    syntax = str(meta.get("TransferSyntaxUID", ""))
    if found != (file.sop_class_uid, file.sop_instance_uid) or file.transfer_syntax_uid not in ("", syntax):
        return "its File Meta Information has changed on the disk"
    return ""


def _forget(path: Path) -> None:
    """Have the kernel drop its copy of the file, so that the disk is read; what is not written yet stays."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def settle(ledger: Ledger, spool: Spool, file: Spooled, found: Checked, *, now: float) -> str:
    """Record what was found; the reason if the file is damaged, "" if it is whole or has left meanwhile."""
    if not found.reason:
        if file.digest is None and file.what == "object" and found.digest:
            ledger.upkeep.learn(file, found.digest)
        return ""
    # Between the row's reading and the file's it may have left, or have been mended: look again.
    present = ledger.upkeep.file(file.what, file.id)
    if present is None or not check(spool, present).reason:
        return ""
    with contextlib.suppress(IllegalStep):
        ledger.upkeep.flag(present, found.reason, now=now)
    log.error("DAMAGED: %s %d, %s: %s", file.what, file.id, file.path, found.reason)
    return found.reason


def recheck(ledger: Ledger, spool: Spool, *, now: float, beat: Callable[[], None] = lambda: None) -> None:
    """Look again at what is flagged: the same object may have been sent again, or the disk may be back.

    `beat` is called between files.
    """
    for row in ledger.upkeep.damaged():
        beat()
        file = ledger.upkeep.file(row["what"], row["ref"])
        if file is None or not check(spool, file).reason:
            ledger.upkeep.healed(row["path"])
            log.info("%s %d, %s: its file is whole again", row["what"], row["ref"], row["path"])


class Sweep:
    """One reading of the whole spool after the other, slowly; where it stands is kept in the ledger."""

    def __init__(self, ledger: Ledger, spool: Spool, *, every_days: float | None, mib_per_s: float) -> None:
        self._ledger, self._spool = ledger, spool
        self._every_s = None if every_days is None else every_days * DAY_S
        self._bytes_per_s = mib_per_s * MIB
        # Only the reading has a low priority: whoever waits for a lock of the ledger must not wait for this thread.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="integrity", initializer=yield_to_others)
        self._reading: tuple[Spooled, Future[Checked]] | None = None
        self._ahead: list[Spooled] = []
        self._handed: dict[str, int] = {}
        self._next = 0.0

    def close(self) -> None:
        self._pool.shutdown()

    def turn(self, *, now: float) -> bool:
        """Read for about SLICE_S, or wait for the next file's time; False when no round is due."""
        until = time.monotonic() + SLICE_S
        while time.monotonic() < until:
            if self._reading is None:
                pause = self._next - time.monotonic()
                if pause > 0:
                    time.sleep(min(pause, until - time.monotonic()))
                    continue
                file = self._file(now)
                if file is None:
                    return False
                self._reading = (file, self._pool.submit(check, self._spool, file))
            file, reading = self._reading
            if not wait([reading], until - time.monotonic()).done:
                return True
            self._reading = None
            settle(self._ledger, self._spool, file, reading.result(), now=now)
            self._next = max(self._next, time.monotonic() - SLICE_S) + reading.result().size / self._bytes_per_s
        return True

    def _file(self, now: float) -> Spooled | None:
        """The next file of this round; None while no round is due."""
        mark = self._ledger.upkeep.mark
        if self._every_s is None:
            return None
        if not self._ahead:
            started, finished = mark(STARTED) or 0.0, mark(FINISHED) or 0.0
            if started <= finished:
                # A clock that was set back must not put the next round off for years.
                if finished and 0 <= now - started < self._every_s:
                    return None
                self._begin(now)
            self._ahead = self._more(now)
        return self._ahead.pop(0) if self._ahead else None

    def _begin(self, now: float) -> None:
        self._handed.clear()
        for kind in KINDS:
            self._ledger.upkeep.set_mark(POSITION.format(kind), 0)
        self._ledger.upkeep.set_mark(STARTED, now)

    def _more(self, now: float) -> list[Spooled]:
        """The next files by number; the round ends when there are none. What was in hand at a crash is read again."""
        upkeep = self._ledger.upkeep
        for kind in KINDS:
            name = POSITION.format(kind)
            noted = int(upkeep.mark(name) or 0)
            at = self._handed.get(kind, noted)
            if at != noted:
                # Only now are those that were handed out last time read.
                upkeep.set_mark(name, at)
            if found := upkeep.files(kind, after=at, limit=AT_ONCE):
                self._handed[kind] = found[-1].id
                return found
        upkeep.set_mark(FINISHED, now)
        log.info("every file of the spool was compared with its digest")
        return []


def yield_to_others() -> None:
    """Give this thread the lowest priority of disk and processor: whoever receives and sends goes first."""
    _priority(15, LOWEST)


@contextlib.contextmanager
def yielding() -> Iterator[None]:
    """The same for a while, where the system lets us come back from it."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    yield_to_others()
    try:
        yield
    finally:
        _priority(before, 0)


def _priority(nice: int, disk: int) -> None:
    # On Linux both are a thread's own. Source: sched(7), ioprio_set(2).
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    call = IOPRIO_SET.get(platform.machine())
    if call is not None:
        ctypes.CDLL(None).syscall(call, 1, 0, disk)
