"""The phantom study: valid, the same each time, and of nobody."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from dicom_node.demo.study import PATIENT, ROOMS, SEED, make_study
from dicom_node.header import read_header
from dicom_node.pixels import read_display
from engine.phantom import make_phantom
from tests.peers import require

SMALL = (160, 134)


def test_the_same_study_is_written_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first, second = (make_study(tmp_path / name, size=SMALL) for name in ("one", "two"))
    assert [given.path.read_bytes() for given in first] == [given.path.read_bytes() for given in second]


def test_one_study_of_one_invented_patient_with_a_uid_an_image(tmp_path: Path) -> None:
    given = make_study(tmp_path, size=SMALL)
    images = [dcmread(one.path) for one in given]
    assert {str(image.PatientName) for image in images} == {PATIENT}
    assert len({image.StudyInstanceUID for image in images}) == 1
    assert len({image.SeriesInstanceUID for image in images}) == len(ROOMS)
    assert [image.SOPInstanceUID for image in images] == [one.uid for one in given]
    assert len({one.uid for one in given}) == len(ROOMS)
    assert any(image.PhotometricInterpretation == "MONOCHROME1" for image in images)
    assert any(image.file_meta.TransferSyntaxUID.is_compressed for image in images)


def test_the_node_sees_a_chest_radiograph_that_is_not_its_own_work(tmp_path: Path) -> None:
    for given in make_study(tmp_path, size=SMALL):
        header = read_header(given.path)
        assert (header.body_part, header.view, header.made_by_evenray) == ("CHEST", "PA", False)
        assert header.manufacturer == given.name


@pytest.mark.parametrize("number", range(len(ROOMS)))
def test_what_a_viewer_shows_is_what_the_phantom_shows(tmp_path: Path, number: int) -> None:
    given = make_study(tmp_path, size=SMALL)[number]
    phantom = make_phantom(SEED, given.name, SMALL)
    np.testing.assert_allclose(read_display(given.path).values, phantom.shown, atol=1e-6)


@pytest.mark.peers
def test_dciodvfy_finds_no_fault(tmp_path: Path) -> None:
    require("dciodvfy")
    program = shutil.which("dciodvfy") or ""
    for given in make_study(tmp_path, size=SMALL):
        said = subprocess.run([program, str(given.path)], capture_output=True, text=True, check=False).stderr
        assert "Error" not in said
        assert "Warning" not in said
