"""A power cut forgets what was not forced to the disk: nothing that was acknowledged is among it."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node import Node, archive, contents, data_set, end, node, open_association, radiograph, store, to_archive
from tests.node import uid_of as uid
from tests.peers import free_port
from tests.soak.power import Machine, cut, disk, mounted, require_root, without_fsync

pytestmark = [
    # The library leaves the socket of a peer that died to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
STUDY = "1.2.826.0.1.3680043.10.1.60"
SEED = 20260102


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    require_root()
    made = Machine(tmp_path)
    try:
        yield made
    finally:
        made.close()


def _write(path: Path, *, forced: bool) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        os.write(handle, b"x" * 100_000)
        if forced:
            os.fsync(handle)
    finally:
        os.close(handle)


def test_the_disk_of_these_tests_forgets_what_was_not_forced_to_it(tmp_path: Path) -> None:
    require_root()
    with disk(tmp_path / "image", tmp_path / "mount", mebibytes=32) as mount:
        _write(mount / "forced", forced=True)
        _write(mount / "not forced", forced=False)
        cut(tmp_path / "image", tmp_path / "copy", [])
    with mounted(tmp_path / "copy", tmp_path / "after") as after:
        left = {path.name: path.read_bytes() for path in after.iterdir() if path.is_file()}
    assert left.get("forced") == b"x" * 100_000
    assert not left.get("not forced")


def lost(made: Node, acknowledged: list[Path]) -> list[Path]:
    """What a sender was told is kept, and is not there with its row and its bytes."""
    ledger = made.state / "ledger.sqlite"
    if not ledger.exists() or made.one("PRAGMA integrity_check") != "ok":
        return acknowledged
    query = "SELECT path FROM instance WHERE sop_instance_uid = ? AND state <> 'duplicate'"
    gone = []
    for path in acknowledged:
        kept = [made.spool / row["path"] for row in made.rows(query, uid(path))]
        if data_set(path) not in [data_set(one) for one in kept if one.exists() and one.stat().st_size > 132]:
            gone.append(path)
    return gone


def send_until_the_cut(
    made: Node, machine: Machine, files: list[Path], *, after: int, pause_s: float
) -> tuple[list[Path], float]:
    """Send over one association; cut the power `pause_s` after so many were accepted. What was accepted before it."""
    accepted: list[Path] = []
    enough = threading.Event()

    def sender() -> None:
        link = open_association(made.port, files)
        for path in files:
            if not link.is_established or store(link, path) != 0:
                break
            accepted.append(path)
            if len(accepted) >= after:
                enough.set()
        enough.set()
        end(link)

    thread = threading.Thread(target=sender)
    thread.start()
    assert enough.wait(60)
    # The moment itself is what is drawn.
    threading.Event().wait(pause_s)
    before = list(accepted)
    took = machine.cut(made.alive())
    thread.join(60)
    made.configure(state_dir=str(machine.mount / "state"))
    return before, took


def _files(folder: Path, count: int) -> list[Path]:
    # No exam of the engine's: this is about receiving and sending on.
    common = {"study": STUDY, "size": 64, "BodyPartExamined": "HAND"}
    return [radiograph(folder, f"{STUDY}.{n}", **common) for n in range(1, count + 1)]


def test_nothing_acknowledged_is_lost_by_power_cuts_while_a_modality_sends(tmp_path: Path, machine: Machine) -> None:
    files, chance, port = _files(tmp_path / "in", 24), random.Random(SEED), free_port()
    acknowledged: list[Path] = []
    state = {"state_dir": str(machine.mount / "state")}
    with archive(tmp_path, port) as pacs:
        with node(tmp_path, to_archive(pacs.port), port=port, role="listen", **state) as made:
            for part in (files[:12], files[12:]):
                before, _ = send_until_the_cut(made, machine, part, after=6, pause_s=chance.uniform(0, 0.05))
                acknowledged += before
                assert lost(made, acknowledged) == []
                made.close()
                made.start()
        assert len(acknowledged) >= 12
        with node(tmp_path, to_archive(pacs.port), port=port, state_dir=str(machine.mount / "state")) as made:
            made.wait_settled()
            held = contents(pacs)
            assert [path for path in acknowledged if held.get(uid(path)) != data_set(path)] == []


def test_these_power_cuts_find_what_a_node_loses_that_does_not_force_its_bytes_to_the_disk(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_PRELOAD", str(without_fsync(tmp_path)))
    with node(tmp_path, role="listen", state_dir=str(machine.mount / "state")) as made:
        monkeypatch.delenv("LD_PRELOAD")
        accepted, _ = send_until_the_cut(made, machine, _files(tmp_path / "in", 20), after=8, pause_s=0)
        assert lost(made, accepted) != []
