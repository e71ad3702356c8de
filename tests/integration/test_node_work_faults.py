"""What an image may do to the worker: hang it, crash it, exhaust it. The image is set aside, the rest goes on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.bombs import BOMBS, CHEST, element, header
from tests.node import Node, node, radiograph, study, uid_of
from tests.peers import wait_until
from tests.raw_peer import EXPLICIT, RawPeer, associate_rq, store

STUDY = "1.2.826.0.1.3680043.10.1.60"
MOST_GROWTH_MIB = 2000
"""A worker's peak above what it needs for a small image. What is allowed to a decoder of the largest image, and more
than the engine takes for that."""


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
    with node(tmp_path, pacs, work={"image_timeout_s": 4}) as made:
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
        fine = {"wide sequence", "deflated text", "JPEG 2000 that agrees with its header"}
        assert {name for name, end in ends.items() if end not in ("parked", "unreadable")} <= fine
        assert all("no radiograph is like that" in note or "damaged" in note for note in parked.values())
        assert not [path for path in tmp_path.rglob("*") if path.suffix == ".core"]
    wait_until(lambda: not made.alive(), 60, "the node has ended")


HOSTILE = ("../../escaped", "/tmp/escaped", "..", ".", "1.2\n3", "a/b\\c", "%s%n", "1." * 150 + "1", "")


@pytest.mark.parametrize("fast", [True, False])
def test_no_uid_or_title_makes_a_file_outside_of_the_nodes_folders(tmp_path: Path, fast: bool) -> None:
    folder = tmp_path / "a" / "b" / "node"
    folder.mkdir(parents=True)
    out = folder / "out"
    where = {"folder": {"kind": "folder", "path": str(out)}}
    with node(folder, where, listen={"fast": fast}) as made:
        outside = _files(tmp_path, but=folder)
        for number, uid in enumerate(HOSTILE, start=1):
            for command, study_uid in ((uid, "1.2.62"), (f"1.2.62.{number}", uid), (uid, uid)):
                peer = RawPeer.connect(made.port)
                peer.send(associate_rq([(1, CHEST, [EXPLICIT])], calling="../../../titled"))
                answer = peer.read()
                assert answer is not None
                assert answer.kind == 2
                body = header(uid if command == uid else f"1.2.62.{number}", 16)
                place, end = body.index(b"\x20\x00\x0d\x00"), body.index(b"\x20\x00\x0e\x00")
                body = body[:place] + element(0x0020, 0x000D, "UI", study_uid) + body[end:]
                peer.send(store(body + element(0x7FE0, 0x0010, "OB", bytes(256)), instance=command))
                # Refused, aborted or taken: whatever is answered, what follows is what counts.
                peer.read()
                peer.sock.close()
        made.accept(radiograph(folder / "in", "1.2.63.1", study="1.2.63"))
        made.wait_settled()
        assert made.outcomes()["1.2.63.1"] != "unreadable"
        assert _files(tmp_path, but=folder) == outside
        inside = {path.relative_to(folder).parts[0] for path in _files(folder)}
        assert inside <= {"state", "out", "in", "node.yaml", "node.log"}
        names = {path.stem for path in _files(out)}
        assert all(re.fullmatch(r"[0-9.]+", name) for name in names)
        assert not any("titled" in part for path in _files(folder) for part in path.parts)
        notes = {row["note"] for row in made.rows("SELECT note FROM instance WHERE state = 'parked'")}
        assert all("is no UID" in note or "another SOP Instance UID" in note or "it has no" in note for note in notes)
        assert notes


def _files(folder: Path, *, but: Path | None = None) -> set[Path]:
    return {p for p in folder.rglob("*") if p.is_file() and not (but and p.is_relative_to(but))}
