"""What a sender does after each status: every row of PS3.2 table N.7-42, written out once more by hand."""

from __future__ import annotations

import pytest

from dicom_node.status import Next, after_store

# Source: PS3.2 table N.7-42, both ends of each range; 0x0110, 0x0122, 0x0124 and 0x0213 from PS3.7 annex C.
ROWS = [
    (0x0000, Next.DONE),
    (0xB000, Next.DONE),
    (0xB006, Next.DONE),
    (0xB007, Next.DONE),
    (0x0110, Next.RETRY),
    (0x0112, Next.PARK),
    (0x0117, Next.PARK),
    (0x0122, Next.PARK),
    (0x0124, Next.PARK),
    (0x0210, Next.RETRY),
    (0x0211, Next.PARK),
    (0x0212, Next.PARK),
    (0x0213, Next.RETRY),
    (0x0214, Next.RETRY),
    (0xA700, Next.RETRY),
    (0xA7FF, Next.RETRY),
    (0xA900, Next.PARK),
    (0xA9FF, Next.PARK),
    (0xC000, Next.PARK),
    (0xC210, Next.PARK),
    (0xCFFF, Next.PARK),
]


@pytest.mark.parametrize(("status", "step"), ROWS, ids=[f"{status:04X}" for status, _ in ROWS])
def test_each_status_of_the_standard_has_its_step_and_words(status: int, step: Next) -> None:
    found, words = after_store(status)
    assert found is step
    assert words
    assert "unknown" not in words


@pytest.mark.parametrize("status", [0x0001, 0x0111, 0xA6FF, 0xA800, 0xB001, 0xD000, 0xFE00, 0xFF00, 0xFFFF])
def test_a_status_that_the_standard_does_not_have_is_never_taken_for_stored(status: int) -> None:
    assert after_store(status) == (Next.PARK, f"unknown status 0x{status:04X}")


def test_no_response_is_tried_again() -> None:
    assert after_store(None)[0] is Next.RETRY
