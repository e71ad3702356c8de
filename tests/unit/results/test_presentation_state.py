"""The presentation state shows the original as the harmonized pixels: by pydicom's look-up tables, not by ours."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread, uid
from pydicom.dataset import FileDataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from dicom_node.display import encode_codes
from dicom_node.header import read_header
from dicom_node.pixels import read_display
from dicom_node.records import Made
from dicom_node.results import identity
from dicom_node.results.presentation_state import make_presentation_state
from dicom_node.settings import Site
from tests import dicom_files
from tests.unit.results.builders import SITE, decision

GREY = ("ModalityLUTSequence", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.dcm"


@pytest.fixture(autouse=True)
def _values_are_odd() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def curve_of(bits: int) -> NDArray[np.float32]:
    """Any curve on the grey codes that is no straight line and does not start in black."""
    share = np.arange(2**bits) / (2**bits - 1)
    return (np.rint((0.1 + 0.8 * share**0.7) * (2**bits - 1)) / (2**bits - 1)).astype(np.float32)


def make(file: Path, site: Site = SITE) -> tuple[Made | None, tuple[str, ...]]:
    image = read_display(file)
    return make_presentation_state(file, image, curve_of(image.bits), decision(file), read_header(file), site)


def state_of(file: Path, site: Site = SITE) -> FileDataset:
    found, notes = make(file, site)
    assert found, notes
    return dcmread(BytesIO(found.content))


def harmonized(file: Path) -> NDArray[np.int64]:
    """The codes that the node would send."""
    image = read_display(file)
    codes = encode_codes(curve_of(image.bits), image.bits)[encode_codes(image.values, image.bits)]
    return np.where(image.padding, 0, codes).astype(np.int64)


def shown(file: Path, state: FileDataset) -> NDArray[np.int64]:
    """The original through the state's tables, as pydicom applies them. Source: PS3.4 N.2."""
    original = dcmread(file)
    words = original.pixel_array
    bits = max(int(original.BitsStored), 8)
    for keyword in GREY:
        if keyword in original:
            delattr(original, keyword)
    original.RescaleSlope, original.RescaleIntercept = state.RescaleSlope, state.RescaleIntercept
    original.VOILUTSequence = state.SoftcopyVOILUTSequence[0].VOILUTSequence
    values = apply_modality_lut(words, original)
    out = apply_voi_lut(values.astype(np.int64), original) / 65535
    out = 1 - out if state.PresentationLUTShape == "INVERSE" else out
    return np.rint(out * (2**bits - 1)).astype(np.int64)


SIGNED = (dicom_files.ramp(bits=12).astype(np.int32) - 2048).astype(np.int16)
SIGNED_16 = (dicom_files.ramp(300, 300, bits=16).astype(np.int32) - 32768).astype(np.int16)
PIPELINES: dict[str, dict[str, Any]] = {
    "plain": {},
    "window": {"WindowCenter": [1000, 5], "WindowWidth": [3000, 5]},
    "sigmoid": {"WindowCenter": 1000, "WindowWidth": 3000, "VOILUTFunction": "SIGMOID"},
    "inverted": {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 1000, "WindowWidth": 3000},
    "inverted twice": {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
    "rescaled": {"RescaleSlope": 2, "RescaleIntercept": -1024, "WindowCenter": 2000, "WindowWidth": 3000},
    "falling": {"RescaleSlope": -1, "RescaleIntercept": 4095},
    "fractional": {"RescaleSlope": 0.1, "RescaleIntercept": -10, "WindowCenter": 200, "WindowWidth": 300},
    "far": {"RescaleSlope": 1, "RescaleIntercept": 70000, "WindowCenter": 72000, "WindowWidth": 3000},
    "modality LUT": {
        "ModalityLUTSequence": dicom_files.lut([0, 10] * 2048, 0, 16),
        "VOILUTSequence": dicom_files.lut(list(range(20)), 0, 5),
    },
    "VOI LUT": {"VOILUTSequence": dicom_files.lut([k * k // 4096 for k in range(4096)], 0, 12)},
    "padding": {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 99, "WindowCenter": 1000, "WindowWidth": 3000},
    "white padding": {"PixelPaddingValue": 4095, "PhotometricInterpretation": "MONOCHROME1"},
    "for processing": {
        "SOPClassUID": uid.DigitalXRayImageStorageForProcessing,
        "PresentationIntentType": "FOR PROCESSING",
        "PixelIntensityRelationship": "LIN",
        "PixelIntensityRelationshipSign": 1,
        "RescaleSlope": 3,
    },
    "signed": {"words": SIGNED, "signed": True, "WindowCenter": 0, "WindowWidth": 3000},
    "signed and rescaled": {"words": SIGNED, "signed": True, "RescaleSlope": 1, "RescaleIntercept": -40000},
    "16 bits": {"words": dicom_files.ramp(300, 300, bits=16), "bits": 16},
    "16 bits, signed": {"words": SIGNED_16, "bits": 16, "signed": True, "WindowCenter": 0, "WindowWidth": 60000},
    "8 bits": {"words": dicom_files.ramp(bits=8).astype(np.uint8), "bits": 8},
}


@pytest.mark.parametrize("name", PIPELINES)
def test_it_shows_exactly_the_harmonized_codes(file: Path, name: str) -> None:
    dicom_files.write(file, dicom_files.dataset("DX", **PIPELINES[name]))
    assert np.array_equal(shown(file, state_of(file)), harmonized(file))


def test_the_rescale_of_the_original_comes_first_where_that_is_exact(file: Path) -> None:
    dicom_files.write(file, dicom_files.dataset("DX", **PIPELINES["rescaled"], RescaleType="OD"))
    state = state_of(file)
    assert (state.RescaleSlope, state.RescaleIntercept, state.RescaleType) == (2, -1024, "OD")
    dicom_files.write(file, dicom_files.dataset("DX", **PIPELINES["fractional"]))
    state = state_of(file)
    assert (state.RescaleSlope, state.RescaleIntercept, state.RescaleType) == (1, 0, "US")


def test_inversion_is_said_once_for_a_viewer_that_looks_at_either(file: Path) -> None:
    dicom_files.write(file, dicom_files.dataset("DX", PhotometricInterpretation="MONOCHROME1"))
    state = state_of(file)
    table = np.frombuffer(state.SoftcopyVOILUTSequence[0].VOILUTSequence[0].LUTData, "<u2")
    assert state.PresentationLUTShape == "INVERSE"
    # From white, where nothing was stored, to black.
    assert 0.1 * 65535 - 20 < table[0] < table[-1] < 0.9 * 65535 + 20


def test_the_same_inputs_give_the_same_bytes(file: Path) -> None:
    dicom_files.write(file, dicom_files.dataset("DX"))
    assert make(file) == make(file)


def test_it_refers_to_the_original_and_to_nothing_else(file: Path) -> None:
    dicom_files.write(file, dicom_files.dataset("MG", ImagerPixelSpacing=[0.1, 0.1]))
    state = state_of(file)
    (series,) = state.ReferencedSeriesSequence
    (image,) = series.ReferencedImageSequence
    assert series.SeriesInstanceUID == "1.2.3.4.9"
    assert (image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID) == (dicom_files.CLASSES["MG"], "1.2.3.4.1")
    assert (state.Modality, state.ContentLabel, state.Laterality) == ("PR", "HARMONIZED", "L")
    area = state.DisplayedAreaSelectionSequence[0]
    assert list(area.DisplayedAreaBottomRightHandCorner) == [48, 32]
    assert list(area.PresentationPixelSpacing) == [0.1, 0.1]
    header, decided = read_header(file), decision(file)
    made_series = identity.result_series_uid(state.SOPClassUID, state.SOPInstanceUID, header, decided)
    assert state.SeriesInstanceUID == made_series != "1.2.3.4.9"
    assert (state.PatientID, state.StudyInstanceUID) == ("P1", "1.2.3.4")


def test_a_change_that_is_no_curve_has_no_state(file: Path) -> None:
    dicom_files.write(file, dicom_files.dataset("DX"))
    decided = decision(file, method="histogram_matching")
    found, notes = make_presentation_state(file, read_display(file), None, decided, read_header(file), SITE)
    assert found is None
    assert notes == ("no presentation state: histogram_matching is no curve of the grey values",)


def test_an_original_without_series_can_not_be_referred_to(file: Path) -> None:
    dicom_files.write(file, dicom_files.dataset("DX", series=""))
    found, notes = make(file)
    assert found is None
    assert "series" in notes[0]


def test_overlays_stay_visible_and_words_are_said(file: Path) -> None:
    original = dicom_files.dataset("DX")
    for part, vr, value in (
        (0x0010, "US", 32),
        (0x0011, "US", 48),
        (0x0040, "CS", "G"),
        (0x0050, "SS", [1, 1]),
        (0x0100, "US", 1),
        (0x0102, "US", 0),
        (0x3000, "OW", bytes(192)),
    ):
        original.add_new((0x6000, part), vr, value)
    original.ShutterShape = "RECTANGULAR"
    original.ShutterLeftVerticalEdge, original.ShutterRightVerticalEdge = 1, 48
    original.ShutterUpperHorizontalEdge, original.ShutterLowerHorizontalEdge = 1, 32
    dicom_files.write(file, original)
    state = state_of(file, SITE.model_copy(update={"visible_label": "NOT ORIGINAL"}))
    layers = {item.GraphicLayer for item in state.GraphicLayerSequence}
    assert state[0x6000, 0x1001].value in layers
    (annotation,) = state.GraphicAnnotationSequence
    assert annotation.GraphicLayer in layers
    assert annotation.TextObjectSequence[0].UnformattedTextValue == "NOT ORIGINAL"
    assert (state.ShutterShape, state.ShutterPresentationValue) == ("RECTANGULAR", 0)


def test_a_shutter_without_all_of_its_edges_hides_nothing(file: Path) -> None:
    dicom_files.write(file, dicom_files.dataset(ShutterShape="CIRCULAR", RadiusOfCircularShutter=9))
    found, notes = make(file)
    assert found
    assert "the display shutter is incomplete in the original and was left out" in notes
    assert not [one.keyword for one in dcmread(BytesIO(found.content)) if "Shutter" in one.keyword]
