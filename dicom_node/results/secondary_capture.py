"""Build the Secondary Capture image that a PACS shows beside the original. Sends and stores nothing.

Source: PS3.3 A.8.1 (IOD), C.8.6.1 and C.8.6.2 (SC Equipment, SC Image), C.7.6.1.1.2 (derived images),
C.12.1.1.5 (contributing equipment). The window is our own, and no rescale or VOI LUT is inherited: the pixels
have been through them already.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset

from dicom_node import VERSION, marks
from dicom_node.display import Codes
from dicom_node.errors import ResultInvalid
from dicom_node.records import Decision, Header, Made, Outcome, ResultKind
from dicom_node.results import concepts, copying, identity
from dicom_node.results.copying import Copier
from dicom_node.settings import Site
from dicom_node.tolerant import integer, read, text, transfer_syntax, values

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
# Source: PS3.16 table L-1, the parts marked as unpaired.
UNPAIRED = frozenset(  # a text, because sixty quoted words would hide the list
    """ABDOMEN ABDOMENPELVIS AORTA BACK BLADDER BRAIN CEREBELLUM CERVIX CHEST CHESTABDOMEN CHESTABDPELVIS
    CIRCLEOFWILLIS COCCYX COLON CORONARYARTERY CSPINE CTSPINE DUODENUM ESOPHAGUS FACE GALLBLADDER HEAD HEADNECK HEART
    ILEUM ILIUM JAW JEJUNUM LARYNX LIVER LSPINE LSSPINE MAXILLA MEDIASTINUM MOUTH NECK NECKCHEST NOSE PANCREAS PELVIS
    PENIS PHARYNX PROSTATE RECTUM SCALP SKULL SPINE SPLEEN SSPINE STERNUM STOMACH THYMUS THYROID TLSPINE TONGUE
    TRACHEA TSPINE URETER URETHRA UTERUS VAGINA VULVA WHOLEBODY""".split()  # noqa: SIM905
)
# Source: PS3.3 C.7.6.1.1.5.1.
LOSSY_METHODS: dict[str, str] = {
    uid.JPEGBaseline8Bit: "ISO_10918_1",
    uid.JPEGExtended12Bit: "ISO_10918_1",
    uid.JPEGLSNearLossless: "ISO_14495_1",
    uid.JPEG2000: "ISO_15444_1",
    uid.HTJ2K: "ISO_15444_15",
}
ALWAYS_LOSSY = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)


def make_secondary_capture(
    source: Path, codes: Codes, bits: int, decision: Decision, header: Header, site: Site
) -> Made:
    """The harmonized image as a DICOM object; the same inputs give the same bytes.

    codes: (H, W) uint8 for 8 bits, else uint16, display sense. Raises ResultInvalid where they don't fit `bits` or
    the original's size, Unreadable where the original can't be read.
    """
    _check(codes, bits, header)
    original, _ = read(source)
    made_by = identity.equipment([decision])
    image = Dataset()
    copier = copying.patient_and_study(original, image)
    _series_and_equipment(image, original, header, site, made_by)
    _image(image, original, header, decision, copier)
    _pixels(image, codes, bits)
    instance = image_uid(decision, header)
    image.SOPClassUID = uid.SecondaryCaptureImageStorage
    image.SOPInstanceUID = instance
    image.SeriesInstanceUID = identity.image_series_uid(header, decision)
    image.CodingSchemeIdentificationSequence = identity.coding_schemes()
    copying.choose_charset(original, image)
    return Made(
        kind=ResultKind.SECONDARY_CAPTURE,
        sop_class_uid=str(uid.SecondaryCaptureImageStorage),
        sop_instance_uid=instance,
        content=part10(image),
    )


def image_uid(decision: Decision, header: Header) -> str:
    """The result's SOP Instance UID: known before it is made, and the same whenever it is made again."""
    return identity.make_uid(
        ResultKind.SECONDARY_CAPTURE,
        header.sop_instance_uid,
        decision.source_digest,
        decision.method,
        *identity.provenance(decision),
    )


def repairs(original: FileDataset, header: Header) -> tuple[str, ...]:
    """What `make_secondary_capture` has to repair or leave out of this original, for the report."""
    image = Dataset()
    copier = copying.patient_and_study(original, image)
    _image(image, original, header, Decision(outcome=Outcome.HARMONIZED, reason=""), copier)
    return copier.notes


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


def _check(codes: Codes, bits: int, header: Header) -> None:
    wanted = np.uint8 if bits == 8 else np.uint16
    if not 8 <= bits <= 16 or codes.dtype != wanted or codes.ndim != 2:
        raise ResultInvalid(f"{bits} bits need (H, W) {np.dtype(wanted)}, not {codes.shape} {codes.dtype}")
    if int(codes.max()) >= 2**bits:
        raise ResultInvalid(f"grey code {int(codes.max())} does not fit in {bits} bits")
    if codes.shape != (header.rows, header.columns):
        raise ResultInvalid(f"{codes.shape} pixels for an original of {(header.rows, header.columns)}")


def _series_and_equipment(
    image: Dataset, original: Dataset, header: Header, site: Site, made_by: identity.Equipment
) -> None:
    """General Series, General Equipment, SC Equipment: the device is ours, the original's goes into a contribution."""
    image.Modality = copying.repaired("Modality", header.modality) or "OT"
    image.SeriesNumber = SERIES_NUMBER
    image.Manufacturer = made_by.manufacturer
    image.ManufacturerModelName = made_by.model
    image.SoftwareVersions = list(made_by.versions)
    image.StationName = site.station
    if site.institution:
        image.InstitutionName = site.institution
    # Source: PS3.3 C.8.6.1: WSD is a workstation, the only defined term for an image that was computed.
    image.ConversionType = "WSD"
    image.SecondaryCaptureDeviceManufacturer = made_by.manufacturer
    image.SecondaryCaptureDeviceManufacturerModelName = made_by.model
    image.SecondaryCaptureDeviceSoftwareVersions = list(made_by.versions)
    if "TimezoneOffsetFromUTC" not in image:
        image.TimezoneOffsetFromUTC = site.timezone
    contributions = identity.contributing_equipment(made_by, site.institution, site.station)
    acquired_by = _acquisition_equipment(original)
    image.ContributingEquipmentSequence = [*acquired_by, *contributions]


def _acquisition_equipment(original: Dataset) -> list[Dataset]:
    """The original's device. Its Manufacturer is required in an item, so that one without it can't be told."""
    item, copier = Dataset(), Copier(original)
    copier.copy(item, ("Manufacturer", "InstitutionName", "StationName", "ManufacturerModelName", "SoftwareVersions"))
    if "Manufacturer" not in item:
        return []
    item.PurposeOfReferenceCodeSequence = [identity.code_item(concepts.ACQUISITION_EQUIPMENT)]
    return [item]


def _image(image: Dataset, original: FileDataset, header: Header, decision: Decision, copier: Copier) -> None:
    """General Image and SC Image: what it shows, and that and how it was derived."""
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.InstanceNumber = max(integer(original, "InstanceNumber", 1), 0)
    image.SeriesDescription = f"{marks.HARMONIZED_PREFIX}: {decision.method}"[:64]
    copier.copy(image, COPIED)
    copier.copy_codes(image, COPIED_CODES)
    copier.copy_positive(image, SPACINGS)
    if "PatientOrientation" not in image:
        # Source: PS3.3 C.7.6.1 (2C, "may be empty"): an image without orientation in space has to have it.
        image.PatientOrientation = None
    if "PixelSpacing" in image:
        copier.copy(image, ("PixelSpacingCalibrationType", "PixelSpacingCalibrationDescription"))
    _laterality(image, copier)
    _burned_in(image, original, copier)
    _lossy(image, original, copier)
    image.DerivationDescription = derivation(decision)
    image.DerivationCodeSequence = [identity.code_item(concepts.HARMONIZATION)]
    origin = Dataset()
    origin.ReferencedSOPClassUID = header.sop_class_uid
    origin.ReferencedSOPInstanceUID = header.sop_instance_uid
    origin.SpatialLocationsPreserved = "YES"
    origin.PurposeOfReferenceCodeSequence = [identity.code_item(concepts.SOURCE_IMAGE)]
    image.SourceImageSequence = [origin]


def derivation(decision: Decision) -> str:
    """What was done, for a person (ST, at most 1024 characters)."""
    said = f"Grey values harmonized to reference bank {decision.bank or identity.NOT_STATED} by {decision.method}"
    if decision.distance_before is not None and decision.distance_after is not None:
        said += f"; style distance {decision.distance_before:.4g} before, {decision.distance_after:.4g} after"
    said += f". Evenray {VERSION}, engine {decision.engine_version or identity.NOT_STATED}. "
    return (said + "Derived for comparison: the original remains the diagnostic image.")[:1024]


def _laterality(image: Dataset, copier: Copier) -> None:
    """Image Laterality, else Laterality. Source: PS3.3 C.7.3.1 (2C: where the body part is paired).

    Where the side is not stated, empty says "not known"; it must be absent where there is only one of the part.
    """
    copier.copy(image, ("ImageLaterality",))
    if "ImageLaterality" in image:
        return
    copier.copy(image, ("Laterality",))
    if "Laterality" not in image and text(image, "BodyPartExamined") not in UNPAIRED:
        image.Laterality = None


def _burned_in(image: Dataset, original: Dataset, copier: Copier) -> None:
    """Source: PS3.3 C.7.6.1. An original that doesn't say may show a name: YES sends it to whoever checks, while a
    wrong NO would let it out of the house."""
    stated = text(original, "BurnedInAnnotation").upper()
    image.BurnedInAnnotation = stated if stated in ("YES", "NO") else "YES"
    if stated not in ("YES", "NO"):
        copier.note("BurnedInAnnotation is not stated in the original: YES as a precaution")
    copier.copy(image, ("RecognizableVisualFeatures",))


def _lossy(image: Dataset, original: FileDataset, copier: Copier) -> None:
    """Once lossy, always lossy. Source: PS3.3 C.7.6.1.1.5."""
    stated = text(original, "LossyImageCompression")
    syntax = transfer_syntax(original)
    if stated != "01" and syntax not in ALWAYS_LOSSY and (stated == "00" or syntax not in LOSSY_METHODS):
        image.LossyImageCompression = "00"
        return
    image.LossyImageCompression = "01"
    copier.copy_positive(image, ("LossyImageCompressionRatio",))
    copier.copy(image, ("LossyImageCompressionMethod",))
    once = len(values(image, "LossyImageCompressionRatio")) <= 1
    if once and "LossyImageCompressionMethod" not in image and syntax in LOSSY_METHODS:
        image.LossyImageCompressionMethod = LOSSY_METHODS[syntax]


def _pixels(image: Dataset, codes: Codes, bits: int) -> None:
    """Image Pixel and a window over every code. Source: PS3.3 C.7.6.3, C.11.2.1.2.1 (LINEAR: center 2**(n-1), width
    2**n maps 0 to black and 2**n - 1 to white exactly)."""
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.Rows, image.Columns = codes.shape
    image.BitsAllocated = 8 if bits == 8 else 16
    image.BitsStored, image.HighBit = bits, bits - 1
    image.PixelRepresentation = 0
    image.WindowCenter, image.WindowWidth = 2 ** (bits - 1), 2**bits
    image.WindowCenterWidthExplanation = "Full range"
    data = codes.astype(codes.dtype.newbyteorder("<"), copy=False).tobytes()
    image.PixelData = data + b"\0" * (len(data) % 2)
    image["PixelData"].VR = "OB" if bits == 8 else "OW"
