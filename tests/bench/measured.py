"""The arithmetic of every bench: medians with their ranges, ratios paired by round, lines of goals, the machine.

Knows no DICOM and starts no receiver.
"""

from __future__ import annotations

import operator
import os
import platform
import shutil
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

_HOLDS = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and the range that it comes from."""

    median: float
    low: float
    high: float
    count: int

    def text(self, digits: int = 0) -> str:
        """As a table shows it."""
        return f"{self.median:.{digits}f} [{self.low:.{digits}f}..{self.high:.{digits}f}]"


def spread(values: Iterable[float]) -> Spread:
    """Of at least one value."""
    found = sorted(values)
    return Spread(statistics.median(found), found[0], found[-1], len(found))


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Spread | None:
    """Ours divided by theirs within each round that has both: a machine's mood changes between rounds, not within one.

    None where no round has both.
    """
    ratios = [ours[n] / theirs[n] for n in sorted(ours.keys() & theirs.keys()) if theirs[n] > 0]
    return spread(ratios) if ratios else None


def goal(name: str, value: float, op: str, threshold: float) -> str:
    """One line: met or missed. Judged unrounded, so that a value shown as the threshold itself may have missed it."""
    return f"GOAL {name} {value:.3f} {op} {threshold:g} {'met' if _HOLDS[op](value, threshold) else 'missed'}"


def goal_of(name: str, found: Spread | None, op: str, threshold: float) -> str:
    """The goal on a median; a line of another form where there is nothing to judge."""
    return goal(name, found.median, op, threshold) if found else f"no figure for {name}: not measured in this run"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows for people: the first column to the left, the others to the right."""
    widths = [max(len(row[n]) for row in [head, *rows]) for n in range(len(head))]
    return [
        "  ".join(cell.ljust(width) if n == 0 else cell.rjust(width) for n, (cell, width) in enumerate(pairs)).rstrip()
        for pairs in (list(zip(row, widths, strict=True)) for row in [head, *rows])
    ]


def machine(folder: Path) -> list[str]:
    """What it ran on, in words: never the machine's name or a path."""
    cpuinfo = Path("/proc/cpuinfo")
    named = [line.partition(":")[2] for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
    model = " ".join(named[0].split()) if named else platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        f"{datetime.now(UTC).date().isoformat()}, {model}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"load {os.getloadavg()[0]:.1f} at the start",
        f"{platform.system()} {platform.release()}, {file_system(folder)}, Python {platform.python_version()}, "
        f"pynetdicom {version('pynetdicom')}, pydicom {version('pydicom')}, {_peers()}",
    ]


def file_system(folder: Path) -> str:
    """The type of the file system that holds a folder."""
    found = ("", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, kind = line.split()[:3]
        if folder.resolve().is_relative_to(point) and len(point) >= len(found[0]):
            found = (point, kind)
    return found[1]


def real_disk(wanted: Path | None, otherwise: Sequence[Path]) -> Path:
    """The folder to work in: the wanted one, else the first that is no RAM disk (an fsync there costs nothing)."""
    if wanted:
        return wanted
    real = [folder for folder in otherwise if folder.is_dir() and file_system(folder) not in ("tmpfs", "ramfs")]
    if not real:
        raise SystemExit("every temporary folder is a RAM disk: name one on a real disk (WORK=folder)")
    return real[0]


def program(name: str) -> str | None:
    """Where a peer's program is."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def _peers() -> str:
    said = []
    for name in ("storescp", "Orthanc"):
        path = program(name)
        if path is None:
            said.append(f"{name} is missing")
            continue
        lines = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout.split("\n")
        said.append(lines[0].strip("$ ").replace("dcmtk: storescp", "DCMTK").replace(path, name))
    return ", ".join(said)
