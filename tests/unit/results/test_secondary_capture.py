"""The image that a PACS shows beside the original."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.dataset import FileDataset

from dicom_node.display import encode_codes
from dicom_node.errors import ResultInvalid
from dicom_node.header import read_header
from dicom_node.pixels import read_display
from dicom_node.records import Made
from dicom_node.results.secondary_capture import make_secondary_capture
from tests import dicom_files
from tests.unit.results.builders import SITE, decision


def make(file: Path, kind: str = "CR", syntax: str = uid.ExplicitVRLittleEndian, **attributes: Any) -> Made:
    dicom_files.write(file, dicom_files.dataset(kind, **attributes), syntax)
    image = read_display(file)
    codes = encode_codes(image.values**0.5, image.bits)
    return make_secondary_capture(file, codes, image.bits, decision(file), read_header(file), SITE)


def made(file: Path, *arguments: Any, **attributes: Any) -> FileDataset:
    return dcmread(BytesIO(make(file, *arguments, **attributes).content))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.dcm"


def test_the_same_inputs_give_the_same_bytes(file: Path) -> None:
    assert make(file) == make(file)


def test_other_settings_give_another_uid(file: Path) -> None:
    one = make(file)
    header, codes = read_header(file), dicom_files.ramp()
    for change in ("settings_digest", "weights_digest", "bank_digest", "engine_version", "source_digest", "method"):
        other = make_secondary_capture(file, codes, 12, decision(file, **{change: "other"}), header, SITE)
        assert other.sop_instance_uid != one.sop_instance_uid, change


def test_the_speed_of_the_machine_changes_nothing(file: Path) -> None:
    header, codes = read_header(dicom_files.write(file, dicom_files.dataset())), dicom_files.ramp()
    fast, slow = (decision(file, seconds={"engine": s}) for s in (0.1, 9.0))
    assert make_secondary_capture(file, codes, 12, fast, header, SITE) == make_secondary_capture(
        file, codes, 12, slow, header, SITE
    )


@pytest.mark.parametrize("bits", [8, 10, 12, 15, 16])
def test_pixels_and_depth_come_back_as_they_were_given(file: Path, bits: int) -> None:
    words = dicom_files.ramp(31, 33, bits=bits)
    dicom_files.write(file, dicom_files.dataset("CR", words, bits=bits))
    codes = words.astype(np.uint8) if bits == 8 else words
    content = make_secondary_capture(file, codes, bits, decision(file), read_header(file), SITE).content
    again = dcmread(BytesIO(content))
    assert np.array_equal(again.pixel_array, codes)
    assert (again.BitsStored, again.BitsAllocated) == (bits, 8 if bits == 8 else 16)
    (file.parent / "again").write_bytes(content)
    assert np.array_equal(encode_codes(read_display(file.parent / "again").values, bits), codes)


def test_the_window_is_its_own_and_no_rescale_is_inherited(file: Path) -> None:
    image = made(
        file,
        PhotometricInterpretation="MONOCHROME1",
        RescaleSlope=2,
        RescaleIntercept=-5,
        WindowCenter=[10, 20],
        WindowWidth=[30, 40],
        VOILUTSequence=dicom_files.lut([0, 4095], 0, 12),
        PixelPaddingValue=0,
    )
    assert image.PhotometricInterpretation == "MONOCHROME2"
    assert (image.WindowCenter, image.WindowWidth) == (2048, 4096)
    for keyword in ("RescaleSlope", "RescaleIntercept", "VOILUTSequence", "PixelPaddingValue", "PresentationLUTShape"):
        assert keyword not in image


def test_a_changed_image_says_so_everywhere(file: Path) -> None:
    image = made(file)
    assert list(image.ImageType) == ["DERIVED", "SECONDARY"]
    assert image.SeriesDescription == "Evenray harmonized: fitted_curve"
    assert "1.25 before, 0.3 after" in image.DerivationDescription
    assert image.DerivationCodeSequence[0].CodingSchemeDesignator == "99EVENRAY"
    origin = image.SourceImageSequence[0]
    assert (origin.ReferencedSOPInstanceUID, origin.ReferencedSOPClassUID) == (
        "1.2.3.4.1",
        uid.ComputedRadiographyImageStorage,
    )
    purposes = [item.PurposeOfReferenceCodeSequence[0].CodeValue for item in image.ContributingEquipmentSequence]
    assert purposes == ["109101", "109102", "Newcode1"]
    assert image.SeriesInstanceUID != "1.2.3.4.9"
    assert image.StudyInstanceUID == "1.2.3.4"


def test_patient_study_and_anatomy_are_the_originals(file: Path) -> None:
    image = made(file, "MG", PatientOrientation=["A", "F"], ImagerPixelSpacing=[0.1, 0.1], StudyDescription="Mammo")
    source = dicom_files.dataset("MG")
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "AccessionNumber", "StudyID", "StudyDate"):
        assert str(image.get(keyword, "")) == str(source.get(keyword, "")), keyword
    assert (image.BodyPartExamined, image.ViewPosition, image.ImageLaterality) == ("BREAST", "MLO", "L")
    assert list(image.ImagerPixelSpacing) == [0.1, 0.1]
    assert (image.Modality, image.InstanceNumber, image.StudyDescription) == ("MG", 7, "Mammo")


def test_the_device_changes_with_weights_and_bank_and_with_nothing_else(file: Path) -> None:
    header, codes = read_header(dicom_files.write(file, dicom_files.dataset())), dicom_files.ramp()

    def device(**changes: Any) -> str:
        content = make_secondary_capture(file, codes, 12, decision(file, **changes), header, SITE).content
        return str(dcmread(BytesIO(content)).ContributingEquipmentSequence[-1].DeviceUID)

    assert len({device(), device(weights_digest="x"), device(bank_digest="x"), device(engine_version="x")}) == 4
    assert device(reason="x", settings_digest="x") == device()


@pytest.mark.parametrize(("stated", "expected"), [("NO", "NO"), ("YES", "YES"), (None, "YES")])
def test_burned_in_text_is_denied_only_where_the_original_denies_it(
    file: Path, stated: str | None, expected: str
) -> None:
    attributes = {"BurnedInAnnotation": stated} if stated else {}
    assert made(file, **attributes).BurnedInAnnotation == expected


@pytest.mark.parametrize(
    ("syntax", "stated", "expected", "method"),
    [
        (uid.ExplicitVRLittleEndian, None, "00", ""),
        (uid.ExplicitVRLittleEndian, "01", "01", ""),
        (uid.JPEGLSNearLossless, None, "01", "ISO_14495_1"),
        (uid.JPEG2000, "00", "00", ""),
        (uid.JPEG2000, None, "01", "ISO_15444_1"),
    ],
)
def test_once_lossy_always_lossy(file: Path, syntax: str, stated: str | None, expected: str, method: str) -> None:
    attributes = {"LossyImageCompression": stated} if stated else {}
    image = made(file, "CR", syntax, **attributes)
    assert image.LossyImageCompression == expected
    assert image.get("LossyImageCompressionMethod", "") == method


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"BodyPartExamined": "CHEST"}, "absent"),
        ({"BodyPartExamined": "HAND"}, ""),
        ({"BodyPartExamined": None}, ""),
        ({"BodyPartExamined": "HAND", "Laterality": "R"}, "R"),
    ],
)
def test_laterality_is_present_only_where_it_may_be(file: Path, attributes: dict[str, Any], expected: str) -> None:
    assert made(file, **attributes).get("Laterality", "absent") == expected


def test_no_clock_time_gets_in(file: Path) -> None:
    image = made(file)
    dates = {str(found.value) for found in image.iterall() if found.VR in ("DA", "TM", "DT") and found.value}
    assert dates <= {"20240203", "101500", "101611", "19600229"}


@pytest.mark.parametrize(
    ("codes", "bits"),
    [
        (dicom_files.ramp().astype(np.uint8), 12),
        (dicom_files.ramp(), 8),
        (dicom_files.ramp(bits=13), 12),
        (dicom_files.ramp(16, 16), 12),
        (dicom_files.ramp(), 17),
    ],
)
def test_codes_that_do_not_fit_the_original_are_no_result(file: Path, codes: Any, bits: int) -> None:
    dicom_files.write(file, dicom_files.dataset())
    with pytest.raises(ResultInvalid):
        make_secondary_capture(file, codes, bits, decision(file), read_header(file), SITE)


def test_our_image_routed_back_is_known(file: Path) -> None:
    file.with_name("back").write_bytes(make(file).content)
    assert read_header(file.with_name("back")).made_by_evenray
