"""Files for objects that are being received, made ready before they are needed. Knows no ledger and no DICOM.

Making a file and forcing its name to the disk takes as long as forcing the object itself: so a thread makes empty files
ahead, many for one wait, under the names that they keep. Each has a second name in its receiver's own folder, until its
row is committed: by it a restart finds what the receiver left behind, and everyone sees whose it is.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from dicom_node.durable import fsync
from dicom_node.steps import reached

log = logging.getLogger(__name__)

AT_ONCE = 32
"""Files made for one wait for the disk."""
LOW = 24
"""With fewer left, more are made."""
LOOK_EVERY = 64 << 20
"""So many bytes of an object, and it is looked whether there is still room."""
PAUSE_S = 1.0
"""Wait after files could not be made."""


def final(name: str) -> str:
    """Where a file of this name stays, relative to the spool's root. Its first two characters spread the files."""
    return f"originals/{name[:2]}/{name}.dcm"


class Incoming:
    """One file that is being received. Has what the DICOM library asks of a temporary file, too.

    A full disk is kept as `fault`, not raised: raised, it would end whoever reads the association's socket, so that
    the sender gets no answer until its time-out. The room is given back at once.
    """

    def __init__(self, handle: int, path: str, marker: str, *, root: str = "", fault: OSError | None = None) -> None:
        """`path` is relative to the spool's root. With a `fault` it takes nothing, and there is no file."""
        self.path = path
        self.name = marker
        self.file = self
        """The library flushes the file inside of its temporary file."""
        self.fault = fault
        self.size = 0
        self._handle = handle
        self._target = f"{root}/{path}" if path else ""
        self.full: Callable[[], str] | None = None
        """Why nothing more may be taken, "" while there is room: asked again and again, for one that never ends."""
        self._next_look = LOOK_EVERY

    def append(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Write all of them, in one call of the kernel if it takes them."""
        if self._handle < 0:
            return
        left = list(pieces)
        try:
            while left:
                written = os.writev(self._handle, left)
                self.size += written
                while left and written >= len(left[0]):
                    written -= len(left.pop(0))
                if left:
                    left[0] = left[0][written:]
            if self.size >= self._next_look:
                self._next_look += LOOK_EVERY
                if self.full is not None and (why := self.full()):
                    raise OSError(errno.ENOSPC, why)
        except OSError as fault:
            self.fault = fault
            self.discard()
        reached("spool.incoming.written")

    def write(self, content: bytes) -> int:
        self.append([content])
        return len(content)

    def flush(self) -> None:
        """Nothing is held back."""

    def sync(self) -> None:
        """Force the bytes to the disk. Raises OSError."""
        os.fsync(self._handle)

    def release(self) -> None:
        """It has its row: what is left is its final name."""
        self.close()
        with contextlib.suppress(OSError):
            os.unlink(self.name)  # noqa: PTH108 - a Path for each of a thousand objects a second costs more
        reached("spool.incoming.released")

    def close(self) -> None:
        if self._handle >= 0:
            handle, self._handle = self._handle, -1
            with contextlib.suppress(OSError):
                os.close(handle)

    def discard(self) -> None:
        """Let go of it under both names."""
        self.close()
        # The marker goes last: as long as it is there, a restart knows what to tidy.
        for name in (self._target, self.name):
            if name:
                Path(name).unlink(missing_ok=True)
            reached("spool.incoming.dropped")


class Reserve:
    """The ready files of one receiver."""

    def __init__(self, root: Path, receiver: str) -> None:
        self._root = str(root)
        self._folder = f"{root}/incoming/{receiver}"
        self._ready: deque[Incoming] = deque()
        self._wanted = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="reserve", daemon=True)
        self._thread.start()

    def take(self) -> Incoming:
        """A file that is empty and whose names are on the disk; what went wrong is its `fault`. Raises nothing."""
        try:
            found = self._ready.popleft()
        except IndexError:
            # Quicker than the thread: this one makes its own.
            found = self._make(1)[0]
        if len(self._ready) < LOW:
            with self._wanted:
                self._wanted.notify()
        return found

    def close(self) -> None:
        """Make no more, and remove what nobody took."""
        with self._wanted:
            self._closed = True
            self._wanted.notify()
        self._thread.join()
        while self._ready:
            self._ready.popleft().discard()
        # Something may still lie there, of an association that does not end: the next start tidies.
        with contextlib.suppress(OSError):
            Path(self._folder).rmdir()

    def _work(self) -> None:
        failed = False
        while True:
            with self._wanted:
                while len(self._ready) >= LOW and not self._closed:
                    self._wanted.wait()
                if failed and not self._closed:
                    self._wanted.wait(PAUSE_S)
                if self._closed:
                    return
            made = [one for one in self._make(AT_ONCE) if one.fault is None]
            failed = not made
            self._ready.extend(made)

    def _make(self, count: int) -> list[Incoming]:
        """So many files whose names are on the disk, or one that says why there are none."""
        shard = f"{os.urandom(1)[0]:02x}"
        made: list[Incoming] = []
        try:
            for _ in range(count):
                name = shard + uuid.uuid4().hex[2:]
                marker, target = f"{self._folder}/{name}.part", f"{self._root}/{final(name)}"
                # Made where it stays: making takes long, and the folder of the markers is locked while it does.
                handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
                made.append(Incoming(handle, final(name), marker, root=self._root))
                os.link(target, marker)
                reached("spool.incoming.made")
            fsync(f"{self._root}/originals/{shard}")
        except OSError as fault:
            for one in made:
                one.discard()
            log.warning("no file can be made in the spool: %s", fault.strerror)
            return [Incoming(-1, "", "", fault=fault)]
        reached("spool.incoming.ready")
        return made
