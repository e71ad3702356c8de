"""Stored words to display values, the grey scale chain step by step, and what must be refused."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate, get_frame

from dicom_node.display import encode_codes, pixels_digest
from dicom_node.errors import BadInput, Unreadable
from dicom_node.pictures import read_png, write_png
from dicom_node.pixels import DisplayImage, read_display
from tests import dicom_files

FULL_12 = {"WindowCenter": 2048, "WindowWidth": 4096}
Array = NDArray[Any]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.dcm"


def display(file: Path, *arguments: Any, syntax: str = uid.ExplicitVRLittleEndian, **attributes: Any) -> DisplayImage:
    return read_display(dicom_files.write(file, dicom_files.dataset(*arguments, **attributes), syntax))


def codes_of(image: DisplayImage) -> Array:
    return encode_codes(image.values, image.bits)


LOSSLESS = [
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    "1.2.840.10008.1.2.1.98",
]


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_every_lossless_syntax_gives_the_same_codes(file: Path, syntax: str, bits: int) -> None:
    words: Array = dicom_files.ramp(33, 47, bits=bits)
    words = words.astype(np.uint8) if bits == 8 else words
    window = {"WindowCenter": 2 ** (bits - 1), "WindowWidth": 2**bits}
    image = display(file, "CR", words, bits=bits, syntax=syntax, **window)
    assert np.array_equal(codes_of(image), words)
    assert image.bits == bits


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless, uid.JPEGLSLossless])
def test_signed_words_keep_their_sign_in_every_syntax(file: Path, syntax: str) -> None:
    words = (dicom_files.ramp().astype(np.int32) - 2048).astype(np.int16).view(np.uint16) & 0x0FFF
    image = display(file, "CR", words, signed=True, syntax=syntax, WindowCenter=0, WindowWidth=4096)
    assert np.array_equal(codes_of(image), dicom_files.ramp())


def test_fifteen_bits_in_sixteen_stay_fifteen(file: Path) -> None:
    assert display(file, "CR", dicom_files.ramp(bits=15), bits=15).bits == 15


def test_overlay_bits_above_the_stored_ones_are_ignored(file: Path) -> None:
    image = display(file, "CR", dicom_files.ramp() | 0xF000, **FULL_12)
    assert np.array_equal(codes_of(image), dicom_files.ramp())


def test_a_high_bit_above_the_stored_ones_shifts_them(file: Path) -> None:
    image = display(file, "CR", dicom_files.ramp() << 4, HighBit=15, **FULL_12)
    assert np.array_equal(codes_of(image), dicom_files.ramp())


def test_monochrome1_is_inverted_once_whatever_the_lut_shape_says(file: Path) -> None:
    plain = codes_of(display(file, PhotometricInterpretation="MONOCHROME1", **FULL_12))
    twice = display(file, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE", **FULL_12)
    assert np.array_equal(plain, 4095 - dicom_files.ramp())
    assert np.array_equal(codes_of(twice), plain)


def test_a_contradicting_lut_shape_is_ignored_and_told(file: Path) -> None:
    image = display(file, PresentationLUTShape="INVERSE", **FULL_12)
    assert np.array_equal(codes_of(image), dicom_files.ramp())
    assert any("contradicts" in note for note in image.notes)


def one(file: Path, word: int, **attributes: Any) -> float:
    """Display value of the word among a full ramp."""
    image = display(file, **attributes)
    return float(image.values[dicom_files.ramp() == word][0])


@pytest.mark.parametrize(
    ("function", "center", "width", "word", "expected"),
    [
        # Source: PS3.3 C.11.2.1.2.1, C.11.2.1.3.1, C.11.2.1.3.2, worked by hand.
        ("LINEAR", 2048, 4096, 0, 0.0),
        ("LINEAR", 2048, 4096, 4095, 1.0),
        ("LINEAR", 2048, 1, 4095, 1.0),
        ("LINEAR", 2048, 1, 0, 0.0),
        ("LINEAR_EXACT", 2047.5, 4095, 0, 0.0),
        ("LINEAR_EXACT", 2047.5, 4095, 4095, 1.0),
        ("SIGMOID", 4095, 100, 4095, 0.5),
        ("SIGMOID", 4095, 4095, 0, 1 / (1 + np.exp(4))),
    ],
)
def test_each_window_function_follows_its_formula(
    file: Path, function: str, center: float, width: float, word: int, expected: float
) -> None:
    found = one(file, word, VOILUTFunction=function, WindowCenter=center, WindowWidth=width)
    assert found == pytest.approx(expected, abs=0.51 / 4095)


def test_the_first_of_several_windows_is_taken(file: Path) -> None:
    image = display(file, WindowCenter=[2048, 100], WindowWidth=[4096, 10])
    assert np.array_equal(codes_of(image), dicom_files.ramp())


def test_a_voi_lut_comes_before_a_window(file: Path) -> None:
    falling = list(range(4095, -1, -1))
    image = display(file, VOILUTSequence=dicom_files.lut(falling, 0, 12), WindowCenter=1, WindowWidth=2)
    assert np.array_equal(codes_of(image), 4095 - dicom_files.ramp())


def test_a_lut_of_words_in_big_endian_is_the_same_lut(file: Path) -> None:
    images = []
    for syntax, order in ((uid.ExplicitVRLittleEndian, "<u2"), (uid.ExplicitVRBigEndian, ">u2")):
        table = dicom_files.lut([0], 0, 12)
        table[0].LUTDescriptor = [4096, 0, 12]
        table[0].add_new(0x00283006, "OW", np.arange(4095, -1, -1).astype(order).tobytes())
        images.append(display(file, syntax=syntax, VOILUTSequence=table))
    assert np.array_equal(codes_of(images[0]), codes_of(images[1]))
    assert codes_of(images[0])[0, 0] == 4095


def test_values_outside_a_lut_take_its_ends(file: Path) -> None:
    image = display(file, VOILUTSequence=dicom_files.lut([7, 4000], 2000, 12))
    assert set(np.unique(codes_of(image)).tolist()) == {7, 4000}


def test_the_modality_lut_excludes_the_rescale(file: Path) -> None:
    falling = dicom_files.lut(list(range(4095, -1, -1)), 0, 16)
    image = display(file, ModalityLUTSequence=falling, RescaleSlope=1000, RescaleIntercept=5, **FULL_12)
    assert np.array_equal(codes_of(image), 4095 - dicom_files.ramp())


def test_the_window_is_in_rescaled_units(file: Path) -> None:
    image = display(file, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=3095.5, WindowWidth=8191)
    assert np.array_equal(codes_of(image), dicom_files.ramp())


@pytest.mark.parametrize("attributes", [{}, {"WindowCenter": 5, "WindowWidth": 0}, {"RescaleSlope": 0}])
def test_without_a_usable_window_the_image_fills_the_range(file: Path, attributes: dict[str, Any]) -> None:
    image = display(file, "CR", dicom_files.ramp(bits=10), bits=12, **attributes)
    assert (image.values.min(), image.values.max()) == (0, 1)


def test_padding_is_masked_black_and_out_of_the_range(file: Path) -> None:
    words = dicom_files.ramp(bits=10) + 500
    words[:4] = 4095
    image = display(file, "CR", words, PixelPaddingValue=4095, PhotometricInterpretation="MONOCHROME1")
    assert image.padding[:4].all()
    assert not image.padding[4:].any()
    assert (image.values[:4] == 0).all()
    assert image.values[4:].max() == 1


def test_a_padding_range_masks_both_ends_in_either_order(file: Path) -> None:
    for value, limit in ((0, 100), (100, 0)):
        image = display(file, PixelPaddingValue=value, PixelPaddingRangeLimit=limit)
        assert np.array_equal(image.padding, dicom_files.ramp() <= 100)


def test_padding_over_the_whole_image_is_no_padding(file: Path) -> None:
    image = display(file, PixelPaddingValue=0, PixelPaddingRangeLimit=4095)
    assert not image.padding.any()
    assert image.values.max() == 1


@pytest.mark.parametrize(
    ("attributes", "bright_is_more_exposure"),
    [
        ({"PixelIntensityRelationship": "LIN", "PixelIntensityRelationshipSign": 1}, False),
        ({"PixelIntensityRelationship": "LOG", "PixelIntensityRelationshipSign": -1}, True),
        ({"PhotometricInterpretation": "MONOCHROME1"}, False),
        ({}, True),
    ],
)
def test_for_processing_is_shown_with_bone_white(
    file: Path, attributes: dict[str, Any], bright_is_more_exposure: bool
) -> None:
    image = display(file, "DX", PresentationIntentType="FOR PROCESSING", WindowCenter=1, WindowWidth=1, **attributes)
    rising = float(image.values[-1, -1]) > float(image.values[0, 0])
    assert rising == bright_is_more_exposure
    assert any("for-processing default" in note for note in image.notes)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"PixelSpacing": [0.2, 0.2]}, 0.2),
        ({"ImagerPixelSpacing": [0.2, 0.2], "EstimatedRadiographicMagnificationFactor": 1.25}, 0.16),
        ({"PixelSpacing": [0, 0]}, None),
        ({"PixelSpacing": [0.2, 0.2001]}, 0.20005),
        ({}, None),
    ],
)
def test_the_spacing_is_the_stated_one(file: Path, attributes: dict[str, Any], expected: float | None) -> None:
    found = display(file, **attributes).spacing_mm
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-4))


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"PixelData": None}, "no pixel data"),
        ({"PhotometricInterpretation": "RGB"}, "not a grey radiograph"),
        ({"SamplesPerPixel": 3}, "not a grey radiograph"),
        ({"NumberOfFrames": 2}, "2 frames"),
        ({"PixelSpacing": [0.2, 0.3]}, "not square"),
        ({"PixelAspectRatio": [1, 2]}, "not square"),
        ({"BitsAllocated": 32}, "Bits Allocated 32"),
        ({"BitsStored": 17}, "Bits Stored 17"),
        ({"HighBit": 16}, "High Bit 16"),
        ({"HighBit": 10}, "High Bit 10"),
        ({"Rows": None}, "no image size"),
        ({"Rows": 64}, "cut off"),
    ],
)
def test_what_is_no_single_grey_image_is_unreadable(file: Path, attributes: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        display(file, **attributes)


def test_one_frame_of_a_multi_frame_object_is_an_image(file: Path) -> None:
    assert np.array_equal(codes_of(display(file, NumberOfFrames=1, **FULL_12)), dicom_files.ramp())


def test_a_syntax_without_decoder_is_named(file: Path) -> None:
    ds = dicom_files.dataset()
    whole = dicom_files.content(ds, uid.RLELossless)
    file.write_bytes(whole.replace(b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.1.2.9\0"))
    with pytest.raises(Unreadable, match="no decoder for transfer syntax"):
        read_display(file)


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_file_that_is_cut_off_is_never_half_an_image(file: Path, syntax: str, share: float) -> None:
    noise = np.random.default_rng(1).integers(0, 4096, (64, 64)).astype(np.uint16)
    whole = dicom_files.content(dicom_files.dataset("CR", noise), syntax)
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(Unreadable):
        read_display(file)


@pytest.mark.data
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_no_real_file_that_is_cut_off_is_read(file: Path, share: float) -> None:
    for path in real_files():
        whole = path.read_bytes()
        file.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(Unreadable):
            read_display(file)


@pytest.mark.data
@pytest.mark.parametrize("name", ["rsna/RSNA_009eb222", "wg04/RG2_JPLL", "pylib/RG2_JPLY_fixed", "wg04/RG2_J2KR"])
def test_a_cut_code_stream_with_an_end_marker_is_not_completed(file: Path, name: str) -> None:
    path = dicom_files.DATA / f"{name}.dcm"
    if not path.exists():
        pytest.skip(f"{path} is not here: the public X-rays are kept beside the project")
    ds = dicom_files.reread(path)
    frame = get_frame(ds.PixelData, 0, number_of_frames=1)
    for share in (0.5, 0.99):
        ds.PixelData = encapsulate([frame[: int(len(frame) * share)] + b"\xff\xd9"])
        ds.save_as(file)
        with pytest.raises(Unreadable, match="damaged"):
            read_display(file)


def real_files() -> list[Path]:
    found = sorted(dicom_files.DATA.rglob("*.dcm"))
    if not found:
        pytest.skip(f"no X-rays in {dicom_files.DATA}: they are kept beside the project")
    return found


@pytest.mark.data
def test_all_compressed_copies_of_one_real_image_look_alike() -> None:
    folder = dicom_files.DATA / "wg04"
    if not folder.exists():
        pytest.skip(f"{folder} is not here: the public X-rays are kept beside the project")
    plain = read_display(folder / "RG2_UNC.dcm").values
    for name in ("RG2_J2KR", "RG2_JLSL", "RG2_JPLL", "RG2_RLE"):
        assert np.array_equal(read_display(folder / f"{name}.dcm").values, plain), name
    for name in ("RG2_J2KI", "RG2_JLSN"):
        assert np.abs(read_display(folder / f"{name}.dcm").values - plain).mean() < 0.01, name


@pytest.mark.data
def test_a_scan_that_breaks_jpegs_rules_is_refused_and_its_repaired_copy_read() -> None:
    for path in real_files():
        if path.name in ("RG2_JPLY.dcm", "MG1_JPLY.dcm"):
            with pytest.raises(Unreadable, match="spectral selection"):
                read_display(path)
        else:
            image = read_display(path)
            assert image.values.min() >= 0
            assert image.values.max() <= 1
            assert image.values.std() > 0.05


def test_a_large_image_takes_less_than_a_second_and_a_half(file: Path) -> None:
    words = np.random.default_rng(0).integers(0, 65536, (4664, 3064)).astype(np.uint16)
    dicom_files.write(file, dicom_files.dataset("MG", words, bits=16, PixelPaddingValue=0))
    start = time.process_time()
    read_display(file)
    assert time.process_time() - start < 1.5


@given(st.integers(8, 16), st.data())
def test_codes_survive_the_way_through_float32(bits: int, data: st.DataObject) -> None:
    codes = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=1, max_size=50))
    values = (np.array([codes], np.float64) / (2**bits - 1)).astype(np.float32)
    assert encode_codes(values, bits).tolist() == [codes]


@pytest.mark.parametrize("bits", range(8, 17))
def test_every_code_of_every_depth_survives(bits: int) -> None:
    codes = np.arange(2**bits)
    values = (codes / (2**bits - 1)).astype(np.float32)[None]
    assert np.array_equal(encode_codes(values, bits)[0], codes)
    assert encode_codes(values, bits).dtype == (np.uint8 if bits == 8 else np.uint16)


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan, np.inf])
def test_values_that_are_no_grey_are_not_encoded(bad: float) -> None:
    with pytest.raises(ValueError, match="finite and in"):
        encode_codes(np.full((2, 2), bad, np.float32), 8)


def test_the_pixel_digest_sees_shape_depth_and_value_but_not_byte_order() -> None:
    codes = dicom_files.ramp(4, 6)
    swapped = codes.astype(">u2")
    others = [codes.reshape(6, 4), codes + 1, (codes % 256).astype(np.uint8)]
    assert pixels_digest(swapped) == pixels_digest(codes)
    assert len({pixels_digest(other) for other in [codes, *others]}) == 4


@pytest.mark.parametrize("bits", [8, 16])
def test_a_png_is_read_as_it_was_written(tmp_path: Path, bits: int) -> None:
    values = (dicom_files.ramp(bits=bits).astype(np.float64) / (2**bits - 1)).astype(np.float32)
    write_png(tmp_path / "a.png", values, bits=bits)
    image = read_png(tmp_path / "a.png")
    assert np.array_equal(image.values, values)
    assert (image.bits, image.padding.any()) == (bits, False)


def test_a_colour_or_damaged_picture_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "colour.png")
    with pytest.raises(BadInput, match="save it as greyscale"):
        read_png(tmp_path / "colour.png")
    write_png(tmp_path / "whole.png", np.random.default_rng(0).random((64, 64)).astype(np.float32))
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:3000])
    (tmp_path / "text.png").write_text("no picture")
    for name in ("cut.png", "text.png"):
        with pytest.raises(BadInput, match="no PNG picture"):
            read_png(tmp_path / name)
