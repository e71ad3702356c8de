"""Every status of the standard's tables has its meaning, and every other one counts as a refusal."""

from __future__ import annotations

import pytest

from dicom_node.errors import PeerBusy, PeerRefused
from dicom_node.sources.statuses import FINDING, GETTING, MOVING, Meaning, Row, fault, meaning


@pytest.mark.parametrize(
    ("table", "status", "expected"),
    [
        # Source: PS3.4 tables C.4-1, C.4-2, C.4-3.
        (FINDING, 0xA700, Meaning.LATER),
        (FINDING, 0xA900, Meaning.REFUSED),
        (FINDING, 0xC001, Meaning.LATER),
        (FINDING, 0xFE00, Meaning.CANCELLED),
        (FINDING, 0x0000, Meaning.DONE),
        (FINDING, 0xFF00, Meaning.PENDING),
        (FINDING, 0xFF01, Meaning.PENDING),
        (MOVING, 0xA701, Meaning.LATER),
        (MOVING, 0xA702, Meaning.LATER),
        (MOVING, 0xA801, Meaning.REFUSED),
        (MOVING, 0xA900, Meaning.REFUSED),
        (MOVING, 0xCFFF, Meaning.LATER),
        (MOVING, 0xFE00, Meaning.CANCELLED),
        (MOVING, 0xB000, Meaning.PARTLY),
        (MOVING, 0x0000, Meaning.DONE),
        (MOVING, 0xFF00, Meaning.PENDING),
        (GETTING, 0xA701, Meaning.LATER),
        (GETTING, 0xA702, Meaning.LATER),
        (GETTING, 0xA900, Meaning.REFUSED),
        (GETTING, 0xC000, Meaning.LATER),
        (GETTING, 0xFE00, Meaning.CANCELLED),
        (GETTING, 0xB000, Meaning.PARTLY),
        (GETTING, 0x0122, Meaning.NOT_OFFERED),
        (GETTING, 0x0124, Meaning.REFUSED),
        (GETTING, 0xFF00, Meaning.PENDING),
        (FINDING, 0x1234, Meaning.REFUSED),
        (FINDING, 0xA801, Meaning.REFUSED),
        (GETTING, 0xFF01, Meaning.REFUSED),
    ],
)
def test_a_status_means_what_the_standard_says(table: tuple[Row, ...], status: int, expected: Meaning) -> None:
    assert meaning(status, table)[0] is expected


def test_only_what_may_pass_is_worth_another_attempt() -> None:
    assert isinstance(fault("A@h:1", "C-FIND", 0xA700, FINDING), PeerBusy)
    refused = fault("A@h:1", "C-MOVE", 0xA801, MOVING, "add EVENRAY to its list")
    assert isinstance(refused, PeerRefused)
    assert str(refused) == (
        "A@h:1: answered C-MOVE with 0xA801, does not know the move destination: add EVENRAY to its list"
    )
