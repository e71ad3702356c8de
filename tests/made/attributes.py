"""Odd images for their attributes: missing, wrongly written, private, of another zone. Knows no node code."""

from __future__ import annotations

from typing import Any

from pydicom import uid
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tests import dicom_files
from tests.made.table import GONE, PARKED, PASSED, Build, Odd, holding, image, stating

TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName",
    "StudyID", "AccessionNumber", "ContentDate", "ContentTime", "Manufacturer", "SeriesNumber", "InstanceNumber",
    "BodyPartExamined", "ViewPosition", "PatientOrientation", "DetectorType",
)  # fmt: skip


def _without(*keywords: str, kind: str = "DX", **more: Any) -> Build:
    return stating(kind, **dict.fromkeys(keywords), **more)


def _repaired(name: str, why: str, keyword: str, given: str, kept: object) -> Odd:
    """An attribute whose bytes break its VR's rules and mean something certain."""
    notes = (f"{keyword} was repaired",)
    return Odd(name, why, holding({keyword: given.encode()}), repaired=notes, holds={keyword: kept})


def _left_out(name: str, why: str, keyword: str, given: str, kept: object = GONE) -> Odd:
    """An attribute whose bytes break its VR's rules and mean nothing certain."""
    notes = (f"{keyword} is invalid",)
    return Odd(name, why, holding({keyword: given.encode()}), repaired=notes, holds={keyword: kept})


def _private(creator: str | None, *, nested: bool = False, huge: int = 0, unknown: bool = False) -> Build:
    def build(name: str) -> bytes:
        ds = image(name)
        if creator:
            ds.add(DataElement(0x00090010, "LO", creator))
        ds.add(DataElement(0x00091001, "LO", "vendor's own"))
        if unknown:
            ds.add(DataElement(0x00091002, "UN", b"\x01\x02\x03\x04"))
        if huge:
            ds.add(DataElement(0x00091003, "OB", bytes(huge)))
        if nested:
            inner, outer = Dataset(), Dataset()
            inner.add(DataElement(0x00090010, "LO", creator))
            inner.add(DataElement(0x00091004, "DS", "1.5"))
            outer.add(DataElement(0x00091005, "SQ", Sequence([inner])))
            ds.add(DataElement(0x00091006, "SQ", Sequence([outer])))
        return dicom_files.content(ds, uid.ImplicitVRLittleEndian if nested else uid.ExplicitVRLittleEndian)

    return build


SITE_ZONE = "+0000"
"""Of a node whose site states none."""

ATTRIBUTES = (
    # Missing.
    Odd(
        "no_type_2",
        "none of the attributes that may be empty is there: empty in the result where its class wants them",
        _without(*(k for k in TYPE_2 if k not in ("PatientID", "BodyPartExamined", "ViewPosition"))),
        holds={"PatientName": "", "StudyDate": "", "AccessionNumber": "", "ReferringPhysicianName": ""},
    ),
    Odd(
        "no_patient",
        "nothing says who the patient is: the same holds for the result",
        _without("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
        holds={"PatientName": "", "PatientID": "", "PatientBirthDate": "", "PatientSex": ""},
    ),
    Odd(
        "empty_type_2",
        "every attribute that may be empty is",
        stating(**dict.fromkeys((k for k in TYPE_2 if k not in ("BodyPartExamined", "PatientID")), "")),
        holds={"PatientName": "", "StudyDate": "", "AccessionNumber": ""},
    ),
    Odd(
        "no_type_1",
        "what a DX image must state about its grey scale and its origin is missing",
        _without(
            "ImageType", "PresentationIntentType", "PixelIntensityRelationship", "PixelIntensityRelationshipSign",
            "RescaleIntercept", "RescaleSlope", "RescaleType", "PresentationLUTShape", "LossyImageCompression",
            "BurnedInAnnotation", "ImagerPixelSpacing", "AcquisitionDate", "AcquisitionTime",
        ),
        repaired=("BurnedInAnnotation is not stated",),
    ),
    Odd("no_series", "no Series Instance UID: the result is in a series of ours anyway", _without("SeriesInstanceUID")),
    Odd("no_class", "no SOP Class UID in the data set: the bytes are an image all the same",
        lambda name: dicom_files.content(image(name)).replace(
            b"\x08\x00\x16\x00UI", b"\x08\x00\x17\x00UI"), unsendable="its data set is not of its SOP class"),
    Odd(
        "no_study",
        "no Study Instance UID: it belongs nowhere",
        _without("StudyInstanceUID"),
        PARKED,
        r"it has no Study Instance UID \(0020,000D\)",
    ),
    Odd(
        "study_with_letters",
        "a Study Instance UID with letters: it belongs nowhere",
        holding({"StudyInstanceUID": b"1.2.STUDY.4"}),
        PARKED,
        r"its Study Instance UID \(0020,000D\) is no UID",
    ),
    Odd(
        "no_modality",
        "nothing says that it is a radiograph, so that no route takes it",
        _without("Modality"),
        PASSED,
        "no route takes no modality CHEST PA",
    ),
    Odd(
        "cr_without_body_part",
        "a CR image that says nothing of what it shows: no bank fits, and none is guessed",
        _without("BodyPartExamined", kind="CR", StudyDescription=""),
        PASSED,
        "no bank of references for CR no body part PA",
    ),
    Odd(
        "mg_without_view",
        "a mammogram that states no view: no bank for it, and it says so",
        _without("ViewPosition", kind="MG"),
        PASSED,
        "no bank of references for MG BREAST no view",
    ),
    Odd(
        "cr_without_view",
        "a CR image that states no view: not held against it",
        _without("ViewPosition", kind="CR"),
    ),
    # Wrongly written.
    _repaired("age_without_unit", "an age as a bare number, which is years in every source seen",
              "PatientAge", "60", "060Y"),
    _left_out("age_in_words", "an age in words", "PatientAge", "5 yrs"),
    _repaired("date_with_dots", "a date in ACR-NEMA's form", "StudyDate", "2024.02.03", "20240203"),
    _repaired("date_with_hyphens", "a date in ISO 8601's form", "PatientBirthDate", "1960-02-29", "19600229"),
    _left_out("date_that_is_none", "the 45th of a 13th month", "StudyDate", "20241345", ""),
    _repaired("time_with_colons", "a time in ACR-NEMA's form", "StudyTime", "10:15:00", "101500"),
    _left_out("time_that_is_none", "the 25th hour", "StudyTime", "250000", ""),
    _left_out("sex_that_is_none", "a sex that is not among the enumerated values", "PatientSex", "W", ""),
    _repaired("sex_in_small_letters", "a code string in small letters", "PatientSex", "f", "F"),
    _repaired("laterality_in_small_letters", "a side in small letters", "ImageLaterality", "l", "L"),
    _left_out("accession_over_long", "an identifier of 24 characters where 16 are allowed: cut, it were another one",
              "AccessionNumber", "A" * 24, ""),
    _repaired("description_over_long", "a description of 100 characters where 64 are allowed: its start says enough",
              "StudyDescription", "Chest " + "x" * 94, "Chest " + "x" * 58),
    _left_out("spacing_in_words", "a decimal string that is no number", "PixelSpacing", "0.2mm\\0.2mm"),
    _left_out("spacing_of_nothing", "pixels without extent", "PixelSpacing", "0\\0"),
    _repaired("spacing_over_long", "a decimal string of more than 16 characters",
              "PixelSpacing", "4.900000000000000001\\4.900000000000000001", [4.9, 4.9]),
    Odd("window_in_words", "a window that is no number: the image fills the grey range",
        holding({"WindowCenter": b"abc "}), same=False, read=("no window: full range",)),
    Odd("number_with_point", "an integer string with a decimal point", holding({"InstanceNumber": b"7.0 "}),
        holds={"InstanceNumber": 7}),
    Odd("number_in_words", "an instance number that is none", holding({"InstanceNumber": b"IMG7"}),
        holds={"InstanceNumber": 1}),
    Odd("body_part_in_small_letters", "a body part in small letters and words of the vendor's",
        holding({"BodyPartExamined": b"Thorax"}), holds={"BodyPartExamined": "THORAX"},
        repaired=("BodyPartExamined was repaired",)),
    Odd("manufacturer_over_long", "a manufacturer of 90 characters", holding({"Manufacturer": b"M" * 90})),
    Odd("several_values_for_one", "two accession numbers where one is allowed: neither is known to be right",
        holding({"AccessionNumber": b"A1\\B2"}), holds={"AccessionNumber": ""},
        repaired=("AccessionNumber is invalid",)),
    Odd("incomplete_codes", "a view code without its scheme, beside a complete one",
        stating(ViewCodeSequence=[dicom_files.code("272479007", "SCT", "postero-anterior")],
                AnatomicRegionSequence=[dicom_files.code("51185008", "", "Thorax")]),
        repaired=("AnatomicRegionSequence has an incomplete code",)),
    Odd("uid_with_leading_zero", "a component of the original's own UID starts with 0: kept, or it were another object",
        holding({"SOPInstanceUID": b"1.2.826.0.1.3680043.10.543.7.01\0"})),
    # Time zones.
    Odd("zone", "a stated time zone is the result's", stating(TimezoneOffsetFromUTC="+0530"),
        holds={"TimezoneOffsetFromUTC": "+0530"}),
    Odd("no_zone", "no time zone: the site's", stating(), holds={"TimezoneOffsetFromUTC": SITE_ZONE}),
    Odd("zone_that_is_none", "a time zone that does not exist: the site's",
        holding({"TimezoneOffsetFromUTC": b"+9999 "}), holds={"TimezoneOffsetFromUTC": SITE_ZONE},
        repaired=("TimezoneOffsetFromUTC is invalid",)),
    Odd("zone_in_words", "a time zone by its name: the site's", holding({"TimezoneOffsetFromUTC": b"CET "}),
        holds={"TimezoneOffsetFromUTC": SITE_ZONE}, repaired=("TimezoneOffsetFromUTC is invalid",)),
    # Private.
    Odd("private", "private elements under their creator: not in a result, whose meaning they need not share",
        _private("ACME 1.0"), holds={"00091001": GONE}),
    Odd("private_without_creator", "private elements that nobody owns", _private(None), holds={"00091001": GONE}),
    Odd("private_unknown_vr", "a private element of VR UN", _private("ACME 1.0", unknown=True)),
    Odd("private_huge", "a private element of a megabyte", _private("ACME 1.0", huge=1 << 20)),
    Odd("private_nested", "private sequences in sequences, in implicit VR, where no dictionary knows them",
        _private("ACME 1.0", nested=True)),
)  # fmt: skip
