"""Say whether the node lives and whether it can receive right now, as named checks with a reason each.

Looks from outside at what every process leaves: locks, heartbeats, port, ledger, disk. Changes nothing.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicom_node.ledger.figures import not_writable
from dicom_node.liveness import Present, present
from dicom_node.probe import refusal
from dicom_node.settings import Settings, Storage

MIB = 1 << 20
ALL = ("work", "deliver", "upkeep")
"""What runs beside the receivers where `serve` runs everything."""


@dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    ok: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Health:
    """`live`: whether the processes run and their loops turn. `ready`: whether the node can do its work now."""

    live: tuple[Check, ...]
    ready: tuple[Check, ...]

    @property
    def is_live(self) -> bool:
        return all(check.ok for check in self.live)

    @property
    def is_ready(self) -> bool:
        return self.is_live and all(check.ok for check in self.ready)


def look(settings: Settings, *, whole: Callable[[Path], Sequence[str]]) -> Health:
    """Every check. `whole` says what is wrong inside of a ledger file: a question that is dear to ask."""
    found = present(settings.state_dir / "locks")
    ready = (*_listening(settings, found), *_working(settings, found), _ledger(settings, whole), _room(settings))
    return Health(live(settings, found), ready)


def live(settings: Settings, found: Sequence[Present] | None = None) -> tuple[Check, ...]:
    """Whether what should run runs, and none of its main loops is silent."""
    found = present(settings.state_dir / "locks") if found is None else found
    roles = [one.role for one in found]
    # The supervisor kills what is silent for `hang_s`: what is silent for longer has no supervisor that works.
    limit_s = settings.supervise.hang_s + 30
    checks = []
    for role in ("listen", *(ALL if "serve" in roles else [one for one in ALL if one in roles])):
        ages = [max(0.0, time.time() - one.beat) for one in found if one.role == role]
        name = "supervisor" if role == "listen" else role
        if not ages:
            # A process that is being started again is the supervisor's business: readiness says so.
            checks.append(Check(name, role != "listen", "is being started" if role != "listen" else "does not run"))
        else:
            checks.append(
                Check(name, max(ages) <= limit_s, f"heard {max(ages):.0f} s ago, {limit_s:.0f} s are allowed")
            )
    return tuple(checks)


def _listening(settings: Settings, found: Sequence[Present]) -> tuple[Check, ...]:
    receivers = [one for one in found if one.role == "receive"]
    young = [one for one in receivers if time.time() - one.beat < settings.supervise.hang_s]
    where = f"{settings.listen.host}:{settings.listen.port}"
    why = refusal(settings.listen) if receivers else "no receiver runs"
    return (
        Check("receivers", bool(young), f"{len(young)} of {len(receivers)} that run were heard of lately"),
        Check("port", not why, f"{where}: {why or 'takes an association'}"),
    )


def _working(settings: Settings, found: Sequence[Present]) -> tuple[Check, ...]:
    if "serve" not in [one.role for one in found]:
        # Receivers alone: the worker runs somewhere else, or later.
        return ()
    workers = [one for one in found if one.role == "work" and "banks" in one.facts]
    if not workers:
        return (Check("worker", False, "it does not run, or has not begun yet"),)
    banks = sorted({str(bank) for one in workers for bank in one.facts["banks"]})
    device = workers[0].facts.get("device", "")
    return (
        Check("worker", True, f"{len(workers)} on {device}"),
        Check("banks", bool(banks), ", ".join(banks) or "none: make one with `evenray references add`"),
    )


def _ledger(settings: Settings, whole: Callable[[Path], Sequence[str]]) -> Check:
    file = settings.state_dir / "ledger.sqlite"
    if not file.exists():
        return Check("ledger", False, "there is none yet")
    why = not_writable(file) or next(iter(whole(file)), "")
    return Check("ledger", not why, why or "can be written, is whole")


def _room(settings: Settings) -> Check:
    return Check("disk", not (why := no_room(settings.state_dir, settings.storage)), why or _free(settings.state_dir))


def no_room(state_dir: Path, storage: Storage) -> str:
    """Why nothing more is accepted, "" while there is room. As the receiver decides it."""
    try:
        usage = shutil.disk_usage(state_dir)
    except OSError as fault:
        return fault.strerror or str(fault)
    used = 100.0 * usage.used / max(1, usage.used + usage.free)
    if usage.free // MIB < storage.reserve_mib:
        return f"{usage.free // MIB} MiB free, {storage.reserve_mib} MiB are reserved"
    if used > storage.watermark_percent:
        return f"{used:.1f} % in use, the watermark is {storage.watermark_percent:g} %"
    return ""


def _free(state_dir: Path) -> str:
    return f"{shutil.disk_usage(state_dir).free // MIB} MiB free"
