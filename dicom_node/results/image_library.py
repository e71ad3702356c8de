"""List the originals of a report with what a reader wants to know of each before opening it. Knows no outcome.

Source: PS3.16 TID 1600 (Image Library), TID 1601 (entry), TID 1602 and TID 1603 (descriptors of radiographs). Written
here, because highdicom's wants a Patient Orientation and an Imager Pixel Spacing that many originals don't have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from highdicom import sr
from pydicom.dataset import Dataset

from dicom_node.records import Header
from dicom_node.results import anatomy, concepts
from dicom_node.results.concepts import Concept
from dicom_node.results.copying import Copier
from dicom_node.tolerant import items, numbers, text, values

ACQUIRED = sr.RelationshipTypeValues.HAS_ACQ_CONTEXT
UNSETTLED = frozenset(  # a text, because quoted numbers would be no easier to read
    """818981001 818982008 816094009 1217257000 89545001 24136001 1217253001 45206002 816092008 110536004
    1217256009""".split()  # noqa: SIM905
)
"""Regions (chest, abdomen, pelvis ...) whose code changed between editions of CID 4031: no value passes in all of them,
and the row is optional, so that it is left out. The exam type says the same in words."""
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")


def coded(concept: Concept) -> sr.CodedConcept:
    """A concept of ours in the library's type."""
    return sr.CodedConcept(value=concept.value, scheme_designator=concept.scheme, meaning=concept.meaning)


def image_library(images: Sequence[tuple[Header, Dataset]]) -> sr.ContainerContentItem:
    """The library with an entry for each image, a group for each series, in the order given."""
    library = _container(concepts.IMAGE_LIBRARY)
    groups: dict[str, sr.ContainerContentItem] = {}
    for header, original in images:
        group = groups.get(header.series_instance_uid)
        if group is None:
            group = groups[header.series_instance_uid] = _container(concepts.IMAGE_LIBRARY_GROUP)
            library.ContentSequence.append(group)
        group.ContentSequence.append(_entry(header, original))
    return library


def _container(name: Concept) -> sr.ContainerContentItem:
    made = sr.ContainerContentItem(name=coded(name), relationship_type=sr.RelationshipTypeValues.CONTAINS)
    made.ContentSequence = sr.ContentSequence()
    return made


def _entry(header: Header, original: Dataset) -> sr.ImageContentItem:
    entry = sr.ImageContentItem(
        name=coded(concepts.SOURCE),
        referenced_sop_class_uid=header.sop_class_uid,
        referenced_sop_instance_uid=header.sop_instance_uid,
        relationship_type=sr.RelationshipTypeValues.CONTAINS,
    )
    described = list(_descriptors(header, original))
    if described:
        entry.ContentSequence = sr.ContentSequence(described)
    return entry


def _descriptors(header: Header, original: Dataset) -> Iterable[sr.ContentItem]:
    """What the original says. Without a modality of CID 29 there are none, since TID 1602 needs that one."""
    modality = concepts.MODALITIES.get(header.modality)
    if modality is None:
        return
    yield _code(concepts.MODALITY, modality)
    region = anatomy.region(original) or _region(header)
    if region is not None and region.value not in UNSETTLED:
        yield _code(concepts.TARGET_REGION, region)
    yield from _given(concepts.IMAGE_LATERALITY, concepts.SIDES.get(header.laterality))
    for name, count in ((concepts.PIXEL_ROWS, header.rows), (concepts.PIXEL_COLUMNS, header.columns)):
        if count > 0:
            yield _number(name, count, concepts.PIXELS)
    yield from _given(concepts.IMAGE_VIEW, _view(header, original))
    orientation = values(original, "PatientOrientation")
    if len(orientation) == 2 and all(orientation):
        for name, said in zip((concepts.ORIENTATION_ROW, concepts.ORIENTATION_COLUMN), orientation, strict=True):
            yield sr.TextContentItem(name=coded(name), value=said, relationship_type=ACQUIRED)
    spacing = next((found for found in (numbers(original, k) for k in SPACINGS) if _is_spacing(found)), None)
    if spacing:
        # Source: PS3.3 10.7.1.3: the first value is the distance between rows.
        yield _number(concepts.HORIZONTAL_SPACING, spacing[1], concepts.MILLIMETRE)
        yield _number(concepts.VERTICAL_SPACING, spacing[0], concepts.MILLIMETRE)


def _is_spacing(found: Sequence[float]) -> bool:
    return len(found) == 2 and min(found) > 0


def _region(header: Header) -> Concept | None:
    """By the body part that was recognised where the header states none."""
    found = anatomy.REGIONS.get(header.body_part)
    return Concept(found[0], "SCT", found[1]) if found else None


def _view(header: Header, original: Dataset) -> Concept | None:
    """The code that the original states, where it is one, else that of its View Position."""
    checked = Dataset()
    Copier(original).copy_codes(checked, ("ViewCodeSequence",))
    for item in items(checked, "ViewCodeSequence"):
        if text(item, "CodingSchemeDesignator") in ("SCT", "SRT", "DCM"):
            return Concept(*(text(item, k) for k in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")))
    if header.modality == "MG":
        return anatomy.BREAST_VIEWS.get(header.view)
    return concepts.VIEWS.get(header.view)


def _given(name: Concept, value: Concept | None) -> Iterable[sr.ContentItem]:
    return () if value is None else (_code(name, value),)


def _code(name: Concept, value: Concept) -> sr.CodeContentItem:
    return sr.CodeContentItem(name=coded(name), value=coded(value), relationship_type=ACQUIRED)


def _number(name: Concept, value: float, unit: Concept) -> sr.NumContentItem:
    return sr.NumContentItem(name=coded(name), value=value, unit=coded(unit), relationship_type=ACQUIRED)
