"""What an archive's answers mean: every status of C-FIND, C-MOVE and C-GET in one table each. Knows no socket."""

from __future__ import annotations

from enum import Enum

from dicom_node.errors import EvenrayError, PeerBusy, PeerRefused


class Meaning(Enum):
    """What follows from a response."""

    PENDING = "pending"
    """More responses come."""
    DONE = "done"
    PARTLY = "partly"
    """All was tried; some of it failed."""
    CANCELLED = "cancelled"
    LATER = "later"
    """Refused now; it may go well later."""
    REFUSED = "refused"
    """Will not change by itself."""
    NOT_OFFERED = "not offered"
    """The archive has no such service."""


Row = tuple[int, int, Meaning, str]

# Source: PS3.7 annex C, 9.1.2.1.5, 9.1.3.1.6, 9.1.4.1.7: what any of the three may be answered.
_ANY: tuple[Row, ...] = (
    (0x0000, 0x0000, Meaning.DONE, "done"),
    (0x0105, 0x0106, Meaning.REFUSED, "does not take a key of the question"),
    (0x0110, 0x0110, Meaning.LATER, "processing failure"),
    (0x0112, 0x0112, Meaning.REFUSED, "does not have it"),
    (0x0122, 0x0122, Meaning.NOT_OFFERED, "SOP class not supported"),
    (0x0124, 0x0124, Meaning.REFUSED, "we are not authorized: allow our AE title there"),
    (0x0210, 0x0210, Meaning.LATER, "duplicate invocation"),
    (0x0211, 0x0211, Meaning.NOT_OFFERED, "unrecognized operation"),
    (0x0212, 0x0212, Meaning.REFUSED, "mistyped argument"),
    (0x0213, 0x0213, Meaning.LATER, "resource limitation"),
    (0xA900, 0xA9FF, Meaning.REFUSED, "the question does not match the SOP class"),
    (0xC000, 0xCFFF, Meaning.LATER, "unable to process"),
    (0xFE00, 0xFE00, Meaning.CANCELLED, "cancelled"),
)
# Source: PS3.4 table C.4-1.
FINDING: tuple[Row, ...] = (
    *_ANY,
    (0xA700, 0xA7FF, Meaning.LATER, "out of resources"),
    (0xFF00, 0xFF00, Meaning.PENDING, "a match"),
    (0xFF01, 0xFF01, Meaning.PENDING, "a match; an optional key is not supported"),
)
# Source: PS3.4 table C.4-3.
GETTING: tuple[Row, ...] = (
    *_ANY,
    (0xA701, 0xA701, Meaning.LATER, "out of resources: can't count the matches"),
    (0xA702, 0xA702, Meaning.LATER, "out of resources: can't send"),
    (0xA700, 0xA7FF, Meaning.LATER, "out of resources"),
    (0xB000, 0xB000, Meaning.PARTLY, "some could not be sent"),
    (0xFF00, 0xFF00, Meaning.PENDING, "sending"),
)
# Source: PS3.4 table C.4-2.
MOVING: tuple[Row, ...] = (
    (0xA801, 0xA801, Meaning.REFUSED, "does not know the move destination"),
    *GETTING,
)


def meaning(status: int, table: tuple[Row, ...]) -> tuple[Meaning, str]:
    """What a status means and how it is said; the first row that has it wins."""
    for low, high, found, words in table:
        if low <= status <= high:
            return found, words
    # Who invents statuses did not say that anything was done.
    return Meaning.REFUSED, "a status that the standard does not have"


def fault(peer: str, service: str, status: int, table: tuple[Row, ...], remedy: str = "") -> EvenrayError:
    """The error for a response that is no success: PeerBusy where it may go well later, else PeerRefused."""
    found, words = meaning(status, table)
    sentence = f"{peer}: answered {service} with 0x{status:04X}, {words}{remedy and f': {remedy}'}"
    return (PeerBusy if found in (Meaning.LATER, Meaning.PARTLY, Meaning.CANCELLED) else PeerRefused)(sentence)
