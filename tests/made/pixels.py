"""Odd images for their pixels: sizes, depths, signs, look-up tables, windows, padding, overlays. Knows no node code."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom import uid
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tests import dicom_files
from tests.made.table import (
    BITS,
    COLUMNS,
    GONE,
    PASSED,
    REFUSED,
    ROWS,
    UNREADABLE,
    Build,
    Odd,
    Words,
    image,
    phantom_words,
    stating,
)

TOP = 2**BITS - 1
SMALLEST = "no side may be under 16"


def _with(change: Any, kind: str = "DX", syntax: str = uid.ExplicitVRLittleEndian, **attributes: Any) -> Build:
    """The plain image, its words changed by a function of them."""
    return lambda name: dicom_files.content(image(name, kind, change(phantom_words()), **attributes), syntax)


def _sized(rows: int, columns: int) -> Build:
    """A part of the picture, or a picture of this size."""

    def build(name: str) -> bytes:
        words = phantom_words(max(rows, 64), max(columns, 64))[:rows, :columns]
        return dicom_files.content(image(name, words=np.ascontiguousarray(words)))

    return build


def _of_bits(bits: int, *, high: int | None = None, eight: bool = False) -> Build:
    """The plain image with other Bits Stored, its words so many more or fewer."""
    high = bits - 1 if high is None else high

    def change(words: Words) -> Words:
        scaled = np.rint(words / TOP * (2**bits - 1)).astype(np.uint16) << (high - bits + 1)
        return scaled.astype(np.uint8) if eight else scaled

    return _with(change, bits=bits, HighBit=high, WindowCenter=2 ** (bits - 1), WindowWidth=2**bits)


def _lut(explained: str, entries: Words, first: int = 0, bits: int = 16) -> Dataset:
    item = Dataset()
    item.add(DataElement(0x00283002, "US", [len(entries) % 65536, first % 65536, bits]))
    item.LUTExplanation = explained
    item.add(DataElement(0x00283006, "US", [int(v) for v in entries]))
    return item


RAMP = np.arange(2**BITS)
VOI = [_lut("NORMAL", RAMP, bits=BITS), _lut("HARDER", np.clip(RAMP * 2 - 2048, 0, TOP), bits=BITS)]


def _modality(*, kind: str = "OD", **more: Any) -> Build:
    """A modality LUT that turns the words round; the image is stored turned round, so that it shows the same."""
    item = _lut("turned", TOP - RAMP)
    item.ModalityLUTType = kind
    rescale = dict.fromkeys(("RescaleIntercept", "RescaleSlope", "RescaleType")) | more
    return _with(lambda words: TOP - words, ModalityLUTSequence=Sequence([item]), **rescale)


def _padded(value: int, **attributes: Any) -> Build:
    """A dark border whose words stand for no image."""

    def change(words: Words) -> Words:
        out = words.copy()
        out[:6] = out[-6:] = value
        out[:, :4] = value
        return out

    return _with(change, PixelPaddingValue=value, **attributes)


def _overlay(*, embedded: bool) -> Build:
    """A circle as overlay: by itself, or in the bit above the stored ones, as before 2004."""

    def build(name: str) -> bytes:
        y, x = np.mgrid[0:ROWS, 0:COLUMNS]
        circle = np.hypot(y - ROWS / 2, x - COLUMNS / 2) < 12
        words = phantom_words()
        ds = image(name, words=words | circle.astype(np.uint16) << BITS if embedded else words)
        for element, vr, value in (
            (0x0010, "US", ROWS), (0x0011, "US", COLUMNS), (0x0040, "CS", "G"), (0x0050, "SS", [1, 1]),
            (0x0100, "US", 16 if embedded else 1), (0x0102, "US", BITS if embedded else 0),
        ):  # fmt: skip
            ds.add(DataElement(0x60000000 + element, vr, value))
        if not embedded:
            ds.add(DataElement(0x60003000, "OW", np.packbits(circle, bitorder="little").tobytes()))
        return dicom_files.content(ds)

    return build


def _colour(photometric: str) -> Build:
    def build(name: str) -> bytes:
        ds = image(name, "SC", (phantom_words() >> 4).astype(np.uint8), bits=8, PhotometricInterpretation=photometric)
        ds.SamplesPerPixel, ds.PlanarConfiguration = 3, 0
        ds.PixelData = np.repeat(np.frombuffer(ds.PixelData, np.uint8), 3).tobytes()
        return dicom_files.content(ds)

    return build


def _palette(name: str) -> bytes:
    ds = image(name, "SC", (phantom_words() >> 4).astype(np.uint8), bits=8, PhotometricInterpretation="PALETTE COLOR")
    for n, colour in enumerate(("Red", "Green", "Blue")):
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(ds, f"{colour}PaletteColorLookupTableData", (np.arange(256, dtype="<u2") * (257 - n)).tobytes())
    return dicom_files.content(ds)


def _frames(stated: int, held: int) -> Build:
    def build(name: str) -> bytes:
        ds = image(name, "SC", NumberOfFrames=stated)
        ds.PixelData = ds.PixelData * held
        return dicom_files.content(ds)

    return build


def _wide_words(name: str) -> bytes:
    ds = image(name, BitsAllocated=32)
    ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype("<u4").tobytes()
    return dicom_files.content(ds)


def _float(name: str) -> bytes:
    ds = image(name)
    ds.FloatPixelData = np.frombuffer(ds.PixelData, "<u2").astype("<f4").tobytes()
    del ds.PixelData
    return dicom_files.content(ds)


def _halved(name: str) -> Dataset:
    ds = image(name)
    ds.PixelData = ds.PixelData[: len(ds.PixelData) // 2]
    return ds


def _longer(name: str) -> Dataset:
    ds = image(name)
    ds.PixelData += bytes(64)
    return ds


def _signed(words: Words) -> Words:
    return (words.astype(np.int32) - 2048).astype(np.int16).view(np.uint16) & 0x0FFF


FOR_PROCESSING: dict[str, Any] = {
    "PresentationIntentType": "FOR PROCESSING",
    "SOPClassUID": uid.DigitalXRayImageStorageForProcessing,
    "PresentationLUTShape": None,
    "WindowCenter": None,
    "WindowWidth": None,
}
AS_12 = {"BitsStored": 12}

PIXELS = (
    # Sizes.
    Odd("one_pixel", "1x1: there is nothing to measure", _sized(1, 1), UNREADABLE, f"1x1 pixels: {SMALLEST}"),
    Odd("one_row", "a single row", _sized(1, 64), UNREADABLE, f"64x1 pixels: {SMALLEST}"),
    Odd("one_column", "a single column", _sized(64, 1), UNREADABLE, f"1x64 pixels: {SMALLEST}"),
    Odd("odd_size", "odd numbers of rows and columns", _sized(81, 65), same=False,
        holds={"Rows": 81, "Columns": 65}),
    Odd("odd_bytes", "an odd number of pixels of one byte: a pad byte follows",
        lambda name: dicom_files.content(image(
            name, words=(phantom_words(81, 65) >> 4).astype(np.uint8), bits=8, WindowCenter=128, WindowWidth=256)),
        same=False, holds={"Rows": 81, "Columns": 65, "BitsAllocated": 8}),
    Odd("very_wide", "sixteen rows of two thousand columns: no curve brings it near a chest", _sized(16, 2000),
        REFUSED, same=False),
    Odd("no_rows", "Rows 0", stating(Rows=0), UNREADABLE, "states no image size"),
    Odd("no_size", "neither Rows nor Columns", stating(Rows=None, Columns=None), UNREADABLE, "states no image size"),
    # Depths.
    *(Odd(f"stored_{bits}", f"{bits} bits stored of 16: the result has as many", _of_bits(bits),
          holds={"BitsStored": bits, "BitsAllocated": 16, "HighBit": bits - 1}) for bits in (10, 12, 14, 15, 16)),
    Odd("stored_8_of_16", "8 bits in words of 16: the result takes 8", _of_bits(8),
        holds={"BitsStored": 8, "BitsAllocated": 8}),
    Odd("stored_8_of_8", "bytes", _of_bits(8, eight=True), holds={"BitsStored": 8, "BitsAllocated": 8}),
    Odd("high_bit_at_the_top", "12 bits stored at the upper end of the word", _of_bits(12, high=15), holds=AS_12),
    Odd("no_high_bit", "no High Bit: the stored bits are the lowest", stating(HighBit=None), holds=AS_12),
    Odd("high_bit_beyond_the_word", "High Bit 27 of 16 bits allocated: the stored bits can't be found",
        stating(HighBit=27), UNREADABLE, "High Bit 27"),
    Odd("high_bit_too_low", "High Bit 7 of 12 bits stored: the stored bits can't be found",
        stating(HighBit=7), UNREADABLE, "High Bit 7"),
    Odd("no_bits_stored", "no Bits Stored: as many as are allocated",
        stating(BitsStored=None, HighBit=None), holds={"BitsStored": 16}),
    Odd("allocated_32", "words of 32 bits", _wide_words, UNREADABLE, "Bits Allocated 32"),
    Odd("allocated_12", "packed words of 12 bits, as before 1993", stating(BitsAllocated=12), UNREADABLE,
        "Bits Allocated 12"),
    Odd("float", "floating point pixels", _float, UNREADABLE, "floating point"),
    # Grey scale.
    Odd("monochrome1", "stored with the dark side high: the result is MONOCHROME2 and shows the same",
        _with(lambda words: TOP - words, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE"),
        read=("MONOCHROME1 inverted",), holds={"PhotometricInterpretation": "MONOCHROME2"}),
    Odd("monochrome1_identity", "MONOCHROME1 whose LUT shape contradicts it: shown as MONOCHROME1, and said so",
        _with(lambda words: TOP - words, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="IDENTITY"),
        read=("contradicts MONOCHROME1",)),
    Odd("no_photometric", "nothing says which end is white", stating(PhotometricInterpretation=None), UNREADABLE,
        "no photometric interpretation"),
    Odd("signed", "signed words with a rescale that lifts them to 0",
        _with(_signed, signed=True, RescaleIntercept=2048), read=("rescale slope 1 intercept 2048",),
        holds={"PixelRepresentation": 0}),
    Odd("negative_rescale", "signed words, a falling rescale and a window below zero",
        _with(lambda words: _signed(TOP - words), signed=True, RescaleSlope=-1, RescaleIntercept=-4096,
              WindowCenter=-4096 + 1), read=("rescale slope -1",)),
    Odd("modality_lut", "a modality LUT sequence in place of a rescale", _modality(), read=("modality LUT sequence",)),
    Odd("modality_lut_and_rescale", "a rescale beside it, which it excludes: the sequence counts",
        _modality(RescaleSlope=3, RescaleIntercept=-7), read=("modality LUT sequence",)),
    Odd("voi_lut_sequence", "two explained VOI LUTs and a window: the first LUT is what a viewer starts with",
        stating(VOILUTSequence=VOI, WindowCenter=1000, WindowWidth=200), read=("VOI LUT 1 of 2",)),
    Odd("several_windows", "three explained windows: the first",
        stating(WindowCenter=[2048, 1000, 3000], WindowWidth=[4096, 500, 100],
                WindowCenterWidthExplanation=["NORMAL", "LUNG", "BONE"]), read=("window 2048/4096 LINEAR (1 of 3)",)),
    Odd("sigmoid", "a sigmoid window", stating(VOILUTFunction="SIGMOID"), read=("SIGMOID",), same=False),
    Odd("linear_exact", "a window of LINEAR_EXACT",
        stating(VOILUTFunction="LINEAR_EXACT", WindowCenter=2047.5, WindowWidth=4095), read=("LINEAR_EXACT",)),
    Odd("unknown_voi_function", "a VOI LUT function that nobody defined: the image fills the grey range",
        stating(VOILUTFunction="LOGISTIC"), read=("full range",), same=False),
    Odd("no_window", "no window at all: the image fills the grey range", stating(WindowCenter=None, WindowWidth=None),
        read=("no window: full range",), same=False),
    Odd("for_processing_linear", "detector values: logarithm and window are ours, and said so",
        _with(lambda words: np.rint(60000 * np.exp(words / TOP * -5)).astype(np.uint16), bits=16,
              **FOR_PROCESSING | {"PixelIntensityRelationship": "LIN", "PixelIntensityRelationshipSign": 1}),
        read=("for-processing default: logarithm, inversion",), same=False),
    Odd("for_processing_log", "detector values whose logarithm was taken",
        stating(**FOR_PROCESSING), read=("for-processing default: window",), same=False),
    # Padding and overlays.
    Odd("padding", "padding around the image: black, and no part of it", _padded(0), same=False,
        read=("pixel padding 0 masked",)),
    Odd("padding_range", "padding between a value and a limit", _padded(0, PixelPaddingRangeLimit=5), same=False,
        read=("pixel padding 0 to 5 masked",)),
    Odd("padding_everywhere", "padding that would cover the whole image: none", stating(
        PixelPaddingValue=0, PixelPaddingRangeLimit=TOP), read=("pixel padding ignored",)),
    Odd("overlay", "a drawing in a plane of its own: not in the result, whose pixels it is not",
        _overlay(embedded=False), holds={"60003000": GONE}),
    Odd("overlay_in_the_high_bits", "a drawing in the unused bits: not in the result's pixels",
        _overlay(embedded=True), holds=AS_12),
    # Geometry.
    Odd("aspect_square", "Pixel Aspect Ratio 1:1", stating(PixelAspectRatio=[1, 1], PixelSpacing=None,
        ImagerPixelSpacing=None)),
    Odd("aspect_nearly_square", "Pixel Aspect Ratio 200:199: under one per cent is a vendor's rounding, and is kept",
        stating("CR", PixelAspectRatio=[200, 199], PixelSpacing=None), holds={"PixelAspectRatio": [200, 199]}),
    Odd("aspect_oblong", "Pixel Aspect Ratio 2:1: measures along and across would differ",
        stating("CR", PixelAspectRatio=[2, 1], PixelSpacing=None), UNREADABLE, "not square .PixelAspectRatio 2 by 1"),
    Odd("spacing_oblong", "pixels of 0.2 by 0.1 mm", stating(PixelSpacing=[0.2, 0.1]), UNREADABLE, "not square"),
    Odd("magnified", "spacing at the detector and a magnification: both are kept",
        stating(PixelSpacing=None, ImagerPixelSpacing=[0.2, 0.2], EstimatedRadiographicMagnificationFactor="1.25"),
        holds={"ImagerPixelSpacing": [0.2, 0.2], "EstimatedRadiographicMagnificationFactor": 1.25,
               "PixelSpacing": GONE}),
    Odd("calibrated", "spacing calibrated by an object in the image",
        stating(PixelSpacing=[0.18, 0.18], ImagerPixelSpacing=[0.2, 0.2], PixelSpacingCalibrationType="FIDUCIAL",
                PixelSpacingCalibrationDescription="a coin"),
        holds={"PixelSpacing": [0.18, 0.18], "PixelSpacingCalibrationType": "FIDUCIAL"}),
    # What is no single grey picture.
    Odd("several_frames", "two frames: a radiograph has one", _frames(2, 2), PASSED, "2 frames"),
    Odd("one_frame", "a multi-frame attribute that says one", _frames(1, 1)),
    Odd("rgb", "colour", _colour("RGB"), PASSED, "a colour image"),
    Odd("ybr", "colour as brightness and two differences", _colour("YBR_FULL"), PASSED, "a colour image"),
    Odd("palette", "colour by a palette", _palette, PASSED, "a colour image"),
    # Pixel data.
    Odd("no_pixel_data", "no pixel data at all: not an image", stating(PixelData=None), PASSED, "not an image"),
    Odd("empty_pixel_data", "pixel data without a byte", stating(PixelData=b""), UNREADABLE, "cut off"),
    Odd("cut_pixel_data", "half of the pixel data", lambda name: dicom_files.content(_halved(name)), UNREADABLE,
        "cut off: 5120 of 10240 bytes"),
    Odd("more_pixel_data", "bytes behind the picture",
        lambda name: dicom_files.content(_longer(name))),
    Odd("black", "every pixel 0: there is nothing to harmonize", _with(np.zeros_like), REFUSED, "", same=False),
    Odd("white", "every pixel at the top", _with(lambda words: np.full_like(words, TOP)), REFUSED, "", same=False),
    # Compression.
    Odd("rle", "RLE", _with(lambda w: w, syntax=uid.RLELossless), read=("pylibjpeg-rle",),
        holds={"LossyImageCompression": "00"}),
    Odd("jpeg_ls", "JPEG-LS", _with(lambda w: w, syntax=uid.JPEGLSLossless), read=("charls",)),
    Odd("jpeg_ls_near", "JPEG-LS near-lossless that says nothing of a loss: the result says it",
        _with(lambda w: w, "CR", uid.JPEGLSNearLossless), read=("charls",), same=False,
        holds={"LossyImageCompression": "01", "LossyImageCompressionMethod": "ISO_14495_1"}),
    Odd("jpeg_2000", "JPEG 2000", _with(lambda w: w, syntax=uid.JPEG2000Lossless), read=("openjpeg",)),
)  # fmt: skip
