"""Our objects before the validators that others trust: dicom3tools, DCMTK and PixelMed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dicom_node.display import encode_codes
from dicom_node.errors import Unreadable
from dicom_node.header import read_header
from dicom_node.pixels import read_display
from dicom_node.records import Outcome, Reported
from dicom_node.results.secondary_capture import make_secondary_capture
from dicom_node.results.structured_report import make_report
from tests import dicom_files
from tests.peers import require
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


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """For each real file: a report, and before it an image where it can be decoded."""
    folder, out = tmp_path_factory.mktemp("results"), {}
    for path in real_files():
        header, paths = read_header(path), []
        try:
            image = read_display(path)
        except Unreadable as fault:
            one = reported(path, Outcome.UNREADABLE, reason=str(fault))
        else:
            codes = encode_codes(image.values**0.9, image.bits)
            decided = decision(path)
            result = make_secondary_capture(path, codes, image.bits, decided, header, SITE)
            paths.append(folder / f"{path.stem}-sc.dcm")
            paths[-1].write_bytes(result.content)
            one = Reported(
                source=path,
                header=header,
                decision=decided,
                results=((result.sop_class_uid, result.sop_instance_uid),),
            )
        paths.append(folder / f"{path.stem}-sr.dcm")
        paths[-1].write_bytes(make_report([one], SITE).content)
        out[path.stem] = paths
    return out


def test_dciodvfy_finds_no_error_in_any_image_or_report(made: dict[str, list[Path]]) -> None:
    require("dciodvfy")
    assert len(made) >= 20
    found = {path.name: errors("dciodvfy", path) for paths in made.values() for path in paths}
    assert not {name: lines for name, lines in found.items() if lines}


def test_dcentvfy_finds_each_study_consistent(made: dict[str, list[Path]]) -> None:
    require("dcentvfy")
    for name, paths in made.items():
        assert not errors("dcentvfy", *paths), name


def test_dcmtk_reads_every_report(made: dict[str, list[Path]]) -> None:
    require("dsrdump")
    for paths in made.values():
        done = subprocess.run(
            ["dsrdump", str(paths[-1])], capture_output=True, text=True, errors="replace", check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert "Outcome of harmonization" in done.stdout


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_pixelmed_finds_no_error_in_a_report_of_one_image(made: dict[str, list[Path]], name: str) -> None:
    require("DicomSRValidator")
    assert not pixelmed_errors(made[name][-1])


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
