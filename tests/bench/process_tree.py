"""CPU and memory of a process with everything that it started, sampled from /proc. Knows not what they do.

RSS counts shared pages in every process that maps them; PSS shares them out, so only PSS may be added up.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

LOOK_S = 0.05
SHARES_EVERY = 8
"""PSS is asked for only every so many looks: the kernel walks all pages for it."""
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Process:
    """The most that was seen of one process, in bytes. `peak_rss` is the kernel's own mark, not a sample."""

    command: str
    peak_rss: int = 0
    peak_pss: int = 0


@dataclass(slots=True)
class Usage:
    """What a tree used between start and stop of its sampler."""

    user_s: float = 0.0
    system_s: float = 0.0
    peak_rss: int = 0
    """Of the sum over the tree."""
    peak_pss: int = 0
    processes: dict[int, Process] = field(default_factory=dict)

    @property
    def cpu_s(self) -> float:
        return self.user_s + self.system_s

    def peak_of(self, which: Callable[[str], bool]) -> Process:
        """The greatest of the processes whose command line is wanted; of all, where none is."""
        found = [p for p in self.processes.values() if which(p.command)] or list(self.processes.values())
        return Process("", max((p.peak_rss for p in found), default=0), max((p.peak_pss for p in found), default=0))

    def count_of(self, which: Callable[[str], bool]) -> int:
        """How many processes have a command line that is wanted."""
        return sum(which(p.command) for p in self.processes.values())


class Sampler:
    """Samples while the `with` block runs; `usage` holds afterwards."""

    def __init__(self, root: int) -> None:
        """`root` leads a session of its own, so that what it starts is found even after its parent died."""
        self.usage = Usage()
        self._root = root
        self._before = cpu(root)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._look(shares=True)
        user, system = cpu(self._root)
        self.usage.user_s, self.usage.system_s = user - self._before[0], system - self._before[1]

    def _run(self) -> None:
        looks = 0
        while not self._done.wait(LOOK_S):
            self._look(shares=looks % SHARES_EVERY == 0)
            looks += 1

    def _look(self, *, shares: bool) -> None:
        rss = pss = 0
        for pid in members(self._root):
            try:
                seen = self.usage.processes.setdefault(pid, Process(""))
                # Between fork and exec a process still has its parent's; at its end it has none.
                seen.command = command(pid) or seen.command
                status = _fields(Path(f"/proc/{pid}/status"))
                # A zombie has no memory any more.
                seen.peak_rss = max(seen.peak_rss, status.get("VmHWM", 0))
                rss += status.get("VmRSS", 0)
                if shares:
                    own = _fields(Path(f"/proc/{pid}/smaps_rollup")).get("Pss", 0)
                    seen.peak_pss = max(seen.peak_pss, own)
                    pss += own
            except OSError:
                continue
        self.usage.peak_rss = max(self.usage.peak_rss, rss)
        self.usage.peak_pss = max(self.usage.peak_pss, pss)


def members(root: int) -> list[int]:
    """The process, what belongs to its session, and what descends from those."""
    known = _all()
    found = {pid for pid, (_, session, *_) in known.items() if root in (pid, session)}
    while more := {pid for pid, (parent, *_) in known.items() if parent in found and pid not in found}:
        found |= more
    return sorted(found)


def cpu(root: int) -> tuple[float, float]:
    """Seconds in user and system mode of the tree, processes that ended and were waited for included."""
    known = _all()
    spent = [known[pid] for pid in members(root) if pid in known]
    return sum(s[2] + s[4] for s in spent) * TICK_S, sum(s[3] + s[5] for s in spent) * TICK_S


def command(pid: int) -> str:
    """The command line; "" of a process that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _all() -> dict[int, tuple[int, ...]]:
    """Of every process: parent, session, utime, stime, cutime, cstime. Source: proc_pid_stat(5)."""
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - twenty times a second, beside what is measured
        if not name.isdigit():
            continue
        try:
            # The name, in brackets, may hold anything.
            words = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[int(name)] = (int(words[1]), int(words[3]), *map(int, words[11:15]))
    return found


def _fields(path: Path) -> dict[str, int]:
    """The lines of the form `Name: 12 kB`, in bytes."""
    lines = (line.split() for line in path.read_text().splitlines() if line.endswith(" kB"))
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines}
