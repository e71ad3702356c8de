"""When a batch is complete: a table of moments."""

from __future__ import annotations

import pytest

from dicom_node.assembly import Ready, Snapshot, Wait, decide
from dicom_node.settings import Assembly

RULES = Assembly(quiet_s=20, quiet_after_release_s=5, cap_s=100)

# (first, last, released, unread since, now, ready?)
MOMENTS = {
    "just arrived": (0, 0, None, None, 0, False),
    "quiet, association still open": (0, 10, None, None, 29.9, False),
    "quiet time over, association still open": (0, 10, None, None, 30, True),
    "released, short quiet time not over": (0, 10, 11, None, 15.9, False),
    "released, short quiet time over": (0, 10, 11, None, 16, True),
    "released long before a late image came over another association": (0, 50, 11, None, 54, False),
    "the same, short quiet time after the late image over": (0, 50, 11, None, 55, True),
    "never quiet, cap not reached": (0, 99, None, None, 99.5, False),
    "never quiet, cap reached": (0, 99, None, None, 100, True),
    "quiet, but an instance is unread that may belong here": (0, 10, 11, 12, 60, False),
    "an instance that arrived after the cap waits for its own batch": (0, 99, None, 101, 200, True),
    "an instance that arrived after the quiet time, too": (0, 10, None, 31, 60, True),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_batch_is_complete_exactly_when_the_table_says_so(moment: str) -> None:
    first, last, released, unread, now, ready = MOMENTS[moment]
    decided = decide(Snapshot(first, last, released, unread), now=now, rules=RULES)
    assert isinstance(decided, Ready) is ready


def test_waiting_names_the_moment_at_which_the_answer_can_change() -> None:
    snapshot = Snapshot(first_at=0, last_at=10, released_at=11, unread_since=None)
    wait = decide(snapshot, now=12, rules=RULES)
    assert isinstance(wait, Wait)
    assert isinstance(decide(snapshot, now=wait.until, rules=RULES), Ready)
