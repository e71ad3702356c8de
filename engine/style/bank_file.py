"""Read and write banks as JSON text, strictly. Knows no clock; writing bytes safely to a disk is the caller's work."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

from engine.align import Frame, Geometry
from engine.align.geometry import PROFILE_BINS
from engine.errors import InvalidBank
from engine.style.bank import Bank, Exam, Reference
from engine.style.descriptor import BANDS, QUANTILES, Descriptor

FORMAT = "evenray.bank"
VERSION = 1
"""Rises when a field changes its meaning; a reader knows exactly one version."""


def dump_bank(bank: Bank) -> str:
    """The bank as JSON text, the same bytes for the same bank: sorted keys, a reference a line, newline at the end."""
    content = asdict(bank)
    references = content.pop("references")
    head = json.dumps({"format": FORMAT, "version": VERSION, **content}, sort_keys=True, indent=1, allow_nan=False)
    lines = ",\n".join(json.dumps(r, sort_keys=True, separators=(",", ":"), allow_nan=False) for r in references)
    return head.removesuffix("\n}") + ',\n "references": [\n' + lines + "\n ]\n}\n"


def load_bank(path: Path | str) -> Bank:
    """Read a bank file. Raises InvalidBank naming the file and the field; OSError where it can't be read."""
    data = Path(path).read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise InvalidBank(f"{path}: no UTF-8 text; this is no bank file") from exc
    return parse_bank(text, str(path))


def parse_bank(text: str, name: str = "bank") -> Bank:
    """Read a bank from JSON text; `name` stands in messages. Raises InvalidBank naming the field."""
    try:
        raw = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as exc:
        raise InvalidBank(f"{name}: no JSON ({exc}); the file is damaged or no bank") from exc
    root = _Node(name, "", raw)
    keys = (
        "format",
        "version",
        "name",
        "exam",
        "references",
        "frame",
        "threshold",
        "least_agreement",
        "provenance",
        "digest",
    )
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise InvalidBank(f"{name}: format: expected {FORMAT!r}; this is no bank file")
    if raw.get("version") != VERSION:
        raise InvalidBank(f"{name}: version: expected {VERSION}, not {raw.get('version')!r}; build the bank again")
    at = root.members(keys)
    references = tuple(_reference(node) for node in at["references"].items())
    if not references:
        raise InvalidBank(f"{name}: references: a bank needs at least one")
    if any(a.id >= b.id for a, b in pairwise(references)):
        raise InvalidBank(f"{name}: references: not sorted by id, or one stands twice")
    threshold = at["threshold"].number()
    if threshold <= 0:
        raise InvalidBank(f"{name}: threshold: expected a positive number, not {threshold:g}")
    bank = Bank(
        name=at["name"].text(),
        exam=_exam(at["exam"]),
        references=references,
        frame=_frame(at["frame"]),
        threshold=threshold,
        least_agreement=at["least_agreement"].number(),
        provenance=at["provenance"].text(),
    )
    if bank.digest != at["digest"].text():
        raise InvalidBank(f"{name}: digest: the content gives {bank.digest[:12]}…; the file was changed by hand")
    return bank


class _Node:
    """A value of the file with its place, so that every message names file and field."""

    def __init__(self, file: str, place: str, value: object) -> None:
        self.file, self.place, self.value = file, place, value

    def fail(self, expected: str) -> InvalidBank:
        return InvalidBank(f"{self.file}: {self.place}: expected {expected}, found {str(self.value)[:40]!r}")

    def members(self, keys: tuple[str, ...]) -> Mapping[str, _Node]:
        if not isinstance(self.value, dict):
            raise self.fail("an object")
        inside = f"{self.place}." if self.place else ""
        for key in keys:
            if key not in self.value:
                raise InvalidBank(f"{self.file}: {inside}{key}: missing")
        for key in self.value:
            if key not in keys:
                raise InvalidBank(f"{self.file}: {inside}{key}: unknown field")
        return {key: _Node(self.file, f"{inside}{key}", self.value[key]) for key in keys}

    def items(self) -> list[_Node]:
        if not isinstance(self.value, list):
            raise self.fail("a list")
        return [_Node(self.file, f"{self.place}[{i}]", v) for i, v in enumerate(self.value)]

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.fail("text")
        return self.value

    def texts(self) -> tuple[str, ...]:
        return tuple(node.text() for node in self.items())

    def number(self) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float) or not math.isfinite(self.value):
            raise self.fail("a finite number")
        return float(self.value)

    def numbers(self, count: int) -> tuple[float, ...]:
        found = tuple(node.number() for node in self.items())
        if len(found) != count:
            raise self.fail(f"{count} numbers, not {len(found)}")
        return found

    def pair(self) -> tuple[float, float]:
        first, second = self.numbers(2)
        return first, second


def _exam(node: _Node) -> Exam:
    at = node.members(("modalities", "body_part", "views"))
    return Exam(at["modalities"].texts(), at["body_part"].text(), at["views"].texts())


def _frame(node: _Node) -> Frame:
    at = node.members(("centre", "spread", "profile_x", "profile_y"))
    return Frame(
        at["centre"].pair(),
        at["spread"].pair(),
        at["profile_x"].numbers(PROFILE_BINS),
        at["profile_y"].numbers(PROFILE_BINS),
    )


def _reference(node: _Node) -> Reference:
    at = node.members(("id", "descriptor", "geometry", "view", "vendor", "source", "uids"))
    return Reference(
        id=at["id"].text(),
        descriptor=_descriptor(at["descriptor"]),
        geometry=_geometry(at["geometry"]),
        view=at["view"].text(),
        vendor=at["vendor"].text(),
        source=at["source"].text(),
        uids=at["uids"].texts(),
    )


def _descriptor(node: _Node) -> Descriptor:
    at = node.members(("quantiles", "energies"))
    quantiles = at["quantiles"].numbers(len(QUANTILES))
    if min(quantiles) < 0 or max(quantiles) > 1 or any(a > b for a, b in pairwise(quantiles)):
        raise at["quantiles"].fail("rising numbers in [0, 1]")
    return Descriptor(quantiles, at["energies"].numbers(BANDS))


def _geometry(node: _Node) -> Geometry:
    at = node.members(("centre", "spread", "field_share", "profile_x", "profile_y"))
    return Geometry(
        centre=at["centre"].pair(),
        spread=at["spread"].pair(),
        field_share=at["field_share"].number(),
        profile_x=at["profile_x"].numbers(PROFILE_BINS),
        profile_y=at["profile_y"].numbers(PROFILE_BINS),
    )
