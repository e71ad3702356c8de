"""Tell the service manager how the node is, by systemd's datagrams. Knows no process of the node.

Source: sd_notify(3).
"""

from __future__ import annotations

import logging
import socket
import time

log = logging.getLogger(__name__)


PATIENCE_S = 5.0
"""A manager that does not read must not hang the supervisor; what changes its view of us may take this long."""
OFTEN = 4
"""Signs of life in the time after which it would think us dead."""


class ServiceManager:
    """The one that started us, or nobody: then nothing is said."""

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        """`address` is NOTIFY_SOCKET; `watchdog_s` is WATCHDOG_USEC in seconds, 0 where nobody waits for a word."""
        # A name in the abstract space begins with @ in the variable, with a zero byte in the system call.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._said = ""
        self._watchdog_s = watchdog_s
        self._alive_at = -watchdog_s

    def ready(self, status: str) -> None:
        self._said = status
        self._say(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`; sent when it changed."""
        if status != self._said:
            self._said = status
            self._say(f"STATUS={status}")

    def alive(self) -> None:
        """A sign of life; said as often as is of use, however often this is called."""
        now = time.monotonic()
        if self._watchdog_s and now - self._alive_at >= self._watchdog_s / OFTEN:
            self._alive_at = now
            self._say("WATCHDOG=1")

    def stopping(self) -> None:
        self._say("STOPPING=1\nSTATUS=draining")

    def _say(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
                line.settimeout(PATIENCE_S)
                line.sendto(text.encode(), self._address)
        except OSError as fault:
            log.warning("the service manager can't be told: %s", fault.strerror or fault)
