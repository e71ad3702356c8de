"""Write a finished data set as a Part 10 file. Knows no meaning of any attribute."""

from __future__ import annotations

from io import BytesIO

from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

from dicom_node import marks
from dicom_node.errors import ResultInvalid


def part10(dataset: Dataset) -> bytes:
    """A complete Part 10 file in Explicit VR Little Endian. Source: PS3.10 7.1."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.ImplementationClassUID = uid.UID(marks.IMPLEMENTATION_CLASS_UID)
    dataset.file_meta.ImplementationVersionName = marks.IMPLEMENTATION_VERSION
    buffer = BytesIO()
    try:
        dataset.save_as(buffer, enforce_file_format=True)
    except (ValueError, TypeError, UserWarning, UnicodeError) as exc:
        # The text of pydicom's error quotes values, which may name the patient: only its type is told.
        raise ResultInvalid(f"a result could not be encoded ({type(exc).__name__}): report this as a bug") from exc
    return buffer.getvalue()
