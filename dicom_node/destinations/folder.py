"""Deliver to a folder: one file an object, complete or not there at all. Knows no network and no ledger."""

from __future__ import annotations

import errno
import filecmp
import os
import re
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pynetdicom.dsutils import split_dataset

from dicom_node.destinations.parcel import Answer, Parcel, Sending, damage
from dicom_node.durable import fsync
from dicom_node.errors import Blame, EvenrayError, PeerBusy, PeerRefused, PeerUnreachable, SpoolDamaged
from dicom_node.records import Receipt
from dicom_node.settings import Folder

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
IN_THE_WAY = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)
STUDY_UNKNOWN = "no-study-uid"
UID_CHARACTERS = re.compile(r"[0-9.]{1,64}")


class FolderDestination:
    """`<root>/<Study Instance UID>/<SOP Instance UID>.dcm`: names without anything of the patient."""

    def __init__(self, name: str, destination: Folder) -> None:
        self.name = name
        self._root = destination.path

    def send(self, parcels: Sequence[Parcel], *, beat: Callable[[], None]) -> Sending:
        """Copy each file durably; one that is there with the same bytes is accepted again.

        Answers are a Receipt, SpoolDamaged (the file can't be read or has other bytes), PeerBusy (no room, or no right
        to write now), PeerRefused (another object under this name) or PeerUnreachable (any other fault of the disk).
        """
        for parcel in parcels:
            beat()
            yield parcel, self._keep(parcel)

    def _keep(self, parcel: Parcel) -> Answer:
        if not UID_CHARACTERS.fullmatch(parcel.sop_instance_uid):
            return PeerRefused(f"{self.name}: {parcel.sop_instance_uid!r} is no UID and can't name a file")
        try:
            study = _study(parcel.path)
            damaged = damage(parcel, split_dataset(parcel.path)[1]) if parcel.digest else None
        except OSError as exc:
            return SpoolDamaged(f"{parcel.sop_instance_uid}: its file can't be read ({exc.strerror}): {parcel.path}")
        except (InvalidDicomError, ValueError, AttributeError, LookupError, NotImplementedError, EOFError):
            return SpoolDamaged(f"{parcel.sop_instance_uid}: no DICOM file any more: {parcel.path}")
        if damaged:
            return damaged
        target = self._root / study / f"{parcel.sop_instance_uid}.dcm"
        try:
            return self._write(parcel.path, target)
        except OSError as exc:
            return self._fault(exc, target)

    def _write(self, source: Path, target: Path) -> Answer:
        if target.exists():
            if filecmp.cmp(source, target, shallow=False):
                return Receipt(accepted=True, status=None, detail=f"already there: {target}")
            return PeerRefused(f"{self.name}: another object is there: {target}")
        _make(target.parent)
        for left in target.parent.glob(f".{target.name}.*.part"):
            # Of a process that was killed here; one that still writes finds its file gone, and tries again.
            left.unlink(missing_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with source.open("rb") as read, partial.open("wb") as write:
                shutil.copyfileobj(read, write, 1 << 20)
                write.flush()
                os.fsync(write.fileno())
            partial.rename(target)
        finally:
            partial.unlink(missing_ok=True)
        fsync(target.parent)
        return Receipt(accepted=True, status=None, detail=f"written: {target}")

    def _fault(self, exc: OSError, target: Path) -> EvenrayError:
        reason = exc.strerror or str(exc)
        if exc.errno in IN_THE_WAY:
            return PeerRefused(f"{self.name}: {target.parent} can't be written ({reason}): see what is in its place")
        fault: EvenrayError
        if exc.errno in NO_ROOM:
            fault = PeerBusy(f"{self.name}: no room for {target.name} ({reason}): make room in {self._root}")
        elif exc.errno in FORBIDDEN:
            fault = PeerBusy(f"{self.name}: {target.parent} can't be written ({reason}): check its owner and rights")
        else:
            fault = PeerUnreachable(f"{self.name}: {target} could not be written ({reason})")
        return fault.about(Blame.EITHER)


def _study(path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        uid = str(
            dcmread(path, specific_tags=["StudyInstanceUID"], stop_before_pixels=True).get("StudyInstanceUID", "")
        )
    # A value from outside names a folder only if it can't name another one.
    return uid if UID_CHARACTERS.fullmatch(uid) and uid.strip(".") else STUDY_UNKNOWN


def _make(folder: Path) -> None:
    """Make the folder and what is missing above it, each durable in its parent."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        fsync(made.parent)
