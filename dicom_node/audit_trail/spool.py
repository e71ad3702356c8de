"""Audit messages on the disk until the repository has them: in order, for the node alone, and never without bound.

Knows nothing of what a message says. A segment is a file of complete syslog messages, each with its length before it.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dicom_node.audit_trail.notes import PRIVATE_FILE, PRIVATE_FOLDER
from dicom_node.audit_trail.syslog import framed
from dicom_node.durable import write_durably
from dicom_node.steps import reached

log = logging.getLogger(__name__)

SUFFIX = ".syslog"
AT_ONCE = 64
"""Messages of one segment: what is sent again at most where it is not known how far a sending came."""
SHOWN_S = 7 * 86400.0
"""That messages were lost is shown for so long."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of messages."""

    path: Path
    number: int
    messages: int
    size: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a person should know. Times in seconds since the epoch, 0 for never."""

    down_since: float = 0.0
    reason: str = ""
    lost: int = 0
    """Messages that left undelivered for want of room, lately."""
    lost_at: float = 0.0


class MessageSpool:
    """The spool of one node; one process at a time uses it."""

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        self._folder = folder
        self._limit = limit_bytes
        folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        # Listed once: while the repository is away there may be tens of thousands.
        self._segments = {one.number: one for one in segments(folder)}
        self._next = max(self._segments, default=0) + 1
        self._size = sum(one.size for one in self._segments.values())
        self.trouble = trouble(folder)

    def add(self, messages: Sequence[bytes], *, now: float) -> None:
        """Keep messages behind all others; they survive a power cut once this returns. Raises DiskFull."""
        for start in range(0, len(messages), AT_ONCE):
            group = messages[start : start + AT_ONCE]
            content = b"".join(map(framed, group))
            path = self._folder / f"{self._next:012d}-{len(group)}{SUFFIX}"
            write_durably(path, content, mode=PRIVATE_FILE)
            self._segments[self._next] = Segment(path, self._next, len(group), len(content))
            self._next += 1
            self._size += len(content)
        self._bound(now)

    def _bound(self, now: float) -> None:
        """Let the oldest go beyond the limit, and say so."""
        lost = 0
        # The newest stays whatever its size: it says at least that there was something.
        while self._size > self._limit and len(self._segments) > 1:
            oldest = next(iter(self._segments.values()))
            self.done(oldest)
            lost += oldest.messages
        if lost:
            log.error("the repository takes nothing and audit.spool_mib is reached: the oldest %d messages left", lost)
            before = self.trouble.lost if now - self.trouble.lost_at < SHOWN_S else 0
            self.note(Trouble(self.trouble.down_since, self.trouble.reason, before + lost, now))

    def next(self, *, after: int = 0) -> Segment | None:
        """The oldest segment behind a number."""
        return next((one for number, one in self._segments.items() if number > after), None)

    @property
    def messages(self) -> int:
        """How many messages there are."""
        return sum(one.messages for one in self._segments.values())

    def read(self, segment: Segment) -> list[bytes]:
        """The messages of a segment, [] where it is damaged or has left."""
        try:
            return split(segment.path.read_bytes())
        except (OSError, ValueError):
            log.error("%s can't be read: its %d audit messages are lost", segment.path.name, segment.messages)
            return []

    def done(self, segment: Segment) -> None:
        """The repository has it."""
        if self._segments.pop(segment.number, None):
            reached("audit.sent")
            segment.path.unlink(missing_ok=True)
            self._size -= segment.size

    def note(self, found: Trouble) -> None:
        """Keep what a person should know, for `evenray status`."""
        if found != self.trouble:
            self.trouble = found
            write_durably(self._folder / "trouble.json", json.dumps(asdict(found)).encode(), mode=PRIVATE_FILE)


def segments(folder: Path) -> list[Segment]:
    """Every segment of a spool, oldest first; [] where there is no spool."""
    found = []
    for path in folder.glob(f"*{SUFFIX}"):
        number, _, count = path.stem.partition("-")
        if number.isdecimal() and count.isdecimal():
            with contextlib.suppress(FileNotFoundError):
                found.append(Segment(path, int(number), int(count), path.stat().st_size))
    return sorted(found, key=lambda one: one.number)


def trouble(folder: Path) -> Trouble:
    """What was noted last. Reads a file that another process writes."""
    try:
        return Trouble(**json.loads((folder / "trouble.json").read_text()))
    except (OSError, ValueError, TypeError):
        return Trouble()


def split(content: bytes) -> list[bytes]:
    """The messages of a stream of RFC 5425 frames. Raises ValueError where it is damaged."""
    found, at = [], 0
    while at < len(content):
        space = content.index(b" ", at)
        end = space + 1 + int(content[at:space])
        if end > len(content):
            raise ValueError("it ends in a message")
        found.append(content[space + 1 : end])
        at = end
    return found
