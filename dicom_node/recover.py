"""Tidy up after a crash: remove spooled files that no row names, but never an original that holds anything.

What a receiver had in hand when it died goes when the next one starts. Any other original without a row may have been
acknowledged: the ledger was lost, is an older copy, or the clock was wrong. It is kept where it is and counted, until
a person has it taken in again.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path, PurePosixPath
from typing import Any

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from dicom_node.ledger import BORN, UNCLAIMED, Ledger
from dicom_node.records import Arrival
from dicom_node.spool import Spool
from dicom_node.tolerant import ends_early

log = logging.getLogger(__name__)

GRACE_S = 3600.0
"""A file younger than this may be on its way into the ledger right now, in another process."""
AT_ONCE = 100
EARLY = "it ends early: its sender was cut off, or has sent it so; wait for it to be sent again, or retry to take it so"


def recover(spool: Spool, ledger: Ledger, *, now: float, beat: Callable[[], None] = lambda: None) -> int:
    """Remove the spool's orphans; returns how many there were. `beat` is called between folders and files."""
    gone = kept = 0
    for path, facts in _unnamed(spool, ledger, beat):
        # A row that says that the file has left settles it; without one, it may be on its way in.
        if not ledger.upkeep.has_left(path):
            # Asked again: its row may have come after the folder's were read.
            if now - facts.st_mtime <= GRACE_S or ledger.instances.has_path(path) or ledger.names(path):
                continue
            if _may_matter(path, facts, ledger):
                kept += 1
                continue
        spool.discard(path)
        log.info("removed %s: no row says that it is there", path)
        gone += 1
    _count(ledger, kept)
    if kept:
        log.error("%d files in the spool have no row in the ledger: they are kept, see evenray status", kept)
    return gone


def readmit(spool: Spool, ledger: Ledger, *, called_ae: str, now: float) -> int:
    """Take originals that no row names in again as if they had just arrived, oldest first; how many there were.

    For a ledger that was lost or is an older copy, while no process of the node runs. What was never acknowledged is
    among them, and so is what a receiver had in hand when it died: that does no harm, and losing one would. What ends
    early is parked: it must not stand in the way of the whole one.
    """
    found: list[tuple[float, str]] = []
    for folder, paths in spool.folders():
        named = ledger.paths_in(folder) if folder.startswith("originals/") else set(paths)
        facts = [(spool.at(path).stat(), path) for path in paths if path not in named and not _partial(path)]
        # A receiver makes empty files ahead.
        found += [(fact.st_mtime, path) for fact, path in facts if fact.st_size]
    left = [path for _, path in sorted(found) if not ledger.upkeep.has_left(path)]
    for start in range(0, len(left), AT_ONCE):
        paths = left[start : start + AT_ONCE]
        # Looked at before there are rows: little time between these and their parking.
        early = {path for path in paths if _ends_early(spool.at(path))}
        refs = ledger.instances.arrive_all([_arrival(spool, path, called_ae) for path in paths], now=now)
        parked = [ref for ref, path in zip(refs, paths, strict=True) if path in early]
        if parked:
            ledger.upkeep.park_unread(parked, EARLY, now=now)
            log.error("%d originals end early: they are parked, see evenray status", len(parked))
    # From now on every original has its row. Results that have none are made again.
    ledger.upkeep.set_mark(BORN, 0.0)
    _count(ledger, 0)
    return len(left)


def _arrival(spool: Spool, path: str, called_ae: str) -> Arrival:
    """What is known of an original from its file alone; one that can't be read is parked at its first look."""
    file = spool.at(path)
    try:
        meta: Mapping[str, Any] = {element.keyword: element.value for element in read_file_meta_info(file)}
    except (InvalidDicomError, ValueError, AttributeError, LookupError, NotImplementedError, EOFError):
        meta = {}
    return Arrival(
        sop_class_uid=str(meta.get("MediaStorageSOPClassUID", "")),
        sop_instance_uid=str(meta.get("MediaStorageSOPInstanceUID", "")),
        transfer_syntax_uid=str(meta.get("TransferSyntaxUID", "")),
        calling_ae=str(meta.get("SourceApplicationEntityTitle", "")),
        called_ae=called_ae,
        association="",
        path=path,
        size=file.stat().st_size,
    )


def _ends_early(file: Path) -> bool:
    """One that the disk can't read is no matter of its sender's: it is looked at like any other."""
    try:
        return ends_early(file)
    except OSError:
        return False


def _unnamed(spool: Spool, ledger: Ledger, beat: Callable[[], None]) -> Iterator[tuple[str, os.stat_result]]:
    """Spooled files that no row names."""

    def named(folder: str) -> Set[str]:
        beat()
        return ledger.paths_in(folder)

    for path in spool.unknown(named):
        beat()
        with contextlib.suppress(FileNotFoundError):
            yield path, spool.at(path).stat()


def _may_matter(path: str, facts: os.stat_result, ledger: Ledger) -> bool:
    """Whether it may be the only copy: an original always; a result, which can be made again, under a new ledger."""
    if _partial(path) or not facts.st_size:
        return False
    return path.startswith("originals/") or facts.st_mtime < ledger.upkeep.born()


def _partial(path: str) -> bool:
    """Whether it is a temporary file, which never held the only copy of anything."""
    return PurePosixPath(path).name.startswith(".")


def _count(ledger: Ledger, kept: int) -> None:
    if kept != int(ledger.upkeep.mark(UNCLAIMED) or 0):
        ledger.upkeep.set_mark(UNCLAIMED, kept)
