"""A DICOM study of nobody: one invented chest as several invented vendors would show it. Knows no network.

Source: PS3.3 A.26 (Digital X-Ray, for presentation), A.2 (Computed Radiography). The same seed gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

from dicom_node.demo.given import Given, made_uid
from engine.phantom import Phantom, make_phantom

SEED = 1
SIZE = (1224, 1024)
"""Rows and columns: enough to look at, and quick on two cores."""
PATIENT = "PHANTOM^EVENRAY"
DATE, TIME = "20260105", "090000"
"""Fixed: a repeat of the demo sends the same bytes."""


@dataclass(frozen=True, slots=True)
class _Room:
    """One X-ray room: whose system stands in it and how that writes its images."""

    vendor: str
    sop_class: uid.UID = uid.DigitalXRayImageStorageForPresentation
    syntax: uid.UID = uid.ExplicitVRLittleEndian


ROOMS = (
    _Room("Norlund"),
    _Room("Umbra", syntax=uid.RLELossless),
    _Room("Pallas", syntax=uid.JPEGLSLossless),
    _Room("Meridian", sop_class=uid.ComputedRadiographyImageStorage, syntax=uid.ImplicitVRLittleEndian),
    _Room("Graven"),
)


def make_study(
    folder: Path, *, seed: int = SEED, size: tuple[int, int] = SIZE, step: Callable[[int], None] = lambda _done: None
) -> list[Given]:
    """Write the study, one file a vendor; `step` hears how many are done."""
    given = []
    for number, room in enumerate(ROOMS, start=1):
        phantom = make_phantom(seed, room.vendor, size)
        image = _image(phantom, room, number)
        path = folder / f"{number}-{room.vendor.lower()}.dcm"
        image.save_as(path, enforce_file_format=True)
        given.append(Given(number, room.vendor, path, str(image.SOPInstanceUID)))
        step(number)
    return given


def _image(phantom: Phantom, room: _Room, number: int) -> Dataset:
    image = Dataset()
    image.SOPClassUID = room.sop_class
    key = (str(phantom.seed), "x".join(map(str, phantom.codes.shape)))
    image.SOPInstanceUID = made_uid(*key, room.vendor, "image")
    image.SeriesInstanceUID = made_uid(*key, room.vendor, "series")
    image.StudyInstanceUID = made_uid(*key, "study")
    _patient_and_study(image, phantom, number)
    _equipment(image, room)
    _grey_scale(image, phantom)
    if room.sop_class == uid.ComputedRadiographyImageStorage:
        _computed_radiography(image, phantom)
    else:
        _digital_x_ray(image, phantom)
    _pixels(image, phantom, room.syntax)
    return image


def _patient_and_study(image: Dataset, phantom: Phantom, number: int) -> None:
    """Patient, General Study, General Series, General Image. Source: PS3.3 C.7.1.1, C.7.2.1, C.7.3.1, C.7.6.1."""
    image.PatientName = PATIENT
    image.PatientID = f"EVENRAY-PHANTOM-{phantom.seed}"
    image.PatientBirthDate = "19700101"
    image.PatientSex = "O"
    image.PatientComments = "No patient: drawn by a program from a seed"
    image.StudyDate = image.SeriesDate = image.AcquisitionDate = image.ContentDate = DATE
    image.StudyTime = image.SeriesTime = image.AcquisitionTime = image.ContentTime = TIME
    image.StudyID = f"DEMO{phantom.seed}"
    image.StudyDescription = "Evenray demo, phantom"
    image.AccessionNumber = f"DEMO{phantom.seed}"
    image.ReferringPhysicianName = None
    image.SeriesNumber = number
    image.InstanceNumber = 1
    image.BodyPartExamined = "CHEST"
    image.ViewPosition = phantom.view
    image.PatientOrientation = ["L", "F"]
    image.ImageType = ["ORIGINAL", "PRIMARY"]
    image.BurnedInAnnotation = "NO"
    image.LossyImageCompression = "00"


def _equipment(image: Dataset, room: _Room) -> None:
    image.Manufacturer = room.vendor
    image.ManufacturerModelName = f"{room.vendor} phantom"
    image.StationName = f"DEMO_{room.vendor.upper()}"
    image.DeviceSerialNumber = "0"
    image.SoftwareVersions = "0"


def _digital_x_ray(image: Dataset, phantom: Phantom) -> None:
    """DX Series, Anatomy Imaged, Image and Detector. Source: PS3.3 C.8.11.1 to C.8.11.4."""
    image.Modality = "DX"
    image.PresentationIntentType = "FOR PRESENTATION"
    image.ImageLaterality = "U"
    image.PixelIntensityRelationship = "LOG"
    # Source: PS3.3 C.8.11.3.1.2: whether more X-rays at the detector mean a higher stored value.
    image.PixelIntensityRelationshipSign = 1 if phantom.inverted else -1
    image.DetectorType = "SCINTILLATOR"
    image.PositionerType = "NONE"
    image.ImagerPixelSpacing = [round(phantom.spacing_mm, 4)] * 2
    image.AcquisitionContextSequence = []
    image.AnatomicRegionSequence = [_code("51185008", "SCT", "Chest")]
    view = ("399348003", "antero-posterior") if phantom.view == "AP" else ("272479007", "postero-anterior")
    item = _code(view[0], "SCT", view[1])
    item.ViewModifierCodeSequence = []
    image.ViewCodeSequence = [item]


def _computed_radiography(image: Dataset, phantom: Phantom) -> None:
    """CR Series and Image. Source: PS3.3 C.8.1.1, C.8.1.2."""
    image.Modality = "CR"
    image.KVP = None
    image.PlateID = "DEMO"
    image.ImagerPixelSpacing = [round(phantom.spacing_mm, 4)] * 2


def _grey_scale(image: Dataset, phantom: Phantom) -> None:
    """A window over every code, and for inverted codes the photometric interpretation that says so.

    Source: PS3.3 C.7.6.3.1.2, C.11.2.1.2.1, C.11.6 (INVERSE goes with MONOCHROME1).
    """
    levels = 1 << phantom.bits
    image.PhotometricInterpretation = "MONOCHROME1" if phantom.inverted else "MONOCHROME2"
    image.PresentationLUTShape = "INVERSE" if phantom.inverted else "IDENTITY"
    image.RescaleIntercept, image.RescaleSlope, image.RescaleType = 0, 1, "US"
    image.WindowCenter, image.WindowWidth = levels // 2, levels
    image.SamplesPerPixel = 1
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, phantom.bits, phantom.bits - 1
    image.PixelRepresentation = 0
    image.Rows, image.Columns = phantom.codes.shape


def _pixels(image: Dataset, phantom: Phantom, syntax: uid.UID) -> None:
    image.file_meta = FileMetaDataset()
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian if syntax.is_encapsulated else syntax
    image.PixelData = phantom.codes.astype("<u2").tobytes()
    image["PixelData"].VR = "OW"
    if syntax.is_encapsulated:
        image.compress(syntax, np.ascontiguousarray(phantom.codes), generate_instance_uid=False)


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item
