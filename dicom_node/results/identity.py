"""Who made a result and under which UIDs: the same inputs give the same ones. Knows no clock and no file.

Source: PS3.5 B.2 (UUID as UID), PS3.3 C.12.1 (Contributing Equipment), IHE AI Results 6.5.3.1 as quoted by the
MONAI Deploy App SDK (Processing Algorithm item, whose Device UID changes with the model).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from pydicom import uid
from pydicom.dataset import Dataset

from dicom_node import VERSION, marks
from dicom_node.records import Decision, Header, ResultKind
from dicom_node.results import concepts
from dicom_node.results.concepts import Concept

NOT_STATED = "not stated"


@dataclass(frozen=True, slots=True)
class Equipment:
    """The device that results come from: another engine, other weights or another bank are another device."""

    versions: tuple[str, ...]
    device_uid: str
    manufacturer: str = marks.MANUFACTURER
    model: str = marks.MODEL


def make_uid(purpose: str, *parts: str) -> str:
    """A UID that depends on nothing but its purpose and the parts, in order."""
    # A length before each part: ("ab", "c") and ("a", "bc") must differ.
    text = "".join(f"{len(part)}:{part}" for part in (purpose, *parts))
    return marks.uid_from_hash(hashlib.sha256(text.encode()).digest())


def provenance(decision: Decision) -> tuple[str, ...]:
    """Everything beside the original that may change a result's bytes."""
    return (
        VERSION,
        decision.engine_version,
        decision.settings_digest,
        decision.weights_digest,
        decision.bank,
        decision.bank_digest,
    )


def equipment(decisions: Sequence[Decision]) -> Equipment:
    """The device behind one decision, or behind all decisions of a report."""
    versions = sorted({d.engine_version for d in decisions if d.engine_version})
    made_with = sorted({f"{d.engine_version}|{d.weights_digest}|{d.bank_digest}" for d in decisions})
    return Equipment(
        versions=tuple(v[:64] for v in (f"node {VERSION}", *(f"engine {v}" for v in versions))),
        device_uid=make_uid("device", VERSION, *made_with),
    )


def result_uid(kind: ResultKind, header: Header, decision: Decision) -> str:
    """SOP Instance UID of what is made from one image: known before it is made, and the same whenever it is."""
    return make_uid(kind, header.sop_instance_uid, decision.source_digest, decision.method, *provenance(decision))


def image_series_uid(header: Header, decision: Decision) -> str:
    """The series of the secondary captures of one original series."""
    return _series_uid("image series", header, decision)


def original_series_uid(header: Header) -> str:
    """The original's series, or a made one where it states none: references have to name a series."""
    return header.series_instance_uid or make_uid("no series", header.study_instance_uid)


def result_series_uid(sop_class: str, instance: str, header: Header, decision: Decision) -> str:
    """The series of a result, which its class and its original's header tell.

    A class has a series of its own: Modality and Presentation Intent Type are the series', and viewers sort by it.
    """
    if sop_class == uid.SecondaryCaptureImageStorage:
        return image_series_uid(header, decision)
    if sop_class == uid.KeyObjectSelectionDocumentStorage:
        # One a batch, and a later batch's is no later page of it.
        return make_uid("key object series", instance)
    return _series_uid(f"series of {sop_class}", header, decision)


def _series_uid(purpose: str, header: Header, decision: Decision) -> str:
    """One series for what shares every series-level attribute: its original's series, exam, method and device.

    Source: PS3.3 C.7.3.1 (Modality, Laterality, Body Part Examined, Series Description are the series').
    """
    return make_uid(
        purpose,
        header.study_instance_uid,
        header.patient_key,
        header.series_instance_uid,
        header.modality,
        header.body_part,
        header.laterality,
        decision.method,
        equipment([decision]).device_uid,
    )


def code_item(concept: Concept) -> Dataset:
    """One item of a code sequence. Source: PS3.3 8.8."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = concept.value, concept.scheme, concept.meaning
    return item


def contributing_equipment(made_by: Equipment, site_institution: str, station: str) -> list[Dataset]:
    """Our two items: processing equipment, and the algorithm in the form that IHE AIR asks for."""
    out = []
    for purpose in (concepts.PROCESSING_EQUIPMENT, concepts.PROCESSING_ALGORITHM):
        item = Dataset()
        item.PurposeOfReferenceCodeSequence = [code_item(purpose)]
        item.Manufacturer = made_by.manufacturer
        item.ManufacturerModelName = made_by.model
        item.SoftwareVersions = list(made_by.versions)
        item.DeviceUID = made_by.device_uid
        if purpose is concepts.PROCESSING_EQUIPMENT:
            item.StationName = station
            if site_institution:
                item.InstitutionName = site_institution
        out.append(item)
    return out


def coding_schemes() -> list[Dataset]:
    """Declares the private schemes. Source: PS3.3 C.12.1.1.6 (Coding Scheme Identification Sequence)."""
    out = []
    for designator, name, responsible in concepts.SCHEMES:
        item = Dataset()
        item.CodingSchemeDesignator = designator
        item.CodingSchemeName = name
        item.CodingSchemeResponsibleOrganization = responsible
        out.append(item)
    return out
