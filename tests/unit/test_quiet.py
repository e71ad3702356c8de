"""A batch is as old as it looks when it is first seen, and from then on by the clock that never jumps."""

from __future__ import annotations

from dicom_node.assembly import Ready, Snapshot, Wait, decide
from dicom_node.quiet import Patience
from dicom_node.settings import Assembly

RULES = Assembly(quiet_s=20, quiet_after_release_s=5, cap_s=600)
HOUR = 3600.0


def snapshot(last_at: float, *, first_at: float = 1000, released_at: float | None = None) -> Snapshot:
    return Snapshot(first_at=first_at, last_at=last_at, released_at=released_at, unread_since=None)


def outcome(patience: Patience, batch: Snapshot, wall: float, monotonic: float) -> Ready | Wait:
    return decide(batch, now=patience.now_for(1, batch, wall=wall, monotonic=monotonic), rules=RULES)


def test_without_a_jump_it_is_the_wall_clocks_time() -> None:
    patience = Patience()
    assert patience.now_for(1, snapshot(1000), wall=1003, monotonic=50) == 1003
    assert patience.now_for(1, snapshot(1000), wall=1010, monotonic=57) == 1010


def test_a_clock_set_back_holds_no_batch_back() -> None:
    patience = Patience()
    assert isinstance(outcome(patience, snapshot(1000), 1001, 50), Wait)
    assert isinstance(outcome(patience, snapshot(1000), 1001 - HOUR, 51), Wait)
    assert isinstance(outcome(patience, snapshot(1000), 1020 - HOUR, 70), Ready)


def test_a_clock_set_forward_closes_no_batch_that_is_being_received() -> None:
    patience = Patience()
    outcome(patience, snapshot(1000), 1001, 50)
    assert isinstance(outcome(patience, snapshot(1000), 1002 + HOUR, 51), Wait)
    assert isinstance(outcome(patience, snapshot(1000), 1020 + HOUR, 70), Ready)


def test_a_batch_from_the_future_is_new_and_not_forgotten() -> None:
    patience = Patience()
    late = snapshot(1000 + HOUR, first_at=1000 + HOUR)
    assert isinstance(outcome(patience, late, 1000, 50), Wait)
    assert isinstance(outcome(patience, late, 1020, 70), Ready)


def test_a_released_association_from_the_future_is_new() -> None:
    patience = Patience()
    released = snapshot(1000, released_at=1000 + HOUR)
    assert isinstance(outcome(patience, released, 1001, 50), Ready), "the quiet time itself is over in any case"


def test_one_more_image_starts_the_count_anew() -> None:
    patience = Patience()
    outcome(patience, snapshot(1000), 1000, 50)
    assert isinstance(outcome(patience, snapshot(1015), 1015, 65), Wait)
    assert isinstance(outcome(patience, snapshot(1015), 1034, 84), Wait)
    assert isinstance(outcome(patience, snapshot(1015), 1035, 85), Ready)


def test_a_batch_that_is_closed_is_forgotten() -> None:
    patience = Patience()
    patience.now_for(1, snapshot(1000), wall=1000, monotonic=50)
    patience.keep_only([2])
    assert patience.now_for(1, snapshot(1000), wall=5000, monotonic=51) == 5000
