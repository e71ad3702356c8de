"""Copy all of an original that still holds for an image derived from it, checked. Knows no class and no pixels.

Left behind: private elements, because nobody but their vendor can say whether they still hold for other pixels (some
are look-up tables, some the very pixels), or whether they name the patient; what belongs to the original's own
instance, series, device, grey scale and history; retired attributes; binary values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from pydicom.datadict import dictionary_is_retired, dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from dicom_node.results.copying import Copier
from dicom_node.tolerant import items, numbers, text, values

GROUPS = frozenset({0x0008, 0x0010, 0x0012, 0x0018, 0x0020, 0x0028, 0x0032, 0x0038, 0x0040, 0x0050, 0x0054})
"""Where the modules of X-ray images have their attributes."""
GREY_GROUP = 0x0028
DEEPEST = 6
"""Sequences within sequences; the standard's own go to four."""
OWN = frozenset(
    """SpecificCharacterSet CodingSchemeIdentificationSequence SOPClassUID SOPInstanceUID InstanceCreationDate
    InstanceCreationTime InstanceCreatorUID RelatedGeneralSOPClassUID OriginalSpecializedSOPClassUID InstanceNumber
    ImageType Modality ConversionType PresentationIntentType SeriesInstanceUID SeriesNumber SeriesDate SeriesTime
    SeriesDescription SeriesDescriptionCodeSequence QueryRetrieveLevel RetrieveAETitle InstanceAvailability
    StudyInstanceUID SynchronizationFrameOfReferenceUID NumberOfFrames FrameIncrementPointer IconImageSequence
    ContentSequence AvailableTransferSyntaxUID SOPInstanceStatus SOPAuthorizationDateTime SOPAuthorizationComment
    AuthorizationEquipmentCertificationNumber ModalitiesInStudy
    SOPClassesInStudy NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances NumberOfSeriesRelatedInstances
    NumberOfPatientRelatedStudies NumberOfPatientRelatedSeries NumberOfPatientRelatedInstances""".split()  # noqa: SIM905
)
"""Of the original's own instance and series, or what an archive answers about it."""
DEVICE = frozenset(
    """Manufacturer InstitutionName InstitutionAddress InstitutionalDepartmentName
    InstitutionalDepartmentTypeCodeSequence InstitutionCodeSequence StationName ManufacturerModelName DeviceSerialNumber
    SoftwareVersions DeviceUID ManufacturerDeviceIdentifier ManufacturerDeviceClassUID UDISequence GantryID
    SpatialResolution DateOfLastCalibration TimeOfLastCalibration DateOfManufacture DateOfInstallation
    SecondaryCaptureDeviceID SecondaryCaptureDeviceManufacturer SecondaryCaptureDeviceManufacturerModelName
    SecondaryCaptureDeviceSoftwareVersions DateOfSecondaryCapture TimeOfSecondaryCapture""".split()  # noqa: SIM905
)
"""General Equipment is what made an instance (PS3.3 C.7.5.1); what made the original goes into a contribution."""
HISTORY = frozenset(
    """DerivationDescription DerivationCodeSequence SourceImageSequence ReferencedImageSequence
    ReferencedInstanceSequence SourceInstanceSequence ContributingEquipmentSequence OriginalAttributesSequence
    ReferencedPerformedProcedureStepSequence PerformedProcedureStepID PerformedProcedureStepStartDate
    PerformedProcedureStepStartTime PerformedProcedureStepEndDate PerformedProcedureStepEndTime
    ReferencedSeriesSequence StudiesContainingOtherReferencedInstancesSequence PredecessorDocumentsSequence
    PrivateDataElementCharacteristicsSequence InstanceOriginStatus BarcodeValue""".split()  # noqa: SIM905
)
"""How the original came to be, and the step of its making: ours is another one."""
GREY = frozenset(
    """BurnedInAnnotation LossyImageCompression LossyImageCompressionRatio
    LossyImageCompressionMethod""".split()  # noqa: SIM905
)
"""Said anew."""
OF_PIXELS = frozenset(
    """QualityControlImage RecognizableVisualFeatures PixelSpacing PixelSpacingCalibrationType
    PixelSpacingCalibrationDescription PartialView PartialViewDescription PartialViewCodeSequence
    LongitudinalTemporalInformationModified""".split()  # noqa: SIM905
)
"""The only ones of group 0028 that hold for other grey values."""
POSITIVE = frozenset(
    """PixelSpacing ImagerPixelSpacing NominalScannedPixelSpacing EstimatedRadiographicMagnificationFactor
    DetectorElementPhysicalSize DetectorElementSpacing DistanceSourceToDetector DistanceSourceToPatient
    DistanceSourceToEntrance""".split()  # noqa: SIM905
)
# Source: PS3.5 6.2.
WHOLE = {
    "US": (0, 2**16 - 1),
    "SS": (-(2**15), 2**15 - 1),
    "UL": (0, 2**32 - 1),
    "SL": (-(2**31), 2**31 - 1),
}
BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN", "AT"})
CODE_VALUES = ("CodeValue", "LongCodeValue", "URNCodeValue")


def copy_rest(copier: Copier, result: Dataset) -> None:
    """Copy what `result` does not have yet and what may stay; what can't be used is left out and noted."""
    left_out = OWN | DEVICE | HISTORY | GREY
    for keyword in _keywords(copier.source):
        group = BaseTag(tag_for_keyword(keyword) or 0).group
        if keyword in result or keyword in left_out or group not in GROUPS:
            continue
        if group != GREY_GROUP or keyword in OF_PIXELS:
            _copy(copier, result, keyword, DEEPEST)


def clean_items(copier: Copier, keyword: str, depth: int = DEEPEST) -> list[Dataset]:
    """The items of a sequence with their attributes checked; an item that makes no sense any more is left out."""
    out = []
    for item in items(copier.source, keyword) if depth else ():
        inner, clean = Copier(item), Dataset()
        for name in _keywords(item):
            _copy(inner, clean, name, depth - 1)
        if len(item) and not _whole(item, clean):
            copier.note(f"{keyword} has an incomplete item, which was left out")
            continue
        for note in inner.notes:
            copier.note(f"{keyword}: {note}")
        if len(clean):
            out.append(clean)
    return out


def _keywords(source: Dataset) -> Iterable[str]:
    """Keywords of the standard attributes in use, in the order of their tags."""
    for tag in sorted(source.keys()):
        # Private tags have none.
        keyword = "" if tag.group >> 8 in (0x50, 0x60) else keyword_for_tag(tag)
        if keyword and not dictionary_is_retired(tag):
            yield keyword


def _copy(copier: Copier, result: Dataset, keyword: str, depth: int) -> None:
    vr = dictionary_VR(keyword)
    if vr == "SQ":
        found = clean_items(copier, keyword, depth)
        if found:
            setattr(result, keyword, found)
    elif keyword in POSITIVE:
        copier.copy_positive(result, (keyword,))
    elif vr in WHOLE or vr in ("FL", "FD"):
        _copy_numbers(copier, result, keyword, vr)
    elif vr not in BINARY and " or " not in vr:
        copier.copy(result, (keyword,))


def _copy_numbers(copier: Copier, result: Dataset, keyword: str, vr: str) -> None:
    """Numbers in binary: what does not fit the VR is not what was meant."""
    found = numbers(copier.source, keyword)
    low, high = WHOLE.get(vr, (-math.inf, math.inf))
    fits = all(low <= number <= high and (vr not in WHOLE or number == int(number)) for number in found)
    if found and fits:
        kept = [int(number) if vr in WHOLE else number for number in found]
        setattr(result, keyword, kept if len(kept) > 1 else kept[0])
    elif any(values(copier.source, keyword)):
        copier.note(f"{keyword} is invalid in the original and was left out")


def _whole(item: Dataset, clean: Dataset) -> bool:
    """Whether a code still has value, scheme and meaning, and a reference its class and instance.

    Source: PS3.3 8.8 (codes), table 10-11 (references).
    """
    if any(keyword in item for keyword in (*CODE_VALUES, "CodingSchemeDesignator", "CodeMeaning")):
        valued = any(text(clean, keyword) for keyword in CODE_VALUES)
        # A URN names its scheme itself.
        named = "CodingSchemeDesignator" in clean or "URNCodeValue" in clean
        return valued and named and bool(text(clean, "CodeMeaning"))
    referring = [keyword in item for keyword in ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID")]
    return not any(referring) or ("ReferencedSOPClassUID" in clean and "ReferencedSOPInstanceUID" in clean)
