"""What an image may do to the worker: hang it, crash it, exhaust it. The image is set aside, the rest goes on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.bombs import BOMBS
from tests.node import Node, node, radiograph, study, uid_of
from tests.peers import wait_until

STUDY = "1.2.826.0.1.3680043.10.1.60"
MOST_GROWTH_MIB = 2600
"""A worker's peak above what it needs for a small image: the largest image that is believed to be one takes so much."""


def fault(monkeypatch: pytest.MonkeyPatch, folder: Path, asked: str) -> Path:
    """Ask for a fault in every process that is started from now on; the file that is made when it happens."""
    marks = folder / "marks"
    marks.mkdir()
    monkeypatch.setenv("EVENRAY_FAULT", asked)
    monkeypatch.setenv("EVENRAY_FAULT_MARKS", str(marks))
    return marks / asked.partition(":")[0]


def happens_twice(made: Node, mark: Path) -> None:
    """Let the fault happen to the first worker and to the one that takes its place."""
    for _ in range(2):
        made.wait(mark.exists, 90, "the fault has happened")
        mark.unlink()


def peak_mib(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) // 1024


@pytest.mark.parametrize("action", ["hang", "segfault"])
def test_an_image_over_which_two_workers_died_is_parked_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    mark = fault(monkeypatch, tmp_path, f"process.begun:{action}")
    files = study(tmp_path / "in", STUDY, 2)
    pacs = {"pacs": {"kind": "folder", "path": str(tmp_path / "out")}}
    with node(tmp_path, pacs, work={"image_timeout_s": 6}) as made:
        made.accept(*files)
        happens_twice(made, mark)
        # A third would be one too many: it must not even be tried.
        made.wait_settled()
        parked = made.rows("SELECT sop_instance_uid AS uid, note FROM instance WHERE state = 'parked'")
        assert [row["uid"] for row in parked] == [uid_of(files[0])]
        assert "its process is gone (2 times" in parked[0]["note"]
        assert made.outcomes().keys() == {uid_of(files[1])}
        assert made.counts()["batch"] == {"reported": 1}
        if action == "hang":
            assert "working on instance 1 hangs for" in made.log()
            assert "in _hang" in made.log(), "the place is shown"
        assert made.cli("retry", "instance:1").returncode == 0
        made.wait(lambda: uid_of(files[0]) in made.outcomes(), 90, "a retry is processed")


def test_an_image_for_which_memory_ran_out_once_is_tried_again_by_the_same_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = fault(monkeypatch, tmp_path, "process.begun:oom")
    files = study(tmp_path / "in", STUDY, 2)
    with node(tmp_path, work={"retry": {"first_s": 0.2}}) as made:
        pid = made.runs("work")
        made.accept(*files)
        made.wait_settled()
        assert mark.exists()
        assert "MemoryError" in made.log()
        assert made.outcomes().keys() == {uid_of(path) for path in files}
        assert made.pid("work") == pid


def test_no_bomb_kills_the_worker_or_fills_its_memory(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    bombs = [make(folder / f"{n}.dcm", f"1.2.60.{n}") for n, make in enumerate(BOMBS.values(), start=1)]
    good = radiograph(folder, "1.2.61.1", study="1.2.61")
    with node(tmp_path) as made:
        pid = made.runs("work")
        made.accept(radiograph(folder, "1.2.61.2", study="1.2.61"))
        made.wait(lambda: "1.2.61.2" in made.outcomes(), 90, "an ordinary image is decided")
        before = peak_mib(pid)
        for bomb in bombs:
            made.accept(bomb)
        made.accept(good)
        made.wait_settled()
        assert made.pid("work") == pid, "the same process still works"
        assert peak_mib(pid) < before + MOST_GROWTH_MIB
        outcomes = made.outcomes()
        rows = made.rows("SELECT sop_instance_uid AS uid, state, note FROM instance WHERE state = 'parked'")
        parked = {row["uid"]: row["note"] for row in rows}
        assert outcomes[uid_of(good)] != "unreadable"
        ends = {name: outcomes.get(f"1.2.60.{n}", "parked") for n, name in enumerate(BOMBS, start=1)}
        # Both are images all the same: what is long is left out, and a stream may say that all is of one grey.
        fine = {"wide sequence", "JPEG 2000 that agrees with its header"}
        assert {name for name, end in ends.items() if end not in ("parked", "unreadable")} <= fine
        assert all("no radiograph is like that" in note or "damaged" in note for note in parked.values())
        assert not [path for path in tmp_path.rglob("*") if path.suffix == ".core"]
    wait_until(lambda: not made.alive(), 60, "the node has ended")
