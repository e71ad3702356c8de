"""The spool: files that survive a power cut. Knows no ledger and no DICOM.

Layout under its root: `incoming/` (being received, worthless after a crash), `originals/`, `results/`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dicom_node.durable import fsync, write_durably
from dicom_node.errors import SpoolDamaged

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Room:
    """Free space of the spool's file system."""

    free_mib: int
    used_percent: float


class Incoming:
    """One file that is being received; only as much of a file as the DICOM library writes to.

    A full disk is kept as `fault`, not raised: raised, it would end the thread that reads the association's socket, so
    that the sender gets no answer until its time-out. The room is given back at once.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.file = self
        """The library flushes the file inside of its temporary file."""
        self.fault: OSError | None = None
        self._out: BinaryIO | None = None
        try:
            self._out = path.open("xb")
        except OSError as fault:
            self.fault = fault

    def write(self, content: bytes) -> int:
        if self._out is not None:
            try:
                self._out.write(content)
            except OSError as fault:
                self._fail(self._out, fault)
        return len(content)

    def flush(self) -> None:
        if self._out is not None:
            try:
                self._out.flush()
            except OSError as fault:
                self._fail(self._out, fault)

    def close(self) -> None:
        if self._out is not None:
            self._out.close()

    def _fail(self, out: BinaryIO, fault: OSError) -> None:
        self.fault, self._out = fault, None
        # Closing flushes once more; the file is closed even when that fails.
        with contextlib.suppress(OSError):
            out.close()
        with contextlib.suppress(OSError):
            Path(self.name).unlink(missing_ok=True)


class Spool:
    """The spool of one state directory. Paths that leave it are relative to its root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self._shards: set[Path] = set()
        for folder in (self.incoming, root / "originals", root / "results"):
            folder.mkdir(parents=True, exist_ok=True)
        fsync(root)

    def receive(self) -> Incoming:
        """A new file in `incoming`. Raises nothing: what goes wrong is its `fault`."""
        return Incoming(self.incoming / f"{uuid.uuid4().hex}.part")

    def at(self, path: str) -> Path:
        return self.root / path

    def room(self) -> Room:
        usage = shutil.disk_usage(self.root)
        # What `df` calls use: reserved blocks are neither used nor free to us.
        reachable = usage.used + usage.free
        return Room(usage.free // MIB, 100.0 * usage.used / reachable if reachable else 100.0)

    def full(self, *, reserve_mib: int, watermark_percent: float) -> str:
        """Why nothing more may be accepted; empty while there is room."""
        room = self.room()
        if room.free_mib < reserve_mib:
            return f"{room.free_mib} MiB free, {reserve_mib} MiB are reserved"
        if room.used_percent > watermark_percent:
            return f"{room.used_percent:.1f} % in use, the watermark is {watermark_percent:g} %"
        return ""

    def keep(self, received: Path) -> str:
        """Move a completely received file in `incoming` to the originals, durably; its path relative to the root.

        The name is random: two objects that claim one UID are both kept.
        """
        name = uuid.uuid4().hex
        path = f"originals/{name[:2]}/{name}.dcm"
        target = self.at(path)
        fsync(received)
        self._shard(target.parent)
        received.rename(target)
        fsync(target.parent)
        return path

    def write_result(self, sop_instance_uid: str, content: bytes, *, named: Callable[[str], bool]) -> str:
        """Write one made object durably under its UID; its path relative to the root.

        `named(path)` says whether the ledger knows it: what a crash left behind unnamed was never sent and may be
        replaced. Raises DiskFull, and SpoolDamaged when other bytes are known under this UID: results are a function
        of their source, so that would mean that something is wrong.
        """
        path = f"results/{sop_instance_uid[-2:]}/{sop_instance_uid}.dcm"
        target = self.at(path)
        if target.exists() and named(path):
            if target.read_bytes() != content:
                raise SpoolDamaged(f"{path}: another object of the same UID is there; settings or program changed")
            return path
        self._shard(target.parent)
        write_durably(target, content)
        return path

    def restore(self, path: str, good: str) -> None:
        """Put the bytes of the spooled file `good` in the place of a lost or damaged one, durably."""
        target = self.at(path)
        self._shard(target.parent)
        link = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
        os.link(self.at(good), link)
        link.replace(target)
        fsync(target.parent)

    def _shard(self, folder: Path) -> None:
        # Synced even where another thread has just made it: its name must be on the disk before our Success.
        if folder not in self._shards:
            folder.mkdir(parents=True, exist_ok=True)
            fsync(folder.parent)
            self._shards.add(folder)

    def discard(self, path: str) -> None:
        """Remove a file whose bytes are held elsewhere in the spool."""
        self.at(path).unlink(missing_ok=True)

    def clear_incoming(self) -> int:
        """Remove what was being received when the receiver died; its sender was never told Success."""
        gone = 0
        for path in self.incoming.iterdir():
            path.unlink(missing_ok=True)
            gone += 1
        return gone

    def unknown(self, known: Set[str]) -> Iterator[str]:
        """Spooled files that no row names: left by a crash between rename and commit, never acknowledged."""
        for folder in ("originals", "results"):
            for path in (self.root / folder).rglob("*"):
                relative = path.relative_to(self.root).as_posix()
                if path.is_file() and relative not in known:
                    yield relative
