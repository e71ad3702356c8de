"""What follows a failure: wait, longer and longer up to a cap, then a person."""

from __future__ import annotations

from dicom_node.errors import PeerRefused, PeerUnreachable
from dicom_node.retry import GiveUp, TryAt, decide
from dicom_node.settings import Retrying

RULES = Retrying(attempts=5, first_s=2, factor=3, longest_s=30)


def _wait(failures: int) -> float:
    then = decide(PeerUnreachable("down"), failures=failures, now=1000, rules=RULES)
    assert isinstance(then, TryAt)
    return then.at - 1000


def test_waits_grow_by_the_factor_up_to_the_cap() -> None:
    assert [_wait(n) for n in (1, 2, 3, 4)] == [2, 6, 18, 30]


def test_the_last_attempt_gives_up_and_says_how_often_it_was_tried() -> None:
    then = decide(PeerUnreachable("down"), failures=5, now=0, rules=RULES)
    assert then == GiveUp("down (gave up after 5 attempts)")


def test_a_refusal_that_will_not_change_is_given_up_at_once() -> None:
    assert decide(PeerRefused("no"), failures=1, now=0, rules=RULES) == GiveUp("no")


def test_a_very_long_series_of_failures_does_not_overflow() -> None:
    rules = Retrying(attempts=1000, first_s=1, factor=10, longest_s=60)
    assert decide(PeerUnreachable("down"), failures=999, now=0, rules=rules) == TryAt(60)
