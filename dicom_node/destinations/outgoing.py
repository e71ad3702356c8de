"""A parcel looked at before it is sent: whether its file is the object that is meant, and how it is encoded.

Knows no network.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from dicom_node.destinations.parcel import Parcel
from dicom_node.errors import SpoolDamaged


@dataclass(frozen=True, slots=True)
class Item:
    """A parcel whose file was found, with the transfer syntax that it is in."""

    parcel: Parcel
    syntax: str


def inspect(parcel: Parcel) -> Item | SpoolDamaged:
    """The file's transfer syntax, once it is sure that the file is there and is the object that is meant."""
    uid = parcel.sop_instance_uid
    try:
        meta = read_file_meta_info(parcel.path)
    except OSError as exc:
        return SpoolDamaged(f"{uid}: its file can't be read ({exc.strerror}): {parcel.path}")
    except (InvalidDicomError, ValueError, AttributeError, LookupError, NotImplementedError, EOFError):
        return SpoolDamaged(f"{uid}: no DICOM file any more: {parcel.path}")
    syntax = str(meta.get("TransferSyntaxUID", ""))
    found = (str(meta.get("MediaStorageSOPClassUID", "")), str(meta.get("MediaStorageSOPInstanceUID", "")))
    if not syntax or found != (parcel.sop_class_uid, uid):
        return SpoolDamaged(f"{uid}: another object, or no complete File Meta Information, in {parcel.path}")
    return Item(parcel, syntax)
