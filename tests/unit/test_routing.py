"""Which route an instance takes, with which bank, or why it is passed by."""

from __future__ import annotations

import dataclasses

import pytest

from dicom_node.records import Header
from dicom_node.routing import Exam, PassBy, Routed, decide
from dicom_node.settings import Folder, Match, PassedBy, Route, Settings

CHEST = Header(
    sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
    sop_instance_uid="1.2.3",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    study_instance_uid="1.2",
    series_instance_uid="1.2.1",
    patient_key="p",
    modality="CR",
    body_part="CHEST",
    body_part_source="BodyPartExamined",
    view="PA",
    laterality="",
    presentation_intent="",
    manufacturer="ACME Medical",
    rows=100,
    columns=100,
    frames=1,
    samples_per_pixel=1,
    has_pixels=True,
    made_by_evenray=False,
)
BANKS = {
    "chest": Exam(("CR", "DX"), "CHEST", ("PA", "AP")),
    "chest-any": Exam(("CR", "DX"), "CHEST", ()),
    "breast": Exam(("MG",), "BREAST", ()),
}
NOWHERE = {"pacs": Folder(kind="folder", path="."), "other": Folder(kind="folder", path=".")}


def _settings(*routes: Route, **more: object) -> Settings:
    return Settings(destinations=NOWHERE, routes=routes, **more)


def _decide(settings: Settings, calling_ae: str = "MODALITY", **changes: object) -> Routed | PassBy:
    header = dataclasses.replace(CHEST, **changes)
    return decide(header, calling_ae=calling_ae, settings=settings, banks=BANKS)


def test_the_first_route_that_matches_takes_the_image() -> None:
    first = Route(name="first", match=Match(body_part=("chest",)))
    chosen = _decide(_settings(first, Route(name="second")))
    assert isinstance(chosen, Routed)
    assert chosen.route.name == "first"


@pytest.mark.parametrize(
    ("match", "taken"),
    [
        (Match(modality=("cr",)), True),
        (Match(modality=("MG",)), False),
        (Match(view=("AP",)), False),
        (Match(manufacturer=("acme",)), True),
        (Match(manufacturer=("other",)), False),
        (Match(calling_ae=("modality",)), True),
        (Match(calling_ae=("ct1",)), False),
        (Match(modality=()), True),
    ],
)
def test_every_condition_that_is_set_must_hold(match: Match, taken: bool) -> None:
    chosen = _decide(_settings(Route(name="r", match=match)))
    assert isinstance(chosen, Routed) is taken


def test_auto_takes_the_narrowest_bank_that_fits() -> None:
    settings = _settings(Route(name="r"))
    narrow, wide = _decide(settings, view="AP"), _decide(settings, view="LL")
    assert isinstance(narrow, Routed)
    assert isinstance(wide, Routed)
    assert (narrow.bank, wide.bank) == ("chest", "chest-any")


def test_an_image_without_a_view_is_not_held_against_it() -> None:
    chosen = _decide(_settings(Route(name="r")), view="")
    assert isinstance(chosen, Routed)
    assert chosen.bank == "chest"


def test_without_a_fitting_bank_the_image_is_passed_by_on_its_route() -> None:
    route = Route(name="r", destinations=("pacs",), originals="forward")
    chosen = _decide(_settings(route), body_part="HAND")
    assert isinstance(chosen, PassBy)
    assert chosen.reason == "no bank of references for CR HAND PA (known: breast, chest, chest-any)"
    assert (chosen.forward, chosen.destinations) == (True, ("pacs",))


def test_a_named_bank_that_is_missing_is_said_by_name() -> None:
    chosen = _decide(_settings(Route(name="r", bank="hips")))
    assert isinstance(chosen, PassBy)
    assert "called hips" in chosen.reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"has_pixels": False}, "not an image"),
        ({"samples_per_pixel": 3}, "colour"),
        ({"frames": 2}, "2 frames"),
    ],
)
def test_what_the_engine_can_not_use_goes_where_passed_by_says(changes: dict[str, object], reason: str) -> None:
    aside = PassedBy(originals="keep", destinations=("other",))
    chosen = _decide(_settings(Route(name="r"), passed_by=aside), **changes)
    assert isinstance(chosen, PassBy)
    assert reason in chosen.reason
    assert (chosen.forward, chosen.destinations, chosen.route) == (False, ("other",), None)
