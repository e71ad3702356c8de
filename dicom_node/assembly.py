"""Decide when a batch is complete. Knows no clock, disk or network."""

from __future__ import annotations

from dataclasses import dataclass

from dicom_node.settings import Assembly


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One open batch at one moment. Times are seconds since the epoch.

    `released_at`: when the last association that carried an instance of the batch ended; None while one is open.
    `unread_since`: reception of the oldest instance that no one has looked at (it may belong to this study).
    """

    first_at: float
    last_at: float
    released_at: float | None
    unread_since: float | None


@dataclass(frozen=True, slots=True)
class Wait:
    """Not before this time."""

    until: float


@dataclass(frozen=True, slots=True)
class Ready:
    """The batch is complete; the reason in words."""

    reason: str


def decide(batch: Snapshot, *, now: float, rules: Assembly) -> Wait | Ready:
    """Whether a batch is complete.

    No DICOM signal says that a study is complete, so quiet time decides; the end of the associations only shortens
    the wait, because one study may come over several of them; the cap bounds a study that never becomes quiet.
    """
    cap = batch.first_at + rules.cap_s
    quiet = batch.last_at + rules.quiet_s
    if batch.released_at is not None:
        quiet = min(quiet, max(batch.released_at, batch.last_at) + rules.quiet_after_release_s)
    if batch.unread_since is not None and batch.unread_since <= min(now, quiet, cap):
        # An instance that arrived in time but was not yet looked at may belong here: look first.
        return Wait(now)
    if now >= quiet:
        return Ready(f"quiet for {now - batch.last_at:.1f} s")
    if now >= cap:
        return Ready(f"{rules.cap_s:g} s since the first instance")
    return Wait(min(quiet, cap))
