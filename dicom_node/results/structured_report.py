"""Build the report of a batch: one Comprehensive 3D SR after TID 1500. Sends and stores nothing.

Source: PS3.3 A.35.13 (IOD), C.17.1 (SR Document Series), C.17.2 (SR Document General), PS3.16 TID 1500, TID 1204,
TID 1001. The content is built with highdicom, whose templates can't be put together wrongly. The document around it is
not: highdicom takes its dates from the clock, and copies and searches the content until it is most of the time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

import highdicom as hd
from highdicom import sr
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset

from dicom_node import VERSION, marks
from dicom_node.errors import ResultInvalid
from dicom_node.records import Made, Reported, ResultKind
from dicom_node.results import concepts, copying, encoding, identity, secondary_capture
from dicom_node.results.image_library import coded, image_library
from dicom_node.results.report_group import CONTAINS, IMAGE_CLASSES, group, reference_to
from dicom_node.results.report_integrity import digest_of
from dicom_node.settings import Site
from dicom_node.tolerant import quiet, read

SERIES_NUMBER = 9102
FORM = "2"
"""Of the report: another form is another object."""
Groups = list[sr.MeasurementsAndQualitativeEvaluations]


def make_report(reported: Sequence[Reported], site: Site, *, earlier: str = "") -> Made:
    """The report of a batch of one study; the same instances in any order give the same bytes.

    earlier: SOP Instance UID of the report of an earlier batch of the study, which this one adds to.
    Raises ResultInvalid where there is nothing to report or the instances are of several studies.
    """
    if not reported:
        raise ResultInvalid("a report needs at least one instance")
    if len({one.header.study_key for one in reported}) > 1:
        raise ResultInvalid("a report is about one study of one patient: report each study by itself")
    ordered = sorted(reported, key=lambda one: (one.header.series_instance_uid, one.header.sop_instance_uid))
    originals = [read(one.source)[0] for one in ordered]
    made_by = identity.equipment([one.decision for one in ordered])
    patient = Dataset()
    copier = copying.patient_and_study(originals[0], patient)
    probe = Dataset()
    probe.update(patient)
    probe.InstitutionName = site.institution
    recoded = copying.choose_charset(originals[0], probe)
    moments = [found for found in map(copying.moment, originals) if found]
    shared = [*copier.notes, *([recoded] if recoded else [])]
    if not moments:
        shared.append(f"no original states a date: the content date is the constant {copying.NO_MOMENT[0]}")
    with quiet():
        groups = [
            group(one, [*shared, *_image_repairs(one, original)])
            for one, original in zip(ordered, originals, strict=True)
        ]
        report = _content(ordered, originals, groups, site, made_by)
        _put_references(report, ordered, earlier)
        _put_document(report, report_uid(ordered, site, earlier), site, made_by)
    report.ContentDate, report.ContentTime = max(moments, default=copying.NO_MOMENT)
    report.update(patient)
    if "TimezoneOffsetFromUTC" not in report:
        report.TimezoneOffsetFromUTC = site.timezone
    copying.choose_charset(originals[0], report)
    _seal(report)
    return Made(
        kind=ResultKind.STRUCTURED_REPORT,
        sop_class_uid=str(report.SOPClassUID),
        sop_instance_uid=str(report.SOPInstanceUID),
        content=encoding.part10(report),
    )


def report_uid(reported: Iterable[Reported], site: Site, earlier: str = "") -> str:
    """The report's SOP Instance UID: another content is another UID, another order or speed is not."""
    parts = []
    for one in reported:
        said = asdict(one.decision)
        del said["seconds"]
        parts.append(json.dumps([one.header.sop_instance_uid, said, one.results, one.digests], sort_keys=True))
    about = (FORM, VERSION, site.model_dump_json(), earlier)
    return identity.make_uid(ResultKind.STRUCTURED_REPORT, *about, *sorted(parts))


def series_uid(report: str) -> str:
    """Of its own: a later batch's is a later report, no later page, and has no clock to sort by."""
    return identity.make_uid("report series", report)


def _image_repairs(one: Reported, original: FileDataset) -> tuple[str, ...]:
    made_image = any(sop_class == uid.SecondaryCaptureImageStorage for sop_class, _ in one.results)
    return secondary_capture.repairs(original, one.header) if made_image else ()


def _content(
    ordered: Sequence[Reported],
    originals: Sequence[FileDataset],
    groups: Groups,
    site: Site,
    made_by: identity.Equipment,
) -> Dataset:
    """A data set with the root of the content tree. Source: PS3.16 TID 1500."""
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=made_by.device_uid,
        name=site.station,
        manufacturer_name=made_by.manufacturer,
        model_name=made_by.model,
        serial_number=made_by.device_uid,
        physical_location=site.institution or None,
    )
    device_kind = hd.sr.CodedConcept("121007", "DCM", "Device")
    root: Dataset = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(
                observer_type=device_kind, observer_identifying_attributes=device
            )
        ),
        procedure_reported=coded(concepts.PROCEDURE),
        imaging_measurements=groups,
        title=coded(concepts.MEASUREMENT_REPORT),
        language_of_content_item_and_descendants=sr.LanguageOfContentItemAndDescendants(coded(concepts.ENGLISH)),
    )[0]
    pairs = zip(ordered, originals, strict=True)
    images = [(one.header, original) for one, original in pairs if one.header.sop_class_uid in IMAGE_CLASSES]
    # The library stands before the measurements, which are the last item. Source: PS3.16 TID 1500, rows 5 and 6.
    *before, measurements = root.ContentSequence
    library = [image_library(images)] if images else []
    report = Dataset()
    for keyword in ("ValueType", "ConceptNameCodeSequence", "ContinuityOfContent", "ContentTemplateSequence"):
        setattr(report, keyword, root[keyword].value)
    report.ContentSequence = [*before, *library, measurements]
    return report


def _put_references(report: Dataset, ordered: Sequence[Reported], earlier: str) -> None:
    """Every instance of the batch and every object made from it, once, and the report that this one adds to.

    Source: PS3.3 C.17.2.3 (what the content refers to is evidence), C.17.2.2 (predecessors).
    """
    named: dict[str, dict[str, str]] = {}
    for one in ordered:
        origin = (one.header.sop_class_uid, one.header.sop_instance_uid, identity.original_series_uid(one.header))
        made = ((c, i, identity.result_series_uid(c, i, one.header, one.decision)) for c, i in one.results)
        for sop_class, instance, series in (origin, *made):
            if all(instance not in listed for listed in named.values()):
                named.setdefault(series, {})[instance] = sop_class
    study = ordered[0].header.study_instance_uid
    if earlier:
        before = {series_uid(earlier): {earlier: str(uid.Comprehensive3DSRStorage)}}
        report.PredecessorDocumentsSequence = [_listed(study, before)]
        report.ContentSequence.append(reference_to(uid.Comprehensive3DSRStorage, earlier, concepts.EARLIER_REPORT))
        named |= before
    report.CurrentRequestedProcedureEvidenceSequence = [_listed(study, named)]


def _listed(study: str, named: Mapping[str, Mapping[str, str]]) -> Dataset:
    """Instances by series of one study. Source: PS3.3 table 10-4 (Hierarchical SOP Instance Reference)."""
    item = Dataset()
    item.StudyInstanceUID = study
    item.ReferencedSeriesSequence = []
    for series, instances in named.items():
        inside = Dataset()
        inside.SeriesInstanceUID = series
        inside.ReferencedSOPSequence = []
        for instance, sop_class in instances.items():
            to = Dataset()
            to.ReferencedSOPClassUID, to.ReferencedSOPInstanceUID = sop_class, instance
            inside.ReferencedSOPSequence.append(to)
        item.ReferencedSeriesSequence.append(inside)
    return item


def _put_document(report: Dataset, instance: str, site: Site, made_by: identity.Equipment) -> None:
    """Series, equipment, document and SOP Common: all but patient, study and dates."""
    report.SOPClassUID, report.SOPInstanceUID = uid.Comprehensive3DSRStorage, instance
    report.SeriesInstanceUID, report.SeriesNumber = series_uid(instance), SERIES_NUMBER
    report.Modality, report.InstanceNumber = "SR", 1
    report.SeriesDescription = marks.REPORT_PREFIX
    # Source: PS3.3 C.17.1, C.17.2 (Type 2): no procedure step of a worklist is known.
    report.ReferencedPerformedProcedureStepSequence = []
    report.PerformedProcedureCodeSequence = []
    report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag = "COMPLETE", "UNVERIFIED", "FINAL"
    report.Manufacturer, report.ManufacturerModelName = made_by.manufacturer, made_by.model
    report.DeviceSerialNumber, report.SoftwareVersions = made_by.device_uid, list(made_by.versions)
    report.StationName = site.station
    if site.institution:
        report.InstitutionName = site.institution
    report.ContributingEquipmentSequence = identity.contributing_equipment(made_by, site.institution, site.station)
    report.CodingSchemeIdentificationSequence = identity.coding_schemes()


def _seal(report: Dataset) -> None:
    """Add the digest of the report's own content, which covers all of the item that holds it but the digest itself."""
    item = sr.TextContentItem(name=coded(concepts.REPORT_DIGEST), value="-", relationship_type=CONTAINS)
    report.ContentSequence.append(item)
    item.TextValue = digest_of(report)
