"""A clock that jumps, ahead or back, holds nothing for long, parks nothing and loses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.assembly import Ready, Snapshot, decide
from dicom_node.errors import LostClaim
from dicom_node.ledger import BatchRow, Ledger
from dicom_node.quiet import Patience, Steady
from dicom_node.settings import Assembly
from dicom_node.states import Instance
from tests.unit.ledger.test_ledger import PASSED, _admit, _arrive, _decided, _header

NOW = 1_000_000.0
YEAR = 365 * 86400.0
RULES = Assembly(quiet_s=20, quiet_after_release_s=5, cap_s=100)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def _alive(_name: str) -> bool:
    return True


def test_a_wait_that_a_clock_ahead_has_set_ends_when_it_is_right_again(ledger: Ledger) -> None:
    _admit(ledger, _arrive(ledger, now=NOW), to=["pacs"])
    claimed = ledger.instances.claim("worker", now=NOW, lease_s=10)
    assert claimed is not None
    ledger.instances.release(claimed, "later", next_try=NOW + YEAR + 4, now=NOW + YEAR)
    (sent,) = ledger.deliveries.claim("pacs", "sender", now=NOW, lease_s=10, limit=1)
    ledger.deliveries.release(sent, "later", next_try=NOW + YEAR + 4, now=NOW + YEAR)
    assert ledger.instances.claim("worker", now=NOW + 1, lease_s=10) is None
    ledger.sweep(_alive, longest_s=900, now=NOW + 5)
    assert ledger.instances.claim("worker", now=NOW + 5, lease_s=10) is not None
    assert len(ledger.deliveries.claim("pacs", "sender", now=NOW + 5, lease_s=10, limit=1)) == 1


def test_a_wait_as_long_as_the_settings_allow_is_left_alone(ledger: Ledger) -> None:
    _admit(ledger, _arrive(ledger, now=NOW))
    claimed = ledger.instances.claim("worker", now=NOW, lease_s=10)
    assert claimed is not None
    ledger.instances.release(claimed, "later", next_try=NOW + 900, now=NOW)
    ledger.sweep(_alive, longest_s=900, now=NOW)
    assert ledger.instances.claim("worker", now=NOW + 899, lease_s=10) is None
    assert ledger.instances.claim("worker", now=NOW + 900, lease_s=10) is not None


def test_a_report_and_a_confirmation_that_wait_for_a_far_day_are_due_again(ledger: Ledger) -> None:
    _admit(ledger, _arrive(ledger, now=NOW), to=["pacs"])
    _decided(ledger, now=NOW)
    ledger.batches.close(ledger.batches.open()[0][0], "quiet", now=NOW)
    batch = ledger.batches.claim("worker", now=NOW, lease_s=10)
    assert batch is not None
    ledger.batches.release(batch, "later", next_try=NOW + YEAR, now=NOW)
    (sent,) = ledger.deliveries.claim("pacs", "sender", now=NOW, lease_s=10, limit=1)
    ledger.deliveries.stored(sent, 0, "stored", commitment=True, now=NOW)
    rows = ledger.deliveries.to_ask("pacs", now=NOW, limit=1)
    ledger.deliveries.asked(rows, "2.25.1", now=NOW + YEAR, wait=lambda _asked: 300.0)
    ledger.sweep(_alive, longest_s=900, now=NOW)
    assert ledger.batches.claim("worker", now=NOW, lease_s=10) is not None
    assert len(ledger.deliveries.overdue("pacs", now=NOW, limit=9)) == 1


def test_a_lease_from_the_future_holds_while_its_owner_lives_and_no_longer(ledger: Ledger) -> None:
    _admit(ledger, _arrive(ledger, now=NOW))
    assert ledger.instances.claim("worker", now=NOW + YEAR, lease_s=10)
    assert ledger.sweep(_alive, now=NOW) == 0
    assert ledger.sweep(lambda _name: False, now=NOW) == 1
    assert ledger.instances.claim("other", now=NOW, lease_s=10) is not None


def test_a_jump_of_a_year_has_leases_taken_over_and_fences_off_the_former_owner(ledger: Ledger) -> None:
    _admit(ledger, _arrive(ledger, now=NOW))
    slow = ledger.instances.claim("slow", now=NOW, lease_s=10)
    assert slow is not None
    for n in range(1, 9):
        # However often it happens: a lease that ran out is no death, so nothing is parked.
        assert ledger.sweep(_alive, now=NOW + n * YEAR) == 1
        quick = ledger.instances.claim("quick", now=NOW + n * YEAR, lease_s=10)
        assert quick is not None
    with pytest.raises(LostClaim):
        ledger.instances.decide(slow, PASSED, [], now=NOW + 8 * YEAR)
    ledger.instances.decide(quick, PASSED, [], now=NOW + 8 * YEAR)
    assert ledger.counts()["instance"][Instance.DECIDED.value] == 1


def test_an_instance_received_by_a_clock_ahead_joins_its_batch_as_of_now(ledger: Ledger) -> None:
    row = _arrive(ledger, now=NOW + YEAR)
    reading = ledger.instances.read("worker", now=NOW, lease_s=10)
    assert reading is not None
    ledger.instances.admit(reading, _header(row), "d", forward_to=[], now=NOW)
    ((_, snapshot),) = ledger.batches.open()
    assert (snapshot.first_at, snapshot.last_at) == (NOW, NOW)


def test_a_leap_ahead_makes_no_batch_old_that_is_being_received() -> None:
    steady = Steady()
    assert steady.now(wall=NOW, monotonic=0, hold_s=20) == NOW
    assert steady.now(wall=NOW + YEAR + 1, monotonic=1, hold_s=20) == NOW + 1
    assert steady.now(wall=NOW + YEAR + 20, monotonic=20, hold_s=20) == NOW + 20
    # By now whatever is still being received has a date of the new time.
    assert steady.now(wall=NOW + YEAR + 21, monotonic=21, hold_s=20) == NOW + YEAR + 21


def _quick(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """A ledger for many examples: none of them is about the disk."""
    ledger = Ledger(tmp_path_factory.mktemp("l") / "ledger.sqlite")
    ledger._store._db.execute("PRAGMA synchronous=OFF")
    return ledger


TIMES = st.integers(-300, 300).map(float)
BATCHES = st.lists(st.tuples(TIMES, st.floats(0, 200), st.none() | st.floats(-100, 200)), min_size=1, max_size=6)


@settings(max_examples=30, deadline=None)
@given(batches=BATCHES, unread=st.none() | TIMES)
def test_what_is_looked_at_is_exactly_what_can_be_complete(
    tmp_path_factory: pytest.TempPathFactory, batches: list[tuple[float, float, float | None]], unread: float | None
) -> None:
    ledger = _quick(tmp_path_factory)
    with ledger._store.write() as db:
        for n, (first, length, released) in enumerate(batches):
            db.execute(
                "INSERT INTO batch (id, study_key, study_instance_uid, number, state, first_at, last_at)"
                " VALUES (?, ?, '1', 1, 'open', ?, ?)",
                (n, f"k{n}", first, first + length),
            )
            ended = None if released is None else first + length + released
            db.execute("INSERT INTO association VALUES (?, 'l', 'A', 'B', 0, ?, NULL, '')", (f"a{n}", ended))
            db.execute(
                "INSERT INTO instance (state, sop_class_uid, sop_instance_uid, transfer_syntax_uid, calling_ae,"
                " called_ae, association, path, size, received_at, batch)"
                " VALUES ('decided', '', '', '', '', '', ?, ?, 0, 0, ?)",
                (f"a{n}", f"originals/{n}", n),
            )
    if unread is not None:
        _arrive(ledger, now=unread)

    def complete(found: list[tuple[BatchRow, Snapshot]]) -> set[int]:
        return {row.id for row, shot in found if isinstance(decide(shot, now=0, rules=RULES), Ready)}

    every, looked_at = ledger.batches.open(), ledger.batches.to_decide(now=0, rules=RULES)
    ledger.close()
    assert complete(looked_at) == complete(every)
    assert {row.id for row, _ in looked_at} <= {row.id for row, _ in every}
    quiet = [
        row.id
        for row, shot in every
        if -RULES.quiet_after_release_s < shot.last_at <= 0 and shot.first_at > -RULES.cap_s
    ]
    assert not set(quiet) & {row.id for row, _ in looked_at}, "what can't be complete is not even looked at"


@settings(max_examples=30, deadline=None)
@given(
    jumps=st.lists(st.tuples(st.integers(0, 60), st.floats(-2 * YEAR, 2 * YEAR)), max_size=5),
    arrivals=st.lists(st.integers(0, 60), min_size=1, max_size=5),
    released=st.booleans(),
)
def test_whatever_the_clock_does_a_batch_closes_soon_after_it_is_right_again(
    tmp_path_factory: pytest.TempPathFactory,
    jumps: list[tuple[int, float]],
    arrivals: list[int],
    released: bool,
) -> None:
    """Second by second: instances arrive and the clock jumps for a minute, then nothing happens any more."""
    ledger = _quick(tmp_path_factory)
    ledger.association_opened("a", "receive-1", "A", "B", now=NOW)
    patience, steady, ahead, closed = Patience(), Steady(), 0.0, set()
    last = max(arrivals)
    for second in range(61 + int(RULES.quiet_s + RULES.cap_s)):
        ahead += sum(by for at, by in jumps if at == second)
        if second == 60:
            # From here on the clock is right.
            ahead = 0.0
        wall = NOW + second + ahead
        for _ in range(arrivals.count(second)):
            _admit(ledger, _arrive(ledger, now=wall))
        if released and second == last:
            ledger.association_ended("a", "released", now=wall)
        look = steady.now(wall=wall, monotonic=second, hold_s=RULES.quiet_s)
        found = ledger.batches.to_decide(now=look, rules=RULES)
        patience.keep_only([row.id for row, _ in found])
        for row, shot in found:
            now = patience.now_for(row.id, shot, wall=look, monotonic=second)
            if isinstance(decide(shot, now=now, rules=RULES), Ready):
                ledger.batches.close(row, "quiet", now=wall)
                closed.add(row.id)
    still_open = ledger.batches.open()
    ledger.close()
    assert still_open == []
    assert closed
