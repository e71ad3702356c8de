"""Instances that arrive together are committed together; what a batch still waits for is counted without looking."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from dicom_node.ledger import Ledger, Opened, faults_in
from dicom_node.ledger.store import LOG_ROOM_BYTES
from dicom_node.records import Arrival
from dicom_node.states import Instance
from tests.unit.ledger.test_ledger import PASSED, _admit, _arrive, _header


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def _arrivals(count: int) -> list[Arrival]:
    return [
        Arrival(
            sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
            sop_instance_uid=f"1.2.{n}",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            calling_ae="MODALITY",
            called_ae="EVENRAY",
            association="a",
            path=f"originals/together-{n}",
            size=n,
        )
        for n in range(count)
    ]


def test_what_arrives_together_has_rows_and_history_in_its_order(ledger: Ledger) -> None:
    one, group = _arrive(ledger, "1.2.9"), _arrivals(3)
    refs = ledger.instances.arrive_all(group, now=5)
    assert refs == [one.id + 1, one.id + 2, one.id + 3]
    rows = [ledger.instances.get(ref) for ref in refs]
    assert [(row.path, row.size, row.received_at, row.state) for row in rows if row] == [
        (f"originals/together-{n}", n, 5.0, Instance.RECEIVED) for n in range(3)
    ]
    for ref in refs:
        (step,) = ledger.history("instance", ref)
        assert (step["before"], step["step"], step["after"], step["at"]) == (None, "receive", "received", 5)


def test_of_what_arrives_together_all_is_committed_or_nothing(ledger: Ledger) -> None:
    group = _arrivals(3)
    group[2] = dataclasses.replace(group[2], path=group[0].path)
    with pytest.raises(sqlite3.IntegrityError):
        ledger.instances.arrive_all(group, opened=[Opened("a", "receive-1", "A", "B", 0)], now=5)
    assert ledger.instances.unread() == []
    assert ledger._store.read("SELECT * FROM history") == []
    assert ledger._store.read("SELECT * FROM association") == []


def test_nothing_that_arrives_is_no_transaction(ledger: Ledger) -> None:
    assert ledger.instances.arrive_all([], now=5) == []


def test_an_association_may_become_known_with_what_it_carried(ledger: Ledger) -> None:
    opened = [Opened("a", "receive-1", "MODALITY", "EVENRAY", 4.0)]
    for n in range(2):
        # Said again with each group until it is known to be there.
        ledger.instances.arrive_all(
            [dataclasses.replace(_arrivals(1)[0], path=f"originals/{n}x")], opened=opened, now=5
        )
    reading = ledger.instances.read("worker", now=5, lease_s=10)
    assert reading is not None
    ledger.instances.admit(reading, _header(reading), "d", forward_to=[], now=5)
    assert ledger.batches.open()[0][1].released_at is None
    ledger.association_ended("a", "released", now=6)
    assert ledger.batches.open()[0][1].released_at == 6


def test_what_failed_is_tried_again_before_what_is_fresh(ledger: Ledger) -> None:
    for _ in range(3):
        _admit(ledger, _arrive(ledger))
    first = ledger.instances.claim("worker", now=1, lease_s=10)
    assert first is not None
    ledger.instances.release(first, "later", next_try=5, now=1)
    order = [ledger.instances.claim("worker", now=now, lease_s=10) for now in (2, 5, 6)]
    assert [row.id - first.id for row in order if row] == [1, 0, 2]


@settings(max_examples=15, stateful_step_count=25, deadline=None)
class Counted(RuleBasedStateMachine):
    """Any life of instances: the number that a batch waits for is what a count of its rows would say."""

    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(self.folder / f"{id(self)}.sqlite")
        self.ledger._store._db.execute("PRAGMA synchronous=OFF")

    def teardown(self) -> None:
        self.ledger.close()

    @rule(study=st.sampled_from(["1.1", "1.2"]))
    def admit(self, study: str) -> None:
        _arrive(self.ledger)
        self.read(study)

    @rule(study=st.sampled_from(["1.1", "1.2"]))
    def read(self, study: str) -> None:
        row = self.ledger.instances.read("worker", now=1, lease_s=10)
        if row is not None:
            header = _header(row, study_instance_uid=study)
            self.ledger.instances.admit(row, header, f"d{row.id}", forward_to=[], now=1)

    @rule(how=st.sampled_from(["decide", "release", "park", "die"]))
    def claim(self, how: str) -> None:
        row = self.ledger.instances.claim("worker", now=1, lease_s=10)
        if row is None:
            return
        if how == "decide":
            self.ledger.instances.decide(row, PASSED, [], now=1)
        elif how == "release":
            self.ledger.instances.release(row, "later", next_try=0, now=1)
        elif how == "park":
            self.ledger.instances.park(row, "broken", now=1)
        else:
            self.ledger.sweep(lambda _name: False, now=1)

    @rule()
    def retry(self) -> None:
        for found in self.ledger.attention():
            self.ledger.instances.retry(found["id"], now=1)

    @rule()
    def close_one(self) -> None:
        for row, _ in self.ledger.batches.open()[:1]:
            self.ledger.batches.close(row, "quiet", now=1)

    @invariant()
    def the_count_is_right(self) -> None:
        wrong = self.ledger._store.read(
            "SELECT * FROM batch b WHERE undecided <> (SELECT count(*) FROM instance i"
            " WHERE i.batch = b.id AND i.state IN ('waiting', 'claimed'))"
        )
        assert not wrong


def test_what_a_batch_waits_for_is_counted_right_whatever_happens(tmp_path: Path) -> None:
    Counted.folder = tmp_path
    run_state_machine_as_test(Counted)


def test_room_for_the_log_is_made_once_and_changes_nothing_of_the_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path)
    log = tmp_path / "ledger.sqlite-wal"
    try:
        first, second = _arrivals(2)
        ledger.instances.arrive_all([first], now=1)
        before, schema = log.stat().st_size, ledger._store.read("SELECT name FROM sqlite_master ORDER BY 1")
        ledger.make_room()
        roomy = log.stat().st_size
        assert roomy >= LOG_ROOM_BYTES > before
        ledger.make_room()
        ledger.instances.arrive_all([second], now=2)
        assert log.stat().st_size == roomy, "what follows is written over it"
        assert [row.id for row in ledger.instances.unread()] == [1, 2]
        assert ledger._store.read("SELECT name FROM sqlite_master ORDER BY 1") == schema
    finally:
        ledger.close()
    assert faults_in(path) == []
