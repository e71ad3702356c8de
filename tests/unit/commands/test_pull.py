"""Which modalities are pulled where none is named, and what may be shown of a study."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dicom_node.commands import pull as command
from dicom_node.pull import Plan, Tally
from dicom_node.settings import Settings
from dicom_node.sources import FoundStudy


def _settings(*modalities: tuple[str, ...]) -> Settings:
    routes: list[dict[str, Any]] = [{"name": f"r{n}", "match": {"modality": m}} for n, m in enumerate(modalities)]
    return Settings.model_validate({"routes": routes})


@pytest.mark.parametrize(
    ("asked", "routes", "expected"),
    [
        ("", [("CR", "DX"), ("MG", "DX")], ("CR", "DX", "MG")),
        ("", [("CR",), ()], ()),
        ("", [], ()),
        ("cr, dx,", [("MG",)], ("CR", "DX")),
        ("all", [("MG",)], ()),
    ],
)
def test_without_a_wish_what_the_routes_take_is_pulled(
    asked: str, routes: list[tuple[str, ...]], expected: tuple[str, ...]
) -> None:
    assert command._modalities(asked, _settings(*routes)) == expected


def test_nothing_of_the_patient_is_shown() -> None:
    study = FoundStudy(study_instance_uid="1.2", date="20240131", accession="SECRET1", patient="SECRET2")
    shown = json.dumps(command._facts(Tally(), [Plan(study, (), 1, 0)]))
    assert "1.2" in shown
    assert "SECRET" not in shown
