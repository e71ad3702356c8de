"""Reports from real archives, before real validators, and replayed over every real image."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import Comprehensive3DSRStorage

from dicom_node.records import Outcome, Tried
from dicom_node.results.report_text import parse_report, read_report
from dicom_node.results.structured_report import make_report
from tests import dicom_files
from tests.integration.test_results_validators import errors, pixelmed_errors
from tests.node import archive, node, study, to_archive, uid_of
from tests.peers import LOOPBACK, Orthanc, dcmtk, free_port, orthanc, require, storescu
from tests.unit.commands.running import chest, evenray
from tests.unit.results.builders import SITE, reported

STUDY = "1.2.826.0.1.3680043.10.1.70"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies of our reports, with an image and a report of somebody else in the first."""
    folder = tmp_path_factory.mktemp("reports")
    for number in (1, 2):
        images = [
            chest(folder / f"{number}{n}.dcm", n, study=f"{STUDY}.{number}", instance=f"{STUDY}.{number}.{n}",
                  AccessionNumber=f"A{number}", PatientID=f"P{number}", StudyDate=f"2024020{number}")
            for n in (1, 2)
        ]  # fmt: skip
        told = [reported(images[0]), reported(images[1], Outcome.REFUSED)]
        (folder / f"{number}-report.dcm").write_bytes(make_report(told, SITE).content)
    foreign = dicom_files.dataset(
        study=f"{STUDY}.1", series=f"{STUDY}.1.8", instance=f"{STUDY}.1.9", Modality="SR", PatientID="P1",
        Manufacturer="Other", PixelData=None,
    )  # fmt: skip
    foreign.SOPClassUID = Comprehensive3DSRStorage
    dicom_files.write(folder / "foreign.dcm", foreign)
    return folder


@pytest.fixture(scope="module")
def pacs(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Orthanc, int]]:
    """An Orthanc that holds them, and the port on which it finds us as AUDITOR."""
    port = free_port()
    with orthanc(tmp_path_factory.mktemp("pacs"), node=("AUDITOR", LOOPBACK, port)) as held:
        sent = storescu(sorted(home.glob("*.dcm")), held.aet, LOOPBACK, held.dicom_port, "-R")
        assert sent.returncode == 0, sent.stderr
        assert len(held.uids()) == 7
        yield held, port


def configured(folder: Path, held: Orthanc) -> Path:
    """A site that knows the archive in three ways."""
    dimse = {"kind": "dimse", "ae_title": held.aet, "host": LOOPBACK, "port": held.dicom_port, "calling_ae": "AUDITOR"}
    sources = {
        "get": {**dimse, "method": "get"},
        "move": {**dimse, "method": "move", "move_to": "AUDITOR"},
        "web": {"kind": "dicomweb", "url": f"{held.url}/dicom-web"},
        "gone": {**dimse, "port": free_port()},
    }
    path = folder / "site.yaml"
    path.write_text(json.dumps({"sources": sources}))
    return path


@pytest.mark.peers
@pytest.mark.parametrize("way", ["get", "move", "web"])
def test_reports_are_fetched_from_an_archive_as_they_lie_on_the_disk(
    home: Path, pacs: tuple[Orthanc, int], tmp_path: Path, way: str
) -> None:
    held, port = pacs
    more = ["--port", port] if way == "move" else []
    ran = evenray(
        "audit", "show", "--from", way, "--study", f"{STUDY}.1", *more, "--format", "json",
        "--config", configured(tmp_path, held),
    )  # fmt: skip
    assert ran.code == 0, ran.err
    wanted = evenray("audit", "show", home / "1-report.dcm", "--format", "json")
    assert json.loads(ran.out) == json.loads(wanted.out)
    assert "1 report(s), 2 image(s)" in ran.err


@pytest.mark.peers
@pytest.mark.parametrize(
    ("question", "studies"),
    [
        (["--accession", "A2"], [2]),
        (["--patient", "P1"], [1]),
        (["--date", "20240201-20240202"], [1, 2]),
        (["--date", "20240202"], [2]),
    ],
)
def test_an_archive_is_asked_by_accession_patient_and_date(
    pacs: tuple[Orthanc, int], tmp_path: Path, question: list[str], studies: list[int]
) -> None:
    site = configured(tmp_path, pacs[0])
    ran = evenray("audit", "show", "--from", "get", *question, "--format", "json", "--config", site)
    assert ran.code == 0, ran.err
    rows: list[dict[str, Any]] = json.loads(ran.out)
    assert [row["study"] for row in rows] == [f"{STUDY}.{n}" for n in studies for _ in range(2)]


@pytest.mark.peers
def test_an_archive_that_is_not_there_is_said_in_one_sentence(pacs: tuple[Orthanc, int], tmp_path: Path) -> None:
    site = configured(tmp_path, pacs[0])
    ran = evenray("audit", "show", "--from", "gone", "--study", STUDY, "--config", site)
    assert ran.code == 2
    assert ran.err.startswith("evenray: gone: ")


def test_the_report_of_a_late_image_names_the_earlier_one_and_both_replay(tmp_path: Path) -> None:
    port = free_port()
    early, late = study(tmp_path / "in", f"{STUDY}.3", 2, vendor="Umbra")
    with archive(tmp_path, port) as held, node(tmp_path / "node", to_archive(held.port), port=port) as made:
        made.accept(early)
        made.wait_settled()
        (first,) = made.results("structured_report")
        made.accept(late)
        made.wait_settled()
        assert set(made.outcomes().values()) == {"harmonized"}
        files = {one.sop_instance_uid: one.path for one in held.instances()}
        second = next(uid for uid in made.results("structured_report") if uid != first)
    assert read_report(files[first]).earlier == ""
    assert read_report(files[second]).earlier == first
    assert [row["source_instance"] for row in parse_report(files[second])] == [uid_of(late)]
    named = dcmread(files[second]).PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert named.SeriesInstanceUID == dcmread(files[first]).SeriesInstanceUID
    ran = evenray("audit", "replay", tmp_path / "in", tmp_path / "pacs", "--result", tmp_path / "pacs")
    assert ran.code == 0, ran.said
    assert "2 proved: identical (from the coefficients alone)" in ran.out
    assert not errors("dciodvfy", files[second])


@pytest.mark.peers
@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_report_of_each_outcome_with_all_that_it_can_hold_is_valid(tmp_path: Path, outcome: Outcome) -> None:
    require("DicomSRValidator", "dciodvfy", "dsrdump")
    full = dicom_files.dataset(
        "MG", PatientOrientation=["P", "L"], ImagerPixelSpacing=[0.1, 0.1], PatientName="Jérôme^Zoé"
    )
    # PixelMed's time grows with the square of the content.
    less: dict[str, Any] = {"tried": (Tried(method="fitted_curve", distance=0.3, verified=True, version=1),)}
    one = reported(
        dicom_files.write(tmp_path / "a.dcm", full), outcome, software="torch 2", device="cpu", label="NOT ORIGINAL",
        display_digest="a" * 64, sent_digest="b" * 64, **less,
    )  # fmt: skip
    state = ("1.2.840.10008.5.1.4.1.1.11.1", "1.2.3.98")
    keys = ("1.2.840.10008.5.1.4.1.1.88.59", "1.2.3.99")
    made = (*one.results, state) if outcome is Outcome.HARMONIZED else (keys,)
    one = replace(one, results=made, digests={uid: "d" * 64 for _, uid in made})
    path = tmp_path / "report.dcm"
    path.write_bytes(make_report([one], SITE, earlier="1.2.3.97").content)
    assert not errors("dciodvfy", path)
    assert "SHA-256 of this report's content" in dcmtk("dsrdump", path)
    assert not pixelmed_errors(path)


def real_files() -> list[Path]:
    found = sorted(dicom_files.DATA.rglob("*.dcm"))
    if not found:
        pytest.skip(f"no X-rays in {dicom_files.DATA}: they are kept beside the project")
    return found


@pytest.mark.data
def test_every_real_image_that_was_harmonized_replays_in_one_run(tmp_path: Path) -> None:
    real_files()
    # Another file claims the same UID: the node takes the first, and only one can be an original.
    assert evenray("harmonize", dicom_files.DATA, tmp_path / "out").code in (0, 1)
    rows = [row for path in (tmp_path / "out").rglob("*.dcm") for row in rows_of(path)]
    outcomes = Counter(row["outcome"] for row in rows)
    assert outcomes["harmonized"] >= 2
    ran = evenray("audit", "replay", dicom_files.DATA, tmp_path / "out", "--result", tmp_path / "out")
    assert ran.code == 0, ran.said
    assert f"{outcomes['harmonized']} proved: identical (from the coefficients alone)" in ran.out
    assert f"{len(rows) - outcomes['harmonized']} nothing to make again" in ran.out


def rows_of(path: Path) -> list[dict[str, Any]]:
    return parse_report(path) if dcmread(path, specific_tags=["Modality"]).Modality == "SR" else []


DIGESTS = """
import sys
from pathlib import Path
from dicom_node.display import encode_codes, pixels_digest
from dicom_node.errors import Unreadable
from dicom_node.pixels import read_display
from dicom_node.process import replay_curve
parameters = {f"alpha_{k}": repr((-1) ** k * k / 17) for k in range(1, 9)}
for name in sys.argv[1:]:
    try:
        image = read_display(Path(name))
        changed = replay_curve(image, "fitted_curve", 1, parameters)
    except Unreadable:
        continue
    print(pixels_digest(encode_codes(image.values, image.bits)), pixels_digest(changed))
"""


@pytest.mark.data
def test_every_real_image_decodes_and_changes_alike_on_another_kind_of_processor() -> None:
    files = [str(path) for path in real_files()]
    features: dict[str, bool] = np._core._multiarray_umath.__cpu_features__  # type: ignore[attr-defined]
    newer = ("AVX2", "FMA3", "AVX512F", "AVX512CD", "AVX512_SKX", "AVX512_CLX", "AVX512_CNL", "AVX512_ICL")
    older = {
        **os.environ,
        "ATEN_CPU_CAPABILITY": "default",
        "NPY_DISABLE_CPU_FEATURES": " ".join(name for name in newer if features.get(name)),
    }
    found = [
        subprocess.run(
            [sys.executable, "-c", DIGESTS, *files], env=env, capture_output=True, text=True, check=True, timeout=300
        ).stdout
        for env in (dict(os.environ), older)
    ]
    assert found[0].count("\n") >= 20
    assert found[0] == found[1]
