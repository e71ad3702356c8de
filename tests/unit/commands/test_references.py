"""`evenray references`: what is added is listed, shown and removed; what can't be used is named and changes nothing."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dicom_node.references import Banks
from tests.unit.commands.running import NAME, ROUTE, chest, chests, config, evenray, picture

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    return config(tmp_path, ROUTE)


def bank_file(settings: Path, name: str = "site") -> Path:
    return settings.parent / "state" / "banks" / f"{name}.bank.json"


def shown(settings: Path, name: str = "site") -> dict[str, Any]:
    ran = evenray("references", "show", name, "-c", settings, "--json")
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(ran.out)
    return found


def test_a_bank_is_made_listed_shown_shrunk_and_removed(tmp_path: Path, settings: Path) -> None:
    chests(tmp_path / "in", [1, 2, 3])
    added = evenray("references", "add", "site", tmp_path / "in", "-c", settings, "--provenance", "our best three")
    assert added.code == 0, added.err
    assert "new bank site: 3 added, 3 reference(s), DX CHEST PA" in added.out
    listed = evenray("references", "list", "-c", settings)
    assert "site" in listed.out
    assert "embedded" in listed.out
    facts = shown(settings)
    assert facts["exam"] == {"modalities": ["DX"], "body_part": "CHEST", "views": ["PA"]}
    assert facts["provenance"] == "our best three"
    assert {(r["vendor"], r["view"]) for r in facts["references"]} == {("QUICK", "PA")}
    first = facts["references"][0]["id"]
    removed = evenray("references", "remove", "site", first[:8], "-c", settings)
    assert removed.code == 0
    assert f"removed {first[:12]}" in removed.out
    assert shown(settings)["count"] == 2
    assert shown(settings)["digest"] != facts["digest"]
    assert evenray("references", "remove", "site", "--whole", "-c", settings).code == 0
    assert not bank_file(settings).exists()
    assert evenray("references", "show", "site", "-c", settings).code == 2
    said = [added.said, listed.said, removed.said, json.dumps(facts)]
    assert not [text for text in said if NAME.split("^")[0].lower() in text.lower()]


def test_the_same_images_in_any_order_and_in_steps_give_the_same_bank(tmp_path: Path, settings: Path) -> None:
    files = chests(tmp_path / "in", [1, 2, 3])
    evenray("references", "add", "site", *files, "-c", settings)
    at_once = bank_file(settings).read_bytes()
    bank_file(settings).unlink()
    evenray("references", "add", "site", files[2], files[0], "-c", settings)
    evenray("references", "add", "site", files[1], "-c", settings)
    assert bank_file(settings).read_bytes() == at_once
    assert NAME.split("^")[0].encode() not in at_once


def test_the_same_pixels_are_skipped_and_said_so(tmp_path: Path, settings: Path) -> None:
    file = chest(tmp_path / "a.dcm", 1)
    copy = chest(tmp_path / "b.dcm", 1, instance="1.2.3.99")
    ran = evenray("references", "add", "site", file, copy, "-c", settings)
    assert ran.code == 0
    assert f"skipped {copy}: site has these pixels already" in ran.out
    again = evenray("references", "add", "site", file, "-c", settings)
    assert (again.code, shown(settings)["count"]) == (0, 1)
    assert "0 added" in again.out


def test_what_can_not_be_used_is_named_and_the_rest_is_added(tmp_path: Path, settings: Path) -> None:
    chest(tmp_path / "in" / "good.dcm", 1)
    (tmp_path / "in" / "note.txt").write_text("hello")
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "in" / "colour.png")
    ran = evenray("references", "add", "site", tmp_path / "in", "-c", settings)
    assert ran.code == 1
    assert "1 added" in ran.out
    assert "note.txt: not a" in ran.err
    assert "colour.png: a RGB picture, needed is grey" in ran.err


def test_an_exam_type_that_was_only_inferred_must_hold_for_every_file(tmp_path: Path, settings: Path) -> None:
    chest(tmp_path / "in" / "a.dcm", 1)
    chest(tmp_path / "in" / "b.dcm", 2, ViewPosition="LATERAL")
    ran = evenray("references", "add", "site", tmp_path / "in", "-c", settings)
    assert ran.code == 2
    assert "nothing was added" in ran.err
    assert "b.dcm: view LATERAL: the bank is for DX CHEST PA" in ran.err
    assert "a.dcm" not in ran.err
    assert not bank_file(settings).exists()


def test_a_file_of_another_exam_than_an_existing_bank_is_left_out(tmp_path: Path, settings: Path) -> None:
    evenray("references", "add", "site", chest(tmp_path / "a.dcm", 1), "-c", settings)
    other = chest(tmp_path / "b.dcm", 2, BodyPartExamined="HAND")
    ran = evenray("references", "add", "site", other, chest(tmp_path / "c.dcm", 3), "-c", settings)
    assert ran.code == 1
    assert "b.dcm: body part HAND: the bank is for DX CHEST PA" in ran.err
    assert shown(settings)["count"] == 2


def test_a_png_needs_its_exam_type_stated(tmp_path: Path, settings: Path) -> None:
    file = picture(tmp_path / "x.png", 1)
    ran = evenray("references", "add", "site", file, "-c", settings)
    assert ran.code == 2
    assert "give --modality and --body-part" in ran.err
    ran = evenray("references", "add", "site", file, "-c", settings, "--modality", "dx", "--body-part", "chest")
    assert ran.code == 0, ran.err


def test_no_file_name_is_kept_in_a_bank(tmp_path: Path, settings: Path) -> None:
    exam = ("--modality", "DX", "--body-part", "CHEST")
    evenray("references", "add", "site", picture(tmp_path / "doe_jane.png", 1), "-c", settings, *exam)
    evenray("references", "add", "site", chest(tmp_path / "doe_john.dcm", 2), "-c", settings)
    assert shown(settings)["count"] == 2
    assert "doe" not in bank_file(settings).read_text()


def test_an_embedded_bank_can_not_be_changed(tmp_path: Path, settings: Path) -> None:
    added = evenray("references", "add", "chest_frontal", chest(tmp_path / "a.dcm", 1), "-c", settings)
    removed = evenray("references", "remove", "chest_frontal", "--whole", "-c", settings)
    assert (added.code, removed.code) == (2, 2)
    assert "choose another name" in added.err
    assert "shipped with the program" in removed.err
    assert not bank_file(settings, "chest_frontal").exists()


def test_a_result_of_ours_is_no_reference(tmp_path: Path, settings: Path) -> None:
    file = chest(tmp_path / "a.dcm", 1, ImageType=["DERIVED", "SECONDARY"], SeriesDescription="Evenray harmonized: x")
    ran = evenray("references", "add", "site", file, "-c", settings)
    assert ran.code == 2
    assert "made by Evenray" in ran.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["add", "Bad Name", "."], "'Bad Name' is no name for a bank"),
        (["add", "../x", "."], "'../x' is no name for a bank"),
        (["add", "site", "gone.dcm"], "gone.dcm: no such file or folder"),
        (["show", "nobody"], "nobody: no bank of this name"),
        (["remove", "site", "--whole"], "site: no bank of this name"),
        (["remove", "site"], "give --whole"),
        (["remove", "site", "ab", "--whole"], "not both"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(settings: Path, arguments: list[str], sentence: str) -> None:
    ran = evenray("references", *arguments, "-c", settings)
    assert ran.code == 2
    assert sentence in ran.err
    assert ran.err.count("\n") == 1


def test_an_id_that_is_ambiguous_unknown_or_the_last_removes_nothing(tmp_path: Path, settings: Path) -> None:
    evenray("references", "add", "site", *chests(tmp_path / "in", [1, 2]), "-c", settings)
    before = bank_file(settings).read_bytes()
    ids = [r["id"] for r in shown(settings)["references"]]
    for starts, sentence in (
        (["zz"], "no reference starts with 'zz'"),
        ([""], "no reference starts with ''"),
        (ids, "no reference would be left"),
    ):
        ran = evenray("references", "remove", "site", *starts, "-c", settings)
        assert ran.code == 2
        assert sentence in ran.err
    assert bank_file(settings).read_bytes() == before


def test_a_start_that_two_ids_share_is_ambiguous(tmp_path: Path, settings: Path) -> None:
    twice = None
    for seed in range(1, 18):
        # 17 ids in 16 hexadecimal digits: two of them start alike at the latest.
        evenray("references", "add", "many", chest(tmp_path / "x.dcm", seed), "-c", settings)
        starts = sorted(r["id"][0] for r in shown(settings, "many")["references"])
        twice = next((a for a, b in pairwise(starts) if a == b), None)
        if twice:
            break
    before = bank_file(settings, "many").read_bytes()
    ran = evenray("references", "remove", "many", twice, "-c", settings)
    assert ran.code == 2
    assert "2 references start with" in ran.err
    assert "give more of the id" in ran.err
    assert bank_file(settings, "many").read_bytes() == before


def test_a_damaged_bank_is_listed_as_such_and_can_only_be_removed(tmp_path: Path, settings: Path) -> None:
    evenray("references", "add", "site", chest(tmp_path / "a.dcm", 1), "-c", settings)
    file = bank_file(settings)
    file.write_text(file.read_text().replace('"DX"', '"CR"'))
    ran = evenray("references", "list", "-c", settings)
    assert ran.code == 1
    assert "site.bank.json: digest:" in ran.err
    assert "chest_frontal" in ran.out
    assert evenray("references", "add", "site", chest(tmp_path / "b.dcm", 2), "-c", settings).code == 2
    assert evenray("references", "remove", "site", "--whole", "-c", settings).code == 0


def test_a_site_bank_of_an_embedded_name_is_said_to_replace_it(tmp_path: Path, settings: Path) -> None:
    evenray("references", "add", "site", chest(tmp_path / "a.dcm", 1), "-c", settings)
    text = bank_file(settings).read_text()
    bank_file(settings, "other").write_text(text)
    banks, faults = Banks(bank_file(settings).parent).all()
    assert [b.name for b in banks] == ["chest_frontal", "site"]
    assert len(faults) == 1
    assert "name the file site.bank.json" in faults[0]


@pytest.mark.data
def test_real_pictures_make_a_bank(settings: Path) -> None:
    files = sorted((DATA / "chest" / "nih").glob("*.png"))[:3]
    if not files:
        pytest.skip(f"no pictures in {DATA}")
    ran = evenray("references", "add", "nih", *files, "-c", settings, "--modality", "DX", "--body-part", "CHEST")
    assert (ran.code, shown(settings, "nih")["count"]) == (0, 3)
