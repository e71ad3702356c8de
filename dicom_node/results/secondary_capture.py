"""Build the Secondary Capture image that a PACS shows beside the original. Sends and stores nothing.

Source: PS3.3 A.8.1 (IOD), C.8.6.1 and C.8.6.2 (SC Equipment, SC Image). The window is our own, and no rescale or VOI
LUT is inherited: the pixels have been through them already.
"""

from __future__ import annotations

from pathlib import Path

from pydicom import uid
from pydicom.dataset import Dataset, FileDataset

from dicom_node.display import Codes
from dicom_node.records import Decision, Header, Made, Outcome, ResultKind
from dicom_node.results import changed_image, copying, identity
from dicom_node.results.anatomy import put_laterality
from dicom_node.results.copying import Copier
from dicom_node.results.encoding import part10
from dicom_node.settings import Site
from dicom_node.tolerant import quiet, read

SERIES_NUMBER = 9101
"""Behind what modalities use, so that the originals come first in a viewer."""
COPIED = (
    "BodyPartExamined",
    "ViewPosition",
    "PatientOrientation",
    "AcquisitionDate",
    "AcquisitionTime",
    "ContentDate",
    "ContentTime",
    "ProtocolName",
)
COPIED_CODES = ("AnatomicRegionSequence", "ViewCodeSequence")
SPACINGS = (
    "PixelSpacing",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "EstimatedRadiographicMagnificationFactor",
)


def make_secondary_capture(
    source: Path, codes: Codes, bits: int, decision: Decision, header: Header, site: Site
) -> Made:
    """The harmonized image as a DICOM object; the same inputs give the same bytes.

    codes: (H, W) uint8 for 8 bits, else uint16, display sense. Raises ResultInvalid where they don't fit `bits` or
    the original's size, Unreadable where the original can't be read.
    """
    changed_image.check(codes, bits, header)
    original, _ = read(source)
    made_by = identity.equipment([decision])
    image = Dataset()
    instance = image_uid(decision, header)
    with quiet():
        copier = copying.patient_and_study(original, image)
        _series_and_equipment(image, original, header, site, made_by)
        _image(image, original, header, decision, copier)
        changed_image.put_pixels(image, codes, bits)
        image.SOPClassUID = uid.SecondaryCaptureImageStorage
        image.SOPInstanceUID = instance
        image.SeriesInstanceUID = identity.image_series_uid(header, decision)
        image.CodingSchemeIdentificationSequence = identity.coding_schemes()
        copying.choose_charset(original, image)
        content = part10(image)
    return Made(
        kind=ResultKind.SECONDARY_CAPTURE,
        sop_class_uid=str(uid.SecondaryCaptureImageStorage),
        sop_instance_uid=instance,
        content=content,
    )


def image_uid(decision: Decision, header: Header) -> str:
    """The result's SOP Instance UID: known before it is made, and the same whenever it is made again."""
    return identity.result_uid(ResultKind.SECONDARY_CAPTURE, header, decision)


def repairs(original: FileDataset, header: Header) -> tuple[str, ...]:
    """What `make_secondary_capture` has to repair or leave out of this original, for the report."""
    image = Dataset()
    with quiet():
        copier = copying.patient_and_study(original, image)
        _image(image, original, header, Decision(outcome=Outcome.HARMONIZED, reason=""), copier)
    return copier.notes


def _series_and_equipment(
    image: Dataset, original: Dataset, header: Header, site: Site, made_by: identity.Equipment
) -> None:
    """General Series, General Equipment, SC Equipment: the device is ours, the original's goes into a contribution."""
    image.Modality = copying.repaired("Modality", header.modality) or "OT"
    image.SeriesNumber = SERIES_NUMBER
    changed_image.put_equipment(image, site, made_by)
    # Source: PS3.3 C.8.6.1: WSD is a workstation, the only defined term for an image that was computed.
    image.ConversionType = "WSD"
    image.SecondaryCaptureDeviceManufacturer = made_by.manufacturer
    image.SecondaryCaptureDeviceManufacturerModelName = made_by.model
    image.SecondaryCaptureDeviceSoftwareVersions = list(made_by.versions)
    image.ContributingEquipmentSequence = changed_image.contributions(original, site, made_by)


def _image(image: Dataset, original: FileDataset, header: Header, decision: Decision, copier: Copier) -> None:
    """General Image and SC Image: what it shows, and that and how it was derived."""
    copier.copy(image, COPIED)
    copier.copy_codes(image, COPIED_CODES)
    copier.copy_positive(image, SPACINGS)
    changed_image.put_aspect(image, copier)
    if "PatientOrientation" not in image:
        # Source: PS3.3 C.7.6.1 (2C, "may be empty"): an image without orientation in space has to have it.
        image.PatientOrientation = None
    if "PixelSpacing" in image:
        copier.copy(image, ("PixelSpacingCalibrationType", "PixelSpacingCalibrationDescription"))
    put_laterality(image, copier)
    changed_image.put_burned_in(image, original, decision, copier)
    changed_image.put_lossy(image, original, copier)
    changed_image.put_derivation(image, original, header, decision)
