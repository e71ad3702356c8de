"""Builders of small radiographs as DICOM files, each knob one way in which real files differ. Knows no node code."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread, uid
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "dicom"
CLASSES = {
    "CR": uid.ComputedRadiographyImageStorage,
    "DX": uid.DigitalXRayImageStorageForPresentation,
    "MG": uid.DigitalMammographyXRayImageStorageForPresentation,
    "SC": uid.SecondaryCaptureImageStorage,
}
BODY = {"CR": "CHEST", "DX": "CHEST", "MG": "BREAST", "SC": "CHEST"}
VIEW = {"CR": "PA", "DX": "PA", "MG": "MLO", "SC": "PA"}


def ramp(rows: int = 32, columns: int = 48, bits: int = 12) -> NDArray[np.uint16]:
    """(rows, columns) words that run from 0 to 2**bits - 1."""
    return np.linspace(0, 2**bits - 1, rows * columns).round().astype(np.uint16).reshape(rows, columns)


def dataset(
    kind: str = "CR",
    words: NDArray[Any] | None = None,
    *,
    bits: int = 12,
    signed: bool = False,
    instance: str = "1.2.3.4.1",
    study: str = "1.2.3.4",
    series: str = "1.2.3.4.9",
    **attributes: Any,
) -> Dataset:
    """A radiograph of `kind` (CR, DX, MG, SC); `attributes` override, None removes."""
    words = ramp(bits=bits) if words is None else words
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CLASSES[kind], instance
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Doe^Jane", "P1", "19600229", "F"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20240203", "101500", "S1", "A1"
    ds.ReferringPhysicianName = ""
    ds.ContentDate, ds.ContentTime = "20240203", "101611"
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "CR" if kind == "SC" else kind, "ACME", "Ray 1"
    ds.BodyPartExamined, ds.ViewPosition = BODY[kind], VIEW[kind]
    ds.SeriesNumber, ds.InstanceNumber = 1, 7
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    if kind == "MG":
        ds.ImageLaterality = "L"
    if kind in ("DX", "MG"):
        ds.PresentationIntentType = "FOR PRESENTATION"
    allocated = 8 if words.dtype.itemsize == 1 else 16
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = words.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = allocated, bits, bits - 1
    ds.PixelRepresentation = int(signed)
    ds.PixelData = words.astype(words.dtype.newbyteorder("<")).tobytes()
    ds["PixelData"].VR = "OB" if allocated == 8 else "OW"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # invalid values are what some tests are about
        for keyword, value in attributes.items():
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)
    return ds


def content(ds: Dataset, syntax: str = uid.ExplicitVRLittleEndian) -> bytes:
    """The data set as a Part 10 file in an uncompressed, RLE, JPEG-LS, JPEG 2000 or deflated syntax."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.UID(syntax)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    if uid.UID(syntax).is_encapsulated:
        ds.PixelData = encapsulate([_compressed(ds, syntax)])
        ds["PixelData"].VR = "OB"
    elif syntax == uid.ExplicitVRBigEndian and ds.BitsAllocated == 16:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        ds.save_as(
            buffer,
            enforce_file_format=True,
            implicit_vr=syntax == uid.ImplicitVRLittleEndian,
            little_endian=syntax != uid.ExplicitVRBigEndian,
        )
    return buffer.getvalue()


def write(path: Path, ds: Dataset, syntax: str = uid.ExplicitVRLittleEndian) -> Path:
    """Write `content` to a file and return its path."""
    path.write_bytes(content(ds, syntax))
    return path


def without_meta(path: Path, ds: Dataset) -> Path:
    """A bare Implicit VR Little Endian data set, as old archives keep them."""
    buffer = BytesIO()
    ds.save_as(buffer, implicit_vr=True, little_endian=True, enforce_file_format=False)
    path.write_bytes(buffer.getvalue())
    return path


def lut(entries: list[int], first: int, bits: int) -> Sequence:
    """A VOI or modality LUT sequence of one item."""
    item = Dataset()
    item.add(DataElement(0x00283002, "US", [len(entries), first % 65536, bits]))
    item.add(DataElement(0x00283006, "US", entries))
    return Sequence([item])


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """An item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _compressed(ds: Dataset, syntax: str) -> bytes:
    words = np.frombuffer(ds.PixelData, np.uint8 if ds.BitsAllocated == 8 else "<u2").reshape(ds.Rows, ds.Columns)
    if syntax == uid.RLELossless:
        import rle.utils  # noqa: PLC0415 (only the tests that compress need the encoders)

        return bytes(
            rle.utils.encode_pixel_data(
                words.tobytes(),
                rows=ds.Rows,
                columns=ds.Columns,
                bits_allocated=ds.BitsAllocated,
                samples_per_pixel=1,
                byteorder="<",
            )
        )
    if syntax in (uid.JPEGLSLossless, uid.JPEGLSNearLossless):
        import jpeg_ls  # noqa: PLC0415

        return bytes(jpeg_ls.encode_array(words, lossy_error=0 if syntax == uid.JPEGLSLossless else 2))
    if syntax in (uid.JPEG2000Lossless, uid.JPEG2000):
        import openjpeg.utils  # noqa: PLC0415

        return bytes(openjpeg.utils.encode_array(words, bits_stored=ds.BitsStored))
    if syntax == "1.2.840.10008.1.2.1.98":
        return words.tobytes()
    raise ValueError(f"no encoder for {syntax}")


def reread(path: Path) -> FileDataset:
    """A real file with pydicom's warnings about its values silenced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return dcmread(path, force=True)
