"""`evenray harmonize`: every file has an outcome, results are written once and alike, inputs are never touched."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from dicom_node.display import pixels_digest
from tests.unit.commands.running import (
    HARD,
    NAME,
    OTHER,
    PREFERRED,
    ROUTE,
    Ran,
    chest,
    chests,
    config,
    evenray,
    picture,
)

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
Folder = dict[str, str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with a bank of three references, and a folder of images to harmonize."""
    folder = tmp_path_factory.mktemp("site")
    settings = config(folder, ROUTE)
    made = evenray("references", "add", "site", *chests(folder / "preferred", [1, 2, 3], PREFERRED), "-c", settings)
    assert made.code == 0, made.err
    chest(folder / "in" / "a" / "near.dcm", 4, PREFERRED)
    chest(folder / "in" / "a" / "far.dcm", 4, OTHER)
    chest(folder / "in" / "hard.dcm", 4, HARD)
    picture(folder / "in" / "b" / "far.png", 4, OTHER, bits=16)
    picture(folder / "in" / "b" / "eight.png", 4, OTHER, bits=8)
    return folder


def run(home: Path, source: Path, target: Path, *more: str) -> Ran:
    return evenray("harmonize", source, target, "-c", home / "evenray.yaml", "--bank", "site", *more)


@pytest.fixture(scope="module")
def done(home: Path) -> tuple[Ran, Path]:
    """The whole folder, harmonized once."""
    before = contents(home / "in")
    ran = run(home, home / "in", home / "out")
    assert contents(home / "in") == before
    return ran, home / "out"


def contents(folder: Path) -> Folder:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def decisions(target: Path) -> dict[str, Any]:
    return {one["file"]: one for one in json.loads((target / "report.json").read_text())}


def test_a_folder_gives_its_results_and_one_report_a_study(home: Path, done: tuple[Ran, Path]) -> None:
    ran, out = done
    assert ran.code == 0, ran.said
    found = decisions(out)
    assert {file: one["decision"]["outcome"] for file, one in found.items()} == {
        "a/far.dcm": "harmonized",
        "a/near.dcm": "conforming",
        "hard.dcm": "refused",
        "b/far.png": "harmonized",
        "b/eight.png": "harmonized",
    }
    objects = [dcmread(p) for p in sorted(out.rglob("*.dcm"))]
    assert sorted(ds.Modality for ds in objects) == ["DX", "SR", "SR", "SR"]
    image = next(ds for ds in objects if ds.Modality == "DX")
    source = dcmread(home / "in" / "a" / "far.dcm")
    assert image.StudyInstanceUID == source.StudyInstanceUID
    assert image.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert found["a/far.dcm"]["written"] == f"{image.StudyInstanceUID}/{image.SOPInstanceUID}.dcm"
    assert NAME.split("^")[0].lower() not in (ran.said + (out / "report.json").read_text()).lower()


def test_the_table_shows_what_the_report_holds(done: tuple[Ran, Path]) -> None:
    ran, out = done
    decision = decisions(out)["a/far.dcm"]["decision"]
    (line,) = [line for line in ran.out.splitlines() if "a/far.dcm" in line]
    assert f"{decision['distance_before']:.2f} → {decision['distance_after']:.2f}" in line
    assert all(word in line for word in ("DX CHEST PA", "fitted_curve", "harmonized"))


def test_the_same_input_twice_gives_the_same_bytes(home: Path, done: tuple[Ran, Path], tmp_path: Path) -> None:
    assert run(home, home / "in", tmp_path / "again").code == 0
    assert contents(tmp_path / "again") == contents(done[1])
    before = contents(tmp_path / "again")
    assert run(home, home / "in", tmp_path / "again").code == 0
    assert contents(tmp_path / "again") == before


EVERY = "[secondary_capture, derived_image, presentation_state, structured_report, key_object_selection]"


def test_every_object_of_a_route_is_written_and_the_words_are_in_the_pixels(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    chest(folder / "far.dcm", 4, OTHER, ImagerPixelSpacing=[0.2, 0.2], PatientOrientation=["L", "F"])
    chest(folder / "hard.dcm", 4, HARD)
    picture(folder / "far.png", 4, OTHER, bits=8)
    settings = config(
        tmp_path,
        f"banks_dir: {home / 'state' / 'banks'}",
        "site: {visible_label: NOT ORIGINAL}",
        f"routes: [{{name: radiographs, objects: {EVERY}}}]",
    )
    ran = evenray("harmonize", folder, tmp_path / "out", "-c", settings, "--bank", "site")
    assert ran.code == 0, ran.said
    assert "2 harmonized image(s), 3 other object(s), 2 DICOM report(s)" in ran.out
    study = dcmread(folder / "far.dcm").StudyInstanceUID
    objects = {ds.SOPClassUID.name: ds for ds in map(dcmread, (tmp_path / "out" / study).iterdir())}
    assert len(objects) == 4
    found = decisions(tmp_path / "out")
    decision = found["far.dcm"]["decision"]
    for name in ("Secondary Capture Image Storage", "Digital X-Ray Image Storage - For Presentation"):
        assert pixels_digest(objects[name].pixel_array) == decision["sent_digest"] != decision["pixels_digest"]
    assert decision["label"] == found["far.png"]["decision"]["label"] == "NOT ORIGINAL"
    assert len([found["far.dcm"]["written"], *found["far.dcm"]["also"]]) == 3
    other = dcmread(folder / "hard.dcm").StudyInstanceUID
    kinds = {ds.Modality for ds in map(dcmread, (tmp_path / "out" / other).iterdir())}
    assert kinds == {"SR", "KO"}
    assert evenray("harmonize", folder, tmp_path / "again", "-c", settings, "--bank", "site").code == 0
    assert contents(tmp_path / "again") == contents(tmp_path / "out")


@pytest.mark.parametrize(("name", "bits"), [("far.png", 16), ("eight.png", 8)])
def test_a_picture_keeps_its_bits_and_its_size_and_changes(
    home: Path, done: tuple[Ran, Path], name: str, bits: int
) -> None:
    source, made_file = home / "in" / "b" / name, done[1] / "b" / name
    with Image.open(made_file) as made, Image.open(source) as original:
        assert (made.mode, made.size) == (original.mode, original.size) == ("I;16" if bits == 16 else "L", (256, 256))
        new, old = np.asarray(made).astype(int), np.asarray(original).astype(int)
    assert not np.array_equal(new, old)
    assert new.max() > 2 ** (bits - 1)
    order = np.argsort(old.ravel(), kind="stable")
    steps = np.diff(old.ravel()[order])
    assert np.all(np.diff(new.ravel()[order])[steps > 0] >= 0), "no two grey values may swap their order"


def test_a_picture_that_is_near_or_refused_is_not_written_and_said_so(home: Path, tmp_path: Path) -> None:
    picture(tmp_path / "in" / "near.png", 4, PREFERRED)
    picture(tmp_path / "in" / "hard.png", 4, HARD)
    ran = run(home, tmp_path / "in", tmp_path / "out")
    assert ran.code == 0
    assert list(contents(tmp_path / "out")) == ["report.json"]
    assert "No image is written where nothing was harmonized" in ran.out
    assert [one["decision"]["outcome"] for one in decisions(tmp_path / "out").values()] == ["refused", "conforming"]


def test_what_is_no_usable_image_is_named_and_the_others_are_done(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    picture(folder / "good.png", 4, OTHER)
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / "colour.png")
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:900])
    (folder / "note.txt").write_text("hello")
    ran = run(home, folder, tmp_path / "out")
    assert ran.code == 1
    found = decisions(tmp_path / "out")
    assert "a RGB picture, needed is grey of 8 or 16 bits: save it as greyscale" in found["colour.png"]["fault"]
    assert "no PNG picture, or a damaged one" in found["cut.png"]["fault"]
    assert "not a" in found["note.txt"]["fault"]
    assert (tmp_path / "out" / "good.png").exists()
    assert all(name in ran.out for name in found)


def test_an_image_whose_pixels_are_damaged_fails_but_is_reported(home: Path, tmp_path: Path) -> None:
    file = chest(tmp_path / "in" / "cut.dcm", 4, OTHER)
    file.write_bytes(file.read_bytes()[:-5000])
    ran = run(home, file, tmp_path / "out")
    assert ran.code == 1
    assert decisions(tmp_path / "out")["cut.dcm"]["decision"]["outcome"] == "unreadable"
    (report,) = (tmp_path / "out").rglob("*.dcm")
    assert dcmread(report).Modality == "SR"
    assert NAME.split("^")[0].lower() not in ran.said.lower()


def test_a_repeat_is_done_once_and_another_object_of_the_same_uid_is_kept_out(home: Path, tmp_path: Path) -> None:
    first = chest(tmp_path / "in" / "1.dcm", 4, PREFERRED)
    (tmp_path / "in" / "2.dcm").write_bytes(first.read_bytes())
    ran = run(home, tmp_path / "in", tmp_path / "out")
    assert ran.code == 0
    assert "the same object as 1.dcm" in ran.out
    chest(tmp_path / "in" / "3.dcm", 4, PREFERRED, SeriesNumber=2)
    ran = run(home, tmp_path / "in", tmp_path / "out")
    assert ran.code == 1
    assert "another object has its SOP Instance UID, 1.dcm" in decisions(tmp_path / "out")["3.dcm"]["fault"]


def test_nothing_that_is_there_is_overwritten(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "far.png").write_text("precious")
    ran = run(home, home / "in" / "b" / "far.png", out)
    assert ran.code == 1
    assert "far.png: something else is there" in decisions(out)["far.png"]["fault"]
    assert decisions(out)["far.png"]["decision"]["outcome"] == "harmonized"
    assert (out / "far.png").read_text() == "precious"
    (out / "report.json").write_text('{"mine": 1}')
    ran = run(home, home / "in" / "b" / "far.png", out)
    assert ran.code == 2
    assert "is no report of ours" in ran.err


@pytest.mark.parametrize("where", ["in", "in/deep", ".", "in/b/far.png"])
def test_a_target_in_or_around_the_source_is_refused(home: Path, where: str) -> None:
    before = contents(home)
    ran = run(home, home / "in", home / where)
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    assert contents(home) == before


def test_a_link_to_the_source_is_no_way_round(home: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(home / "in")
    assert run(home, home / "in", tmp_path / "link").code == 2


def test_unknown_bank_or_method_is_one_sentence_with_what_there_is(home: Path, tmp_path: Path) -> None:
    ran = evenray("harmonize", home / "in", tmp_path / "o", "-c", home / "evenray.yaml", "--bank", "sight")
    assert (ran.code, ran.err) == (2, "evenray: --bank: no bank is called 'sight': known are chest_frontal, site\n")
    ran = run(home, home / "in", tmp_path / "o", "--method", "fited_curve")
    assert (ran.code, ran.err) == (
        2,
        "evenray: --method: no method is called 'fited_curve': did you mean fitted_curve?\n",
    )
    assert not (tmp_path / "o").exists()


def test_a_picture_needs_its_bank_named_where_there_are_several(home: Path, tmp_path: Path) -> None:
    ran = evenray("harmonize", home / "in" / "b", tmp_path / "o", "-c", home / "evenray.yaml")
    assert ran.code == 2
    assert "name its bank with --bank, of chest_frontal, site" in ran.err


def test_the_named_methods_are_the_ones_tried(home: Path, tmp_path: Path) -> None:
    ran = run(home, home / "in" / "a" / "far.dcm", tmp_path / "out", "--method", "histogram_matching")
    assert ran.code in (0, 1)
    (one,) = decisions(tmp_path / "out").values()
    assert [tried["method"] for tried in one["decision"]["tried"]] == ["histogram_matching"]


def test_nothing_to_do_is_exit_code_2(home: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert run(home, tmp_path / "in", tmp_path / "out").code == 2
    (tmp_path / "in" / "note.txt").write_text("hello")
    ran = run(home, tmp_path / "in", tmp_path / "out")
    assert ran.code == 2
    assert "nothing to do: none of 1 file(s)" in ran.err
    assert not (tmp_path / "out").exists()


@pytest.mark.data
def test_a_real_radiograph_is_brought_to_the_embedded_bank(tmp_path: Path) -> None:
    source = DATA / "dicom" / "rsna" / "RSNA_012a5620.dcm"
    if not source.exists():
        pytest.skip(f"no {source}")
    ran = evenray("harmonize", source, tmp_path / "out", "-c", config(tmp_path, ROUTE))
    assert ran.code == 0, ran.said
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 2
