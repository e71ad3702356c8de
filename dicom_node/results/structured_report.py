"""Build the report of a batch: one Comprehensive 3D SR after TID 1500. Sends and stores nothing.

Source: PS3.3 A.35.13 (IOD), PS3.16 TID 1500, TID 1501 (one group an image), TID 300, TID 310, TID 4019. Built with
highdicom, whose templates can't be put together wrongly; dates are replaced, because highdicom takes the clock's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict

import highdicom as hd
from highdicom import sr
from pydicom import uid
from pydicom._uid_dict import UID_dictionary
from pydicom.dataset import Dataset, FileDataset

from dicom_node import VERSION, marks
from dicom_node.errors import ResultInvalid
from dicom_node.records import Decision, Made, Measured, Outcome, Reported, ResultKind, Tried
from dicom_node.results import concepts, copying, identity, secondary_capture
from dicom_node.results.concepts import Concept
from dicom_node.settings import Site
from dicom_node.tolerant import quiet, read

SERIES_NUMBER = 9102
NO_MOMENT = ("19000101", "000000")
"""Content date and time where no original states one: a report has to have them (PS3.3 C.17.2), and the clock's would
make a repeat another object."""
IMAGE_CLASSES = frozenset(u for u, entry in UID_dictionary.items() if "Image Storage" in entry[0])
Groups = list[sr.MeasurementsAndQualitativeEvaluations]


def make_report(reported: Sequence[Reported], site: Site) -> Made:
    """The report of a batch of one study; the same instances in any order give the same bytes.

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
        shared.append(f"no original states a date: the content date is the constant {NO_MOMENT[0]}")
    with quiet():
        groups = [
            _group(one, [*shared, *_image_repairs(one, original)])
            for one, original in zip(ordered, originals, strict=True)
        ]
        report = _document(ordered, patient, groups, site, made_by)
    _settle(report, patient, originals[0], site, made_by, max(moments, default=NO_MOMENT))
    return Made(
        kind=ResultKind.STRUCTURED_REPORT,
        sop_class_uid=str(report.SOPClassUID),
        sop_instance_uid=str(report.SOPInstanceUID),
        content=secondary_capture.part10(report),
    )


def report_uid(reported: Iterable[Reported], site: Site) -> str:
    """The report's SOP Instance UID: another content is another UID, another order or speed is not."""
    parts = []
    for one in reported:
        said = asdict(one.decision)
        del said["seconds"]
        parts.append(json.dumps([one.header.sop_instance_uid, said, one.results], sort_keys=True))
    return identity.make_uid(ResultKind.STRUCTURED_REPORT, VERSION, site.model_dump_json(), *sorted(parts))


def _image_repairs(one: Reported, original: FileDataset) -> tuple[str, ...]:
    made_image = any(sop_class == uid.SecondaryCaptureImageStorage for sop_class, _ in one.results)
    return secondary_capture.repairs(original, one.header) if made_image else ()


def _document(
    ordered: Sequence[Reported], patient: Dataset, groups: Groups, site: Site, made_by: identity.Equipment
) -> sr.Comprehensive3DSR:
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=made_by.device_uid,
        name=site.station,
        manufacturer_name=made_by.manufacturer,
        model_name=made_by.model,
        serial_number=made_by.device_uid,
        physical_location=site.institution or None,
    )
    device_kind = hd.sr.CodedConcept("121007", "DCM", "Device")
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(
                observer_type=device_kind, observer_identifying_attributes=device
            )
        ),
        procedure_reported=_coded(concepts.PROCEDURE),
        imaging_measurements=groups,
        title=_coded(concepts.MEASUREMENT_REPORT),
        language_of_content_item_and_descendants=sr.LanguageOfContentItemAndDescendants(_coded(concepts.ENGLISH)),
    )
    return sr.Comprehensive3DSR(
        evidence=_evidence(ordered, patient),
        content=content[0],
        # A series each: reports of later batches are later reports, not later pages, and carry no clock to sort by.
        series_instance_uid=identity.make_uid("report series", report_uid(ordered, site)),
        series_number=SERIES_NUMBER,
        sop_instance_uid=report_uid(ordered, site),
        instance_number=1,
        manufacturer=made_by.manufacturer,
        manufacturer_model_name=made_by.model,
        device_serial_number=made_by.device_uid,
        software_versions=list(made_by.versions),
        institution_name=site.institution or None,
        series_description=marks.REPORT_PREFIX,
        is_complete=True,
        is_final=True,
    )


def _evidence(ordered: Sequence[Reported], patient: Dataset) -> list[Dataset]:
    """Every instance of the batch and every object made from it. Source: PS3.3 C.17.2.3."""
    out = []
    for one in ordered:
        series = one.header.series_instance_uid or identity.make_uid("no series", one.header.study_instance_uid)
        images_in = identity.image_series_uid(one.header, one.decision)
        origin = (one.header.sop_class_uid, one.header.sop_instance_uid, series)
        for sop_class, instance, of_series in (origin, *((c, i, images_in) for c, i in one.results)):
            item = Dataset()
            item.update(patient)
            item.SOPClassUID, item.SOPInstanceUID, item.SeriesInstanceUID = sop_class, instance, of_series
            out.append(item)
    return out


def _settle(
    report: Dataset,
    patient: Dataset,
    original: Dataset,
    site: Site,
    made_by: identity.Equipment,
    moment: tuple[str, str],
) -> None:
    """Replace what highdicom takes from the clock and add what it leaves out."""
    for keyword in ("InstanceCreationDate", "InstanceCreationTime", "SeriesDate", "SeriesTime"):
        if keyword in report:
            delattr(report, keyword)
    report.update(patient)
    report.ContentDate, report.ContentTime = moment
    report.StationName = site.station
    if "TimezoneOffsetFromUTC" not in report:
        report.TimezoneOffsetFromUTC = site.timezone
    report.ContributingEquipmentSequence = identity.contributing_equipment(made_by, site.institution, site.station)
    report.CodingSchemeIdentificationSequence = identity.coding_schemes()
    if "SpecificCharacterSet" in report:
        del report.SpecificCharacterSet
    copying.choose_charset(original, report)


def _group(one: Reported, repairs: Sequence[str]) -> sr.MeasurementsAndQualitativeEvaluations:
    """TID 1501 for one instance: numbers as measurements, the outcome as a code, all else as text."""
    decision, header = one.decision, one.header
    is_image = header.sop_class_uid in IMAGE_CLASSES
    reference = [sr.SourceImageForMeasurementGroup(header.sop_class_uid, header.sop_instance_uid)] if is_image else None
    chosen = _chosen(decision)
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=identity.make_uid("tracking", header.sop_instance_uid, decision.source_digest),
            identifier=header.sop_instance_uid,
        ),
        finding_type=_coded(concepts.IMAGE_QUALITY),
        algorithm_id=sr.AlgorithmIdentification(
            name=f"{marks.MODEL} {decision.method}".strip(),
            version=decision.engine_version or VERSION,
            manufacturer=marks.MANUFACTURER,
            parameters=[f"{name}={value}" for name, value in chosen.parameters.items()] or None if chosen else None,
        ),
        measurements=list(_measurements(decision)) or None,
        qualitative_evaluations=[
            sr.QualitativeEvaluation(_coded(concepts.OUTCOME), _coded(concepts.OUTCOMES[decision.outcome]))
        ],
        source_images=reference,
    )
    items = group[0].ContentSequence
    if not is_image:
        items.append(
            sr.CompositeContentItem(
                name=_coded(concepts.SOURCE_OBJECT),
                referenced_sop_class_uid=header.sop_class_uid,
                referenced_sop_instance_uid=header.sop_instance_uid,
                relationship_type=sr.RelationshipTypeValues.CONTAINS,
            )
        )
    for key, text in _texts(one, repairs):
        if text:
            items.append(
                sr.TextContentItem(
                    name=_coded(concepts.TEXTS[key]), value=text, relationship_type=sr.RelationshipTypeValues.CONTAINS
                )
            )
    return group


def _chosen(decision: Decision) -> Tried | None:
    """The method whose parameters made the image; none where no image was made."""
    if decision.outcome is not Outcome.HARMONIZED:
        return None
    return next((tried for tried in decision.tried if tried.method == decision.method), None)


def _measurements(decision: Decision) -> Iterable[sr.Measurement]:
    """TID 300 for every number that is one; NaN and infinity become text: a DS can't hold them."""
    plain = (
        (concepts.DISTANCE_BEFORE, decision.distance_before),
        (concepts.DISTANCE_AFTER, decision.distance_after),
        (concepts.THRESHOLD, decision.threshold),
        (concepts.EXPOSED_SHARE, decision.exposed_share),
    )
    for concept, value in plain:
        if value is not None and math.isfinite(value):
            yield sr.Measurement(name=_coded(concept), value=float(value), unit=_coded(concepts.NO_UNIT))
    for figure in filter(_finite, decision.figures):
        yield sr.Measurement(
            name=_coded(concepts.figure(figure.name)), value=float(figure.value), unit=_coded(concepts.NO_UNIT)
        )
        # The limit is a measurement beside its figure: TID 300 has no place for a bound that is nobody's normal range.
        if figure.limit is not None:
            bound = concepts.limit(figure.name, at_least=figure.at_least)
            yield sr.Measurement(name=_coded(bound), value=float(figure.limit), unit=_coded(concepts.NO_UNIT))


def _finite(figure: Measured) -> bool:
    return math.isfinite(figure.value) and (figure.limit is None or math.isfinite(figure.limit))


def _texts(one: Reported, repairs: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Key and text of every text item, in reading order; what the chosen method shares with the group comes once."""
    d = one.decision
    yield from (("reason", d.reason or identity.NOT_STATED), ("exam", d.exam), ("route", d.route))
    yield from (("method", d.method), ("bank", d.bank), ("bank_digest", d.bank_digest))
    yield from (("reference", reference) for reference in d.references)
    yield from (("figure", _figure_text(figure)) for figure in d.figures if not _finite(figure))
    yield from (("alignment", f"{name}={value}") for name, value in d.alignment.items())
    for tried in d.tried:
        yield "tried", f"{tried.method}: distance={tried.distance!r} verified={'yes' if tried.verified else 'no'}"
        if tried != _chosen(d):
            yield from (("tried_parameter", f"{tried.method}: {n}={value}") for n, value in tried.parameters.items())
        if tried.figures != d.figures:
            yield from (("tried_figure", f"{tried.method}: {_figure_text(figure)}") for figure in tried.figures)
    yield from (("engine_version", d.engine_version), ("settings_digest", d.settings_digest))
    yield from (("weights_digest", d.weights_digest), ("source_digest", d.source_digest))
    yield "pixels_digest", d.pixels_digest
    yield from (("source_class", one.header.sop_class_uid), ("source_instance", one.header.sop_instance_uid))
    yield from (("result", instance) for _, instance in one.results)
    yield from (("note", note) for note in dict.fromkeys([*d.notes, *repairs]))


def _figure_text(figure: Measured) -> str:
    said = f"{figure.name}={figure.value!r}"
    if figure.limit is not None:
        said += f" {'at least' if figure.at_least else 'at most'} {figure.limit!r}"
    return said + ("" if figure.passed else " not passed")


def _coded(concept: Concept) -> sr.CodedConcept:
    return sr.CodedConcept(value=concept.value, scheme_designator=concept.scheme, meaning=concept.meaning)
