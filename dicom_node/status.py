"""Every status on the wire, named once beside its clause, and what a sender does with each. Knows no socket."""

from __future__ import annotations

from enum import Enum, IntEnum


class StoreStatus(IntEnum):
    """C-STORE responses that the receiver gives. Source: PS3.4 table B.2-1, PS3.7 C.5."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NOT_AUTHORIZED = 0x0124
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_MISMATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000


class EventStatus(IntEnum):
    """N-EVENT-REPORT and N-ACTION responses. Source: PS3.7 10.1.1.1.8, 10.1.4.1.10."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    NO_SUCH_EVENT_TYPE = 0x0113
    INVALID_ARGUMENT = 0x0115
    NO_SUCH_ACTION = 0x0123
    NOT_AUTHORIZED = 0x0124
    RESOURCE_LIMITATION = 0x0213


class CommitFailure(IntEnum):
    """Failure Reason (0008,1197) of a storage commitment report. Source: PS3.3 C.14."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_OBJECT_INSTANCE = 0x0112
    RESOURCE_LIMITATION = 0x0213
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    CLASS_INSTANCE_CONFLICT = 0x0119
    DUPLICATE_TRANSACTION = 0x0131


class Next(Enum):
    """What the sender does after a response."""

    DONE = "done"
    RETRY = "retry"
    PARK = "park"


# Source: PS3.2 table N.7-42 (one row each), PS3.4 table B.2-1, PS3.7 annex C. First match wins.
# Resource trouble passes; what the peer says about the object or about us will not change by itself.
SENDING: tuple[tuple[int, int, Next, str], ...] = (
    (0x0000, 0x0000, Next.DONE, "stored"),
    (0xB000, 0xB000, Next.DONE, "stored, some elements coerced"),
    (0xB006, 0xB006, Next.DONE, "stored, some elements discarded"),
    (0xB007, 0xB007, Next.DONE, "stored, data set does not match the SOP class"),
    (0x0110, 0x0110, Next.RETRY, "processing failure"),
    (0x0112, 0x0112, Next.PARK, "no such object instance"),
    (0x0117, 0x0117, Next.PARK, "invalid object instance"),
    (0x0122, 0x0122, Next.PARK, "SOP class not supported"),
    (0x0124, 0x0124, Next.PARK, "not authorized"),
    (0x0210, 0x0210, Next.RETRY, "duplicate invocation"),
    (0x0211, 0x0211, Next.PARK, "unrecognized operation"),
    (0x0212, 0x0212, Next.PARK, "mistyped argument"),
    (0x0213, 0x0213, Next.RETRY, "resource limitation"),
    (0x0214, 0x0214, Next.RETRY, "resource limitation"),
    (0xA700, 0xA7FF, Next.RETRY, "out of resources"),
    (0xA900, 0xA9FF, Next.PARK, "data set does not match the SOP class"),
    (0xC000, 0xCFFF, Next.PARK, "cannot understand"),
)


def no_room(status: int) -> bool:
    """Whether the peer lacks resources. Source: PS3.4 table B.2-1, PS3.7 C.5.20 (0x0213)."""
    return 0xA700 <= status <= 0xA7FF or status in (0x0213, 0x0214)


def after_store(status: int | None) -> tuple[Next, str]:
    """What to do after a C-STORE response, with the reason in words; None means that no response came."""
    if status is None:
        return Next.RETRY, "no response"
    for low, high, step, words in SENDING:
        if low <= status <= high:
            return step, words
    # N.7-42 "anything else": a peer that invents statuses did not say that it keeps the object.
    return Next.PARK, f"unknown status 0x{status:04X}"
