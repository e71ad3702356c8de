"""Odd images for the form of their files: syntaxes, missing parts, junk groups, padding. Knows no node code."""

from __future__ import annotations

import struct
from io import BytesIO

from pydicom import uid
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from tests import dicom_files
from tests.made.table import PARKED, UNREADABLE, Build, Odd, image, stating

NOT_A_FILE = "storescu sends Part 10 files only"


def _bare(name: str) -> bytes:
    """An Implicit VR Little Endian data set with nothing before it."""
    buffer = BytesIO()
    image(name).save_as(buffer, implicit_vr=True, little_endian=True, enforce_file_format=False)
    return buffer.getvalue()


def _without_preamble(name: str) -> bytes:
    return dicom_files.content(image(name))[128 + 4 :]


def _wrong_meta_length(name: str) -> bytes:
    """(0002,0000) says one byte; its value lies behind preamble, mark and its own header of 8 bytes."""
    whole = bytearray(dicom_files.content(image(name)))
    whole[140:144] = struct.pack("<I", 1)
    return bytes(whole)


def _with_elements(*elements: tuple[int, str, object]) -> Build:
    def build(name: str) -> bytes:
        ds = image(name)
        for tag, vr, value in elements:
            ds.add(DataElement(tag, vr, value))
        return dicom_files.content(ds)

    return build


def _group_lengths(name: str) -> bytes:
    """A length before every group, retired in 2008; the library would leave them out."""
    ds = image(name)
    buffer = BytesIO()
    for group in sorted({found.tag.group for found in ds}):
        part, held = ds.group_dataset(group), BytesIO()
        part.save_as(held, implicit_vr=False, little_endian=True, enforce_file_format=False)
        buffer.write(struct.pack("<HH2sHI", group, 0, b"UL", 4, len(held.getvalue())) + held.getvalue())
    whole = dicom_files.content(image(name))
    start = whole.index(b"\x08\x00\x08\x00CS")
    return whole[:start] + buffer.getvalue()


def _followed_by(more: bytes) -> Build:
    return lambda name: dicom_files.content(image(name)) + more


def _stating_syntax(stated: str, written: str) -> Build:
    """A file whose File Meta group names another syntax than the one it is written in."""

    def build(name: str) -> bytes:
        whole = dicom_files.content(image(name), written)
        old, new = (f"{one}".encode() for one in (written, stated))
        size = max(len(old) + len(old) % 2, len(new) + len(new) % 2)
        at = whole.index(b"\x02\x00\x10\x00UI")
        length = struct.unpack_from("<H", whole, at + 6)[0]
        value = new.ljust(size, b"\0")
        return whole[: at + 6] + struct.pack("<H", len(value)) + value + whole[at + 8 + length :]

    return build


def _unknown_vr(name: str) -> bytes:
    """Patient's Sex in a VR that nobody defined."""
    whole = dicom_files.content(image(name))
    assert whole.count(b"\x10\x00\x40\x00CS") == 1
    return whole.replace(b"\x10\x00\x40\x00CS", b"\x10\x00\x40\x00ZZ")


def _endless_sequences(name: str) -> bytes:
    """Sequences and items of undefined length, one in the other."""
    ds = image(name)
    inner, outer = Dataset(), Dataset()
    inner.ReferencedSOPClassUID, inner.ReferencedSOPInstanceUID = ds.SOPClassUID, "1.2.3"
    outer.ReferencedSeriesSequence, outer.StudyInstanceUID = [inner], "1.2.3.4"
    ds.StudiesContainingOtherReferencedInstancesSequence = [outer]
    for item in (inner, outer):
        item.is_undefined_length_sequence_item = True
    ds["StudiesContainingOtherReferencedInstancesSequence"].is_undefined_length = True
    outer["ReferencedSeriesSequence"].is_undefined_length = True
    return dicom_files.content(ds)


FILES = (
    Odd("implicit", "Implicit VR Little Endian", stating(syntax=uid.ImplicitVRLittleEndian)),
    Odd("big_endian", "Explicit VR Big Endian, retired in 2006", stating(syntax=uid.ExplicitVRBigEndian)),
    Odd("deflated", "a deflated data set", stating(syntax=uid.DeflatedExplicitVRLittleEndian)),
    Odd("no_meta", "a data set with nothing before it", _bare, unsendable=NOT_A_FILE),
    Odd("no_preamble", "a File Meta group without preamble and mark", _without_preamble, unsendable=NOT_A_FILE),
    Odd("wrong_meta_length", "a File Meta group longer than it says", _wrong_meta_length),
    Odd("group_5", "elements of an odd group below 8, which is nobody's",
        _with_elements((0x00050010, "LO", "JUNK"), (0x00051001, "UN", b"\1\2\3\4"))),
    Odd("group_lengths", "a length before every group", _group_lengths),
    Odd("junk_groups", "elements of groups that no edition knows",
        _with_elements((0x40000010, "LT", "x"), (0x50000005, "US", 1), (0x7FDE0010, "LO", "y"))),
    Odd("trailing_padding", "Data Set Trailing Padding",
        _followed_by(struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, 64) + bytes(64))),
    Odd("trailing_zeros", "zeros behind the data set", _followed_by(bytes(512))),
    Odd("endless_sequences", "sequences without a stated length in one another", _endless_sequences),
    Odd("unknown_vr", "an element of a VR that nobody defined", _unknown_vr),
    Odd("explicit_called_implicit", "the File Meta group names another syntax than the data set is in",
        _stating_syntax(uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian)),
    Odd("implicit_called_explicit", "the same the other way round",
        _stating_syntax(uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian)),
    Odd("private_syntax", "a transfer syntax of the vendor's own",
        _stating_syntax("1.2.826.0.1.3680043.10.543.99", uid.ExplicitVRLittleEndian), UNREADABLE,
        "no decoder for transfer syntax", unsendable="nobody can propose a private syntax"),
    Odd("cut_in_the_header", "a file that ends within its header: it can't even be placed",
        lambda name: dicom_files.content(image(name))[:700], PARKED, "it has no Study Instance UID",
        unsendable="storescu reads it whole"),
)  # fmt: skip
