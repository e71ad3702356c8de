"""What can go wrong in the node, as one tree whose branches say what a loop does next. Expected outcomes are values."""

from __future__ import annotations

import traceback
from enum import Enum
from pathlib import Path
from typing import Self


class Blame(Enum):
    """What a fault of a destination is about."""

    OBJECT = "object"
    """The object in hand."""
    PEER = "peer"
    """The destination as a whole: the object was not even tried."""
    EITHER = "either"
    """The object was tried, but it may be the destination that can't take anything now."""


def place_of(fault: BaseException) -> str:
    """Type and place of an unexpected fault: its text might quote a patient's data."""
    place = traceback.extract_tb(fault.__traceback__)[-1]
    return f"{type(fault).__name__} in {Path(place.filename).name}:{place.lineno}"


class EvenrayError(Exception):
    """Root. The text is one sentence for a person: what happened, where, and the remedy."""

    blame = Blame.OBJECT

    def about(self, blame: Blame) -> Self:
        """The same fault, saying what it is about."""
        self.blame = blame
        return self


class RetryLater(EvenrayError):
    """The same step may succeed later: the loop waits and tries again, up to its limit."""


class Park(EvenrayError):
    """Trying again will not help by itself: the loop sets the work aside for a person to see and retry."""


class Stop(EvenrayError):
    """The process can't go on: it says why and ends."""


class StartLater(Stop):
    """The process can't start now, and may soon: whoever started it tries again."""


class PeerUnreachable(RetryLater):
    """No association: refused connection, time-out, transient rejection."""


class PeerBusy(RetryLater):
    """The peer answered with a status that asks to come back later."""


class EngineFault(RetryLater):
    """The engine failed on its device, not on the image."""


class PeerRefused(Park):
    """The peer answered with a status, or a rejection, that will not change by itself."""


class ResultInvalid(Park):
    """A result could not be built from this source."""


class SpoolDamaged(Park):
    """A file that the ledger knows is missing or has other bytes than it had."""


class LostClaim(EvenrayError):
    """The lease ran out and someone else has the work: drop it, nothing was changed."""


class IllegalStep(EvenrayError):
    """A transition that the state table does not have; nothing was changed."""


class Unreadable(EvenrayError):
    """The object can't be turned into pixels; the text says why. Becomes the outcome of the same name."""


class SettingsInvalid(Stop):
    """The configuration has faults; the text lists all of them, each with its path."""


class DiskFull(RetryLater):
    """No room to keep what would be received or made; no fault of what is being worked on."""


class LedgerUnavailable(RetryLater):
    """The ledger can't be read or written now: its disk fails, or something holds it; nothing was changed."""


class AlreadyRunning(Stop):
    """Another process holds the lock of this state directory."""


class BadInput(Stop):
    """A command was given something it can't use."""
