"""Tidy up after a crash: remove spooled files that no row names. Their senders were never told Success.

A file that is older than the ledger itself is no such file: the ledger was lost or is an older copy. It is kept and
counted, until a person has it taken in again.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from dicom_node.ledger import BORN, UNCLAIMED, Ledger
from dicom_node.records import Arrival
from dicom_node.spool import Spool

log = logging.getLogger(__name__)

GRACE_S = 3600.0
"""A file younger than this may be on its way into the ledger right now, in another process."""
AT_ONCE = 100


def recover(spool: Spool, ledger: Ledger, *, now: float, beat: Callable[[], None] = lambda: None) -> int:
    """Remove the spool's orphans; returns how many there were. `beat` is called between files."""
    gone = kept = 0
    for path, made in _unnamed(spool, ledger):
        beat()
        # A row that says that the file has left settles it; without one, it may be on its way in.
        if not ledger.upkeep.has_left(path):
            if now - made <= GRACE_S:
                continue
            if made < ledger.upkeep.born() and not _partial(path):
                kept += 1
                continue
        spool.discard(path)
        log.info("removed %s: no row says that it is there", path)
        gone += 1
    _count(ledger, kept)
    if kept:
        log.error("%d files in the spool are older than the ledger, which has no row of them: they are kept", kept)
    return gone


def readmit(spool: Spool, ledger: Ledger, *, called_ae: str, now: float) -> int:
    """Take originals that no row names in again as if they had just arrived, oldest first; how many there were.

    For a ledger that was lost or is an older copy, while no process of the node runs. What was never acknowledged is
    among them, and so is what a receiver had in hand when it died: that does no harm, and losing one would.
    """
    found = []
    for folder, paths in spool.folders():
        named = ledger.paths_in(folder) if folder.startswith("originals/") else set(paths)
        facts = [(spool.at(path).stat(), path) for path in paths if path not in named and not _partial(path)]
        # A receiver makes empty files ahead.
        found += [(fact.st_mtime, path) for fact, path in facts if fact.st_size]
    left = [path for _, path in sorted(found) if not ledger.upkeep.has_left(path)]
    for start in range(0, len(left), AT_ONCE):
        arrivals = [_arrival(spool, path, called_ae) for path in left[start : start + AT_ONCE]]
        ledger.instances.arrive_all(arrivals, now=now)
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


def _unnamed(spool: Spool, ledger: Ledger) -> Iterator[tuple[str, float]]:
    """Spooled files that no row names, and when each was written."""
    for path in spool.unknown(ledger.paths_in):
        with contextlib.suppress(FileNotFoundError):
            yield path, spool.at(path).stat().st_mtime


def _partial(path: str) -> bool:
    """Whether it is a temporary file, which never held the only copy of anything."""
    return PurePosixPath(path).name.startswith(".")


def _count(ledger: Ledger, kept: int) -> None:
    if kept != int(ledger.upkeep.mark(UNCLAIMED) or 0):
        ledger.upkeep.set_mark(UNCLAIMED, kept)
