"""Send files and folders to a DICOM peer, as `evenray send` does: find the objects, send them, say what became of each.

Knows no ledger and no spool: nothing is retried and nothing is kept.
"""

from __future__ import annotations

import shutil
import struct
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filebase import DicomFileLike
from pydicom.filereader import read_dataset, read_preamble
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from dicom_node.destinations import Answer, Parcel, open_destination
from dicom_node.errors import BadInput
from dicom_node.marks import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from dicom_node.settings import Dimse

NOT_DICOM = (
    InvalidDicomError,
    BytesLengthException,
    struct.error,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    TypeError,
    ValueError,
)
"""What pydicom raises when any file at all is read as if it were DICOM; never OSError, which is the disk's fault."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one file. `answer` None: the file is no DICOM object (or a DICOMDIR) and was left out."""

    path: Path
    sop_instance_uid: str
    answer: Answer | None


def send_files(
    paths: Iterable[Path],
    destination: Dimse,
    *,
    calling_ae: str,
    progress: Callable[[Sent], None] = lambda _sent: None,
) -> list[Sent]:
    """Send every DICOM object among `paths`, folders at any depth; the results in the order they became known.

    Data sets are sent byte for byte where the peer takes their transfer syntax; files without preamble or File Meta
    Information (PS3.10 7.1) get it first, in a temporary copy. A refusal is a result, not an exception.
    Raises BadInput where a path does not exist or can't be read.
    """
    results: list[Sent] = []

    def add(sent: Sent) -> None:
        results.append(sent)
        progress(sent)

    with tempfile.TemporaryDirectory(prefix="evenray-send-") as scratch:
        parcels: dict[Path, tuple[Path, Parcel]] = {}
        for path in _files(paths):
            parcel = _parcel(path, Path(scratch) / f"{len(parcels)}.dcm")
            if parcel is None:
                add(Sent(path, "", None))
            else:
                parcels[parcel.path] = (path, parcel)
        port = open_destination("send", destination, calling_ae=calling_ae)
        for parcel, answer in port.send([parcel for _, parcel in parcels.values()], beat=lambda: None):
            add(Sent(parcels[parcel.path][0], parcel.sop_instance_uid, answer))
    return results


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    """Every file once, in an order that does not depend on the disk."""
    seen = set()
    for path in paths:
        if not path.exists():
            raise BadInput(f"{path}: no such file or folder")
        for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            if (known := file.resolve()) not in seen:
                seen.add(known)
                yield file


def _parcel(path: Path, scratch: Path) -> Parcel | None:
    """The file as something to send, itself or as a copy with File Meta Information in `scratch`; None: no DICOM."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            dataset = dcmread(
                path, force=True, stop_before_pixels=True, specific_tags=["SOPClassUID", "SOPInstanceUID"]
            )
            meta, offset = _split(path)
            ours = (str(dataset.get("SOPClassUID") or ""), str(dataset.get("SOPInstanceUID") or ""))
    except NOT_DICOM:
        return None
    except OSError as exc:
        raise BadInput(f"{path}: can't be read ({exc.strerror})") from exc
    stated = (str(meta.get("MediaStorageSOPClassUID", "")), str(meta.get("MediaStorageSOPInstanceUID", "")))
    if MediaStorageDirectoryStorage in (stated[0], ours[0]) or not all(ours):
        return None
    syntax = str(meta.get("TransferSyntaxUID", "")) or _syntax(*dataset.original_encoding)
    if stated == ours and "TransferSyntaxUID" in meta and _has_preamble(path):
        return Parcel(*ours, path)
    _with_meta(path, offset, scratch, ours, syntax)
    return Parcel(*ours, scratch)


def _split(path: Path) -> tuple[Dataset, int]:
    """The File Meta Information, empty where there is none, and where the data set starts."""

    def behind(tag: Any, _vr: str | None, _length: int) -> bool:
        return bool(tag.group != 2)

    with path.open("rb") as file:
        read_preamble(file, force=True)
        meta = read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=behind)
        return meta, file.tell()


def _has_preamble(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM"


def _syntax(implicit: bool | None, little_endian: bool | None) -> str:
    """What a data set without File Meta Information is written in; implicit VR is DICOM's default (PS3.5 10.1)."""
    if implicit is not False:
        return str(ImplicitVRLittleEndian)
    return str(ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian)


def _with_meta(source: Path, offset: int, target: Path, identity: tuple[str, str], syntax: str) -> None:
    """Write File Meta Information (PS3.10 7.1), then the data set as it lies in the source."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = map(UID, identity)
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION
    with source.open("rb") as read, target.open("wb") as write:
        write.write(b"\0" * 128 + b"DICM")
        write_file_meta_info(DicomFileLike(write), meta, enforce_standard=True)
        read.seek(offset)
        shutil.copyfileobj(read, write, 1 << 20)
