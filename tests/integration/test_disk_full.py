"""No room, or no right to write, where the node keeps things: senders are told so, and the node goes on by itself."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.node import Node, archive, contents, data_set, node, radiograph, to_archive, uid_of
from tests.peers import free_port
from tests.soak.power import disk, require_root

pytestmark = [
    # The library leaves the socket of a peer that died to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
STUDY = "1.2.826.0.1.3680043.10.1.65"
OUT_OF_RESOURCES = 0xA700
NO_LIMITS = {"reserve_mib": 0, "watermark_percent": 100}
"""The disk itself says that it is full, not the node's own limits."""
LAYOUTS = {"originals": ("spool",), "ledger": ("", "spool"), "results": ("spool/results",), "all": ("",)}
"""Where file systems are mounted below the state directory; the first of them is the one that gets full."""


@contextmanager
def _tiny(folder: Path, mebibytes: int) -> Iterator[Path]:
    require_root()
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def _mounted(state: Path, places: Sequence[str]) -> Iterator[Path]:
    """A small file system in each place; the first of them."""
    with ExitStack() as stack:
        mounts = [stack.enter_context(_tiny(state / place, 8)) for place in places]
        yield mounts[0]


def _fill(folder: Path) -> Path:
    """Take all of the room that is left."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as out:
        for size in (1 << 16, 1 << 12, 1 << 8, 1):
            try:
                while out.write(b"x" * size):
                    pass
            except OSError:
                continue
    return ballast


def _files(folder: Path, number: int, count: int) -> list[Path]:
    return [radiograph(folder, f"{STUDY}.{number}.{n}", study=f"{STUDY}.{number}") for n in range(1, count + 1)]


def _ended(made: Node) -> list[str]:
    """What the supervisor says about processes that ended."""
    return [line for line in made.log().splitlines() if " ended (" in line or "HOPELESS" in line]


@pytest.mark.parametrize("where", LAYOUTS)
def test_a_full_disk_is_said_to_the_sender_and_forgotten_when_there_is_room_again(tmp_path: Path, where: str) -> None:
    port = free_port()
    first, *others = _files(tmp_path / "in", 1, 3)
    with ExitStack() as stack:
        pacs = stack.enter_context(archive(tmp_path, port))
        tiny = stack.enter_context(_mounted(tmp_path / "state", LAYOUTS[where]))
        made = stack.enter_context(node(tmp_path, to_archive(pacs.port), port=port, storage=NO_LIMITS))
        made.accept(first)
        made.wait_settled()
        ballast = _fill(tiny)
        accepted = [path for path in others if made.send(path) == [0]]
        if where == "results":
            assert accepted == others
            made.wait(lambda: "can't write" in made.log(), 60, "the worker found no room for a result")
        else:
            # The ledger's log may have some room left in itself: what is committed there is as safe as ever.
            made.wait(lambda: made.send(others[0]) == [OUT_OF_RESOURCES], 60, "the full disk is said to the sender")
        assert made.one("PRAGMA integrity_check") == "ok"
        ballast.unlink()
        made.insist(others)
        made.wait_settled()
        assert made.one("PRAGMA integrity_check") == "ok"
        held = contents(pacs)
        assert [path for path in (first, *others) if held.get(uid_of(path)) != data_set(path)] == []
        assert len(made.results("secondary_capture")) == 3
        assert _ended(made) == [], "every process stays up"


def test_a_disk_that_turns_read_only_is_never_answered_with_success_and_starts_no_storm(tmp_path: Path) -> None:
    require_root()
    first, second = _files(tmp_path / "in", 2, 2)
    with (
        disk(tmp_path / "image", tmp_path / "disk", mebibytes=64) as mount,
        node(tmp_path, storage=NO_LIMITS, state_dir=str(mount / "state")) as made,
    ):
        made.accept(first)
        made.wait_settled()
        # What the kernel does when the disk reports a fault.
        subprocess.run(["mount", "-o", "remount,abort", str(mount)], capture_output=True, check=False)
        with pytest.raises(OSError, match="Read-only"):
            (mount / "new").write_bytes(b"")
        for _ in range(3):
            status = made.send(second)
            assert status != [0]
        assert made.process
        assert made.process.poll() is None
        assert len(_ended(made)) <= 8, "no storm of restarts"


def test_a_state_directory_that_can_not_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    with _tiny(tmp_path / "disk", 8) as mount, node(tmp_path, start=False, state_dir=str(mount / "state")) as made:
        subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
        made.start(ready=False)
        assert made.process
        assert made.process.wait(60) == 2
        assert "Read-only file system" in made.log()
        assert "Traceback" not in made.log()
