"""Build the selection of a batch's images that need a look: refused, unreadable or parked. Stores nothing.

Source: PS3.3 A.35.4 (Key Object Selection Document), PS3.16 TID 2010, CID 7010. Built with highdicom; dates are
replaced, because highdicom takes the clock's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
from pydicom import uid
from pydicom.dataset import Dataset

from dicom_node import VERSION, marks
from dicom_node.errors import ResultInvalid
from dicom_node.records import Header, Made, ResultKind
from dicom_node.results import changed_image, concepts, copying, identity
from dicom_node.results.encoding import part10
from dicom_node.settings import Site
from dicom_node.tolerant import quiet, read, values

SERIES_NUMBER = 9104


@dataclass(frozen=True, slots=True, kw_only=True)
class Flagged:
    """One original that needs a look, and why."""

    header: Header
    state: str
    """What became of it, in one word."""
    reason: str


def key_objects_uid(flagged: Sequence[Flagged], copied: Sequence[str], site: Site) -> str:
    """The document's SOP Instance UID: another content is another UID, another order is not.

    copied: what it takes over from an original of the study, which may be another one in a later batch.
    """
    parts = [json.dumps([one.header.sop_instance_uid, one.state, one.reason]) for one in flagged]
    return identity.make_uid(ResultKind.KEY_OBJECT_SELECTION, VERSION, site.model_dump_json(), *copied, *sorted(parts))


def make_key_objects(flagged: Sequence[Flagged], patient_from: Path, site: Site) -> Made:
    """One document that names the originals and says why; the same ones in any order give the same bytes.

    patient_from: an original of the same study, for patient and study. Raises ResultInvalid where nothing is flagged or
    the originals are of several studies, Unreadable where `patient_from` can't be read.
    """
    if not flagged or len({one.header.study_key for one in flagged}) > 1:
        raise ResultInvalid("a selection names originals of one study of one patient: select for each by itself")
    ordered = sorted(flagged, key=lambda one: (one.header.series_instance_uid, one.header.sop_instance_uid))
    original, _ = read(patient_from)
    patient = Dataset()
    copying.patient_and_study(original, patient)
    moment = copying.moment(original) or copying.NO_MOMENT
    copied = (patient.to_json(), *moment, *values(original, "SpecificCharacterSet"))
    made_by = identity.equipment([])
    with quiet():
        document = _document(ordered, patient, key_objects_uid(ordered, copied, site), made_by)
        _settle(document, patient, original, moment, site, made_by)
        content = part10(document)
    return Made(
        kind=ResultKind.KEY_OBJECT_SELECTION,
        sop_class_uid=str(uid.KeyObjectSelectionDocumentStorage),
        sop_instance_uid=str(document.SOPInstanceUID),
        content=content,
    )


def _document(
    ordered: Sequence[Flagged], patient: Dataset, instance: str, made_by: identity.Equipment
) -> hd.ko.KeyObjectSelectionDocument:
    evidence = [_evidence(one.header, patient) for one in ordered]
    # Without title modifier (CID 7011): those are faults of an image, and it may have none.
    content = hd.ko.KeyObjectSelection(
        document_title=hd.sr.CodedConcept(*concepts.QUALITY_ISSUE[:2], meaning=concepts.QUALITY_ISSUE.meaning),
        referenced_objects=evidence,
        observer_device_context=hd.sr.ObserverContext(
            observer_type=hd.sr.CodedConcept("121007", "DCM", "Device"),
            observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
                uid=made_by.device_uid, manufacturer_name=made_by.manufacturer, model_name=made_by.model
            ),
        ),
        description=_description(ordered),
    )
    return hd.ko.KeyObjectSelectionDocument(
        evidence=evidence,
        content=content,
        series_instance_uid=identity.make_uid("key object series", instance),
        series_number=SERIES_NUMBER,
        sop_instance_uid=instance,
        instance_number=1,
        manufacturer=made_by.manufacturer,
    )


def _settle(
    document: Dataset,
    patient: Dataset,
    original: Dataset,
    moment: tuple[str, str],
    site: Site,
    made_by: identity.Equipment,
) -> None:
    """Replace what highdicom takes from the clock and add what it leaves out."""
    for keyword in ("InstanceCreationDate", "InstanceCreationTime", "SeriesDate", "SeriesTime", "SpecificCharacterSet"):
        if keyword in document:
            delattr(document, keyword)
    for item in document.ContentSequence:
        if "ReferencedSOPSequence" in item:
            # Source: PS3.16 TID 2010 rows 8 and 9: references without a concept name; highdicom gives them one.
            del item.ConceptNameCodeSequence
    document.update(patient)
    document.SeriesDescription = marks.KEY_OBJECTS
    document.ContentDate, document.ContentTime = moment
    changed_image.put_equipment(document, site, made_by)
    document.ContributingEquipmentSequence = identity.contributing_equipment(made_by, site.institution, site.station)
    document.CodingSchemeIdentificationSequence = identity.coding_schemes()
    copying.choose_charset(original, document)


def _evidence(header: Header, patient: Dataset) -> Dataset:
    """What highdicom asks of a referenced instance."""
    item = Dataset()
    item.update(patient)
    item.SOPClassUID, item.SOPInstanceUID = header.sop_class_uid, header.sop_instance_uid
    item.SeriesInstanceUID = identity.original_series_uid(header)
    # By these highdicom tells a reference to an image.
    if "Image Storage" in uid.UID(header.sop_class_uid).name:
        item.Rows, item.Columns = max(header.rows, 1), max(header.columns, 1)
    return item


def _description(ordered: Sequence[Flagged]) -> str:
    counts = [f"{sum(one.state == state for one in ordered)} {state}" for state in sorted({o.state for o in ordered})]
    lines = [f"{n}. {one.header.sop_instance_uid} {one.state}: {one.reason}" for n, one in enumerate(ordered, start=1)]
    said = f"Originals of which no harmonized image was made, for quality control: {', '.join(counts)}."
    return "\n".join([said, *lines])
