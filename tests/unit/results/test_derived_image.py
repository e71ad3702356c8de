"""The harmonized image in its original's own class."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.dataset import Dataset, FileDataset

from dicom_node.display import encode_codes
from dicom_node.header import read_header
from dicom_node.pixels import read_display
from dicom_node.records import Made, ResultKind
from dicom_node.results import identity
from dicom_node.results.derived_image import make_derived_image
from dicom_node.results.secondary_capture import make_secondary_capture
from tests import dicom_files
from tests.unit.results.builders import SITE, decision

FULL: dict[str, Any] = {"ImagerPixelSpacing": [0.1, 0.1], "PatientOrientation": ["L", "F"]}
DX, MG = uid.DigitalXRayImageStorageForPresentation, uid.DigitalMammographyXRayImageStorageForPresentation


def make(file: Path, kind: str, **attributes: Any) -> tuple[Made | None, tuple[str, ...]]:
    given = attributes if kind == "CR" else {**FULL, **attributes}
    given = {keyword: value for keyword, value in given.items() if not (keyword in FULL and value is None)}
    dicom_files.write(file, dicom_files.dataset(kind, **given))
    image = read_display(file)
    codes = encode_codes(image.values**0.5, image.bits)
    return make_derived_image(file, codes, image.bits, decision(file), read_header(file), SITE)


def made(file: Path, kind: str, **attributes: Any) -> FileDataset:
    found, notes = make(file, kind, **attributes)
    assert found, notes
    return dcmread(BytesIO(found.content))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.dcm"


@pytest.mark.parametrize("kind", ["CR", "DX", "MG"])
def test_the_same_inputs_give_the_same_bytes(file: Path, kind: str) -> None:
    assert make(file, kind) == make(file, kind)


@pytest.mark.parametrize(
    ("kind", "stated", "expected"),
    [
        ("CR", uid.ComputedRadiographyImageStorage, uid.ComputedRadiographyImageStorage),
        ("DX", DX, DX),
        ("DX", uid.DigitalXRayImageStorageForProcessing, DX),
        ("MG", MG, MG),
        ("MG", uid.DigitalMammographyXRayImageStorageForProcessing, MG),
    ],
)
def test_it_is_of_the_originals_class_and_for_presentation(file: Path, kind: str, stated: str, expected: str) -> None:
    intent = {} if kind == "CR" else {"PresentationIntentType": "FOR PROCESSING"}
    image = made(file, kind, SOPClassUID=stated, **intent)
    assert image.SOPClassUID == image.file_meta.MediaStorageSOPClassUID == expected
    assert image.Modality == kind
    assert image.get("PresentationIntentType", "") == ("" if kind == "CR" else "FOR PRESENTATION")


@pytest.mark.parametrize("kind", ["CR", "DX", "MG"])
def test_the_grey_scale_is_written_anew(file: Path, kind: str) -> None:
    image = made(
        file,
        kind,
        PhotometricInterpretation="MONOCHROME1",
        PresentationLUTShape="INVERSE",
        RescaleSlope=2,
        RescaleIntercept=-5,
        RescaleType="HU",
        WindowCenter=[10, 20],
        WindowWidth=[30, 40],
        VOILUTSequence=dicom_files.lut([0, 4095], 0, 12),
        ModalityLUTSequence=dicom_files.lut([0, 4095], 0, 12),
        PixelPaddingValue=0,
        SmallestImagePixelValue=3,
    )
    assert image.PhotometricInterpretation == "MONOCHROME2"
    assert (image.WindowCenter, image.WindowWidth) == (2048, 4096)
    for keyword in ("VOILUTSequence", "ModalityLUTSequence", "PixelPaddingValue", "SmallestImagePixelValue"):
        assert keyword not in image
    if kind == "CR":
        assert "RescaleSlope" not in image
        assert "PresentationLUTShape" not in image
    else:
        assert (image.RescaleSlope, image.RescaleIntercept, image.RescaleType) == (1, 0, "US")
        assert image.PresentationLUTShape == "IDENTITY"


def test_what_is_shown_is_what_was_given(file: Path) -> None:
    dicom_files.write(file, dicom_files.dataset("DX", PhotometricInterpretation="MONOCHROME1", **FULL))
    codes = dicom_files.ramp()
    found, _ = make_derived_image(file, codes, 12, decision(file), read_header(file), SITE)
    assert found
    file.write_bytes(found.content)
    assert np.array_equal(encode_codes(read_display(file).values, 12), codes)


def test_a_changed_image_says_so_everywhere(file: Path) -> None:
    image = made(file, "DX", ImageType=["ORIGINAL", "PRIMARY", "TOMO"], DeviceSerialNumber="77", SoftwareVersions="old")
    assert list(image.ImageType) == ["DERIVED", "SECONDARY", "TOMO"]
    assert "1.25 before, 0.3 after" in image.DerivationDescription
    assert image.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.1"
    assert image.Manufacturer == "Evenray"
    assert "DeviceSerialNumber" not in image
    acquired = image.ContributingEquipmentSequence[0]
    assert (acquired.Manufacturer, acquired.DeviceSerialNumber, acquired.SoftwareVersions) == ("ACME", "77", "old")
    purposes = [item.PurposeOfReferenceCodeSequence[0].CodeValue for item in image.ContributingEquipmentSequence]
    assert purposes == ["109101", "109102", "Newcode1"]


def test_it_has_uids_and_a_series_of_its_own(file: Path) -> None:
    found, _ = make(file, "CR")
    assert found
    header, decided = read_header(file), decision(file)
    capture = make_secondary_capture(file, dicom_files.ramp(), 12, decided, header, SITE)
    image, other = dcmread(BytesIO(found.content)), dcmread(BytesIO(capture.content))
    assert len({image.SOPInstanceUID, other.SOPInstanceUID, "1.2.3.4.1"}) == 3
    assert len({image.SeriesInstanceUID, other.SeriesInstanceUID, "1.2.3.4.9"}) == 3
    assert found.kind is ResultKind.DERIVED_IMAGE
    for one in (found, capture):
        series = identity.result_series_uid(one.sop_class_uid, one.sop_instance_uid, header, decided)
        assert dcmread(BytesIO(one.content)).SeriesInstanceUID == series


def test_what_the_original_says_of_the_acquisition_is_kept(file: Path) -> None:
    kept = {
        "KVP": "28",
        "ExposureInuAs": "99",
        "DetectorType": "DIRECT",
        "DetectorID": "D7",
        "BodyPartThickness": "41",
        "CompressionForce": "80",
        "FieldOfViewShape": "RECTANGLE",
        "DistanceSourceToDetector": "660",
        "EstimatedRadiographicMagnificationFactor": "1.07",
        "PositionerPrimaryAngle": "-45",
        "ProtocolName": "ROUTINE",
        "OperatorsName": "Doe",
        "PatientComments": "none",
    }
    codes = {"FilterMaterial": "RHODIUM"}
    request = Dataset()
    request.RequestedProcedureID, request.ScheduledProcedureStepID = "R1", "S1"
    modifier = dicom_files.code("399163009", "SCT", "Magnification")
    view = dicom_files.code("399368009", "SCT", "medio-lateral oblique")
    view.ViewModifierCodeSequence = [modifier]
    image = made(
        file, "MG", **kept, **codes, RequestAttributesSequence=[request], ViewCodeSequence=[view], TableHeight=""
    )
    for keyword, value in {**kept, **codes}.items():
        assert str(image[keyword].value) == value, keyword
    assert image.RequestAttributesSequence[0].RequestedProcedureID == "R1"
    assert image.ViewCodeSequence[0].ViewModifierCodeSequence[0].CodeValue == "399163009"
    assert "TableHeight" not in image
    assert list(image.ImagerPixelSpacing) == [0.1, 0.1]


def test_what_no_longer_holds_stays_behind(file: Path) -> None:
    original = dicom_files.dataset("DX", **FULL)
    original.add_new(0x00090010, "LO", "VENDOR")
    original.add_new(0x00091001, "LO", "PRIVATE")
    icon, step = Dataset(), Dataset()
    icon.Rows, icon.Columns = 8, 8
    step.ReferencedSOPClassUID, step.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.3", "1.2.3"
    step.add_new(0x00090010, "LO", "VENDOR")
    original.IconImageSequence = [icon]
    original.ReferencedPerformedProcedureStepSequence = [step]
    original.ReferencedStudySequence = [step]
    original.OriginalAttributesSequence = [icon]
    original.InstanceCreationDate, original.SeriesDate = "20240203", "20240203"
    dicom_files.write(file, original)
    found, _ = make_derived_image(file, dicom_files.ramp(), 12, decision(file), read_header(file), SITE)
    assert found
    image = dcmread(BytesIO(found.content))
    gone = "IconImageSequence ReferencedPerformedProcedureStepSequence OriginalAttributesSequence InstanceCreationDate"
    for keyword in (*gone.split(), "SeriesDate"):
        assert keyword not in image, keyword
    assert "ReferencedStudySequence" in image
    assert not [element for element in image.iterall() if element.tag.is_private]


@pytest.mark.parametrize(
    ("attributes", "missing"),
    [
        ({"BodyPartExamined": "HAND"}, "side"),
        ({"PatientOrientation": None}, "orientation"),
        ({"PatientOrientation": ["X", "Y"]}, "orientation"),
        ({"ImagerPixelSpacing": None}, "spacing"),
        ({"ImagerPixelSpacing": [0, 0]}, "spacing"),
    ],
)
def test_what_the_class_requires_is_never_made_up(file: Path, attributes: dict[str, Any], missing: str) -> None:
    found, (note, *_) = make(file, "DX", **attributes)
    assert found is None
    assert note.startswith("no derived image: ")
    assert missing in note


@pytest.mark.parametrize(
    ("attributes", "side"),
    [
        ({}, "U"),
        ({"BodyPartExamined": "HAND", "Laterality": "L"}, "L"),
        ({"BodyPartExamined": "HAND", "ImageLaterality": "r"}, "R"),
        ({"ImageLaterality": "B"}, "B"),
    ],
)
def test_the_side_is_taken_from_where_it_is_certain(file: Path, attributes: dict[str, Any], side: str) -> None:
    image = made(file, "DX", **attributes)
    assert image.ImageLaterality == side
    assert "Laterality" not in image


@pytest.mark.parametrize(
    ("part", "code"), [("CHEST", "816094009"), ("THORAX", "816094009"), ("LEFT KNEE", "LEFT KNEE"), (None, None)]
)
def test_the_region_is_that_of_the_body_part(file: Path, part: str | None, code: str | None) -> None:
    image = made(file, "DX", BodyPartExamined=part, ImageLaterality="L")
    assert [item.CodeValue for item in image.AnatomicRegionSequence] == ([code] if code else [])


def test_a_mammogram_gets_its_codes_from_its_view(file: Path) -> None:
    image = made(file, "MG", ViewPosition="CC", OrganExposed="")
    assert image.ViewCodeSequence[0].CodeMeaning == "cranio-caudal"
    assert (image.OrganExposed, image.PositionerType, image.ImageLaterality) == ("BREAST", "MAMMOGRAPHIC", "L")
    assert image.AnatomicRegionSequence[0].CodeValue == "76752008"
    for attributes, missing in (({"ViewPosition": "ODD"}, "view"), ({"ImageLaterality": None}, "side")):
        found, notes = make(file, "MG", **attributes)
        assert found is None
        assert missing in notes[0]


def test_a_class_without_derived_image_is_a_note_and_no_fault(file: Path) -> None:
    dicom_files.write(file, dicom_files.dataset("SC"))
    found, notes = make_derived_image(file, dicom_files.ramp(), 12, decision(file), read_header(file), SITE)
    assert found is None
    assert notes == (
        "no derived image: the original is Secondary Capture Image Storage; there is one of CR, DX and MG images",
    )


@pytest.mark.parametrize(
    ("photometric", "sign", "expected"),
    [("MONOCHROME2", -1, -1), ("MONOCHROME1", 1, -1), ("MONOCHROME2", 1, 1), ("MONOCHROME2", None, -1)],
)
def test_the_sign_is_that_of_the_pixels_written(file: Path, photometric: str, sign: int | None, expected: int) -> None:
    stated = {} if sign is None else {"PixelIntensityRelationshipSign": sign}
    image = made(file, "DX", PhotometricInterpretation=photometric, **stated)
    assert image.PixelIntensityRelationshipSign == expected


def test_an_overlay_keeps_its_bits_and_an_embedded_one_is_named(file: Path) -> None:
    original = dicom_files.dataset("DX", **FULL)
    plane = bytes(range(192))
    for group, position in ((0x6000, 0), (0x6002, 12)):
        original.add_new((group, 0x0010), "US", 32)
        original.add_new((group, 0x0011), "US", 48)
        original.add_new((group, 0x0040), "CS", "G")
        original.add_new((group, 0x0050), "SS", [1, 1])
        original.add_new((group, 0x0100), "US", 1 if position == 0 else 16)
        original.add_new((group, 0x0102), "US", position)
    original.add_new((0x6000, 0x3000), "OW", plane)
    dicom_files.write(file, original)
    found, notes = make_derived_image(file, dicom_files.ramp(), 12, decision(file), read_header(file), SITE)
    assert found
    image = dcmread(BytesIO(found.content))
    assert image[0x6000, 0x3000].value == plane
    assert not [element for element in image if element.tag.group == 0x6002]
    assert any("6002" in note for note in notes)


def test_invalid_values_are_repaired_or_left_out_and_named(file: Path) -> None:
    broken = dicom_files.code("1", "", "no scheme")
    image_, notes = make(
        file, "CR", PatientAge="60", DistanceSourceToDetector=-5, DetectorGeometry="FLAT", PatientComments="a\\b",
        AdmittingDiagnosesCodeSequence=[broken], ExposureStatus="MAYBE", PatientOrientation=["A", "B", "C"],
    )  # fmt: skip
    assert image_
    image = dcmread(BytesIO(image_.content))
    assert image.PatientAge == "060Y"
    for keyword in ("DistanceSourceToDetector", "DetectorGeometry", "ExposureStatus"):
        assert keyword not in image
        assert f"{keyword} is invalid in the original and was left out" in notes
    assert "AdmittingDiagnosesCodeSequence" not in image
    assert any("AdmittingDiagnosesCodeSequence" in note for note in notes)
    assert image.PatientOrientation is None or image.PatientOrientation == ""


def test_our_image_routed_back_is_known(file: Path) -> None:
    found, _ = make(file, "MG")
    assert found
    file.write_bytes(found.content)
    assert read_header(file).made_by_evenray


@pytest.mark.parametrize("keyword", ["ImageLaterality", "Laterality"])
def test_two_sides_in_one_word_are_no_side(file: Path, keyword: str) -> None:
    found, notes = make(file, "DX", BodyPartExamined="HAND", **{keyword: "RL"})
    assert found is None
    assert any("the side (Image Laterality) is not stated" in note for note in notes)


def test_the_class_says_for_processing_as_well_as_the_intent(file: Path) -> None:
    stated = uid.DigitalXRayImageStorageForProcessing
    image = made(file, "DX", SOPClassUID=stated, PresentationIntentType=None, PixelIntensityRelationshipSign=1)
    assert image.PixelIntensityRelationshipSign == -1


def test_a_shutter_without_all_of_its_edges_hides_nothing(file: Path) -> None:
    image = made(file, "DX", ShutterShape="RECTANGULAR", ShutterLeftVerticalEdge=1)
    assert not [found.keyword for found in image if found.keyword.startswith("Shutter")]


def test_an_overlay_of_a_big_endian_original_keeps_its_bits(file: Path) -> None:
    ds = dicom_files.dataset("DX", **FULL)
    plane = np.packbits(np.arange(32 * 48) < 100, bitorder="little").tobytes()
    for part, vr, value in ((0x10, "US", 32), (0x11, "US", 48), (0x40, "CS", "G"), (0x50, "SS", [1, 1]),
                            (0x100, "US", 1), (0x102, "US", 0)):  # fmt: skip
        ds.add_new((0x6000, part), vr, value)
    ds.add_new((0x6000, 0x3000), "OW", np.frombuffer(plane, "<u2").astype(">u2").tobytes())
    dicom_files.write(file, ds, uid.ExplicitVRBigEndian)
    image = read_display(file)
    codes = encode_codes(image.values, image.bits)
    found, notes = make_derived_image(file, codes, image.bits, decision(file), read_header(file), SITE)
    assert found, notes
    assert dcmread(BytesIO(found.content))[0x6000, 0x3000].value == plane
