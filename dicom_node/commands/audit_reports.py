"""Find our reports among files: which are read, which are somebody else's, which ours can't be read. Shows nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from dicom_node import marks
from dicom_node.errors import BadInput, Unreadable
from dicom_node.results.report_text import Report, read_report
from dicom_node.tolerant import READ_FAULTS, read, text

PREFIX = b"DICM"


@dataclass(slots=True)
class Found:
    """What was found among files."""

    reports: list[tuple[Path, Report]] = field(default_factory=list)
    skipped: int = 0
    """Files that are no report of ours: images, reports of others, anything else."""
    faults: list[tuple[Path, str]] = field(default_factory=list)
    """Files that are, or may be, a report of ours and can't be read."""


def find_reports(files: Iterable[Path]) -> Found:
    """Read every report of ours among these files; nothing that may be one is passed over in silence."""
    found = Found()
    for file in files:
        try:
            if not _is_ours(file):
                found.skipped += 1
                continue
            found.reports.append((file, read_report(file)))
        except (BadInput, Unreadable) as fault:
            found.faults.append((file, str(fault)))
        except READ_FAULTS as fault:
            found.faults.append((file, f"a damaged report ({type(fault).__name__} while it was read)"))
        except OSError as fault:
            found.faults.append((file, f"can't be read ({fault.strerror}): check its owner"))
    return found


def _is_ours(file: Path) -> bool:
    """By any of several marks, so that no single damage makes a report of ours look like somebody else's.

    Raises Unreadable where a file begins as DICOM does and goes no further.
    """
    try:
        dataset, _ = read(file)
    except Unreadable:
        with file.open("rb") as opened:
            if opened.read(132)[128:] == PREFIX:
                raise
        return False
    meta: Dataset = getattr(dataset, "file_meta", Dataset())
    is_report = text(dataset, "Modality") == "SR" or Comprehensive3DSRStorage in (
        text(dataset, "SOPClassUID"),
        text(meta, "MediaStorageSOPClassUID"),
    )
    uids = (text(dataset, "SOPInstanceUID"), text(meta, "MediaStorageSOPInstanceUID"))
    named = text(dataset, "Manufacturer").casefold() == marks.MANUFACTURER.casefold()
    return is_report and (named or any(marks.is_our_uid(uid) for uid in uids))
