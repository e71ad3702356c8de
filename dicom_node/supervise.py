"""Run listen, work and deliver as three processes: a crash of one never takes another down. Knows not what they do."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dicom_node.liveness import Liveness, running
from dicom_node.settings import Settings
from dicom_node.stopping import Stopping

log = logging.getLogger(__name__)

ROLES = ("listen", "work", "deliver")
DRAIN_S = 60.0
"""How long the processes may finish what they have in hand, before they are killed."""
CALM_S = 30.0
"""A process that ran this long before it ended is started again at once."""
LONGEST_WAIT_S = 30.0
HOPELESS = 2
"""Exit code of a process that can't run with this configuration on this machine. Believed only at its first start:
what ran once may find its port or lock still held when it is started again, and gets another try."""


@dataclass(slots=True)
class _Child:
    """One supervised process."""

    role: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    next_start: float = 0.0
    failures: int = 0
    starts: int = 0

    def start(self) -> None:
        # The pipe is held open by us: when we die, even by SIGKILL, it closes and the child drains.
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE)
        self.started_at = time.monotonic()
        self.starts += 1
        log.info("%s runs as process %d", self.role, self.process.pid)

    def look(self) -> int | None:
        """Start again what ended; returns its exit code when that makes no sense."""
        now = time.monotonic()
        if self.process is None:
            if now >= self.next_start:
                self.start()
            return None
        code = self.process.poll()
        if code is None:
            return None
        if self.process.stdin:
            self.process.stdin.close()
        self.process = None
        calm = now - self.started_at > CALM_S
        self.failures = 0 if calm else self.failures + 1
        if code == HOPELESS and self.starts == 1 and not calm:
            return code
        wait = 0.0 if self.failures <= 1 else min(LONGEST_WAIT_S, 0.5 * 2**self.failures)
        self.next_start = now + wait
        log.error("%s ended (%s), started again in %.0f s", self.role, _ending(code), wait)
        return None


def run(settings: Settings, config: Path | None, state_dir: Path | None, stopping: Stopping) -> int:
    """Supervise until asked to stop, then drain; the exit code of the command."""
    locks = settings.state_dir / "locks"
    alone = Liveness(locks, "serve", alone=True)
    _wait_for_predecessor(locks, stopping)
    options = ["--config", str(config)] if config else []
    options += ["--state-dir", str(state_dir.resolve())] if state_dir else []
    children = [
        _Child(role, [sys.executable, "-m", "dicom_node", "serve", role, "--supervised", *options]) for role in ROLES
    ]
    code = 0
    try:
        while not stopping.asked:
            hopeless = [child.role for child in children if child.look() == HOPELESS]
            if hopeless:
                log.error("%s can't run; stopping", ", ".join(hopeless))
                code = HOPELESS
                break
            stopping.wait(0.1)
    finally:
        _drain(children)
        alone.close()
    return code


def _wait_for_predecessor(locks: Path, stopping: Stopping) -> None:
    """A supervisor that was killed leaves a listener that still drains: until it ends, lock and port are its own."""
    deadline = time.monotonic() + DRAIN_S
    if "listen" in running(locks):
        log.info("the listener of an earlier start is still ending: waiting for it")
    while "listen" in running(locks) and time.monotonic() < deadline and not stopping.asked:
        stopping.wait(0.2)


def _drain(children: Sequence[_Child]) -> None:
    """SIGTERM to all, time to finish, SIGKILL to what is left. The spool and the ledger survive either."""
    started = [child.process for child in children if child.process is not None]
    for process in started:
        process.terminate()
    deadline = time.monotonic() + DRAIN_S
    for process in started:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.error("process %d did not end in %.0f s: killed", process.pid, DRAIN_S)
            process.kill()
            process.wait()
        if process.stdin:
            process.stdin.close()


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
