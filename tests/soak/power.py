"""A disk whose power can be cut: what was not forced to it is gone, as on a machine that stops.

The file system lies in a file and is mounted by a loop device that writes back only when it is told to. The file is
what the disk has: a copy of it, mounted, is what a machine finds when its power is back. Knows nothing of the node.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.peers import wait_until

COMMIT_S = 600
"""The file system commits its journal by itself only this often; an fsync commits it at once."""
ENVIRONMENT = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}


def require_root() -> None:
    """Skip where no file system can be made and mounted."""
    missing = [name for name in ("mkfs.ext4", "mount", "losetup") if not shutil.which(name, path=ENVIRONMENT["PATH"])]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"a file system is made and mounted by root only{', with ' if missing else ''}{', '.join(missing)}")
    if _run("losetup", "--find").returncode:
        pytest.skip("no loop device here")


@contextmanager
def disk(image: Path, mount: Path, *, mebibytes: int = 256) -> Iterator[Path]:
    """A new file system in `image`, mounted at `mount`."""
    with image.open("xb") as made:
        made.truncate(mebibytes << 20)
    done = _run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))
    assert done.returncode == 0, done.stderr
    with mounted(image, mount):
        yield mount


@contextmanager
def mounted(image: Path, mount: Path) -> Iterator[Path]:
    """A file system that is there already; mounting it replays its journal, as after a power cut."""
    mount.mkdir(exist_ok=True)
    done = _run("mount", "-o", f"loop,commit={COMMIT_S}", str(image), str(mount))
    if done.returncode:
        pytest.skip(f"can't mount a file: {done.stderr.strip()}")
    try:
        yield mount
    finally:
        _run("umount", "--lazy", str(mount))


def cut(image: Path, copy: Path, pids: Sequence[int]) -> None:
    """Copy what the disk has while these processes stand still; they stay stopped."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    # A system call that runs is finished first: its bytes are then on the disk, though nobody was told.
    wait_until(lambda: all(_stands(pid) for pid in pids), 30, "every process stands still")
    _run("cp", "--sparse=always", str(image), str(copy))


def without_fsync(folder: Path) -> Path:
    """A library that makes fsync do nothing in the program that is started with it as LD_PRELOAD."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = folder / "no_fsync.so"
    source = Path(__file__).with_name("no_fsync.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return library


class Machine:
    """One disk after the other: each cut makes the next from what the last one had."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._cuts = 0
        self.mount = self._stack.enter_context(disk(folder / "disk-0.img", folder / "disk-0"))

    def cut(self, pids: Sequence[int]) -> float:
        """Cut the power of what these processes write; `mount` is then what is left. Returns the copy's seconds."""
        began = time.monotonic()
        image, copy = (self._folder / f"disk-{self._cuts + n}.img" for n in (0, 1))
        cut(image, copy, pids)
        took = time.monotonic() - began
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._cuts += 1
        # The old one is let go of; what it still had in memory must not be seen again.
        old = self._stack
        self._stack = ExitStack()
        self.mount = self._stack.enter_context(mounted(copy, self._folder / f"disk-{self._cuts}"))
        old.close()
        image.unlink()
        return took

    def close(self) -> None:
        self._stack.close()


def _stands(pid: int) -> bool:
    """Whether every thread is stopped, or gone. Source: proc_pid_stat(5)."""
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(OSError):
            if stat.read_text().rpartition(")")[2].split()[0] not in "TtZX":
                return False
    return True


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
