"""What every image that the node changed says of itself: pixels, device, derivation. Knows no class of image.

Source: PS3.3 C.7.6.1.1.2 (derived images), C.7.5.1 (equipment), C.12.1.1.5 (contributing equipment), C.7.6.3 (pixels).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset

from dicom_node import VERSION, marks
from dicom_node.display import Codes
from dicom_node.errors import ResultInvalid
from dicom_node.records import Decision, Header
from dicom_node.results import concepts, identity
from dicom_node.results.copying import Copier
from dicom_node.settings import Site
from dicom_node.tolerant import integer, text, transfer_syntax, values

# Source: PS3.3 C.7.6.1.1.5.1.
LOSSY_METHODS: dict[str, str] = {
    uid.JPEGBaseline8Bit: "ISO_10918_1",
    uid.JPEGExtended12Bit: "ISO_10918_1",
    uid.JPEGLSNearLossless: "ISO_14495_1",
    uid.JPEG2000: "ISO_15444_1",
    uid.HTJ2K: "ISO_15444_15",
}
ALWAYS_LOSSY = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)
ACQUIRED_WITH = (
    "Manufacturer",
    "InstitutionName",
    "StationName",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
)

SHUTTER_PARTS = {
    "RECTANGULAR": (
        "ShutterLeftVerticalEdge",
        "ShutterRightVerticalEdge",
        "ShutterUpperHorizontalEdge",
        "ShutterLowerHorizontalEdge",
    ),
    "CIRCULAR": ("CenterOfCircularShutter", "RadiusOfCircularShutter"),
    "POLYGONAL": ("VerticesOfThePolygonalShutter",),
}
SHUTTER = ("ShutterShape", *(part for parts in SHUTTER_PARTS.values() for part in parts))


def check(codes: Codes, bits: int, header: Header) -> None:
    """Raises ResultInvalid where codes don't fit `bits` or the original's size."""
    wanted = np.uint8 if bits == 8 else np.uint16
    if not 8 <= bits <= 16 or codes.dtype != wanted or codes.ndim != 2:
        raise ResultInvalid(f"{bits} bits need (H, W) {np.dtype(wanted)}, not {codes.shape} {codes.dtype}")
    if int(codes.max()) >= 2**bits:
        raise ResultInvalid(f"grey code {int(codes.max())} does not fit in {bits} bits")
    if codes.shape != (header.rows, header.columns):
        raise ResultInvalid(f"{codes.shape} pixels for an original of {(header.rows, header.columns)}")


def put_equipment(result: Dataset, site: Site, made_by: identity.Equipment) -> None:
    """General Equipment: the device that made this instance, which is us."""
    result.Manufacturer = made_by.manufacturer
    result.ManufacturerModelName = made_by.model
    result.SoftwareVersions = list(made_by.versions)
    result.StationName = site.station
    if site.institution:
        result.InstitutionName = site.institution
    if "TimezoneOffsetFromUTC" not in result:
        result.TimezoneOffsetFromUTC = site.timezone


def contributions(
    original: Dataset, site: Site, made_by: identity.Equipment, earlier: Sequence[Dataset] = ()
) -> list[Dataset]:
    """The device of the original, whatever contributed to it `earlier`, and our two items."""
    ours = identity.contributing_equipment(made_by, site.institution, site.station)
    return [*earlier, *_acquisition_equipment(original), *ours]


def _acquisition_equipment(original: Dataset) -> list[Dataset]:
    """The original's device. Its Manufacturer is required in an item, so that one without it can't be told."""
    item, copier = Dataset(), Copier(original)
    copier.copy(item, ACQUIRED_WITH)
    if "Manufacturer" not in item:
        return []
    item.PurposeOfReferenceCodeSequence = [identity.code_item(concepts.ACQUISITION_EQUIPMENT)]
    return [item]


def put_aspect(image: Dataset, copier: Copier) -> None:
    """The shape of a pixel, where no spacing says it and it is no square. Source: PS3.3 C.7.6.3.1.7."""
    if "PixelSpacing" in image or "ImagerPixelSpacing" in image or "NominalScannedPixelSpacing" in image:
        return
    copier.copy_positive(image, ("PixelAspectRatio",))
    ratio = values(image, "PixelAspectRatio")
    if ratio and float(ratio[0]) == float(ratio[1]):
        del image.PixelAspectRatio


def settle_shutter(image: Dataset, copier: Copier) -> None:
    """Leave out a shutter that lacks a part of its shape: a viewer may hide anything for it. Source: PS3.3 C.7.6.11."""
    needed = {part for shape in values(image, "ShutterShape") for part in SHUTTER_PARTS.get(shape, SHUTTER)}
    if any(part not in image for part in needed):
        for keyword in SHUTTER:
            image.pop(keyword, None)
        copier.note("the display shutter is incomplete in the original and was left out")


def put_derivation(image: Dataset, original: Dataset, header: Header, decision: Decision) -> None:
    """That it is derived, how, and from what."""
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.InstanceNumber = max(integer(original, "InstanceNumber", 1), 0)
    image.SeriesDescription = f"{marks.HARMONIZED_PREFIX}: {decision.method}"[:64]
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


def put_burned_in(image: Dataset, original: Dataset, decision: Decision, copier: Copier) -> None:
    """Source: PS3.3 C.7.6.1. An original that doesn't say may show a name: YES sends it to whoever checks, while a
    wrong NO would let it out of the house. Words that we drew ourselves are such text as well."""
    stated = text(original, "BurnedInAnnotation").upper()
    image.BurnedInAnnotation = stated if stated in ("YES", "NO") and not decision.label else "YES"
    if stated not in ("YES", "NO"):
        copier.note("BurnedInAnnotation is not stated in the original: YES as a precaution")
    copier.copy(image, ("RecognizableVisualFeatures",))


def put_lossy(image: Dataset, original: FileDataset, copier: Copier) -> None:
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


def put_pixels(image: Dataset, codes: Codes, bits: int) -> None:
    """Image Pixel and a window over every code. Source: PS3.3 C.7.6.3, C.11.2.1.2.1 (LINEAR: center 2**(n-1), width
    2**n maps 0 to black and 2**n - 1 to white exactly).

    MONOCHROME2 whatever the original was: the codes are in display sense, and where nothing is inverted, no viewer
    can invert it twice.
    """
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
