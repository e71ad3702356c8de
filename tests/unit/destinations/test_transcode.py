"""Decompression for peers that can't: the same pixel values and UID, or a refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from openjpeg.utils import encode_array
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicom_node.destinations.transcode import transcode
from dicom_node.errors import Unreadable
from tests.peers import dcmtk
from tests.unit.destinations.objects import parcel, pixels_of

TARGETS = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", [RLELossless, JPEGLSLossless, JPEG2000Lossless, ExplicitVRBigEndian])
def test_the_pixels_and_the_uid_stay(tmp_path: Path, source: str, target: str) -> None:
    sent = parcel(tmp_path, "1.2.3", source)
    transcode(sent.path, tmp_path / "out.dcm", target)
    got = dcmread(tmp_path / "out.dcm")
    assert got.SOPInstanceUID == got.file_meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert got.file_meta.TransferSyntaxUID == target
    assert np.array_equal(got.pixel_array, pixels_of(sent.path))
    assert "LossyImageCompression" not in got


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("allocated", "stored"), [(8, 8), (16, 10), (16, 12), (16, 16)])
def test_every_depth_and_sign_comes_out_as_it_went_in(
    tmp_path: Path, allocated: int, stored: int, signed: bool
) -> None:
    sent = parcel(tmp_path, "1.2.3")
    low, high = (-(1 << stored - 1), 1 << stored - 1) if signed else (0, 1 << stored)
    kind = np.dtype(f"{'i' if signed else 'u'}{allocated // 8}")
    pixels = np.random.default_rng(stored).integers(low, high, (41, 43)).astype(kind)
    pixels[0, :2] = low, high - 1
    dataset = dcmread(sent.path)
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, stored, stored - 1
    dataset.PixelRepresentation = int(signed)
    dataset.PixelData = encapsulate([bytes(encode_array(pixels, bits_stored=stored, codec_format=0))])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.save_as(sent.path)
    transcode(sent.path, tmp_path / "out.dcm", ExplicitVRLittleEndian)
    assert np.array_equal(pixels_of(tmp_path / "out.dcm"), pixels)


@pytest.mark.peers
@pytest.mark.parametrize("size", [33, 512])
@pytest.mark.parametrize("process", [["+e1"], *(["+el", "+sv", str(n)] for n in range(1, 8))], ids=" ".join)
def test_jpeg_lossless_of_dcmtk_keeps_every_value(process: list[str], size: int, tmp_path: Path) -> None:
    sent = parcel(tmp_path, "1.2.3", size=size)
    dcmtk("dcmcjpeg", *process, sent.path, tmp_path / "jpeg.dcm")
    transcode(tmp_path / "jpeg.dcm", tmp_path / "out.dcm", ExplicitVRLittleEndian)
    assert np.array_equal(pixels_of(tmp_path / "out.dcm"), pixels_of(sent.path))


@pytest.mark.peers
def test_twelve_bit_jpeg_comes_out_as_dcmtk_decodes_it_and_says_that_it_was_lossy(tmp_path: Path) -> None:
    sent = parcel(tmp_path, "1.2.3", size=64)
    dcmtk("dcmcjpeg", "+ee", sent.path, tmp_path / "jpeg.dcm")
    lossy = dcmread(tmp_path / "jpeg.dcm")
    lossy.pop("LossyImageCompression", None)
    lossy.save_as(tmp_path / "jpeg.dcm")
    transcode(tmp_path / "jpeg.dcm", tmp_path / "out.dcm", ExplicitVRLittleEndian)
    dcmtk("dcmdjpeg", tmp_path / "jpeg.dcm", tmp_path / "reference.dcm")
    assert np.array_equal(pixels_of(tmp_path / "out.dcm"), pixels_of(tmp_path / "reference.dcm"))
    assert dcmread(tmp_path / "out.dcm").LossyImageCompression == "01"


@pytest.mark.parametrize("name", ["SC_rgb_dcmtk_+eb+cy+s2.dcm", "SC_rgb_rle.dcm", "SC_rgb_small_odd_jpeg.dcm"])
def test_colour_is_not_converted(tmp_path: Path, name: str) -> None:
    source = Path(str(get_testdata_file(name)))
    transcode(source, tmp_path / "out.dcm", ExplicitVRLittleEndian)
    assert np.array_equal(pixel_array(source, raw=True), pixel_array(tmp_path / "out.dcm", raw=True))
    assert not str(dcmread(tmp_path / "out.dcm").PhotometricInterpretation).endswith("422")


@pytest.mark.parametrize("cut", [200, 20])
def test_a_frame_that_is_cut_off_is_refused_and_never_filled_up(tmp_path: Path, cut: int) -> None:
    sent = parcel(tmp_path, "1.2.3", JPEG2000Lossless)
    dataset = dcmread(sent.path)
    dataset.PixelData = dataset.PixelData[:-cut] + b"\0" * cut
    dataset.save_as(sent.path)
    with pytest.raises(Unreadable):
        transcode(sent.path, tmp_path / "out.dcm", ExplicitVRLittleEndian)


def test_big_endian_pixels_of_32_bits_are_refused_because_readers_differ(tmp_path: Path) -> None:
    source = Path(str(get_testdata_file("rtdose_expb_1frame.dcm")))
    with pytest.raises(Unreadable, match="more than 16 bits"):
        transcode(source, tmp_path / "out.dcm", ExplicitVRLittleEndian)
