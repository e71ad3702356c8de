"""Say what was decided about one instance: its measurement group in a report. Knows no document and no other instance.

Source: PS3.16 TID 1501 (one group an image), TID 300, TID 310, TID 4019. The templates are extensible, so that what
they have no row for stands beside their rows as items of our own concepts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from highdicom import sr
from pydicom._uid_dict import UID_dictionary

from dicom_node import VERSION, marks
from dicom_node.records import Decision, Measured, Outcome, Reported, Tried
from dicom_node.results import concepts, identity
from dicom_node.results.image_library import coded

IMAGE_CLASSES = frozenset(u for u, entry in UID_dictionary.items() if "Image Storage" in entry[0])
CONTAINS = sr.RelationshipTypeValues.CONTAINS


def group(one: Reported, repairs: Sequence[str]) -> sr.MeasurementsAndQualitativeEvaluations:
    """Numbers as measurements, the outcome as a code, objects as references, all else as text."""
    decision, header = one.decision, one.header
    is_image = header.sop_class_uid in IMAGE_CLASSES
    reference = [sr.SourceImageForMeasurementGroup(header.sop_class_uid, header.sop_instance_uid)] if is_image else None
    chosen = _chosen(decision)
    made = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=identity.make_uid("tracking", header.sop_instance_uid, decision.source_digest),
            identifier=header.sop_instance_uid,
        ),
        finding_type=coded(concepts.IMAGE_QUALITY),
        algorithm_id=sr.AlgorithmIdentification(
            name=f"{marks.MODEL} {decision.method}".strip(),
            version=decision.engine_version or VERSION,
            manufacturer=marks.MANUFACTURER,
            parameters=[f"{name}={value}" for name, value in chosen.parameters.items()] or None if chosen else None,
        ),
        measurements=list(_measurements(decision)) or None,
        qualitative_evaluations=[
            sr.QualitativeEvaluation(coded(concepts.OUTCOME), coded(concepts.OUTCOMES[decision.outcome]))
        ],
        source_images=reference,
    )
    items = made[0].ContentSequence
    if not is_image:
        items.append(reference_to(header.sop_class_uid, header.sop_instance_uid, concepts.SOURCE_OBJECT))
    for sop_class, instance in one.results:
        name = concepts.RESULT_IMAGE if sop_class in IMAGE_CLASSES else concepts.RESULT_OBJECT
        items.append(reference_to(sop_class, instance, name))
    for key, text in _texts(one, repairs):
        if text:
            items.append(sr.TextContentItem(name=coded(concepts.TEXTS[key]), value=text, relationship_type=CONTAINS))
    return made


def reference_to(sop_class: str, instance: str, purpose: concepts.Concept) -> sr.ContentItem:
    """An image as IMAGE, which viewers open; anything else as COMPOSITE. Source: PS3.3 C.17.3.2 (Value Type)."""
    kind = sr.ImageContentItem if sop_class in IMAGE_CLASSES else sr.CompositeContentItem
    return kind(
        name=coded(purpose),
        referenced_sop_class_uid=sop_class,
        referenced_sop_instance_uid=instance,
        relationship_type=CONTAINS,
    )


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
            yield sr.Measurement(name=coded(concept), value=float(value), unit=coded(concepts.NO_UNIT))
    for figure in filter(_finite, decision.figures):
        yield sr.Measurement(
            name=coded(concepts.figure(figure.name)), value=float(figure.value), unit=coded(concepts.NO_UNIT)
        )
        # The limit is a measurement beside its figure: TID 300 has no place for a bound that is nobody's normal range.
        if figure.limit is not None:
            bound = concepts.limit(figure.name, at_least=figure.at_least)
            yield sr.Measurement(name=coded(bound), value=float(figure.limit), unit=coded(concepts.NO_UNIT))


def _finite(figure: Measured) -> bool:
    return math.isfinite(figure.value) and (figure.limit is None or math.isfinite(figure.limit))


def _texts(one: Reported, repairs: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Key and text of every text item, in reading order; what the chosen method shares with the group comes once."""
    d = one.decision
    yield from (("reason", d.reason or identity.NOT_STATED), ("exam", d.exam), ("route", d.route))
    yield from (("method", d.method), ("bank", d.bank), ("bank_digest", d.bank_digest))
    chosen = _chosen(d)
    yield "method_version", str(chosen.version) if chosen and chosen.version else ""
    yield from (("reference", reference) for reference in d.references)
    yield from (("figure", _figure_text(figure)) for figure in d.figures if not _finite(figure))
    yield from (("alignment", f"{name}={value}") for name, value in d.alignment.items())
    for tried in d.tried:
        yield "tried", f"{tried.method}: distance={tried.distance!r} verified={'yes' if tried.verified else 'no'}"
        if tried != chosen:
            yield from (("tried_parameter", f"{tried.method}: {n}={value}") for n, value in tried.parameters.items())
        if tried.figures != d.figures:
            yield from (("tried_figure", f"{tried.method}: {_figure_text(figure)}") for figure in tried.figures)
    yield from (("engine_version", d.engine_version), ("software", d.software), ("device", d.device))
    yield from (("settings_digest", d.settings_digest), ("weights_digest", d.weights_digest))
    yield from (("source_digest", d.source_digest), ("display_digest", d.display_digest))
    yield from (("pixels_digest", d.pixels_digest), ("label", d.label), ("sent_digest", d.sent_digest))
    yield from (("source_class", one.header.sop_class_uid), ("source_instance", one.header.sop_instance_uid))
    yield from (("result_digest", f"{u}={one.digests[u]}") for _, u in one.results if u in one.digests)
    yield from (("note", note) for note in dict.fromkeys([*d.notes, *repairs]))


def _figure_text(figure: Measured) -> str:
    said = f"{figure.name}={figure.value!r}"
    if figure.limit is not None:
        said += f" {'at least' if figure.at_least else 'at most'} {figure.limit!r}"
    return said + ("" if figure.passed else " not passed")
