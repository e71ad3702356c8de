"""Small radiographs in any transfer syntax, for tests that send them."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from openjpeg.utils import encode_array
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, JPEG2000TransferSyntaxes
from pynetdicom.dsutils import split_dataset

from dicom_node.destinations import Parcel

STUDY = "1.2.826.0.1.3680043.8.498.1"


def radiograph(uid: str, *, size: int = 32, sop_class: str = DigitalXRayImageStorageForPresentation) -> Dataset:
    """A DX data set with 12-bit pixels that are a function of its UID."""
    dataset = Dataset()
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = uid
    dataset.StudyInstanceUID = STUDY
    dataset.SeriesInstanceUID = f"{STUDY}.1"
    dataset.Modality = "DX"
    dataset.PatientName = "Nobody^Test"
    dataset.PatientID = "T1"
    dataset.ReferencedImageSequence = [Dataset()]
    dataset.ReferencedImageSequence[0].ReferencedSOPInstanceUID = f"{STUDY}.9"
    dataset.Rows = dataset.Columns = size
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RedPaletteColorLookupTableDescriptor = [256, 0, 16]
    pixels = np.random.default_rng(sum(map(ord, uid))).integers(0, 4096, (size, size), dtype=np.uint16)
    dataset.PixelData = pixels.tobytes()
    return dataset


def parcel(
    folder: Path, uid: str, syntax: str = ExplicitVRLittleEndian, *, size: int = 32, sop_class: str | None = None
) -> Parcel:
    """A Part 10 file of a radiograph in a transfer syntax, ready to be sent."""
    dataset = radiograph(uid, size=size, sop_class=sop_class or DigitalXRayImageStorageForPresentation)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    wanted = UID(syntax)
    if wanted in JPEG2000TransferSyntaxes:
        stream = encode_array(dataset.pixel_array, codec_format=0)
        dataset.PixelData = encapsulate([bytes(stream)])
        dataset["PixelData"].VR = "OB"
    elif wanted.is_encapsulated:
        dataset.compress(wanted, generate_instance_uid=False)
    elif not wanted.is_little_endian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").byteswap().tobytes()
    dataset.file_meta.TransferSyntaxUID = wanted
    path = folder / f"{uid}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return Parcel(dataset.SOPClassUID, uid, path)


def parcels(folder: Path, count: int, syntax: str = ExplicitVRLittleEndian, *, size: int = 32) -> list[Parcel]:
    return [parcel(folder, f"{STUDY}.2.{number}", syntax, size=size) for number in range(1, count + 1)]


def data_set(path: Path) -> bytes:
    """The bytes behind the File Meta Information."""
    _, offset = split_dataset(path)
    return path.read_bytes()[offset:]


def inflated(path: Path) -> bytes:
    """The same, inflated where the transfer syntax deflates it (raw, without header: PS3.5 A.5)."""
    meta, _ = split_dataset(path)
    raw = data_set(path)
    return zlib.decompressobj(-15).decompress(raw) if meta.TransferSyntaxUID.is_deflated else raw


def pixels_of(path: Path) -> np.ndarray:
    return dcmread(path).pixel_array
