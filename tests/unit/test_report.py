"""The objects of a batch: its report, and the selection of what needs a look where a route asks for one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset

from dicom_node.header import read_header
from dicom_node.ledger import InstanceRow
from dicom_node.records import Outcome, Reported, ResultKind
from dicom_node.report import report, select
from dicom_node.settings import Settings
from dicom_node.states import Instance
from tests import dicom_files
from tests.unit.house import House, house
from tests.unit.results.builders import decision

ROUTE = {"name": "chest", "destinations": ["pacs"]}
ASKING = {**ROUTE, "objects": ["structured_report", "key_object_selection"]}
OUTCOMES = (Outcome.CONFORMING, Outcome.REFUSED, Outcome.UNREADABLE)


def decide(home: House, route: str = "chest", outcomes: Sequence[Outcome] = OUTCOMES, parked: bool = True) -> None:
    """One image of each outcome, and one that is parked, in one study."""
    for number in range(1, len(outcomes) + 1 + parked):
        home.take(dicom_files.dataset(instance=f"1.2.3.4.{number}"))
    left = list(outcomes)
    while row := home.ledger.instances.claim("worker", now=0, lease_s=10):
        if not left:
            home.ledger.instances.park(row, "the engine failed", now=0)
            continue
        decided = decision(home.spool.at(row.path), left.pop(0), route=route)
        home.ledger.instances.decide(row, decided, [], now=0)


def close(home: House) -> list[tuple[ResultKind, FileDataset, str]]:
    """Close and report the batch: kind, object and destination of every delivery."""
    ((batch, _),) = home.ledger.batches.open()
    home.ledger.batches.close(batch, "test", now=0)
    claimed = home.ledger.batches.claim("worker", now=0, lease_s=10)
    assert claimed
    report(claimed, home.settings, home.spool, home.ledger, clock=lambda: 0)
    return [
        (row.kind, dcmread(home.spool.at(row.path)), row.destination)
        for row in home.ledger.deliveries.of_batch(claimed.id)
    ]


def rows(home: House) -> list[InstanceRow]:
    ((batch, _),) = home.ledger.batches.open()
    return home.ledger.instances.of_batch(batch.id)


def named(document: FileDataset) -> set[str]:
    return {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in document.ContentSequence
        if "ReferencedSOPSequence" in item
    }


def test_refused_unreadable_and_parked_originals_are_selected(tmp_path: Path) -> None:
    with house(tmp_path, routes=[ASKING]) as home:
        decide(home)
        wanted = {r.sop_instance_uid for r in rows(home) if r.state is Instance.PARKED or is_bad(r)}
        assert len(wanted) == 3
        found = {kind: (document, to) for kind, document, to in close(home)}
        assert found.keys() == {ResultKind.STRUCTURED_REPORT, ResultKind.KEY_OBJECT_SELECTION}
        selection, to = found[ResultKind.KEY_OBJECT_SELECTION]
        assert to == "pacs"
        assert named(selection) == wanted
        assert "parked: the engine failed" in selection.to_json()
        assert selection.SOPInstanceUID in found[ResultKind.STRUCTURED_REPORT][0].to_json()


def is_bad(row: InstanceRow) -> bool:
    return row.decision is not None and row.decision.outcome in (Outcome.REFUSED, Outcome.UNREADABLE)


def test_the_same_batch_gives_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for folder in ("a", "b"):
        with house(tmp_path / folder, routes=[ASKING]) as home:
            decide(home)
            contents.append([(kind, document.to_json()) for kind, document, _ in close(home)])
    assert contents[0] == contents[1]


def test_only_what_is_selected_has_the_selection_among_its_results(tmp_path: Path) -> None:
    settings = Settings.model_validate({"routes": [{"name": "chest", "objects": ["key_object_selection"]}]})
    there = []
    for number, outcome in enumerate(OUTCOMES, start=1):
        file = dicom_files.write(tmp_path / f"{number}.dcm", dicom_files.dataset(instance=f"1.2.3.4.{number}"))
        there.append(Reported(source=file, header=read_header(file), decision=decision(file, outcome)))
    told, selection = select(there, settings)
    assert selection
    (selected,) = {one.results for one in told[1:]}
    assert (told[0].results, selected) == ((), ((selection.made.sop_class_uid, selection.made.sop_instance_uid),))
    assert set(told[1].digests) == {selection.made.sop_instance_uid}


@pytest.mark.parametrize(
    ("route", "outcomes"),
    [
        (ROUTE, OUTCOMES),
        (ASKING, (Outcome.CONFORMING, Outcome.HARMONIZED)),
        ({**ASKING, "name": "other", "match": {"body_part": ["HAND"]}}, OUTCOMES),
    ],
)
def test_nothing_is_selected_where_nobody_asks_or_nothing_is_wrong(
    tmp_path: Path, route: dict[str, object], outcomes: Sequence[Outcome]
) -> None:
    with house(tmp_path, routes=[route]) as home:
        decide(home, "chest", outcomes, parked=False)
        assert {kind for kind, _, _ in close(home)} <= {ResultKind.STRUCTURED_REPORT}


def test_a_selection_goes_only_where_its_routes_go(tmp_path: Path) -> None:
    with house(tmp_path, routes=[{**ASKING, "destinations": []}]) as home:
        decide(home)
        assert close(home) == []
