"""What the node needs of an instance's header, parsed once from its file. Touches no pixels and decides no route."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset, FileDataset

from dicom_node import marks
from dicom_node.errors import Unreadable
from dicom_node.records import Header
from dicom_node.tolerant import integer, items, read, text, transfer_syntax, values

# One name for what vendors and languages call alike; everything else stays as stated.
# Source: PS3.16 annex L (CHEST, BREAST), seen in the field: THORAX (Agfa, Philips), LUNG, MAMMA (Siemens).
BODY_PARTS = {
    "THORAX": "CHEST",
    "LUNG": "CHEST",
    "LUNGS": "CHEST",
    "MAMMA": "BREAST",
    "MAMMO": "BREAST",
    "BREASTS": "BREAST",
}
# Source: PS3.16 CID 4009 in SNOMED CT and in the SRT codes that it replaced.
BODY_PART_CODES = {
    "51185008": "CHEST",
    "43799004": "CHEST",
    "T-D3000": "CHEST",
    "39607008": "CHEST",
    "T-28000": "CHEST",
    "76752008": "BREAST",
    "T-04000": "BREAST",
}
# Words of free-text descriptions, tried in this order. A spine that is thoracic is no chest radiograph.
BODY_PART_WORDS = (
    ("SPINE", re.compile(r"SPINE|SPINAL|VERTEBRA|WIRBEL|\b[BHL]WS\b|RACHIS|COLUMN", re.ASCII)),
    ("BREAST", re.compile(r"\b(BREASTS?|MAMMA|MAMMO\w*)\b", re.ASCII)),
    ("CHEST", re.compile(r"\b(CHEST|THORAX|LUNGS?|CXR)\b", re.ASCII)),
)
DESCRIPTIONS = (
    "ProtocolName",
    "SeriesDescription",
    "StudyDescription",
    "PerformedProcedureStepDescription",
    "RequestedProcedureDescription",
)
# Source: PS3.16 CID 4010 and CID 4014 (SNOMED CT; SRT codes before 2019) to View Position, PS3.3 C.8.3.3, C.8.11.5.
VIEW_CODES = {
    "399348003": "AP",
    "R-10206": "AP",
    "272479007": "PA",
    "R-10214": "PA",
    "399067008": "LATERAL",
    "R-10236": "LATERAL",
    "399173006": "LL",
    "399198007": "RL",
    "399162004": "CC",
    "R-10242": "CC",
    "399368009": "MLO",
    "R-10226": "MLO",
    "399260004": "ML",
    "R-10224": "ML",
    "399352003": "LM",
    "R-10228": "LM",
    "399099002": "LMO",
    "R-10230": "LMO",
    "399192008": "XCCL",
    "399101009": "XCCM",
}
VIEW_WORDS = re.compile(r"\bVIEW\s*[:=]?\s*(AP|PA|LL|RL|LATERAL|LAT|CC|MLO|ML|LM|LMO)\b", re.ASCII)

UID_FORM = re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII)
CHUNK = 1 << 20


def read_header(path: Path) -> Header:
    """The header of a DICOM file; reads no pixel data.

    Raises Unreadable where the file is no DICOM object or lacks the UIDs that name an instance and its study, in
    words that hold nothing of the patient. OSError is the disk's.
    """
    dataset, has_pixels = read(path)
    body_part, body_part_source = _body_part(dataset)
    return Header(
        sop_class_uid=_sop_class(dataset),
        sop_instance_uid=_uid(dataset, "SOPInstanceUID", "SOP Instance UID (0008,0018)"),
        transfer_syntax_uid=transfer_syntax(dataset),
        study_instance_uid=_uid(dataset, "StudyInstanceUID", "Study Instance UID (0020,000D)"),
        series_instance_uid=text(dataset, "SeriesInstanceUID"),
        patient_key=_patient_key(dataset),
        modality=text(dataset, "Modality").upper(),
        body_part=body_part,
        body_part_source=body_part_source,
        view=_view(dataset),
        laterality=(text(dataset, "ImageLaterality") or text(dataset, "Laterality")).upper(),
        presentation_intent=text(dataset, "PresentationIntentType").upper(),
        manufacturer=text(dataset, "Manufacturer"),
        rows=integer(dataset, "Rows", 0),
        columns=integer(dataset, "Columns", 0),
        frames=integer(dataset, "NumberOfFrames", 1),
        samples_per_pixel=_samples(dataset),
        has_pixels=has_pixels,
        made_by_evenray=_made_by_evenray(dataset),
    )


def dataset_digest(path: Path) -> str:
    """SHA-256 (hex) of the bytes after the File Meta group, which every receiver writes in its own way.

    Raises OSError where the disk fails.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(_end_of_meta(file))
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def content_digest(content: bytes) -> str:
    """The same of a Part 10 file that is still in memory."""
    return hashlib.sha256(memoryview(content)[_end_of_meta(BytesIO(content)) :]).hexdigest()


def _end_of_meta(file: BinaryIO) -> int:
    """Offset of the first element behind group 0002. Source: PS3.10 7.1 (the group is Explicit VR Little Endian).

    Walks the elements, because the stated group length is often wrong.
    """
    preamble = file.read(132)
    position = 132 if preamble[128:] == b"DICM" else 0
    while True:
        file.seek(position)
        head = file.read(12)
        if len(head) < 8 or struct.unpack_from("<H", head)[0] != 0x0002:
            return position
        if head[4:6] in (b"OB", b"OW", b"UN", b"UT", b"SQ"):
            position += 12 + (struct.unpack_from("<I", head, 8)[0] if len(head) == 12 else 0)
        else:
            position += 8 + int(struct.unpack_from("<H", head, 6)[0])


def _uid(dataset: Dataset, keyword: str, name: str) -> str:
    uid = text(dataset, keyword)
    if not uid:
        raise Unreadable(f"not a usable DICOM object: it has no {name}")
    if not UID_FORM.fullmatch(uid) or len(uid) > 64:
        raise Unreadable(f"not a usable DICOM object: its {name} is no UID (digits and dots, at most 64)")
    return uid


def _sop_class(dataset: FileDataset) -> str:
    """As the data set states it, else as the File Meta group does, into which a receiver writes the request's."""
    found = text(dataset, "SOPClassUID") or text(getattr(dataset, "file_meta", Dataset()), "MediaStorageSOPClassUID")
    if not found:
        raise Unreadable("not a usable DICOM object: it has no SOP Class UID (0008,0016)")
    return found


def _samples(dataset: Dataset) -> int:
    """Samples a pixel once it is shown: a palette makes three of one. Source: PS3.3 C.7.6.3.1.2."""
    stated = integer(dataset, "SamplesPerPixel", 1)
    return 3 if text(dataset, "PhotometricInterpretation").upper() == "PALETTE COLOR" else stated


def _patient_key(dataset: Dataset) -> str:
    """A digest that tells patients apart. Without a Patient ID the name and the birth date stand in for it."""
    keywords: Iterable[str] = ("PatientID", "IssuerOfPatientID")
    if not text(dataset, "PatientID"):
        keywords = ("PatientName", "PatientBirthDate")
    return hashlib.sha256("\0".join(text(dataset, keyword) for keyword in keywords).encode()).hexdigest()[:16]


def _body_part(dataset: Dataset) -> tuple[str, str]:
    """The body part and the attribute that says so; the most formal statement wins."""
    stated = text(dataset, "BodyPartExamined").upper()
    if stated:
        return BODY_PARTS.get(stated, stated), "BodyPartExamined"
    for item in items(dataset, "AnatomicRegionSequence"):
        meaning = text(item, "CodeMeaning").upper()
        found = BODY_PART_CODES.get(text(item, "CodeValue")) or BODY_PARTS.get(meaning, meaning)
        if found:
            return found, "AnatomicRegionSequence"
    for keyword in DESCRIPTIONS:
        words = " ".join(values(dataset, keyword)).upper().replace("_", " ")
        for part, pattern in BODY_PART_WORDS:
            if pattern.search(words):
                return part, keyword
    if text(dataset, "Modality").upper() == "MG":
        return "BREAST", "Modality"
    return "", ""


def _view(dataset: Dataset) -> str:
    stated = text(dataset, "ViewPosition").upper()
    if stated:
        return stated
    for item in items(dataset, "ViewCodeSequence"):
        found = VIEW_CODES.get(text(item, "CodeValue")) or text(item, "CodeMeaning").upper()
        if found:
            return found
    match = VIEW_WORDS.search(text(dataset, "SeriesDescription").upper())
    return {"LAT": "LATERAL"}.get(match[1], match[1]) if match else ""


def _made_by_evenray(dataset: Dataset) -> bool:
    """Whether the object is ours, or was made from one of ours.

    One mark is enough, since a PACS may have stripped or coerced the others. An image that somebody else derived
    from ours, and which therefore carries our Contributing Equipment or names ours as its source, counts too: it is
    harmonized already, and working on it again could go round between two nodes for ever. Nothing is lost by
    this: such an instance is sent on and reported as passed. One of our own UIDs is only sent on, not reported: a
    report about a report would do the same.
    """
    if marks.is_our_uid(text(dataset, "SOPInstanceUID")):
        return True
    if any(_is_our_name(text(item, "Manufacturer")) for item in items(dataset, "ContributingEquipmentSequence")):
        return True
    if any(marks.is_our_uid(text(i, "ReferencedSOPInstanceUID")) for i in items(dataset, "SourceImageSequence")):
        return True
    if _is_our_name(text(dataset, "Manufacturer")) and text(dataset, "Modality").upper() == "SR":
        return True
    derived = text(dataset, "ImageType").upper() == "DERIVED"
    return derived and text(dataset, "SeriesDescription").startswith(marks.HARMONIZED_PREFIX)


def _is_our_name(manufacturer: str) -> bool:
    return manufacturer.casefold() == marks.MANUFACTURER.casefold()
