"""Write an object anew in an uncompressed transfer syntax, with the same pixel values and the same UIDs.

Knows no network and why it is needed.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

from dicom_node.codecs import Frame, decode
from dicom_node.errors import Unreadable

FAULTS = (
    InvalidDicomError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom and its decoders raise on damaged bytes; never OSError, which is the disk's fault."""
ALWAYS_LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless)
JPEG_FAMILY = (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes)
PIXEL_DATA = 0x7FE00010
END_MARKER = b"\xff\xd9"
"""End of a JPEG, JPEG-LS or JPEG 2000 code stream. Source: ITU-T T.81 B.1.1.3, T.87 C.1, T.800 A.4.4."""
TAIL = 16
"""Bytes behind the end marker that writers pad with; the marker can't occur inside coded data."""
WORD_BYTES = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}
"""Bytes of one word in the VRs that are strings of words. Source: PS3.5 table 6.2-1, 7.3."""


def transcode(source: Path, target: Path, transfer_syntax_uid: str) -> None:
    """Decode the file `source` and write it to `target` in an uncompressed little endian transfer syntax.

    The stored pixel values and the SOP Instance UID stay, also where the values came from a lossy compression;
    Lossy Image Compression then says so, as the transfer syntax no longer does (PS3.3 C.7.6.1.1.5).
    Raises Unreadable where the pixels can't be decoded, OSError where the disk fails.
    """
    try:
        # Originals break rules in ways that are none of our business here: they are passed on as they are.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            dataset = dcmread(source)
            _decode(dataset)
            dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
            dataset.save_as(target, enforce_file_format=True)
    except FAULTS as exc:
        # Not its text: the library quotes values, which may be a patient's.
        raise Unreadable(f"{type(exc).__name__} while it was decoded") from exc


def _decode(dataset: FileDataset) -> None:
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated and "PixelData" in dataset:
        if dataset.get("SamplesPerPixel", 1) == 1 and dataset.get("BitsAllocated") in (8, 16):
            _decode_grey(dataset)
        else:
            _decode_colour(dataset)
        if syntax in ALWAYS_LOSSY and not dataset.get("LossyImageCompression"):
            dataset.LossyImageCompression = "01"
    if not syntax.is_little_endian:
        if "PixelData" in dataset and int(dataset.get("BitsAllocated") or 0) > 16:
            # PS3.5 8.1.1 orders the bytes of 16-bit words only; DCMTK and pydicom read longer cells differently.
            raise Unreadable("big endian pixels of more than 16 bits have no one reading")
        for element in _words(dataset):
            element.value = np.frombuffer(element.value, f">u{WORD_BYTES[element.VR]}").byteswap().tobytes()
        # Every value has been decoded by now; the library would refuse to write what it believes is big endian.
        dataset.set_original_encoding(False, True)


def _decode_grey(dataset: FileDataset) -> None:
    """By our own decoders, which refuse damaged frames and know every syntax that the node receives."""
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    signed = dataset.get("PixelRepresentation") == 1
    frames = []
    for data in generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1)):
        words, _ = decode(
            Frame(
                data=data,
                syntax=str(dataset.file_meta.TransferSyntaxUID),
                rows=int(dataset.Rows),
                columns=int(dataset.Columns),
                bits_allocated=allocated,
                bits_stored=stored,
                signed=signed,
            )
        )
        values = words.astype(np.uint16) & ((1 << stored) - 1)
        if signed:
            # Decoded values lie in the low bits without their sign. Source: PS3.5 8.1.1 (two's complement).
            values |= np.where(values >> (stored - 1) & 1, 0xFFFF << stored & 0xFFFF, 0).astype(np.uint16)
        frames.append(values.astype("u1" if allocated == 8 else "<u2").tobytes())
    pixels = b"".join(frames)
    # A new element, because the old one remembers that its length was undefined. Source: PS3.5 A.2 (VR), 8.1.1 (pad).
    dataset[PIXEL_DATA] = DataElement(PIXEL_DATA, "OB" if allocated == 8 else "OW", pixels + b"\0" * (len(pixels) % 2))
    dataset.HighBit = stored - 1
    for offsets in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if offsets in dataset:
            del dataset[offsets]


def _decode_colour(dataset: FileDataset) -> None:
    if dataset.file_meta.TransferSyntaxUID in JPEG_FAMILY:
        _check_ends(dataset)
    # Colour stays in the space it was compressed in, as converting it would round.
    dataset.decompress(as_rgb=False, generate_instance_uid=False)
    if str(dataset.get("PhotometricInterpretation", "")).startswith("YBR_FULL"):
        # Decoders give every pixel its chroma; the library leaves the name of the subsampled form.
        dataset.PhotometricInterpretation = "YBR_FULL"


def _check_ends(dataset: FileDataset) -> None:
    """Refuse a frame that is cut off: some decoders fill what is missing without a word."""
    for frame in generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1)):
        if END_MARKER not in frame[-TAIL:]:
            raise Unreadable("a frame is cut off")


def _words(dataset: Dataset) -> Iterator[DataElement]:
    """The elements, at any depth, whose bytes the library would leave in the old order."""
    for element in dataset.iterall():
        if element.VR in WORD_BYTES and isinstance(element.value, bytes):
            yield element
