"""The state tables: every state that a thing of the ledger can be in, and every step between them.

Pure: no clock, no database. The ledger refuses any step that has no row here.
"""

from __future__ import annotations

from enum import StrEnum

from dicom_node.errors import IllegalStep


class Instance(StrEnum):
    """Where one received instance is."""

    RECEIVED = "received"
    """Spooled and committed; its data set has not been looked at."""
    READING = "reading"
    """A worker looks at it for the first time, under a lease."""
    WAITING = "waiting"
    """Admitted: header read, in a batch, waiting for a worker."""
    CLAIMED = "claimed"
    """A worker has it under a lease."""
    DECIDED = "decided"
    """It has an outcome; its results are spooled."""
    REPORTED = "reported"
    """The report of its batch names it."""
    PARKED = "parked"
    """Set aside after faults: a person can see it and retry."""
    DUPLICATE = "duplicate"
    """The same bytes were already here: acknowledged, not repeated."""
    CONFLICT = "conflict"
    """Another object with the same UID and other bytes was already here: kept aside, flagged."""
    OWN = "own"
    """A result of this node, routed back: never processed. The first copy of it is kept."""
    EXPIRED = "expired"
    """Its file has left the spool after its receipts; the row and its history stay."""


class Batch(StrEnum):
    """Where the instances of a study that became quiet together are."""

    OPEN = "open"
    CLOSED = "closed"
    """Quiet: a later instance starts the next batch."""
    REPORTING = "reporting"
    """A worker makes its report under a lease."""
    REPORTED = "reported"
    VOID = "void"
    """Every instance of it was parked or set aside: nothing to report."""
    PARKED = "parked"


class Delivery(StrEnum):
    """Where one object on its way to one destination is."""

    PENDING = "pending"
    SENDING = "sending"
    """A sender has it under a lease."""
    STORED = "stored"
    """The destination has accepted it; its commitment is still to be asked for."""
    AWAITING = "awaiting"
    """Commitment asked for, no report yet."""
    DELIVERED = "delivered"
    """Receipt, and commitment where the destination offers it."""
    PARKED = "parked"


class Promise(StrEnum):
    """Where a peer's question is whether we keep its objects (storage commitment, PS3.4 annex J)."""

    ASKED = "asked"
    """Recorded; the objects have not been looked at for it."""
    DECIDED = "decided"
    """It is known of every object whether it is kept; the peer is still to be told."""
    REPORTING = "reporting"
    """A process tells the peer, under a lease."""
    REPORTED = "reported"
    """The peer has taken the answer."""
    PARKED = "parked"


class Object(StrEnum):
    """Where the file of one object is: an original that is sent on, or a result."""

    KEPT = "kept"
    """In the spool."""
    EXPIRED = "expired"
    """It has left the spool after its receipts."""


State = Instance | Batch | Delivery | Promise | Object

# (from, step, to). One row a step; a new step is a new row and its test.
TABLE: tuple[tuple[State, str, State], ...] = (
    (Instance.RECEIVED, "read", Instance.READING),
    (Instance.READING, "release", Instance.RECEIVED),
    (Instance.READING, "admit", Instance.WAITING),
    (Instance.READING, "recognise", Instance.OWN),
    (Instance.READING, "repeat", Instance.DUPLICATE),
    (Instance.READING, "clash", Instance.CONFLICT),
    (Instance.READING, "park", Instance.PARKED),
    (Instance.WAITING, "claim", Instance.CLAIMED),
    (Instance.WAITING, "park", Instance.PARKED),
    (Instance.CLAIMED, "release", Instance.WAITING),
    (Instance.CLAIMED, "decide", Instance.DECIDED),
    (Instance.CLAIMED, "park", Instance.PARKED),
    (Instance.DECIDED, "report", Instance.REPORTED),
    (Instance.PARKED, "retry", Instance.RECEIVED),
    (Instance.CONFLICT, "retry", Instance.RECEIVED),
    (Instance.REPORTED, "expire", Instance.EXPIRED),
    (Instance.OWN, "expire", Instance.EXPIRED),
    (Batch.OPEN, "close", Batch.CLOSED),
    (Batch.CLOSED, "claim", Batch.REPORTING),
    (Batch.CLOSED, "void", Batch.VOID),
    (Batch.REPORTING, "release", Batch.CLOSED),
    (Batch.REPORTING, "report", Batch.REPORTED),
    (Batch.REPORTING, "park", Batch.PARKED),
    (Batch.PARKED, "retry", Batch.CLOSED),
    (Delivery.PENDING, "claim", Delivery.SENDING),
    (Delivery.PENDING, "park", Delivery.PARKED),
    (Delivery.SENDING, "release", Delivery.PENDING),
    (Delivery.SENDING, "store", Delivery.STORED),
    (Delivery.SENDING, "deliver", Delivery.DELIVERED),
    (Delivery.SENDING, "park", Delivery.PARKED),
    (Delivery.STORED, "ask", Delivery.AWAITING),
    (Delivery.STORED, "deliver", Delivery.DELIVERED),
    (Delivery.STORED, "park", Delivery.PARKED),
    (Delivery.AWAITING, "ask again", Delivery.STORED),
    (Delivery.AWAITING, "deliver", Delivery.DELIVERED),
    (Delivery.AWAITING, "send again", Delivery.PENDING),
    (Delivery.AWAITING, "park", Delivery.PARKED),
    (Delivery.STORED, "send again", Delivery.PENDING),
    (Delivery.PARKED, "retry", Delivery.PENDING),
    (Delivery.PARKED, "deliver", Delivery.DELIVERED),
    (Promise.ASKED, "decide", Promise.DECIDED),
    (Promise.DECIDED, "claim", Promise.REPORTING),
    (Promise.DECIDED, "ask again", Promise.ASKED),
    (Promise.REPORTING, "release", Promise.DECIDED),
    (Promise.REPORTING, "report", Promise.REPORTED),
    (Promise.REPORTING, "park", Promise.PARKED),
    (Promise.REPORTED, "ask again", Promise.ASKED),
    (Promise.PARKED, "ask again", Promise.ASKED),
    (Promise.PARKED, "retry", Promise.DECIDED),
    (Object.KEPT, "expire", Object.EXPIRED),
)

# Members of two string enumerations with one value are equal: the kind must be part of the key.
_STEPS = {(type(before), before, step): after for before, step, after in TABLE}


def after(state: State, step: str) -> State:
    """The state that `step` leads to. Raises IllegalStep when the table has no such row."""
    try:
        return _STEPS[(type(state), state, step)]
    except KeyError:
        raise IllegalStep(f"{type(state).__name__.lower()}: no step {step!r} from {state.value}") from None


def diagram(kind: type[StrEnum]) -> str:
    """The table of one kind as a Mermaid state diagram, for the README."""
    rows = [
        f"  {before.value} --> {after_.value}: {step}" for before, step, after_ in TABLE if isinstance(before, kind)
    ]
    return "\n".join(["stateDiagram-v2", *rows])
