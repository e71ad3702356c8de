"""Arrivals of several associations: one commit for those that are ready together, and each learns what became of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dicom_node.arrivals import Arrivals
from dicom_node.errors import DiskFull
from dicom_node.ledger import Ledger
from dicom_node.records import Arrival


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def _arrival(number: int, path: str = "") -> Arrival:
    return Arrival(
        sop_class_uid="1.2.3",
        sop_instance_uid=f"1.2.3.{number}",
        transfer_syntax_uid="1.2.840.10008.1.2",
        calling_ae="A",
        called_ae="B",
        association="c",
        path=path or f"originals/00/{number}.dcm",
        size=1,
    )


def _together(arrivals: Arrivals, all_of_them: Sequence[Arrival]) -> list[int | Exception]:
    """What each of so many threads got."""
    found: list[int | Exception] = [0] * len(all_of_them)
    begun = threading.Barrier(len(all_of_them))

    def one(number: int) -> None:
        arrivals.expect()
        begun.wait(10)
        try:
            found[number] = arrivals.commit(all_of_them[number])
        except DiskFull as fault:
            found[number] = fault

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(all_of_them))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return found


def test_every_association_gets_the_number_of_its_own_instance(ledger: Ledger) -> None:
    arrivals = Arrivals(ledger, lambda: 5.0)
    for round_ in range(20):
        wanted = [_arrival(100 * round_ + n) for n in range(8)]
        refs = _together(arrivals, wanted)
        for ref, arrival in zip(refs, wanted, strict=True):
            assert isinstance(ref, int)
            row = ledger.instances.get(ref)
            assert row is not None
            assert row.sop_instance_uid == arrival.sop_instance_uid


def test_what_is_ready_together_is_committed_together(ledger: Ledger) -> None:
    """Observed in the database: how often it has changed."""
    arrivals = Arrivals(ledger, lambda: 5.0)
    commits: list[str] = []
    ledger._store._db.set_trace_callback(lambda text: commits.append(text) if text == "COMMIT" else None)
    for round_ in range(10):
        _together(arrivals, [_arrival(1000 * round_ + n) for n in range(8)])
    ledger._store._db.set_trace_callback(None)
    assert ledger.counts()["instance"]["received"] == 80
    assert len(commits) <= 40


def test_one_that_waits_for_another_that_gives_up_is_committed(ledger: Ledger) -> None:
    arrivals = Arrivals(ledger, lambda: 5.0)
    arrivals.expect()
    arrivals.expect()
    arrivals.give_up()
    assert arrivals.commit(_arrival(1)) == 1


def test_one_that_waits_for_another_that_never_comes_is_committed_all_the_same(ledger: Ledger) -> None:
    arrivals = Arrivals(ledger, lambda: 5.0)
    arrivals.expect()
    arrivals.expect()
    assert arrivals.commit(_arrival(1)) == 1


def test_a_fault_reaches_every_association_of_the_group_and_none_after_it(ledger: Ledger) -> None:
    arrivals = Arrivals(ledger, lambda: 5.0)
    ledger._store._db.execute("PRAGMA max_page_count=1")
    long = "x" * 50_000
    found = _together(arrivals, [_arrival(n, path=f"{long}{n}") for n in range(4)])
    assert [type(fault) for fault in found] == [DiskFull] * 4
    ledger._store._db.execute("PRAGMA max_page_count=1000000")
    arrivals.expect()
    assert arrivals.commit(_arrival(9)) == 1
