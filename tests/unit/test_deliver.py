"""One destination's line with a real ledger, spool and folder: what is settled, and what can't hold it up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from dicom_node.deliver import Line, park_unknown
from dicom_node.destinations import Answer, Parcel
from dicom_node.ledger import Ledger, NewObject
from dicom_node.records import Decision, Outcome, ResultKind
from dicom_node.settings import Folder, Settings
from dicom_node.spool import Spool
from dicom_node.stopping import Stopping
from tests import dicom_files
from tests.unit.ledger.test_ledger import _admit, _arrive


class Breaking:
    """A destination that breaks on its first object in a way that no rule foresees."""

    def send(self, parcels: Sequence[Parcel], *, beat: Callable[[], None]) -> Iterator[tuple[Parcel, Answer]]:
        beat()
        raise TypeError(f"about {parcels[0].path}")
        yield


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "state" / "ledger.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def line(tmp_path: Path, ledger: Ledger) -> Line:
    where = Folder(kind="folder", path=tmp_path / "out")
    settings = Settings(state_dir=tmp_path / "state", destinations={"out": where})
    return Line("out", where, settings, ledger, "sender")


def _queue(ledger: Ledger, tmp_path: Path, *instances: str) -> None:
    """Results on their way to `out`."""
    spool = Spool(tmp_path / "state" / "spool")
    _admit(ledger, _arrive(ledger))
    row = ledger.instances.claim("worker", now=0, lease_s=10)
    assert row is not None
    objects = []
    for uid in instances:
        dataset = dicom_files.dataset("SC", instance=uid)
        path = spool.write_result(uid, dicom_files.content(dataset), named=lambda _path: False)
        objects.append(NewObject(ResultKind.SECONDARY_CAPTURE, dataset.SOPClassUID, uid, path, ["out"]))
    ledger.instances.decide(row, Decision(outcome=Outcome.HARMONIZED, reason="r"), objects, now=0)


def test_what_is_due_is_sent_and_counts_as_delivered(line: Line, ledger: Ledger, tmp_path: Path) -> None:
    _queue(ledger, tmp_path, "1.2.1", "1.2.2")
    assert line.turn(Stopping())
    assert ledger.deliveries.counts() == {"out": {"delivered": 2}}
    assert sorted(path.stem for path in (tmp_path / "out").rglob("*.dcm")) == ["1.2.1", "1.2.2"]


def test_a_sender_that_breaks_costs_one_object_one_attempt_and_frees_the_others(
    line: Line, ledger: Ledger, tmp_path: Path
) -> None:
    _queue(ledger, tmp_path, "1.2.1", "1.2.2")
    line._port = Breaking()
    line.turn(Stopping())
    first, second = sorted(ledger.deliveries.unfinished("out"), key=lambda row: row.id)
    assert (first.attempts, second.attempts) == (1, 0)
    assert first.note.startswith("the sending broke off: TypeError in test_deliver.py")
    assert str(tmp_path) not in first.note, "an unexpected fault is named by type and place, never by its text"


def test_what_waits_for_a_confirmation_that_is_not_configured_any_more_counts_as_delivered(
    line: Line, ledger: Ledger, tmp_path: Path
) -> None:
    _queue(ledger, tmp_path, "1.2.1", "1.2.2")
    rows = ledger.deliveries.claim("out", "sender", now=0, lease_s=10, limit=9)
    for row in rows:
        ledger.deliveries.stored(row, 0, "stored", commitment=True, now=1)
    ledger.deliveries.asked(ledger.deliveries.to_ask("out", now=1, limit=1), "2.25.1", now=1)
    assert ledger.deliveries.counts() == {"out": {"awaiting": 1, "stored": 1}}
    line.turn(Stopping())
    assert ledger.deliveries.counts() == {"out": {"delivered": 2}}


def test_what_goes_to_a_destination_that_is_gone_is_parked_where_a_person_sees_it(
    ledger: Ledger, tmp_path: Path
) -> None:
    _queue(ledger, tmp_path, "1.2.1")
    park_unknown(ledger, {"other": object()})
    (shown,) = ledger.attention()
    assert "no destination is called out any more" in shown["note"]
