"""Our objects before the validators that others trust: dicom3tools, DCMTK and PixelMed."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dicom_node.display import Codes, encode_codes
from dicom_node.errors import Unreadable
from dicom_node.header import read_header
from dicom_node.pixels import read_display
from dicom_node.records import Outcome, Reported, ResultKind
from dicom_node.results.key_object_selection import Flagged, make_key_objects
from dicom_node.results.objects import Harmonization, make_objects
from dicom_node.results.structured_report import make_report
from tests import dicom_files
from tests.peers import orthanc, require, storescu
from tests.unit.results.builders import FIGURES, SITE, decision, reported

# Java 17 refuses PixelMed's style sheet without these.
JAVA = "-Djdk.xml.xpathTotalOpLimit=0 -Djdk.xml.xpathExprGrpLimit=0 -Djdk.xml.xpathExprOpLimit=0"
REPRESENTATIVE = ("GE_Senographe_Essential_MLO", "CR-MONO1-10-chest")
"""The fullest header and the barest one: PixelMed takes ten seconds a report and more under load."""

# One group, so that the results are made once.
pytestmark = [pytest.mark.peers, pytest.mark.data]


def real_files() -> list[Path]:
    found = sorted(dicom_files.DATA.rglob("*.dcm"))
    if not found:
        pytest.skip(f"no X-rays in {dicom_files.DATA}: they are kept beside the project")
    return found


def errors(program: str, *paths: Path) -> list[str]:
    """The lines of a dicom3tools validator that start with Error."""
    done = subprocess.run([program, *map(str, paths)], capture_output=True, check=False, timeout=120)
    return [
        line for line in (done.stdout + done.stderr).decode(errors="replace").splitlines() if line.startswith("Error")
    ]


def pixelmed_errors(path: Path) -> list[str]:
    environment = {**os.environ, "JAVA_TOOL_OPTIONS": JAVA}
    done = subprocess.run(
        ["DicomSRValidator", str(path)], capture_output=True, text=True, check=False, env=environment, timeout=240
    )
    assert "IOD validation complete" in done.stdout, done.stdout[-500:] + done.stderr[-500:]
    return [line for line in done.stdout.splitlines() if line.startswith("Error")]


@dataclass(frozen=True)
class Made:
    """What was made of one real file. codes: its harmonized grey codes before words, None where it is unreadable."""

    source: Path
    paths: dict[ResultKind, Path]
    codes: Codes | None
    bits: int
    notes: tuple[str, ...] = ()


EVERY = tuple(ResultKind)
LABELLED = SITE.model_copy(update={"visible_label": "HARMONIZED - NOT ORIGINAL"})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """For each real file: every object that a route can ask for."""
    folder = tmp_path_factory.mktemp("results")
    return {path.stem: make(path, folder) for path in real_files()}


def make(path: Path, folder: Path) -> Made:
    header, results, notes, codes, bits = read_header(path), (), (), None, 0
    try:
        image = read_display(path)
    except Unreadable as fault:
        decided = decision(path, Outcome.UNREADABLE, reason=str(fault))
        flagged = [Flagged(header=header, state="unreadable", reason=str(fault))]
        results = (make_key_objects(flagged, path, SITE),)
    else:
        bits = image.bits
        curve = (np.arange(image.levels) / (image.levels - 1)).astype(np.float32) ** np.float32(0.9)
        codes = encode_codes(curve, bits)[encode_codes(image.values, bits)]
        of = Harmonization(source=path, header=header, image=image, codes=codes, curve=curve)
        decided, results = make_objects(of, decision(path), EVERY, LABELLED)
        codes, notes = np.where(image.padding, 0, codes), decided.notes
    named = tuple((one.sop_class_uid, one.sop_instance_uid) for one in results)
    one = Reported(source=path, header=header, decision=decided, results=named)
    paths = {}
    for result in (*results, make_report([one], SITE)):
        paths[result.kind] = folder / f"{path.stem}-{result.kind}.dcm"
        paths[result.kind].write_bytes(result.content)
    return Made(path, paths, codes, bits, notes)


def test_every_readable_radiograph_has_every_object_or_says_why_not(made: dict[str, Made]) -> None:
    assert len(made) >= 20
    derived = 0
    for name, one in made.items():
        expected = {ResultKind.STRUCTURED_REPORT}
        if one.codes is None:
            expected |= {ResultKind.KEY_OBJECT_SELECTION}
        else:
            expected |= {ResultKind.SECONDARY_CAPTURE, ResultKind.PRESENTATION_STATE, ResultKind.DERIVED_IMAGE}
            if dicom_files.reread(one.source).SOPClassUID == dicom_files.CLASSES["SC"]:
                assert any("no derived image" in note for note in one.notes), name
                expected -= {ResultKind.DERIVED_IMAGE}
        assert set(one.paths) == expected, name
        derived += ResultKind.DERIVED_IMAGE in one.paths
    assert derived >= 13


def test_dciodvfy_finds_no_error_in_any_object(made: dict[str, Made]) -> None:
    require("dciodvfy")
    found = {path.name: errors("dciodvfy", path) for one in made.values() for path in one.paths.values()}
    assert not {name: lines for name, lines in found.items() if lines}


def test_dcentvfy_finds_each_study_consistent(made: dict[str, Made]) -> None:
    require("dcentvfy")
    for name, one in made.items():
        assert not errors("dcentvfy", *one.paths.values()), name


def test_dcmtk_reads_every_document(made: dict[str, Made]) -> None:
    require("dsrdump")
    said = {ResultKind.STRUCTURED_REPORT: "Outcome of harmonization", ResultKind.KEY_OBJECT_SELECTION: "Quality Issue"}
    for one in made.values():
        for kind in said.keys() & one.paths.keys():
            done = subprocess.run(
                ["dsrdump", str(one.paths[kind])], capture_output=True, text=True, errors="replace", check=False
            )
            assert done.returncode == 0, done.stderr
            assert said[kind] in done.stdout


def test_dcmpschk_passes_every_presentation_state(made: dict[str, Made]) -> None:
    require("dcmpschk")
    states = {name: one for name, one in made.items() if ResultKind.PRESENTATION_STATE in one.paths}
    for name, one in states.items():
        state = one.paths[ResultKind.PRESENTATION_STATE]
        done = subprocess.run(["dcmpschk", str(state)], capture_output=True, text=True, errors="replace", check=False)
        said = done.stdout + done.stderr
        # It wants a patient's name where Patient Name is Type 2; that original states none, and nobody makes one up.
        assert "Test passed" in said or "patientName absent or empty" in said, f"{name}: {said}"
        assert " absent or empty" not in said.replace("patientName absent", ""), f"{name}: {said}"


@pytest.mark.parametrize("name", ["RG2_UNC", "CR-MONO1-10-chest", "highdicom_dx_dog"])
def test_dcmtk_shows_an_original_through_its_state_as_the_harmonized_pixels(
    made: dict[str, Made], name: str, tmp_path: Path
) -> None:
    """MONOCHROME2, MONOCHROME1 and MONOCHROME1 with a shape. Eight bits come out, cut off and not rounded: 1 of 255."""
    require("dcmp2pgm")
    one, shown = made[name], tmp_path / "shown.pgm"
    state = one.paths[ResultKind.PRESENTATION_STATE]
    subprocess.run(["dcmp2pgm", "-p", str(state), str(one.source), str(shown)], capture_output=True, check=False)
    assert one.codes is not None
    expected = one.codes / (2**one.bits - 1) * 255
    with Image.open(shown) as picture:
        assert np.abs(np.asarray(picture) - expected).max() <= 1


def test_orthanc_files_every_object_in_the_study_of_its_original(made: dict[str, Made], tmp_path: Path) -> None:
    one = made["GE_Senographe_Essential_MLO"]
    files = list(one.paths.values())
    with orthanc(tmp_path) as pacs:
        sent = storescu(files, pacs.aet, "127.0.0.1", pacs.port, "-R")
        assert sent.returncode == 0, sent.stderr
        assert len(pacs.instances()) == len(files) == 4
        (study,) = pacs.json("/studies?expand")
        assert study["MainDicomTags"]["StudyInstanceUID"] == dicom_files.reread(one.source).StudyInstanceUID
        series = pacs.json("/series?expand")
        assert sorted(one["MainDicomTags"]["Modality"] for one in series) == ["MG", "MG", "PR", "SR"]


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_pixelmed_finds_no_error_in_a_report_of_one_image(made: dict[str, Made], name: str) -> None:
    require("DicomSRValidator")
    assert not pixelmed_errors(made[name].paths[ResultKind.STRUCTURED_REPORT])


def test_pixelmed_finds_no_error_in_a_selection(made: dict[str, Made]) -> None:
    require("DicomSRValidator")
    selections = [one.paths[ResultKind.KEY_OBJECT_SELECTION] for one in made.values() if one.codes is None]
    assert not pixelmed_errors(selections[0])


def test_a_batch_of_every_outcome_is_valid_for_all(tmp_path: Path) -> None:
    require("DicomSRValidator", "dciodvfy")
    instances = []
    for number, outcome in enumerate(Outcome, start=1):
        ds = dicom_files.dataset(instance=f"1.2.3.4.{number}", PatientName="Jérôme^Zoé")
        if outcome is Outcome.PASSED:
            ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.104.1"
        # PixelMed's time grows with the square of the content, and the full content is judged in the images above.
        less = {} if outcome is Outcome.REFUSED else {"tried": (), "figures": FIGURES[:1], "alignment": {}}
        instances.append(reported(dicom_files.write(tmp_path / f"{number}.dcm", ds), outcome, **less))
    path = tmp_path / "report.dcm"
    path.write_bytes(make_report(instances, SITE).content)
    assert not errors("dciodvfy", path)
    assert not pixelmed_errors(path)
