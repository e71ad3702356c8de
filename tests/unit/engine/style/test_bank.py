"""A bank is the same bytes for the same references, and no changed file is believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import (
    Bank,
    Image,
    InvalidBank,
    build_bank,
    default_banks,
    describe_reference,
    dump_bank,
    load_bank,
    parse_bank,
    pixel_digest,
    with_reference,
    without_reference,
)
from tests.unit.engine.pictures import EXAM, chest, image_of, references


@pytest.fixture(scope="module")
def bank() -> Bank:
    return build_bank("drawn", EXAM, references(5), "drawn for a test, é")


def test_a_bank_comes_back_from_its_file_as_it_was(bank: Bank, tmp_path: Path) -> None:
    path = tmp_path / "drawn.bank.json"
    path.write_text(dump_bank(bank), encoding="utf-8")
    assert load_bank(path) == bank
    assert load_bank(path).digest == bank.digest


def test_the_order_of_references_changes_no_byte(bank: Bank) -> None:
    turned = build_bank("drawn", EXAM, reversed(references(5)), "drawn for a test, é")
    assert dump_bank(turned) == dump_bank(bank)


def test_writing_what_was_read_gives_the_same_bytes(bank: Bank) -> None:
    assert dump_bank(parse_bank(dump_bank(bank))) == dump_bank(bank)


def test_adding_and_taking_away_gives_the_first_bank_again(bank: Bank) -> None:
    more = describe_reference(image_of(chest(seed=7)))
    larger = with_reference(bank, more)
    assert larger.digest != bank.digest
    assert len(larger.references) == 6
    assert without_reference(larger, more.id) == bank


def test_the_same_pixels_count_once(bank: Bank) -> None:
    with pytest.raises(InvalidBank, match="stands twice"):
        with_reference(bank, bank.references[2])


def test_an_unknown_or_the_last_reference_can_not_be_taken_away(bank: Bank) -> None:
    with pytest.raises(InvalidBank, match="no reference has id"):
        without_reference(bank, "0" * 64)
    one = build_bank("one", EXAM, references(1))
    with pytest.raises(InvalidBank, match="at least one reference"):
        without_reference(one, one.references[0].id)


Edit = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda b: b.update(threshold=9.0), "digest"),
        (lambda b: b.update(threshold=-1), "threshold"),
        (lambda b: b.update(threshold=True), "threshold"),
        (lambda b: b.update(version=2), "version"),
        (lambda b: b.update(format="other"), "format"),
        (lambda b: b.update(surprise=1), "surprise: unknown field"),
        (lambda b: b.pop("frame"), "frame: missing"),
        (lambda b: b.update(references=[]), "references"),
        (lambda b: b["references"].reverse(), "references: not sorted"),
        (lambda b: b["references"][1].pop("view"), r"references\[1\].view: missing"),
        (lambda b: b["references"][0]["descriptor"]["quantiles"].pop(), r"references\[0\].descriptor.quantiles"),
        (lambda b: b["references"][0]["descriptor"]["quantiles"].__setitem__(3, 2.0), "rising numbers"),
        (lambda b: b["references"][0]["geometry"].update(field_share="half"), r"references\[0\].geometry.field_share"),
        (lambda b: b["references"][0].update(vendor="Other"), "digest"),
        (lambda b: b["exam"].update(views="PA"), "exam.views: expected a list"),
        (lambda b: b.update(name=3), "name: expected text"),
    ],
)
def test_a_changed_file_is_refused_by_name_and_field(bank: Bank, edit: Edit, message: str, tmp_path: Path) -> None:
    content = json.loads(dump_bank(bank))
    edit(content)
    path = tmp_path / "changed.bank.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InvalidBank, match=message) as caught:
        load_bank(path)
    assert "changed.bank.json" in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b'{"format": "evenray.bank"'])
def test_no_bank_is_read_from_other_files(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(data)
    with pytest.raises(InvalidBank, match=r"other\.json"):
        load_bank(path)


def test_the_id_follows_pixels_and_padding_and_nothing_else() -> None:
    image = image_of(chest())
    touched = image.values.clone()
    touched[0, 5, 5] = 1.0
    hidden = image.padding.clone()
    hidden[0, 0, 0] = True
    assert pixel_digest(image) == pixel_digest(Image(image.values, image.padding, image.levels, spacing_mm=0.1))
    assert pixel_digest(image) != pixel_digest(Image(touched, image.padding, image.levels))
    assert pixel_digest(image) != pixel_digest(Image(image.values, hidden, image.levels))
    assert pixel_digest(image) != pixel_digest(Image(image.values, image.padding, 65536))


def test_a_bank_file_holds_no_picture(bank: Bank) -> None:
    """The most numbers that stand together are a projection's 48."""
    lengths = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            for inner in value.values():
                walk(inner)
        if isinstance(value, list):
            lengths.append(len(value))
            for inner in value:
                walk(inner)

    walk(json.loads(dump_bank(bank)))
    assert max(lengths) == 48


def test_the_shipped_bank_loads_and_is_a_chest_bank_of_modest_size() -> None:
    shipped = default_banks()["chest_frontal"]
    assert shipped.exam.body_part == "CHEST"
    assert 100 <= len(shipped.references) <= 200
    assert len(dump_bank(shipped)) < 1_000_000
    assert shipped.threshold >= 1
    assert torch.tensor([r.descriptor.quantiles for r in shipped.references]).shape[1] == 33
