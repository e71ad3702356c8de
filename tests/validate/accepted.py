"""Warnings of validators that are accepted, each with its reason. An unlisted warning fails the validation.

An error is accepted of one image made for it alone, where the validator is wrong or the original's own fault must be
told as it is.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.validate.validators import Level, Remark


class Accepted(NamedTuple):
    """One kind of remark: who says it, its pattern, why nothing is done about it; and of which image, "" of any."""

    validator: str
    pattern: str
    reason: str
    image: str = ""


ACCEPTED = (
    Accepted(
        "dciodvfy",
        r"Unrecognized defined term <(99EVENRAY|99IHE)> for value 1 of attribute <Coding Scheme Designator>",
        "private concepts have a private scheme, which each object declares; the validator knows the public ones only",
    ),
    Accepted(
        "dciodvfy",
        r"Attribute is not present in standard DICOM IOD - \(0x0018,0x1002\) UI Device UID",
        "Device UID belongs to Contributing Equipment since 2020; the validator's edition is older",
    ),
    Accepted(
        "dciodvfy",
        r"Attribute is not present in standard DICOM IOD - \((0x0018,0x(1164|5101|1114|115e|17|5020)|0x0032)",
        "what the original says beyond its class, or a secondary capture needs to be measured in (spacing, "
        "magnification, view), still holds and is kept: PS3.2 allows a Standard Extended class",
    ),
    Accepted(
        "dciodvfy",
        r"Dicom dataset contains attributes not present in standard DICOM IOD - this is a Standard Extended SOP Class",
        "follows from the attributes above",
    ),
    Accepted(
        "dciodvfy",
        r"Missing attribute or value that would be needed to build DICOMDIR - ",
        "the original states none; the node sends over the network and writes no media",
    ),
    Accepted(
        "dciodvfy",
        r"ViewCodeSequence is empty or absent, but view is known since ViewPosition has a value",
        "the original says its view in View Position alone; no code is made up",
    ),
    Accepted(
        "dciodvfy",
        r"is only permitted to be empty when actually unknown; .* attribute <Laterality>",
        "the original says nothing of the side of a part that may be paired: it is unknown",
    ),
    Accepted(
        "dciodvfy",
        r"Unrecognized defined term <.+> for value 1 of attribute <(Body Part Examined|View Position|Coding Scheme "
        r"Designator)>|CodingSchemeDesignator is deprecated",
        "the original's own word for the body part, the view or a scheme, copied; defined terms may be extended",
    ),
    Accepted(
        "dciodvfy",
        r"Value is zero for value 1 of attribute <(Entrance Dose|Sensitivity)>",
        "the original's own value, copied",
    ),
    Accepted(
        "dciodvfy",
        r"Value dubious for this VR - \(0x[0-9a-f]{4},0x[0-9a-f]{4}\) PN .* - Retired Person Name form",
        "the original's own name, copied: a name without a caret is still a name",
    ),
    Accepted(
        "dcmpschk",
        r"^patientName absent or empty in presentation state",
        "the original names no patient; the name is of type 2 (PS3.3 C.7.1.1), so it may be empty",
    ),
    Accepted(
        "dsrdump",
        r"The VR checker does not support this Specific Character Set|Reading unknown/unsupported SpecificCharacterSet",
        "this DCMTK checks values in few character sets only; the texts are compared with the original's by a test",
    ),
    Accepted(
        "dsrdump",
        r"W: Check for template constraints not yet supported",
        "DCMTK knows no template of key objects; PixelMed's validator does",
    ),
    Accepted(
        "dcentvfy",
        r"Different information entities for attribute - Element=<AccessionNumber> IE <Series> versus <Study>",
        "the validator's own tables put Accession Number in two places; the values are the same",
    ),
    Accepted(
        "dcentvfy",
        r"Attribute present in one instance but not the other - Element=<AdditionalPatientHistory> IE=<Study>",
        "optional of the study: a derived image keeps all of its original, the others what their classes are about",
    ),
    Accepted(
        "DicomSRValidator",
        r"\(122405,DCM,\"Algorithm Manufacturer\"\): Content Item not in template",
        "TID 4019 has this item since 2019; the validator's edition is older",
    ),
    Accepted(
        "DicomSRValidator",
        r"99EVENRAY.*: Content Item not in template",
        "TID 1501 is extensible: what an audit needs beyond it is text under declared private concepts",
    ),
)
BACKSLASH = "0x5C is the second byte of a character here, and PS3.5 6.1.2.3 forbids to take it for a separator"
C1 = "bytes from 0x80 to 0x9F are parts of UTF-8 characters, not control characters"
GROUPS = "64 characters hold for each of the three groups of a name (PS3.5 6.2), not for all together"
GBK = "GBK is a character set since 2012 (PS3.3 C.12.1.1.2), which the validator does not know"
OWN_UID = "the original's own UID breaks the rules, and a result must name it as it is"
FAULTS = (
    *(Accepted(validator, "Patient'?s? ?Name|patientName|Study ?Description|invalid data values", BACKSLASH, image)
      for image in ("gb18030_backslash", "japanese_backslash") for validator in ("dciodvfy", "dcmpschk", "dsrdump")),
    *(Accepted("dcmpschk", "Attribute value does not conform to data type definition", C1, image)
      for image in ("utf_8", "chinese_escaped_charset")),
    Accepted("dciodvfy", "Patient's Name .* expected <= 64|Patient's Name .*dubious|invalid data values", GROUPS,
             "name_at_the_limit"),
    Accepted("dcmpschk", "Value Length too large", GROUPS, "name_at_the_limit"),
    Accepted("dciodvfy", "Character invalid for character repertoire|invalid data values", GBK, "gbk"),
    *(Accepted(validator, pattern, OWN_UID, "uid_with_leading_zero") for validator, pattern in (
        ("dciodvfy", "Leading zeroes in embedded numeric component|invalid data values"),
        ("dcmpschk", "ReferencedSOPInstanceUID"),
        ("dsrdump", "invalid/incomplete content item|ReferencedSOPInstanceUID|Invalid Value|printed no content"),
    )),
)  # fmt: skip
"""Errors, each of one image."""


def reason_for(validator: str, image: str, remark: Remark) -> str:
    """Why a remark is accepted, "" where it is not."""
    for one in (*FAULTS, *ACCEPTED):
        mine = one.image == image if one.image else remark.level is Level.WARNING
        if mine and one.validator == validator and re.search(one.pattern, remark.text):
            return one.reason
    return ""
