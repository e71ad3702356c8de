"""Which objects of a person's files the demo sends, each under a UID of its own. The files are never changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID

from dicom_node.commands.inputs import files_of
from dicom_node.demo.given import Given, made_uid
from dicom_node.demo.place import Place
from dicom_node.errors import BadInput, Unreadable
from dicom_node.header import dataset_digest
from dicom_node.tolerant import READ_FAULTS, quiet, read, text, transfer_syntax

NAMED = 6
"""Files that a remark names before it only counts."""


@dataclass(slots=True)
class Gathered:
    """What is sent, and what was left out or changed in a copy."""

    given: list[Given] = field(default_factory=list)
    no_dicom: list[str] = field(default_factory=list)
    same_bytes: list[str] = field(default_factory=list)
    same_uid: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)

    def remarks(self) -> list[str]:
        """One sentence for each kind of file that is not sent as it is."""
        said = (
            (self.no_dicom, "{} no DICOM object, left out: {}"),
            (self.same_bytes, "{} the same data set as another file, left out: {}"),
            (self.same_uid, "{} a UID that another file carries already; a copy with a UID of its own is sent: {}"),
            (self.stuck, "{} a UID that another file carries already and can't be rewritten, left out: {}"),
        )
        verbs = (("is", "are"), ("holds", "hold"), ("carries", "carry"), ("carries", "carry"))
        return [
            sentence.format(f"{len(names)} file{'s' * (len(names) > 1)} {verb[len(names) > 1]}", _some(names))
            for (names, sentence), verb in zip(said, verbs, strict=True)
            if names
        ]


def gather(source: Path, place: Place, *, step: Callable[[int], None] = lambda _done: None) -> Gathered:
    """The DICOM objects of a file or folder; `step` hears how many files were looked at.

    Raises BadInput where there is none, or where the demo's own folder would be its input.
    """
    if source.resolve().is_relative_to(place.root.resolve()):
        raise BadInput(f"{source}: lies in the demo's own folder {place.root}: name another folder with --out")
    files = [path for path in files_of([source]) if not path.resolve().is_relative_to(place.root.resolve())]
    found = Gathered()
    digests: set[str] = set()
    uids: set[str] = set()
    for number, path in enumerate(files, start=1):
        _take(found, path, place, digests, uids)
        step(number)
    if not found.given:
        raise BadInput(f"{source}: none of its {len(files)} file(s) is a DICOM object: name another --input")
    return found


def _take(found: Gathered, path: Path, place: Place, digests: set[str], uids: set[str]) -> None:
    uid = _uid(path)
    if uid is None:
        found.no_dicom.append(path.name)
        return
    digest = dataset_digest(path)
    if digest in digests:
        found.same_bytes.append(path.name)
        return
    digests.add(digest)
    number = len(found.given) + 1
    if uid in uids:
        copy = place.sent / f"{number}.dcm"
        uid = made_uid(uid, digest)
        if not _copied(path, uid, copy):
            found.stuck.append(path.name)
            return
        found.same_uid.append(path.name)
        found.given.append(Given(number, path.name, copy, uid))
    else:
        found.given.append(Given(number, path.name, path, uid))
    uids.add(uid)


def _uid(path: Path) -> str | None:
    """The SOP Instance UID, None where the file is no object that can be sent."""
    try:
        dataset, _ = read(path)
    except Unreadable:
        return None
    except OSError as fault:
        raise BadInput(f"{path}: can't be read ({fault.strerror}): check its permissions") from fault
    return text(dataset, "SOPInstanceUID") if text(dataset, "SOPClassUID") else None


def _copied(source: Path, uid: str, target: Path) -> bool:
    """Write the object under another UID, all else as it is; False where its elements can't be written again."""
    try:
        with quiet():
            dataset = dcmread(source, force=True)
            syntax = transfer_syntax(dataset)
            dataset.SOPInstanceUID = uid
            if not hasattr(dataset, "file_meta"):
                dataset.file_meta = FileMetaDataset()
            dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
            dataset.file_meta.MediaStorageSOPInstanceUID = UID(uid)
            dataset.file_meta.TransferSyntaxUID = UID(syntax)
            dataset.save_as(target, enforce_file_format=True)
    except READ_FAULTS:
        target.unlink(missing_ok=True)
        return False
    return True


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
