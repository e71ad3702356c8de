"""`evenray audit show` and `evenray audit replay` on files: every report is read or said, every number is shown."""

from __future__ import annotations

import csv
import json
import shutil
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydicom import dcmread, dcmwrite

from dicom_node.header import read_header
from dicom_node.results.report_text import parse_report
from tests import dicom_files
from tests.unit.commands.running import HARD, NAME, OTHER, PREFERRED, ROUTE, chest, chests, config, evenray

FAR, NEAR = "1.2.3.4.503.1", f"1.2.3.4.{sum(PREFERRED.encode())}.1"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Originals in `in`, one of each outcome, and what was made of them in `out`."""
    folder = tmp_path_factory.mktemp("site")
    settings = config(folder, ROUTE)
    preferred = chests(folder / "preferred", [1, 2, 3], PREFERRED)
    assert evenray("references", "add", "site", *preferred, "-c", settings).code == 0
    chest(folder / "in" / "a" / "near.dcm", 4, PREFERRED)
    chest(folder / "in" / "a" / "far.dcm", 4, OTHER)
    chest(folder / "in" / "hard.dcm", 4, HARD)
    done = evenray("harmonize", folder / "in", folder / "out", "-c", settings, "--bank", "site")
    assert done.code == 0, done.said
    return folder


def reports(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*.dcm")) if dcmread(p, specific_tags=["Modality"]).Modality == "SR"]


def of(folder: Path, instance: str) -> Path:
    (found,) = [p for p in reports(folder) if parse_report(p)[0]["source_instance"] == instance]
    return found


def flip(path: Path, target: Path, before: bytes, after: bytes) -> Path:
    content = path.read_bytes()
    assert content.count(before) == 1
    target.write_bytes(content.replace(before, after))
    return target


def test_the_table_has_a_row_for_every_image_and_names_no_patient(home: Path) -> None:
    ran = evenray("audit", "show", home / "out")
    assert ran.code == 0, ran.err
    assert "3 report(s), 3 image(s), 2 other file(s) skipped" in ran.err, "the image made, and report.json"
    for word in ("harmonized", "conforming", "refused", "as written", FAR):
        assert word in ran.out
    assert NAME.split("^")[0].lower() not in ran.said.lower()


def test_json_holds_all_that_the_reports_hold_sorted(home: Path) -> None:
    ran = evenray("audit", "show", home / "out", "--format", "json")
    rows: list[dict[str, Any]] = json.loads(ran.out)
    assert [row["image"] for row in rows] == sorted(
        parse_report(p)[0]["source_instance"] for p in reports(home / "out")
    )
    shown = next(row for row in rows if row["image"] == FAR)
    (read,) = parse_report(of(home / "out", FAR))
    for key, value in read.items():
        if key not in ("tracking_uid", "source_instance", "source_class"):
            assert shown[key] == value, key
    assert shown["report_whole"] is True
    assert NAME.split("^")[0].lower() not in ran.said.lower()


def test_csv_has_the_same_rows_and_reads_back(home: Path) -> None:
    rows = list(csv.DictReader(StringIO(evenray("audit", "show", home / "out", "--format", "csv").out)))
    wanted = json.loads(evenray("audit", "show", home / "out", "--format", "json").out)
    assert [row["image"] for row in rows] == [row["image"] for row in wanted]
    for row, full in zip(rows, wanted, strict=True):
        assert row["outcome"] == full["outcome"]
        assert json.loads(row["parameters"]) == full["parameters"]
        assert row["distance_before"] == ("" if full["distance_before"] is None else repr(full["distance_before"]))
        assert row["results"] == "\n".join(full["results"])


def test_a_cell_that_a_spreadsheet_would_compute_stays_text(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.dcm"
    report = dcmread(of(home / "out", FAR))
    reason = next(i for i in report.iterall() if i.keyword == "TextValue" and str(i.value).startswith("fitted_curve b"))
    reason.value = "=HYPERLINK()"
    dcmwrite(path, report)
    (row,) = csv.DictReader(StringIO(evenray("audit", "show", path, "--format", "csv").out))
    assert row["reason"] == "'=HYPERLINK()"


def test_foreign_objects_and_reports_are_skipped_and_counted(home: Path, tmp_path: Path) -> None:
    shutil.copy(of(home / "out", FAR), tmp_path / "ours.dcm")
    shutil.copy(home / "in" / "hard.dcm", tmp_path / "image.dcm")
    (tmp_path / "letter.txt").write_text("no DICOM")
    foreign = dicom_files.dataset(Modality="SR", PixelData=None)
    foreign.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.34"
    (tmp_path / "deep" / "er").mkdir(parents=True)
    dicom_files.write(tmp_path / "deep" / "er" / "theirs.dcm", foreign)
    ran = evenray("audit", "show", tmp_path)
    assert ran.code == 0
    assert "1 report(s), 1 image(s), 3 other file(s) skipped" in ran.err


def test_a_report_that_can_not_be_read_is_said_and_the_exit_code_is_1(home: Path, tmp_path: Path) -> None:
    good, cut = of(home / "out", FAR), tmp_path / "cut.dcm"
    shutil.copy(good, tmp_path / "good.dcm")
    cut.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    ran = evenray("audit", "show", tmp_path)
    assert ran.code == 1
    assert FAR in ran.out, "the other one is shown"
    assert f"not read: {cut}" in ran.err or f"not as written: {cut}" in ran.err


def test_a_changed_report_is_shown_and_said(home: Path, tmp_path: Path) -> None:
    good = of(home / "out", FAR)
    (row,) = parse_report(good)
    said = f"alpha_1={row['parameters']['alpha_1']}".encode()
    changed = flip(good, tmp_path / "changed.dcm", said, said[:-1] + bytes([said[-1] ^ 1]))
    ran = evenray("audit", "show", changed)
    assert ran.code == 1
    assert "CHANGED" in ran.out
    assert f"not as written: {changed}: it was changed" in ran.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say where the reports are"),
        (["x", "--from", "pacs"], "say where the reports are"),
        (["in", "--study", "1.2"], "name it with --from"),
        (["in", "--format", "xml"], "choose table, csv, json"),
        (["nowhere"], "no such file or folder"),
        (["in"], "there is no report of Evenray among them"),
        (["--from", "pacs", "--study", "1.2"], "no source is called 'pacs'"),
    ],
)
def test_wrong_use_is_one_sentence(
    home: Path, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    ran = evenray("audit", "show", *arguments)
    assert ran.code == 2
    assert said in ran.err
    assert ran.err.strip().splitlines()[-1].startswith("evenray: ")


def test_a_folder_is_replayed_in_one_go(home: Path) -> None:
    ran = evenray("audit", "replay", home / "in", home / "out", "--result", home / "out")
    assert ran.code == 0, ran.said
    assert "1 proved: identical (from the coefficients alone)" in ran.out
    assert "2 nothing to make again" in ran.out
    assert NAME.split("^")[0].lower() not in ran.said.lower()


def test_every_object_that_was_made_of_an_image_is_looked_at(home: Path, tmp_path: Path) -> None:
    settings = config(
        tmp_path, "routes: [{name: all, objects: [secondary_capture, derived_image, presentation_state]}]"
    )
    full = {"ImagerPixelSpacing": [0.2, 0.2], "PatientOrientation": ["L", "F"]}
    original, out = chest(tmp_path / "in" / "far.dcm", 4, OTHER, **full), tmp_path / "out"
    assert evenray("references", "add", "site", *sorted((home / "preferred").iterdir()), "-c", settings).code == 0
    assert evenray("harmonize", original, out, "-c", settings, "--bank", "site").code == 0
    report = of(out, FAR)
    (row,) = parse_report(report)
    assert len(row["results"]) == 3
    assert evenray("audit", "replay", original, report, "--result", out).code == 0
    for result in row["results"]:
        path = report.parent / f"{result}.dcm"
        content = path.read_bytes()
        path.write_bytes(content[:-2] + bytes([content[-2] ^ 1, content[-1]]))
        ran = evenray("audit", "replay", original, report, "--result", out)
        path.write_bytes(content)
        assert ran.code == 1, ran.said
        assert "NOT REPRODUCED" in ran.out


def test_a_replay_needs_no_configuration_no_bank_and_no_state(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = home / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    ran = evenray("audit", "replay", home / "in" / "a" / "far.dcm", of(home / "out", FAR))
    assert ran.code == 0, ran.said
    assert list(empty.iterdir()) == []


def test_a_changed_original_is_not_reproduced_and_its_pictures_are_written(home: Path, tmp_path: Path) -> None:
    original = home / "in" / "a" / "far.dcm"
    content = bytearray(original.read_bytes())
    content[-4096] ^= 0x10
    (tmp_path / "far.dcm").write_bytes(content)
    header = read_header(tmp_path / "far.dcm")
    report = of(home / "out", FAR)
    (row,) = parse_report(report)
    result = report.parent / f"{row['results'][0]}.dcm"
    out = tmp_path / "pictures"
    ran = evenray("audit", "replay", tmp_path / "far.dcm", report, "--result", result, "--out", out)
    assert ran.code == 1
    assert "NOT REPRODUCED" in ran.out
    assert "the original is not the one reported" in ran.out
    with Image.open(out / f"{FAR}-difference.png") as picture:
        assert picture.size == (header.columns, header.rows)
        assert picture.getextrema() == (0, 255)
        assert sum(picture.histogram()[1:]) == 1, "one pixel was changed"
    assert (out / f"{FAR}-again.png").exists()


def test_an_original_or_a_report_without_its_partner_is_said(home: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(home / "in" / "hard.dcm", tmp_path / "in")
    chest(tmp_path / "in" / "new.dcm", 9)
    ran = evenray("audit", "replay", tmp_path / "in", home / "out")
    assert ran.code == 1
    assert f"not replayed: {FAR}: a report names it, but its original was not given" in ran.err
    new = read_header(tmp_path / "in" / "new.dcm").sop_instance_uid
    assert f"not replayed: {new}: no report given names it" in ran.err


def test_an_original_that_no_report_names_is_no_success(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "in", tmp_path / "in")
    assert evenray("audit", "replay", tmp_path / "in", home / "out").code == 0
    chest(tmp_path / "in" / "new.dcm", 9)
    assert evenray("audit", "replay", tmp_path / "in", home / "out").code == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["in", "in"], "no report of Evenray to replay"), (["preferred/none", "out"], "no such file or folder")],
)
def test_a_replay_of_nothing_is_wrong_use(
    home: Path, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    ran = evenray("audit", "replay", *arguments)
    assert ran.code == 2
    assert said in ran.err
