"""The start of a received file: preamble and file meta information. Knows no file and no data set.

Source: PS3.10 7.1. Built here, since it is written for every object that arrives, before its first byte.
"""

from __future__ import annotations

import struct

from dicom_node.marks import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION

_SHORT = struct.Struct("<HH2sH")
"""Tag, VR and length of most elements. Source: PS3.5 table 7.1-2."""


def file_header(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Everything of a Part 10 file before its data set. UIDs are ASCII."""
    meta = b"".join(
        (
            # OB has a reserved field and a long length. Source: PS3.5 table 7.1-1.
            struct.pack("<HH2sxxI", 0x0002, 0x0001, b"OB", 2) + b"\x00\x01",
            _text(0x0002, b"UI", sop_class_uid),
            _text(0x0003, b"UI", sop_instance_uid),
            _text(0x0010, b"UI", transfer_syntax_uid),
            _text(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            _text(0x0013, b"SH", IMPLEMENTATION_VERSION),
        )
    )
    group_length = _SHORT.pack(0x0002, 0x0000, b"UL", 4) + struct.pack("<I", len(meta))
    return bytes(128) + b"DICM" + group_length + meta


def _text(element: int, vr: bytes, value: str) -> bytes:
    raw = value.encode("ascii")
    if len(raw) % 2:
        raw += b"\0" if vr == b"UI" else b" "
    return _SHORT.pack(0x0002, element, vr, len(raw)) + raw
