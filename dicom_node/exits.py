"""The exit codes of every command, named once."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What the shell sees."""

    DONE = 0
    FAILED = 1
    """The command ran, but something in it failed."""
    USAGE = 2
    """Wrong usage, input or configuration: the same call will fail again."""
    LATER = 75
    """The node, or a process of it, can't start now: no room, or the ledger is held. EX_TEMPFAIL of sysexits.h."""
    INTERRUPTED = 130
