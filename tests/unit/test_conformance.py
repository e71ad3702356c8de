"""The conformance statement says what the code does: its tables are made from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dicom_node import listen, settings_reference, status, syntaxes, tls
from dicom_node.destinations import association, commitment, dimse
from dicom_node.dicomweb import faults
from dicom_node.keeping import telling
from dicom_node.marks import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from dicom_node.results import cleaning, concepts, copying
from dicom_node.settings_peers import Address
from dicom_node.sources import finding, getting, statuses
from dicom_node.status import Next
from tests import conformance, conformance_objects

DEPLOY = conformance.STATEMENT.parent
ENTRIES = settings_reference.entries()
CHANGES: list[tuple[object, str, Any]] = [
    (status, "SENDING", ((0x0000, 0x0000, Next.PARK, "stored"),)),
    (statuses, "FINDING", statuses.FINDING[1:]),
    (statuses, "MOVING", statuses.MOVING[1:]),
    (statuses, "GETTING", statuses.GETTING[1:]),
    (faults, "STATUSES", faults.STATUSES[1:]),
    (commitment, "PASSING", {0x0110: "processing failure"}),
    (telling, "TAKEN", (0x0000,)),
    (syntaxes, "STORABLE", syntaxes.STORABLE[1:]),
    (listen, "STORABLE", syntaxes.STORABLE[1:]),
    (listen, "report_contexts", list),
    (listen, "IMPLEMENTATION_CLASS_UID", "1.2.3"),
    (dimse, "FALLBACKS", dimse.FALLBACKS[:1]),
    (finding, "SYNTAXES", finding.SYNTAXES[:1]),
    (getting, "UNCHANGED", getting.UNCHANGED[1:]),
    (tls, "SUITES", "ECDHE-RSA-AES256-GCM-SHA384"),
    (settings_reference, "entries", lambda: [_changed(entry) for entry in ENTRIES]),
    (concepts, "QUALITY_ISSUE", concepts.MEASUREMENT_REPORT),
    (concepts, "OUTCOME", concepts.HARMONIZATION),
    (copying, "PATIENT_AND_STUDY", copying.PATIENT_AND_STUDY[1:]),
    (cleaning, "OWN", frozenset({"Modality"})),
]


def _changed(entry: settings_reference.Entry) -> settings_reference.Entry:
    return settings_reference.Entry(entry.path, "7", entry.meaning)


@pytest.fixture(scope="module")
def statement() -> str:
    return conformance.STATEMENT.read_text(encoding="utf-8")


def test_every_table_says_what_the_code_says(statement: str) -> None:
    assert statement == conformance.filled(statement), "run `.venv/bin/python -m tests.conformance`"


def test_no_table_is_left_out(statement: str) -> None:
    assert sorted(conformance.TABLE.findall(statement)) != []
    assert set(re.findall(r"<!-- table: ([a-z ]+) -->", statement)) == set(conformance.tables())


@pytest.mark.parametrize("name", conformance.sent())
def test_every_status_that_is_sent_is_listed_and_no_other(name: str) -> None:
    listed, named = conformance.sent()[name]
    assert listed == named


@pytest.mark.parametrize(("where", "name", "value"), CHANGES, ids=[name for _, name, _ in CHANGES])
def test_changed_code_is_another_statement(
    statement: str, monkeypatch: pytest.MonkeyPatch, where: object, name: str, value: object
) -> None:
    monkeypatch.setattr(where, name, value)
    assert conformance.filled(statement) != statement


def test_a_table_that_was_changed_by_hand_would_be_noticed(statement: str) -> None:
    changed = statement.replace("0xA700", "0xA701", 1)
    assert changed != statement
    assert conformance.filled(changed) != changed


def test_whoever_opens_an_association_names_the_same_implementation() -> None:
    there = Address(ae_title="PACS", host="127.0.0.1", port=104)
    ours, theirs = association._Entity("EVENRAY", there, lambda _socket: None), conformance.entity()
    for ae in (ours, theirs):
        assert ae.implementation_class_uid == IMPLEMENTATION_CLASS_UID
        assert ae.implementation_version_name == IMPLEMENTATION_VERSION


def test_every_attribute_of_every_object_has_a_source() -> None:
    assert conformance_objects.unexplained() == set()


def test_no_object_has_a_private_attribute() -> None:
    private = [(name, e.tag) for name, made in conformance_objects.samples().items() for e in made.iterall()]
    assert [(name, tag) for name, tag in private if tag.is_private] == []


@pytest.mark.parametrize("name", ["CONFORMANCE.md", "IHE.md"])
def test_every_setting_that_is_named_exists(name: str) -> None:
    text = (DEPLOY / name).read_text(encoding="utf-8")
    known = {entry.path for entry in ENTRIES}
    # The sections of lists and dictionaries stand for one entry each.
    sections = "|".join({path.partition(".")[0] for path in known if re.fullmatch("[a-z_.]+", path)})
    used = set(re.findall(rf"`((?:{sections})\.[a-z_.]+)`", text))
    unknown = {path for path in used if not any(one == path or one.startswith(f"{path}.") for one in known)}
    assert unknown == set()
    assert used or name == "IHE.md"


@pytest.mark.parametrize("name", ["CONFORMANCE.md", "IHE.md"])
def test_every_link_leads_somewhere(name: str) -> None:
    path = DEPLOY / name
    text = path.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        place, _, anchor = target.partition("#")
        if place.startswith("http"):
            continue
        assert not place or Path(path.parent, place).exists(), target
        assert place or anchor in anchors, target
