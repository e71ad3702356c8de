"""One supervised process: started, watched for its heartbeat, killed when it hangs, started again with growing waits.

Knows neither what the process does nor how many others there are.
"""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Sequence

log = logging.getLogger(__name__)

CALM_S = 30.0
"""A process that ran this long before it ended is started again at once."""
START_S = 300.0
"""A process that loads its libraries, or looks through a large ledger, may be silent for longer."""
LONGEST_WAIT_S = 30.0
HOPELESS = 2
"""Exit code of a process that can't run with this configuration on this machine. Believed only at its first start:
what ran once may find a lock still held when it is started again, and gets another try."""


class Child:
    """One process and its record. Times are monotonic, so that a jump of the clock kills nothing."""

    def __init__(
        self, role: str, name: str, command: Sequence[str], *, hang_s: float, inherited: tuple[int, ...] = ()
    ) -> None:
        """`inherited`: file descriptors that the process gets. `hang_s`: longest silence of its main loop."""
        self.role = role
        self.name = name
        self.hang_s = hang_s
        self.process: subprocess.Popen[bytes] | None = None
        self.deaths = 0
        self.hangs = 0
        self.starts = 0
        self.failures = 0
        """Ends in a row, each soon after its start; a start that the machine had no room for counts, too."""
        self._command = command
        self._inherited = inherited
        self._started_at = 0.0
        self._next_start = 0.0
        self._killed = False
        self._beat: float | None = None
        self._beat_seen = 0.0
        self._up_seen = time.monotonic()

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    @property
    def beating(self) -> bool:
        """Whether it runs and its main loop was reached since it started."""
        return self.process is not None and self._beat is not None

    def silent_s(self) -> float:
        """How long nothing was heard of its main loop, its start counting as a word; 0 while it waits for a start."""
        return time.monotonic() - max(self._started_at, self._beat_seen) if self.process else 0.0

    def down_s(self) -> float:
        """How long no loop of it has turned, over all of its starts; 0 while it runs well."""
        return 0.0 if self.beating else time.monotonic() - self._up_seen

    def heard(self, beat: float | None) -> None:
        """The time of its last heartbeat as the process wrote it; only whether it changed is of interest."""
        if beat is not None and beat != self._beat:
            self._beat, self._beat_seen = beat, time.monotonic()
            self._up_seen = self._beat_seen

    def look(self) -> int | None:
        """Start again what ended, kill what hangs; returns its exit code when starting again makes no sense."""
        if self.process is None:
            if time.monotonic() >= self._next_start:
                self._start()
            return None
        code = self.process.poll()
        if code is None:
            longest_s = self.hang_s if self.beating else max(self.hang_s, START_S)
            # Killed once: what hangs in the kernel ends when it comes back from there, and nobody waits for it here.
            if self.silent_s() > longest_s and not self._killed:
                self._killed = True
                log.error("%s (process %d) was silent for %.0f s: killed", self.name, self.process.pid, self.silent_s())
                self.hangs += 1
                self.process.kill()
            return None
        return self._ended(code)

    def _start(self) -> None:
        try:
            # The pipe is held open by us: when we die, even by SIGKILL, it closes and the child drains.
            self.process = subprocess.Popen(self._command, stdin=subprocess.PIPE, pass_fds=self._inherited)
        except OSError as fault:
            # No memory, processes or files left: that passes, and must not take down what runs.
            self.failures += 1
            wait = wait_after(self.failures)
            self._next_start = time.monotonic() + wait
            log.error("%s could not be started (%s), tried again in %.0f s", self.name, fault.strerror, wait)
            return
        self._started_at, self._beat, self._killed = time.monotonic(), None, False
        self.starts += 1
        log.info("%s runs as process %d", self.name, self.process.pid)

    def _ended(self, code: int) -> int | None:
        self._close_pipe()
        self.process = None
        self.deaths += 1
        calm = time.monotonic() - self._started_at > CALM_S
        self.failures = 0 if calm else self.failures + 1
        if code == HOPELESS and self.starts == 1 and not calm:
            return code
        wait = wait_after(self.failures)
        self._next_start = time.monotonic() + wait
        log.error("%s ended (%s), started again in %.0f s", self.name, _ending(code), wait)
        return None

    def terminate(self) -> None:
        if self.process:
            self.process.terminate()

    def finish(self, deadline: float) -> None:
        """Wait for its end until `deadline`, then kill it. The spool and the ledger survive either."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.error("%s (process %d) did not end in time: killed", self.name, self.process.pid)
            self.process.kill()
            self.process.wait()
        self._close_pipe()
        self.process = None

    def _close_pipe(self) -> None:
        if self.process and self.process.stdin:
            self.process.stdin.close()


def wait_after(failures: int) -> float:
    """How long to wait before the next start, after so many ends in a row."""
    return 0.0 if failures <= 1 else min(LONGEST_WAIT_S, 0.5 * 2.0 ** min(failures, 10))


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
