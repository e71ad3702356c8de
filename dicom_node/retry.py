"""Decide when a failed step is tried again, or that it is parked. Pure: `now` and the failure count are parameters."""

from __future__ import annotations

from dataclasses import dataclass

from dicom_node.errors import EvenrayError, Park
from dicom_node.settings import Retrying


@dataclass(frozen=True, slots=True)
class TryAt:
    """Try again, not before this time (seconds since the epoch)."""

    at: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Set aside for a person, with the reason."""

    reason: str


def decide(fault: EvenrayError, *, failures: int, now: float, rules: Retrying) -> TryAt | GiveUp:
    """What follows the `failures`-th failure in a row (1 is the first). The wait doubles (`factor`) up to a cap."""
    if isinstance(fault, Park):
        return GiveUp(str(fault))
    if failures >= rules.attempts:
        return GiveUp(f"{fault} (gave up after {failures} attempts)")
    # The exponent is bounded so that a large limit of attempts can't overflow.
    wait = min(rules.longest_s, rules.first_s * rules.factor ** min(failures - 1, 64))
    return TryAt(now + wait)


DAY_S = 86400.0


def report_wait(asked: int, *, first_s: float, patience_s: float) -> float | None:
    """How long the report on the `asked`-th request for commitment is waited for (1 is the first); None: no more.

    Each wait is twice as long as the last, up to a day: a destination that confirms at night is not asked all day.
    """
    waited = 0.0
    for n in range(asked):
        wait = min(max(first_s, DAY_S), first_s * 2.0 ** min(n, 64))
        if waited >= patience_s:
            return None
        waited += wait
    return wait
