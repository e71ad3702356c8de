"""The spool: files that survive a power cut. Knows no ledger and no DICOM.

Layout under its root: `incoming/` (being received, worthless after a crash), `originals/`, `results/`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from dicom_node.durable import fsync, write_durably
from dicom_node.errors import SpoolDamaged, Stop
from dicom_node.incoming import Incoming, Reserve, final
from dicom_node.steps import reached

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Room:
    """Free space of the spool's file system."""

    free_mib: int
    used_percent: float


class Spool:
    """The spool of one state directory. Paths that leave it are relative to its root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._root = str(root)
        self.incoming = root / "incoming"
        self._shards: set[Path] = set()
        self._reserve: Reserve | None = None
        with self._made():
            for folder in (self.incoming, root / "originals", root / "results"):
                folder.mkdir(parents=True, exist_ok=True)
            fsync(root)
        reached("spool.made")

    def prepare(self, receiver: str) -> None:
        """Make every folder that receiving needs, once: later none has to be made while a sender waits. Raises Stop."""
        originals = self.root / "originals"
        with self._made():
            (self.incoming / receiver).mkdir(exist_ok=True)
            for number in range(256):
                (originals / f"{number:02x}").mkdir(exist_ok=True)
            reached("spool.shard.made")
            fsync(originals)
        reached("spool.shard.synced")
        self._reserve = Reserve(self.root, receiver)

    def close(self) -> None:
        """Give back what was made ready for receiving."""
        if self._reserve is not None:
            self._reserve.close()
            self._reserve = None

    @contextlib.contextmanager
    def _made(self) -> Iterator[None]:
        try:
            yield
        except OSError as fault:
            raise Stop(f"{self.root}: {fault.strerror}: check path, owner, rights and free space") from fault

    def receive(self, fault: OSError | None = None) -> Incoming:
        """A file for an object that is coming, once `prepare` was called. Raises nothing: see its `fault`."""
        if fault is None and self._reserve is not None:
            return self._reserve.take()
        return Incoming(-1, "", "", fault=fault or OSError(errno.ENOENT, "the spool is not prepared for receiving"))

    def at(self, path: str) -> Path:
        return self.root / path

    def room(self) -> Room:
        usage = os.statvfs(self._root)
        used = usage.f_blocks - usage.f_bfree
        # What `df` calls use: reserved blocks are neither used nor free to us.
        reachable = used + usage.f_bavail
        return Room(usage.f_bavail * usage.f_frsize // MIB, 100.0 * used / reachable if reachable else 100.0)

    def full(self, *, reserve_mib: int, watermark_percent: float) -> str:
        """Why nothing more may be accepted; empty while there is room."""
        room = self.room()
        if room.free_mib < reserve_mib:
            return f"{room.free_mib} MiB free, {reserve_mib} MiB are reserved"
        if room.used_percent > watermark_percent:
            return f"{room.used_percent:.1f} % in use, the watermark is {watermark_percent:g} %"
        return ""

    def keep(self, received: Incoming) -> str:
        """Force a completely received file to the disk; its path relative to the root. Raises OSError.

        Its name is random, so that two objects that claim one UID are both kept, and is on the disk already. What
        publishes it is its row; `received.release` comes after that.
        """
        reached("spool.keep.begun")
        received.sync()
        reached("spool.keep.synced")
        return received.path

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
        reached("spool.restore.linked")
        link.replace(target)
        reached("spool.restore.replaced")
        fsync(target.parent)

    def _shard(self, folder: Path) -> None:
        # Synced even where another thread has just made it: its name must be on the disk before our Success.
        if folder not in self._shards:
            folder.mkdir(parents=True, exist_ok=True)
            reached("spool.shard.made")
            fsync(folder.parent)
            reached("spool.shard.synced")
            self._shards.add(folder)

    def discard(self, path: str) -> None:
        """Remove a file whose bytes are held elsewhere in the spool."""
        reached("spool.discard.begun")
        self.at(path).unlink(missing_ok=True)
        reached("spool.discard.done")

    def clear_incoming(self, alive: Callable[[str], bool], named: Callable[[str], bool]) -> int:
        """Remove what receivers that are dead were receiving; its senders were never told Success.

        `named(path)` says whether the ledger has a row of it: that one only loses its second name. Returns how many
        files went.
        """
        gone = 0
        for folder in self.incoming.iterdir():
            if not folder.is_dir() or not alive(folder.name):
                for marker in _entries(folder):
                    path = final(marker.stem)
                    if not named(path):
                        self.discard(path)
                        gone += 1
                    reached("spool.clear.removed")
                    marker.unlink(missing_ok=True)
                # Another receiver that starts may be clearing it, too.
                with contextlib.suppress(OSError):
                    folder.rmdir()
        return gone

    def folders(self) -> Iterator[tuple[str, list[str]]]:
        """The spool folder by folder: its path with a slash at its end, and the paths of its files."""
        left = ["originals/", "results/"]
        while left:
            folder, paths = left.pop(), []
            with contextlib.suppress(FileNotFoundError), os.scandir(self.root / folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        left.append(f"{folder}{entry.name}/")
                    else:
                        paths.append(folder + entry.name)
            yield folder, paths

    def unknown(self, known: Callable[[str], Set[str]]) -> Iterator[str]:
        """Spooled files that no row names and no receiver has in hand: left by a crash, never acknowledged.

        `known(folder)`: the paths in this folder that are named. It is asked after the folder was looked at, so that
        what got its row meanwhile is known.
        """
        for folder, paths in self.folders():
            named = known(folder) if paths else set()
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    if path not in named and not self._in_hand(self.root / path):
                        yield path

    @staticmethod
    def _in_hand(path: Path) -> bool:
        """Whether it has a second name, in the folder of the receiver that fills it or will fill it.

        A temporary name may be a second one, too, of a file that has its row: a crash left it there.
        """
        return not path.name.startswith(".") and path.stat().st_nlink > 1


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, or a file itself; nothing where another receiver that starts was quicker."""
    try:
        return list(folder.iterdir())
    except NotADirectoryError:
        return [folder]
    except FileNotFoundError:
        return []
