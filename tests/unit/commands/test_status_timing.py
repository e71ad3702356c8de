"""How long the queue is in time, from what the ledger has of the last images."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicom_node.commands import status_timing
from dicom_node.ledger import Figures, Ledger
from dicom_node.ledger.figures import figures_of
from dicom_node.liveness import Liveness
from dicom_node.records import Arrival, Decision, Outcome
from tests.unit.test_routing import CHEST

NOW = 1_000_000.0
DECISION = Decision(
    outcome=Outcome.CONFORMING, reason="test", exam="chest", seconds={"decode": 0.25, "engine": 2.0, "encode": 0.5}
)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def _arrive(ledger: Ledger, count: int, *, now: float) -> None:
    first = ledger.figures.last()
    arrivals = [
        Arrival(
            sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
            sop_instance_uid=f"1.2.{first}.{n}",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            calling_ae="MODALITY",
            called_ae="EVENRAY",
            association="a",
            path=f"originals/{first}.{n}",
            size=1,
        )
        for n in range(count)
    ]
    ledger.instances.arrive_all(arrivals, now=now)


def _decide(ledger: Ledger, *, admitted: float, claimed: float, decided: float) -> None:
    row = ledger.instances.read("w", now=admitted, lease_s=60)
    assert row
    header = dataclasses.replace(CHEST, sop_instance_uid=row.sop_instance_uid)
    ledger.instances.admit(row, header, f"digest {row.id}", forward_to=("pacs",), now=admitted)
    taken = ledger.instances.claim("w", now=claimed, lease_s=60)
    assert taken
    ledger.instances.decide(taken, DECISION, (), now=decided)


def test_the_queue_is_as_long_as_its_images_take(ledger: Ledger, tmp_path: Path) -> None:
    _arrive(ledger, 12, now=NOW)
    for n in range(2):
        _decide(ledger, admitted=NOW + 1, claimed=NOW + 2 + 3 * n, decided=NOW + 5 + 3 * n)
    workers = [Liveness(tmp_path / "locks", "work") for _ in range(2)]
    facts = status_timing.backlog(ledger.figures, tmp_path / "locks", now=NOW + 60)
    for one in workers:
        one.close()
    assert (facts["waiting"], facts["workers"], facts["seconds_an_image"], facts["seconds"]) == (10, 2, 3.0, 15.0)
    assert (facts["oldest_s"], facts["arrived"], facts["decided"], facts["trend"]) == (60, 12, 2, "growing")
    words = status_timing.in_words(facts)
    assert words == (
        "10 images: about 15 s (3 s an image); the oldest waits for 60 s;"
        " 12 arrived and 2 were decided in the last 5 min; growing"
    )


def test_without_a_worker_or_a_decision_no_time_is_invented(ledger: Ledger, tmp_path: Path) -> None:
    _arrive(ledger, 2, now=NOW)
    facts = status_timing.backlog(ledger.figures, tmp_path / "locks", now=NOW)
    assert facts["seconds"] is None
    assert "no worker runs" in status_timing.in_words(facts)
    assert "not known" in status_timing.in_words({**facts, "workers": 1})


def test_an_empty_queue_is_empty(ledger: Ledger, tmp_path: Path) -> None:
    facts = status_timing.backlog(ledger.figures, tmp_path / "locks", now=NOW)
    assert (facts["waiting"], facts["seconds"], facts["oldest_s"], facts["trend"]) == (0, 0.0, None, "empty")
    assert status_timing.in_words(facts).startswith("empty; 0 arrived")


@pytest.mark.parametrize(
    ("waiting", "arrived", "decided", "says"),
    [
        (0, 9, 0, "empty"),
        (5, 100, 95, "steady"),
        (5, 100, 50, "growing"),
        (5, 50, 100, "shrinking"),
        (5, 0, 0, "steady"),
    ],
)
def test_a_trend_is_named(waiting: int, arrived: int, decided: int, says: str) -> None:
    assert status_timing.trend(waiting, arrived, decided) == says


@pytest.mark.parametrize(
    ("seconds", "says"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (3 * 86400, "3 d")]
)
def test_a_duration_has_the_unit_that_a_person_would_use(seconds: float, says: str) -> None:
    assert status_timing.duration(seconds) == says


def test_where_the_time_of_an_image_went(ledger: Ledger) -> None:
    _arrive(ledger, 2, now=NOW)
    _decide(ledger, admitted=NOW + 1, claimed=NOW + 3, decided=NOW + 6)
    _decide(ledger, admitted=NOW + 1, claimed=NOW + 6, decided=NOW + 9)
    # Claimed together, sent one after the other.
    rows = ledger.deliveries.claim("pacs", "d", now=NOW + 10, lease_s=60, limit=10)
    for n, row in enumerate(rows):
        ledger.deliveries.stored(row, 0, "stored", commitment=False, now=NOW + 12 + n)
    newest, oldest = sorted(ledger.figures.timings(), key=lambda timing: -timing.instance)
    assert (oldest.to_first_look, oldest.wait, oldest.work, oldest.send, oldest.total) == (1, 2, 3, 2, 12)
    assert (newest.wait, newest.send, newest.total) == (5, 1, 13)
    facts = status_timing.timing(ledger.figures)
    assert facts["images"] == 2
    assert facts["stages"]["send"] == {"median": 1.5, "p90": 2, "max": 2}
    assert facts["by"]["chest conforming"]["engine"]["median"] == 2.0
    assert len(status_timing.timing_tables(facts)) == 2


def test_a_clock_that_was_set_back_gives_no_negative_time(ledger: Ledger) -> None:
    _arrive(ledger, 1, now=NOW)
    _decide(ledger, admitted=NOW - 100, claimed=NOW - 200, decided=NOW - 300)
    (timing,) = ledger.figures.timings()
    assert (timing.to_first_look, timing.wait, timing.work) == (0, 0, 0)


def test_steps_are_counted_once_however_they_are_asked_for(ledger: Ledger, tmp_path: Path) -> None:
    begun = ledger.figures.last()
    _arrive(ledger, 3, now=NOW)
    _decide(ledger, admitted=NOW, claimed=NOW, decided=NOW)
    with figures_of(tmp_path / "ledger.sqlite") as figures:
        found = figures.steps_since(begun)
        assert ("instance", "receive", "", 3) in found.counts
        assert ("delivery", "queue", "pacs", 1) in found.counts
        assert [decision["outcome"] for decision in found.decisions] == ["conforming"]
        assert not found.more
        again = figures.steps_since(found.upto)
        assert (again.counts, again.decisions, again.upto) == ((), (), found.upto)
        assert figures.queues()["instance"]["received"] == 2
        assert figures.undelivered() == [("pacs", "pending", 1)]
        assert figures.oldest_waiting() == NOW


class Explaining:
    """Reads from a ledger, and remembers how SQLite went about it."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path)
        self._db.row_factory = sqlite3.Row
        self.plans: list[str] = []

    def read(self, query: str, *values: Any) -> list[sqlite3.Row]:
        self.plans += [row["detail"] for row in self._db.execute(f"EXPLAIN QUERY PLAN {query}", values)]
        return self._db.execute(query, values).fetchall()

    def close(self) -> None:
        self._db.close()


def test_no_figure_looks_at_every_row(ledger: Ledger, tmp_path: Path) -> None:
    _arrive(ledger, 3, now=NOW)
    _decide(ledger, admitted=NOW, claimed=NOW, decided=NOW)
    (row,) = ledger.deliveries.claim("pacs", "d", now=NOW, lease_s=60, limit=1)
    ledger.deliveries.stored(row, 0, "stored", commitment=False, now=NOW)
    store = Explaining(tmp_path / "ledger.sqlite")
    figures = Figures(store)
    for look in (figures.queues, figures.undelivered, figures.waiting, figures.oldest_waiting, figures.timings):
        look()
    figures.flow(300, now=NOW)
    figures.steps_since(0)
    store.close()
    tables = ("instance", "history", "delivery", "object", "batch", "h", "i", "d", "o", "c")
    assert store.plans
    assert [plan for plan in store.plans if any(plan.startswith(f"SCAN {table}") for table in tables)] == []
    # The history by what it is about holds every row of it.
    assert [plan for plan in store.plans if "history_by_ref (what=?)" in plan] == []
