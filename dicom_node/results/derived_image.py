"""Build a derived image of the original's own class, for viewers that hang no secondary captures. Stores nothing.

Source: PS3.3 A.2 (CR), A.26 (DX), A.27 (MG), C.8.11 (their modules); For Presentation, also where the
original is For Processing. Everything that the original says of patient, exam and acquisition is kept where it is
valid; what a class requires and the original does not say is derived where it is certain, else no image is made.
Equipment is ours, since it is what made the instance; the detector and the generator keep their own modules, and the
original's device is a contribution. The grey scale is written anew: codes in display sense, MONOCHROME2, our window.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pydicom import uid
from pydicom.dataset import Dataset, FileDataset

from dicom_node.display import Codes
from dicom_node.greyscale import is_for_processing
from dicom_node.records import Decision, Header, Made, ResultKind
from dicom_node.results import anatomy, changed_image, cleaning, copying, identity, overlays
from dicom_node.results.copying import Copier
from dicom_node.results.encoding import part10
from dicom_node.settings import Site
from dicom_node.tolerant import integer, quiet, read, text, values

SERIES_NUMBER = 9105
REQUIRED_EMPTY = {
    "CR": ("BodyPartExamined", "ViewPosition"),
    "DX": ("DetectorType", "AcquisitionContextSequence", "PositionerType"),
    "MG": ("DetectorType", "AcquisitionContextSequence"),
}
"""Type 2: present in every image of the class, empty where not known."""
BREAST_POSITIONERS = ("MAMMOGRAPHIC", "NONE")


class _Class(NamedTuple):
    """What is made of an original's class. Source: PS3.4 B.5 (classes), PS3.3 C.7.3.1.1.1 (Modality)."""

    made: uid.UID
    modality: str


_DX = _Class(uid.DigitalXRayImageStorageForPresentation, "DX")
_MG = _Class(uid.DigitalMammographyXRayImageStorageForPresentation, "MG")
CLASSES: dict[str, _Class] = {
    uid.ComputedRadiographyImageStorage: _Class(uid.ComputedRadiographyImageStorage, "CR"),
    uid.DigitalXRayImageStorageForPresentation: _DX,
    uid.DigitalXRayImageStorageForProcessing: _DX,
    uid.DigitalMammographyXRayImageStorageForPresentation: _MG,
    uid.DigitalMammographyXRayImageStorageForProcessing: _MG,
}


class _NotCertainError(Exception):
    """What the class requires and the original does not say."""


def make_derived_image(
    source: Path, codes: Codes, bits: int, decision: Decision, header: Header, site: Site
) -> tuple[Made | None, tuple[str, ...]]:
    """The harmonized image in its original's class, and notes on what was repaired, left out or stood in the way.

    codes: (H, W) uint8 for 8 bits, else uint16, display sense. The same inputs give the same bytes. None where no
    valid image is possible. Raises ResultInvalid where the codes don't fit, Unreadable where the original can't be
    read.
    """
    changed_image.check(codes, bits, header)
    kind = CLASSES.get(header.sop_class_uid)
    if kind is None:
        name = uid.UID(header.sop_class_uid).name
        # A secondary capture of a secondary capture is that class's derived image; the others (intra-oral,
        # fluoroscopy) require codes and settings that can't be made up.
        return None, (f"no derived image: the original is {name}; there is one of CR, DX and MG images",)
    original, _ = read(source)
    with quiet():
        return _made(original, kind, codes, bits, decision, header, site)


def _made(
    original: FileDataset, kind: _Class, codes: Codes, bits: int, decision: Decision, header: Header, site: Site
) -> tuple[Made | None, tuple[str, ...]]:
    made_by = identity.equipment([decision])
    image = Dataset()
    copier = copying.patient_and_study(original, image)
    cleaning.copy_rest(copier, image)
    changed_image.settle_shutter(image, copier)
    changed_image.put_aspect(image, copier)
    try:
        _settle_exam(image, original, kind.modality, copier)
    except _NotCertainError as missing:
        return None, (f"no derived image: {missing}, which its class requires",)
    _settle_image(image, original, kind.modality, decision, copier)
    changed_image.put_equipment(image, site, made_by)
    earlier = cleaning.clean_items(copier, "ContributingEquipmentSequence")
    image.ContributingEquipmentSequence = changed_image.contributions(original, site, made_by, earlier)
    changed_image.put_derivation(image, original, header, decision)
    image.ImageType = _image_type(original)
    changed_image.put_pixels(image, codes, bits)
    overlays.copy_overlays(copier, image)
    return _finished(image, original, kind, header, decision, copier), copier.notes


def _finished(
    image: Dataset, original: FileDataset, kind: _Class, header: Header, decision: Decision, copier: Copier
) -> Made:
    instance = identity.result_uid(ResultKind.DERIVED_IMAGE, header, decision)
    image.SOPClassUID, image.SOPInstanceUID = kind.made, instance
    image.SeriesInstanceUID = identity.result_series_uid(kind.made, instance, header, decision)
    image.SeriesNumber = SERIES_NUMBER
    theirs = cleaning.clean_items(copier, "CodingSchemeIdentificationSequence")
    image.CodingSchemeIdentificationSequence = [*theirs, *identity.coding_schemes()]
    recoded = copying.choose_charset(original, image)
    if recoded:
        copier.note(recoded)
    return Made(
        kind=ResultKind.DERIVED_IMAGE, sop_class_uid=str(kind.made), sop_instance_uid=instance, content=part10(image)
    )


def _settle_exam(image: Dataset, original: Dataset, modality: str, copier: Copier) -> None:
    """Series, anatomy, view and position, as the class asks for them. Raises _NotCertainError."""
    image.Modality = modality
    if modality == "CR":
        anatomy.put_laterality(image, copier)
    else:
        image.PresentationIntentType = "FOR PRESENTATION"
        _settle_digital(image, original, modality)
    for keyword in REQUIRED_EMPTY[modality]:
        if keyword not in image:
            setattr(image, keyword, None)
    if modality == "CR" and "PatientOrientation" not in image:
        image.PatientOrientation = None


def _settle_digital(image: Dataset, original: Dataset, modality: str) -> None:
    """DX Anatomy Imaged, DX Detector and what mammography adds. Source: PS3.3 C.8.11.2, C.8.11.4, C.8.11.7."""
    side = anatomy.side(original)
    if not side:
        raise _NotCertainError("the side (Image Laterality) is not stated")
    image.ImageLaterality = side
    # Source: PS3.3 C.7.3.1: Laterality is absent where Image Laterality is there.
    if "Laterality" in image:
        del image.Laterality
    if "PatientOrientation" not in image:
        # Not to be had from the view: the image may be mirrored.
        raise _NotCertainError("the orientation (Patient Orientation) is not stated")
    if "ImagerPixelSpacing" not in image:
        raise _NotCertainError("the spacing at the detector (Imager Pixel Spacing) is not stated")
    if modality == "MG":
        _settle_breast(image, original)
        return
    if "AnatomicRegionSequence" not in image:
        region = anatomy.region(image)
        image.AnatomicRegionSequence = [identity.code_item(region)] if region else None


def _settle_breast(image: Dataset, original: Dataset) -> None:
    """Source: PS3.3 C.8.11.7: the organ and the region can be nothing else; the view can."""
    image.OrganExposed = "BREAST"
    image.AnatomicRegionSequence = [identity.code_item(anatomy.BREAST)]
    view = anatomy.breast_view(original)
    if "ViewCodeSequence" not in image:
        if view is None:
            raise _NotCertainError("the view (View Code Sequence, View Position) is not stated")
        image.ViewCodeSequence = [identity.code_item(view)]
    for item in image.ViewCodeSequence:
        if "ViewModifierCodeSequence" not in item:
            item.ViewModifierCodeSequence = None
    if text(image, "PositionerType") not in BREAST_POSITIONERS:
        # A projection of a breast is made on a mammographic unit; without one it would be a specimen.
        image.PositionerType = "MAMMOGRAPHIC"


def _settle_image(image: Dataset, original: FileDataset, modality: str, decision: Decision, copier: Copier) -> None:
    """What the image module says of the pixels beside their layout."""
    changed_image.put_burned_in(image, original, decision, copier)
    changed_image.put_lossy(image, original, copier)
    if modality == "CR":
        return
    # Source: PS3.3 C.8.11.3: the pixels are P-values already, so the rescale is the identity and the shape too.
    image.RescaleIntercept, image.RescaleSlope, image.RescaleType = 0, 1, "US"
    image.PresentationLUTShape = "IDENTITY"
    stated = text(original, "PixelIntensityRelationship").upper()
    # A display value follows the logarithm of the exposure more than the exposure, where nothing is said.
    image.PixelIntensityRelationship = stated if stated in ("LIN", "LOG") else "LOG"
    image.PixelIntensityRelationshipSign = _sign(original)


def _sign(original: Dataset) -> int:
    """Whether more exposure is brighter (1) or darker (-1) in display sense; darker is what radiographs are.

    Source: PS3.3 C.8.11.3.1.2. It is about stored values, which are inverted where the original is MONOCHROME1; the
    default reading of For Processing ends darker whatever they were.
    """
    stated = integer(original, "PixelIntensityRelationshipSign", 0)
    if stated not in (1, -1) or is_for_processing(original):
        return -1
    return -stated if text(original, "PhotometricInterpretation").upper() == "MONOCHROME1" else stated


def _image_type(original: Dataset) -> list[str]:
    """Derived, after the examination; value 3 says what kind of image it is, and stays.

    Source: PS3.3 C.7.6.1.1.2 (PRIMARY is a direct result of the examination, which a later reading of the finished
    image is not), C.8.11.7.1.4.
    """
    third = (copying.repaired("ImageType", value) for value in values(original, "ImageType")[2:3])
    return ["DERIVED", "SECONDARY", *(value for value in third if value)]
