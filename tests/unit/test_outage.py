"""A destination that takes nothing: one look a pause, pauses that grow up to a cap and are never in step."""

from __future__ import annotations

from dicom_node.outage import Outage
from dicom_node.retry import DAY_S, report_wait
from dicom_node.settings import Deliver, Retrying

RULES = Deliver(retry=Retrying(first_s=2, factor=2), longest_pause_s=20)


def test_pauses_grow_up_to_the_cap() -> None:
    outage = Outage(RULES, lambda: 0.0)
    assert [outage.failed(now=0) for _ in range(6)] == [2, 4, 8, 16, 20, 20]


def test_chance_shortens_a_pause_by_half_at_most() -> None:
    assert Outage(RULES, lambda: 1.0).failed(now=0) == 1
    assert Outage(RULES, lambda: 0.5).failed(now=0) == 1.5


def test_it_is_left_alone_until_the_pause_is_over_and_doubted_until_it_took_something() -> None:
    outage = Outage(RULES, lambda: 0.0)
    assert not outage.doubted
    outage.failed(now=100)
    assert outage.pausing(now=101.9)
    assert not outage.pausing(now=102)
    assert outage.doubted
    outage.ended()
    assert not outage.doubted
    assert not outage.pausing(now=0)


def test_an_object_that_fails_again_and_again_does_not_make_the_pauses_grow() -> None:
    outage = Outage(RULES, lambda: 0.0)
    assert [outage.failed(now=0, again=True) for _ in range(5)] == [2, 2, 2, 2, 2]
    assert outage.failed(now=0) == 4
    assert outage.failed(now=0, again=True) == 4


def test_a_month_of_failures_does_not_overflow() -> None:
    outage = Outage(Deliver(retry=Retrying(factor=10)), lambda: 0.0)
    assert {outage.failed(now=0) for _ in range(50_000)} == {2, 20, 60}


def test_each_report_is_waited_for_twice_as_long_as_the_last_up_to_a_day_and_to_an_end() -> None:
    waits = [report_wait(n, first_s=300, patience_s=7 * DAY_S) for n in range(1, 40)]
    assert waits[:4] == [300, 600, 1200, 2400]
    given = [wait for wait in waits if wait is not None]
    assert max(given) == DAY_S
    assert waits[len(given) :] == [None] * (39 - len(given))
    assert 7 * DAY_S <= sum(given) < 8 * DAY_S
    assert len(given) < 20, "an object that is never confirmed must not fill the history"
