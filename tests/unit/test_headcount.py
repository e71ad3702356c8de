"""What receivers know of each other: connections of the last minute, over all of them."""

from __future__ import annotations

import threading
import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicom_node.headcount import Frequency, Headcount

HERE, THERE = "192.0.2.1", "192.0.2.2"


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _two(folder: Path, clock: Clock, room: int = 8) -> tuple[Frequency, Frequency]:
    one, other = (Frequency(folder / "count", slot=n, slots=2, clock=clock, room=room) for n in (0, 1))
    return one, other


def test_an_address_has_its_limit_in_a_minute_over_all_receivers(tmp_path: Path, clock: Clock) -> None:
    one, other = _two(tmp_path, clock)
    assert [one.admit(HERE, 4), other.admit(HERE, 4), one.admit(HERE, 4), other.admit(HERE, 4)] == [True] * 4
    assert not one.admit(HERE, 4)
    assert not other.admit(HERE, 4)
    assert one.admit(THERE, 4), "another address has its own"


def test_what_was_refused_does_not_count_and_a_minute_later_the_address_may_again(tmp_path: Path, clock: Clock) -> None:
    one, other = _two(tmp_path, clock)
    taken = []
    for second in range(180):
        clock.now = 1000.0 + second
        taken += [second] if one.admit(HERE, 3) or other.admit(HERE, 3) else []
    assert taken == [0, 1, 2, 60, 61, 62, 120, 121, 122]


@pytest.mark.parametrize("jump", [-900.0, -30.0, 1e6])
def test_a_count_of_another_start_of_the_machine_is_none(tmp_path: Path, clock: Clock, jump: float) -> None:
    one, other = _two(tmp_path, clock)
    assert one.admit(HERE, 1)
    clock.now += jump
    assert other.admit(HERE, 1)


def test_a_receiver_that_starts_again_forgets_its_own_counts_only(tmp_path: Path, clock: Clock) -> None:
    one, other = _two(tmp_path, clock)
    assert one.admit(HERE, 2)
    assert other.admit(HERE, 2)
    again = Frequency(tmp_path / "count", slot=0, slots=2, clock=clock, room=8)
    assert again.admit(HERE, 2)
    assert not again.admit(HERE, 2)


def test_more_addresses_than_there_is_room_for_push_out_the_one_seen_longest_ago(tmp_path: Path, clock: Clock) -> None:
    one, other = _two(tmp_path, clock, room=3)
    for address in ("a", "b", "c", "a", "d"):
        assert one.admit(address, 2)
    assert not other.admit("a", 2)
    assert [other.admit(address, 1) for address in ("b", "c")] == [True, False], "b was pushed out"


def test_a_line_is_worth_writing_once_a_minute_for_each_address(tmp_path: Path, clock: Clock) -> None:
    one, other = _two(tmp_path, clock)
    assert one.worth_telling(HERE)
    assert not one.worth_telling(HERE)
    assert not other.worth_telling(HERE)
    assert other.worth_telling(THERE)
    clock.now += 60
    assert other.worth_telling(HERE)
    assert not one.worth_telling(HERE)


def test_a_complaint_does_not_change_the_count(tmp_path: Path, clock: Clock) -> None:
    one, _ = _two(tmp_path, clock)
    assert one.admit(HERE, 2)
    clock.now += 45
    assert one.worth_telling(HERE)
    assert one.admit(HERE, 2)
    assert not one.admit(HERE, 2)
    clock.now += 20
    assert one.admit(HERE, 2), "the first is longer ago than a minute"


def test_a_number_that_looks_like_an_address_is_not_taken_for_one(tmp_path: Path) -> None:
    # The second of the complaint about another address is the number that stands for this one.
    one, other = _two(tmp_path, Clock(float(zlib.crc32(HERE.encode()))))
    assert other.worth_telling(THERE)
    assert other.admit(HERE, 1)
    assert not one.admit(HERE, 1)


def test_receivers_know_the_associations_of_each_other(tmp_path: Path) -> None:
    one, other = (Headcount(tmp_path / "count", slot=n, slots=2, most=4) for n in (0, 1))
    one.publish([HERE, HERE, THERE])
    assert (other.others(), other.others_of(HERE), one.others()) == (3, 2, 0)
    one.close()
    assert other.others() == 0


def test_two_receivers_never_take_the_last_place_both(tmp_path: Path) -> None:
    one, other = (Headcount(tmp_path / "count", slot=n, slots=2, most=4) for n in (0, 1))
    taken: list[int] = []

    def take(mine: Headcount) -> None:
        with mine.alone():
            if not mine.others_of(HERE):
                mine.publish([HERE])
                taken.append(1)

    with one.alone():
        late = threading.Thread(target=take, args=(other,))
        late.start()
        late.join(0.2)
        assert late.is_alive(), "it waits for its turn"
        one.publish([HERE])
    late.join(10)
    assert taken == []
    one.close()
    other.close()
