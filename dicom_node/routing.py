"""Decide which route an instance takes, with which bank, or why it is passed by. Pure: headers and settings in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dicom_node.records import Header
from dicom_node.settings import Match, Route, Settings


@dataclass(frozen=True, slots=True)
class Exam:
    """What a bank is for: an image fits when each of its own values is in the list; an empty list takes any."""

    modalities: tuple[str, ...]
    body_part: str
    views: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Routed:
    """The engine works on it. `bank` is the name of the bank to compare with."""

    route: Route
    bank: str
    exam: str


@dataclass(frozen=True, slots=True)
class PassBy:
    """The engine does not work on it; it goes on as `destinations` and `forward` say. `route` is None without one."""

    reason: str
    route: Route | None
    forward: bool
    destinations: tuple[str, ...]


def decide(header: Header, *, calling_ae: str, settings: Settings, banks: Mapping[str, Exam]) -> Routed | PassBy:
    """The first route that takes the instance and has a bank for it; otherwise why it is passed by."""
    aside = settings.passed_by
    unusable = _unusable(header)
    if unusable:
        return PassBy(unusable, None, aside.originals == "forward", aside.destinations)
    route = next((r for r in settings.routes if takes(r.match, header, calling_ae)), None)
    exam = describe(header)
    if route is None:
        return PassBy(f"no route takes {exam}", None, aside.originals == "forward", aside.destinations)
    bank = route.bank if route.bank in banks else _fitting(header, banks) if route.bank == "auto" else None
    if bank is None:
        known = ", ".join(sorted(banks)) or "none"
        wanted = f"for {exam}" if route.bank == "auto" else f"called {route.bank}"
        reason = f"no bank of references {wanted} (known: {known})"
        return PassBy(reason, route, route.originals == "forward", route.destinations)
    return Routed(route, bank, exam)


def takes(match: Match, header: Header, calling_ae: str) -> bool:
    """Whether every condition of a route that is set holds for the instance."""
    pairs: Sequence[tuple[tuple[str, ...], str]] = (
        (match.modality, header.modality),
        (match.body_part, header.body_part),
        (match.view, header.view),
        (match.calling_ae, calling_ae),
    )
    if not all(not wanted or value.upper() in wanted for wanted, value in pairs):
        return False
    # Manufacturers write themselves in many ways: a part of the name is enough.
    return not match.manufacturer or any(part in header.manufacturer.upper() for part in match.manufacturer)


def describe(header: Header) -> str:
    """The exam type in words: `CR CHEST PA`."""
    parts = (header.modality or "no modality", header.body_part or "no body part", header.view or "no view")
    return " ".join(parts)


def _unusable(header: Header) -> str:
    """Why the engine can't use the object at all; empty when it can."""
    if header.made_by_evenray:
        return "made by Evenray, or from one of its results: nothing is harmonized twice"
    if not header.has_pixels:
        return "not an image"
    if header.samples_per_pixel != 1:
        return f"a colour image ({header.samples_per_pixel} samples per pixel); only grey-scale radiographs are used"
    if header.frames > 1:
        return f"{header.frames} frames; only single images are used"
    return ""


def _fitting(header: Header, banks: Mapping[str, Exam]) -> str | None:
    """The bank whose exam type fits; the narrowest one (fewest views), then the first by name."""
    fits = [
        name
        for name, exam in banks.items()
        if header.modality in exam.modalities
        and header.body_part == exam.body_part
        # A missing view is not held against the image; a stated one that differs is.
        and (not exam.views or not header.view or header.view in exam.views)
    ]
    return min(fits, key=lambda name: (len(banks[name].views) or 99, name), default=None)
