"""The conformance statement's tables about the objects that are made: from objects that are made for it.

Every attribute of them has a source in words here, or is one that the code lists as copied; see `unexplained`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.datadict import dictionary_description, keyword_for_tag, tag_for_keyword
from pydicom.dataset import FileDataset
from pydicom.tag import Tag
from pydicom.uid import UID

from dicom_node import marks
from dicom_node.display import encode_codes
from dicom_node.header import read_header
from dicom_node.pixels import read_display
from dicom_node.records import Made
from dicom_node.results import changed_image, cleaning, concepts, copying, secondary_capture
from dicom_node.results.concepts import Concept
from dicom_node.results.key_object_selection import Flagged, make_key_objects
from dicom_node.results.objects import Harmonization, make_objects
from dicom_node.results.structured_report import make_report
from tests import dicom_files
from tests.unit.results.builders import SITE, decision, reported

LABELLED = SITE.model_copy(update={"visible_label": "NOT ORIGINAL"})
RICH: dict[str, Any] = {
    "ImagerPixelSpacing": [0.1, 0.1],
    "PatientOrientation": ["L", "F"],
    "PatientAge": "064Y",
    "AcquisitionDate": "20240203",
    "AcquisitionTime": "101610",
    "ShutterShape": "RECTANGULAR",
    "ShutterLeftVerticalEdge": 1,
    "ShutterRightVerticalEdge": 200,
    "ShutterUpperHorizontalEdge": 1,
    "ShutterLowerHorizontalEdge": 200,
    "LossyImageCompression": "01",
    "LossyImageCompressionRatio": 10,
    "LossyImageCompressionMethod": "ISO_10918_1",
    "SpecificCharacterSet": "ISO_IR 100",
}
"""Beside what `dicom_files` gives an original, so that what depends on it is there."""
BESIDE = (
    "PixelSpacingCalibrationType",
    "PixelSpacingCalibrationDescription",
    "PixelAspectRatio",
    "RecognizableVisualFeatures",
)
"""Copied into secondary captures where the spacing, or its absence, asks for them."""
SAMPLES = ("SC", "CR", "DX", "MG", "PR", "SR", "KO")

_UID_OF_ONE = "from a hash (2.25): the original's UID and digest, method, versions, settings, weights, bank"
_EVIDENCE = "the originals, the objects made from them, and an earlier report; selection: the originals that it names"
SOURCES: dict[str, str] = {
    "SpecificCharacterSet": "the original's where it holds every text, else ISO_IR 192; absent where all is ASCII",
    "ImageType": "DERIVED, SECONDARY, and in a derived image the original's value 3",
    "SOPClassUID": "by the kind of object",
    "SOPInstanceUID": f"{_UID_OF_ONE}; report, selection: all of the content",
    "StudyInstanceUID": "the original's",
    "SeriesInstanceUID": "from a hash (2.25): the original's series, exam, method, device, class; SR, KO: the document",
    "SeriesNumber": "constant, see the created objects",
    "InstanceNumber": "the original's, 1 where it states none; documents and states: 1",
    "Modality": "SC: the original's; else by the kind of object",
    "ConversionType": "WSD",
    "SeriesDescription": "our mark and the method; documents: our mark",
    "Manufacturer": f"{marks.MANUFACTURER}",
    "ManufacturerModelName": f"{marks.MODEL}",
    "DeviceSerialNumber": "the device UID: changes with weights, bank and version",
    "SoftwareVersions": "the node's version and the engine's",
    "StationName": "`site.station`",
    "InstitutionName": "`site.institution`, absent where that is empty",
    "TimezoneOffsetFromUTC": "the original's, else `site.timezone`",
    "SecondaryCaptureDeviceManufacturer": f"{marks.MANUFACTURER}",
    "SecondaryCaptureDeviceManufacturerModelName": f"{marks.MODEL}",
    "SecondaryCaptureDeviceSoftwareVersions": "as Software Versions",
    "ContributingEquipmentSequence": (
        "images, states: the original's device (109101), in derived images also the original's own items;"
        " all: ours twice, as 109102 and as Newcode1 (99IHE), with the device UID"
    ),
    "CodingSchemeIdentificationSequence": "99EVENRAY and 99IHE; derived images: the original's items too",
    "DerivationDescription": "bank, method, style distance before and after, versions, in words",
    "DerivationCodeSequence": f"(HARMONIZATION, {marks.CODING_SCHEME})",
    "SourceImageSequence": "the original, purpose 121322, Spatial Locations Preserved YES",
    "BurnedInAnnotation": "the original's; YES where it states none, or where words were drawn in",
    "LossyImageCompression": "01 where the original says so or its transfer syntax does, else 00",
    "LossyImageCompressionRatio": "the original's",
    "LossyImageCompressionMethod": "the original's, else by its transfer syntax",
    "SamplesPerPixel": "1",
    "PhotometricInterpretation": "MONOCHROME2",
    "Rows": "the original's",
    "Columns": "the original's",
    "BitsAllocated": "8 or 16",
    "BitsStored": "as many as the original's grey codes have, 8 to 16",
    "HighBit": "Bits Stored - 1",
    "PixelRepresentation": "0",
    "PixelData": "the harmonized grey codes",
    "WindowCenter": "half of the codes",
    "WindowWidth": "all of the codes",
    "WindowCenterWidthExplanation": "Full range",
    "RescaleIntercept": "0; states: the original's where a table of whole numbers allows it, else 0",
    "RescaleSlope": "1; states: as Rescale Intercept",
    "RescaleType": "US; states: as Rescale Intercept",
    "PresentationLUTShape": "IDENTITY; states of a MONOCHROME1 original: INVERSE",
    "PixelIntensityRelationship": "the original's where LIN or LOG, else LOG",
    "PixelIntensityRelationshipSign": "the original's, turned round for MONOCHROME1; else -1",
    "PresentationIntentType": "FOR PRESENTATION",
    "ImageLaterality": "the original's Image Laterality, else Laterality; U where the part is unpaired",
    "Laterality": "the original's; empty where not known; absent where the part is unpaired or Image Laterality there",
    "PatientOrientation": "the original's; SC and CR: empty where it states none",
    "AnatomicRegionSequence": "the original's, else by Body Part Examined; MG: breast",
    "ViewCodeSequence": "the original's, else by View Position (MG)",
    "OrganExposed": "BREAST",
    "PositionerType": "the original's; MG: MAMMOGRAPHIC where it is neither that nor NONE; DX: empty where not stated",
    "DetectorType": "the original's; empty where not stated",
    "AcquisitionContextSequence": "the original's; empty where not stated",
    "ContentLabel": "HARMONIZED",
    "ContentDescription": "the start of the derivation in words",
    "ContentCreatorName": "empty",
    "PresentationCreationDate": "the latest date that the original states, never the clock's",
    "PresentationCreationTime": "its time",
    "ReferencedSeriesSequence": "the original and its series",
    "DisplayedAreaSelectionSequence": "all of the image, SCALE TO FIT, the original's spacing or aspect ratio",
    "ShutterPresentationValue": "0, where the original has a shutter",
    "SoftcopyVOILUTSequence": "one look-up table of 16 bits: display and harmonization in one",
    "GraphicAnnotationSequence": "`site.visible_label`, where there is one",
    "GraphicLayerSequence": "one for the original's overlays, one for the words",
    "ContentDate": "images: the original's; report: the latest date of its originals; selection: of one of them",
    "ContentTime": "its time",
    "ReferencedPerformedProcedureStepSequence": "empty",
    "PerformedProcedureCodeSequence": "empty",
    "PredecessorDocumentsSequence": "the report of an earlier batch of the study",
    "CurrentRequestedProcedureEvidenceSequence": _EVIDENCE,
    "CompletionFlag": "COMPLETE",
    "VerificationFlag": "UNVERIFIED",
    "PreliminaryFlag": "FINAL",
    "ValueType": "CONTAINER",
    "ConceptNameCodeSequence": "126000 Imaging Measurement Report; selection: 113010 Quality Issue",
    "ContinuityOfContent": "SEPARATE",
    "ContentTemplateSequence": "TID 1500; selection: TID 2010",
    "ContentSequence": "see C",
}
"""What is not copied as it stands; `{keyword: where its value comes from}`."""


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    line: Callable[[Iterable[str]], str] = lambda cells: "| " + " | ".join(cells) + " |"  # noqa: E731
    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)])


def tables() -> dict[str, str]:
    """Every table about objects by its name, in Markdown."""
    return {
        "created objects": table(("", "SOP class", "UID", "Modality", "Series number", "Series description"), _made()),
        "object attributes": table(("Attribute", "Tag", *SAMPLES, "Source of its value"), _attributes()),
        "copied attributes": table(("Into", "Attributes"), _copied()),
        "left out": table(("Why", "Attributes"), _left_out()),
        "standard codes": table(("Code value", "Scheme", "Code meaning"), _codes()),
    }


@cache
def samples() -> Mapping[str, FileDataset]:
    """One object of each kind, by its sign."""
    with tempfile.TemporaryDirectory() as folder:
        images = {kind: _objects(Path(folder), kind) for kind in ("CR", "DX", "MG")}
        path = Path(folder) / "CR.dcm"
        one = reported(path)
        header = read_header(path)
        report = make_report([replace(one, header=header)], LABELLED, earlier="2.25.1")
        selection = make_key_objects([Flagged(header=header, state="refused", reason="")], path, LABELLED)
    capture, _, state = images["CR"]
    made = (capture, *(images[kind][1] for kind in images), state, report, selection)
    return {name: dcmread(BytesIO(one.content)) for name, one in zip(SAMPLES, made, strict=True)}


def unexplained() -> set[str]:
    """Attributes of the samples whose source nothing here says, and those with a source that no sample has."""
    there = {element.keyword for made in samples().values() for element in made}
    return {keyword for keyword in there if not _source(keyword)} | (SOURCES.keys() - there)


def _objects(folder: Path, kind: str) -> tuple[Made, ...]:
    """Secondary capture, derived image and presentation state."""
    # A part that is paired has a side to tell, in the attribute of its class.
    more: dict[str, Any] = {"BodyPartExamined": "HAND"} if kind == "CR" else {}
    original = dicom_files.dataset(kind, dicom_files.ramp(200, 200), **RICH, **more)
    path = dicom_files.write(folder / f"{kind}.dcm", original)
    image, curve = read_display(path), np.sqrt(np.arange(4096) / 4095).astype(np.float32)
    codes = encode_codes(curve[encode_codes(image.values, 12)], 12)
    of = Harmonization(source=path, header=read_header(path), image=image, codes=codes, curve=curve)
    return make_objects(of, decision(path), ("secondary_capture", "derived_image", "presentation_state"), LABELLED)[1]


def _source(keyword: str) -> str:
    said = SOURCES.get(keyword, "")
    if not said and any(keyword in found for _, found in _lists()):
        said = "copied; empty where the original states none" if keyword in copying.IDENTITY_2 else "copied"
    # Whatever else a derived image has, it has from its original: nothing is written beside the above.
    return said or ("copied" if any(keyword in samples()[name] for name in ("CR", "DX", "MG")) else "")


def _lists() -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "all objects", (*copying.PATIENT_AND_STUDY, *copying.PATIENT_AND_STUDY_CODES)
    images = (*secondary_capture.COPIED, *secondary_capture.COPIED_CODES, *secondary_capture.SPACINGS)
    yield "secondary captures", (*images, *BESIDE)
    yield "presentation states", ("BodyPartExamined", *changed_image.SHUTTER)


def _made() -> Iterator[tuple[str, ...]]:
    for name, made in samples().items():
        said = str(made.SeriesDescription).replace("fitted_curve", "METHOD")
        uid = UID(made.SOPClassUID)
        assert made.file_meta.TransferSyntaxUID.name == "Explicit VR Little Endian"
        yield name, uid.name, f"`{uid}`", str(made.Modality), str(made.SeriesNumber), said


def _attributes() -> Iterator[tuple[str, ...]]:
    found = samples()
    for tag in sorted({element.tag for made in found.values() for element in made}):
        there = ("x" if tag in made else "" for made in found.values())
        keyword = keyword_for_tag(tag)
        yield dictionary_description(tag), f"`{Tag(tag)}`".replace(", ", ","), *there, _source(keyword)


def _copied() -> Iterator[tuple[str, ...]]:
    for into, found in _lists():
        yield into, _described(found)
    groups = ", ".join(f"{group:04X}" for group in sorted(cleaning.GROUPS))
    text = f"every standard attribute of the groups {groups} that is not left out; of group 0028 only"
    yield "derived images", f"{text} {_described(sorted(cleaning.OF_PIXELS))}"


def _left_out() -> Iterator[tuple[str, ...]]:
    yield "of the original's own instance and series, or an archive's answer", _described(sorted(cleaning.OWN))
    yield "the device: ours stands in its place, the original's in a contribution", _described(sorted(cleaning.DEVICE))
    yield "how the original came to be", _described(sorted(cleaning.HISTORY))
    yield "said anew", _described(sorted(cleaning.GREY))
    others = "private, retired and binary attributes (OB, OW, UN and the like); groups 5000 to 501E"
    yield "nobody can say whether they still hold", others


def _described(keywords: Iterable[str]) -> str:
    return ", ".join(dictionary_description(tag_for_keyword(keyword) or 0) for keyword in keywords)


def _codes() -> Iterator[tuple[str, ...]]:
    for group in list(vars(concepts).values()):
        listed = [group] if isinstance(group, Concept) else group.values() if isinstance(group, dict) else ()
        for one in listed:
            if isinstance(one, Concept) and one.scheme != concepts.PRIVATE:
                yield f"`{one.value}`", one.scheme, one.meaning
