"""How long the queue is in time, and where the time of the last images went. Knows no SQL."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from dicom_node.ledger import Figures, Timing
from dicom_node.liveness import present

WINDOW_S = 300.0
"""What "lately" means."""
LATELY = 100
"""Images that a typical cost is taken from."""
TIMED = 300
STEADY = 0.1
"""Arrivals and decisions that differ by less than this share keep a queue as it is."""
STAGES = ("to_first_look", "wait", "decode", "engine", "encode", "send", "total")
WORDS = {
    "to_first_look": "until first looked at",
    "wait": "waiting for the worker",
    "decode": "decode",
    "engine": "engine",
    "encode": "encode",
    "send": "send",
    "total": "received to delivered",
}


def backlog(figures: Figures, locks: Path, *, now: float) -> dict[str, Any]:
    """The queue of the worker in images and in seconds, and whether it grows."""
    waiting, oldest = figures.waiting(), figures.oldest_waiting()
    workers = sum(one.role == "work" for one in present(locks))
    costs = [timing.work for timing in figures.timings(LATELY) if timing.work is not None] if waiting else []
    cost = statistics.median(costs) if costs else None
    flow = figures.flow(WINDOW_S, now=now)
    return {
        "waiting": waiting,
        "workers": workers,
        "seconds_an_image": cost,
        "seconds": waiting * cost / max(1, workers) if cost is not None else 0.0 if not waiting else None,
        "oldest_s": max(0.0, now - oldest) if oldest is not None else None,
        "window_s": flow.seconds,
        "arrived": flow.arrived,
        "decided": flow.decided,
        "trend": trend(waiting, flow.arrived, flow.decided),
    }


def trend(waiting: int, arrived: int, decided: int) -> str:
    """What became of the queue lately."""
    if not waiting:
        return "empty"
    if abs(arrived - decided) <= STEADY * max(arrived, decided):
        return "steady"
    return "growing" if arrived > decided else "shrinking"


def in_words(facts: dict[str, Any]) -> str:
    """One line about the queue."""
    minutes = facts["window_s"] / 60
    flow = f"{facts['arrived']} arrived and {facts['decided']} were decided in the last {minutes:.0f} min"
    if not facts["waiting"]:
        return f"empty; {flow}"
    if not facts["workers"]:
        length = "no worker runs"
    elif facts["seconds"] is None:
        length = "no image was decided yet, so its length in time is not known"
    else:
        length = f"about {duration(facts['seconds'])} ({facts['seconds_an_image']:.2g} s an image)"
    oldest = f"the oldest waits for {duration(facts['oldest_s'])}" if facts["oldest_s"] is not None else ""
    return "; ".join(part for part in (f"{facts['waiting']} images: {length}", oldest, flow, facts["trend"]) if part)


def duration(seconds: float) -> str:
    """In the unit that a person would use."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def timing(figures: Figures) -> dict[str, Any]:
    """Medians and tails of the last decided images: of all, and of each exam and method."""
    found = figures.timings(TIMED)
    groups: dict[str, list[Timing]] = defaultdict(list)
    for one in found:
        groups[" ".join(part for part in (one.exam, one.method or one.outcome) if part)].append(one)
    return {
        "images": len(found),
        "stages": _summaries(found),
        "by": {name: {"images": len(those), **_summaries(those)} for name, those in sorted(groups.items())},
    }


def _summaries(found: Sequence[Timing]) -> dict[str, dict[str, float]]:
    made = {}
    for stage in STAGES:
        values = sorted(value for one in found if (value := getattr(one, stage)) is not None)
        if values:
            p90 = values[min(len(values) - 1, int(0.9 * len(values)))]
            made[stage] = {"median": statistics.median(values), "p90": p90, "max": values[-1]}
    return {stage: {name: round(value, 4) for name, value in summary.items()} for stage, summary in made.items()}


def timing_tables(facts: dict[str, Any]) -> list[Table]:
    """The same for people."""
    whole = Table("seconds", "median", "90 %", "max", title=f"the last {facts['images']} images", title_justify="left")
    for stage, summary in facts["stages"].items():
        whole.add_row(WORDS[stage], *(f"{summary[name]:.3f}" for name in ("median", "p90", "max")))
    by = Table("exam and method", "images", *STAGES, title="medians in seconds", title_justify="left")
    for name, group in facts["by"].items():
        medians = [f"{group[stage]['median']:.3f}" if stage in group else "" for stage in STAGES]
        by.add_row(name or "none", str(group["images"]), *medians)
    return [whole, by] if facts["images"] else [whole]
