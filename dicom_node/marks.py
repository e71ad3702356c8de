"""The marks by which the node's own objects are known again, shared by who writes and who reads them.

Knows no DICOM library, file or network.
"""

from __future__ import annotations

MANUFACTURER = "Evenray"
MODEL = "Evenray"
CODING_SCHEME = "99EVENRAY"
"""Designator of our private codes; "99" starts a private scheme. Source: PS3.16 8.2."""
IMPLEMENTATION_CLASS_UID = "2.25.10656778070656451430798040518011165085"
"""A UUID-derived UID that is ours for good. Source: PS3.7 D.3.3.2, PS3.5 B.2."""
IMPLEMENTATION_VERSION = "EVENRAY_0_1"

HARMONIZED_PREFIX = "Evenray harmonized"
"""Start of the Series Description of every image that the node changed."""
REPORT_PREFIX = "Evenray report"
"""Start of the Series Description of every report."""
KEY_OBJECTS = "Evenray quality control"
"""Series Description of every selection of originals that need a look."""

UID_MARK = 0x4556454E
"""First 32 bits of the UUID in every UID that we make: "EVEN" in ASCII."""


def uid_from_hash(digest: bytes) -> str:
    """A UID of ours from at least 16 bytes of a hash: 2.25 and a version 8 UUID that starts with our mark.

    Version 8 leaves every bit but six to its maker, so the mark costs no conformance and survives whatever a
    PACS coerces or strips: only a changed UID could hide it. 90 bits of the hash are left: a million results a
    year collide about once in a hundred million years.
    Source: PS3.5 B.2 (UUID as UID), RFC 9562 5.8 (version 8), 4.1 (variant).
    """
    if len(digest) < 16:
        raise ValueError(f"a UID needs 16 bytes of a hash, not {len(digest)}")
    value = (UID_MARK << 96) | (int.from_bytes(digest[:12], "big"))
    value = value & ~(0xF << 76) | (8 << 76)
    value = value & ~(0x3 << 62) | (2 << 62)
    return f"2.25.{value}"


def is_our_uid(uid: str) -> bool:
    """Whether `uid_from_hash` made this UID (a foreign version 8 UUID does so by chance once in 2**32)."""
    root, _, number = uid.partition("2.25.")
    if root or not number.isascii() or not number.isdigit() or len(number) > 39:
        return False
    value = int(number)
    return value >> 96 == UID_MARK and (value >> 76) & 0xF == 8 and (value >> 62) & 0x3 == 2
