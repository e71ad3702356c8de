"""Hundreds of `kill -9` at random moments under load: nothing is lost, nothing is delivered under other UIDs.

KILLS (500) and SEED are taken from the environment. The table goes to tests/bench/results/soak_kills.txt.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dicom_node.demo.archive import Archive
from tests.bench.measured import goal
from tests.node import Node, archive, contents, data_set, node, radiograph, to_archive, uid_of
from tests.peers import free_port
from tests.soak.stage import UNDECIDED, history_is_whole

pytestmark = [pytest.mark.filterwarnings("ignore::ResourceWarning")]
KILLS = int(os.environ.get("KILLS", "500"))
SEED = int(os.environ.get("SEED", "20260103"))
SENDERS = 3
STUDY = "1.2.826.0.1.3680043.10.1.70"
VICTIMS = ("listen",) * 5 + ("work",) * 4 + ("deliver",) * 4 + ("upkeep", "serve", "all")
WAITING_AT_MOST = 20
"""Senders wait while more is undecided, so that the end comes soon after the last kill."""
RESULTS = Path(__file__).resolve().parents[1] / "bench" / "results" / "soak_kills.txt"
SETTLE_S = 900.0


@dataclass
class Soak:
    """What was done to one node."""

    made: Node
    chance: random.Random
    over: threading.Event = field(default_factory=threading.Event)
    sent: list[Path] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    retried: int = 0

    def modality(self, number: int, folder: Path) -> None:
        """Studies of three images, one for the engine, each sent until it is acknowledged."""
        study = 0
        while not self.over.is_set():
            study += 1
            root = f"{STUDY}.{number}.{study}"
            files = [
                radiograph(folder, f"{root}.1", study=root),
                radiograph(folder, f"{root}.2", study=root, size=64, BodyPartExamined="HAND"),
                radiograph(folder, f"{root}.3", study=root, size=64, BodyPartExamined="HAND"),
            ]
            self.made.insist(files, SETTLE_S)
            self.sent.extend(files)
            while not self.over.wait(0.1) and self.made.one(UNDECIDED) > WAITING_AT_MOST:
                pass

    def kill_one(self) -> None:
        """SIGKILL one process that runs, or the supervisor, or all at once."""
        victim = self.chance.choice(VICTIMS)
        assert self.made.process
        if victim == "all":
            # Those of an earlier supervisor that still end, too.
            for pid in self.made.alive():
                with suppress(ProcessLookupError):
                    os.kill(pid, 9)
            self.made.process.wait()
        elif victim == "serve":
            self.made.process.kill()
            self.made.process.wait()
        else:
            running = self.made.pids(victim)
            if not running:
                # It waits to be started again.
                self.serve()
                return
            with suppress(ProcessLookupError):
                os.kill(self.chance.choice(running), 9)
        self.kills[victim] += 1
        self.serve()

    def serve(self) -> None:
        """As a service manager does: a supervisor that ended is started again."""
        assert self.made.process
        if self.made.process.poll() is not None:
            self.made.start(ready=False)

    def retry_parked(self) -> None:
        """A person tries again what was parked because processes died over it."""
        for _ in range(10):
            self.made.wait_settled(SETTLE_S)
            parked = sum(states.get("parked", 0) for states in self.made.counts().values())
            if not parked:
                return
            self.retried += parked
            assert self.made.cli("retry", "--all").returncode == 0
        pytest.fail("something is parked again and again")


def test_random_kills_under_load_lose_nothing_and_change_no_uid(tmp_path: Path) -> None:
    print(f"SEED={SEED} KILLS={KILLS}")
    port, began = free_port(), time.monotonic()
    with (
        archive(tmp_path, port) as pacs,
        node(tmp_path, to_archive(pacs.port), port=port, work={"retry": {"attempts": 1000}}) as made,
    ):
        soak = Soak(made, random.Random(SEED))
        with ThreadPoolExecutor(SENDERS) as pool:
            sending = [pool.submit(soak.modality, n, tmp_path / f"in{n}") for n in range(1, SENDERS + 1)]
            try:
                while soak.kills.total() < KILLS:
                    # Not a wait for anything: the moment itself is what is drawn.
                    threading.Event().wait(soak.chance.uniform(0.1, 4.0))
                    soak.kill_one()
            finally:
                soak.over.set()
            while not all(one.done() for one in sending):
                soak.serve()
                threading.Event().wait(0.2)
            for one in sending:
                one.result()
        soak.retry_parked()
        took = time.monotonic() - began
        lost, other, twice = _judge(made, pacs, soak.sent, tmp_path)
    _write(soak, took, len(lost), len(other), len(twice))
    assert (lost, other, twice) == ([], [], [])
    assert soak.kills.total() >= KILLS


def _judge(made: Node, pacs: Archive, sent: Sequence[Path], folder: Path) -> tuple[list[str], list[str], list[str]]:
    """UIDs that are lost, that an undisturbed node gives otherwise, and sources with two results or two reports."""
    history_is_whole(made)
    held = contents(pacs)
    lost = [uid_of(path) for path in sent if held.get(uid_of(path)) != data_set(path)]
    query = "SELECT sop_instance_uid AS uid FROM object"
    lost += sorted({row["uid"] for row in made.rows(query)} - held.keys())
    unknown = sorted(held.keys() - {row["uid"] for row in made.rows(query)})
    expected = _undisturbed(folder / "undisturbed", sent)
    found = {uid: held[uid] for uid in made.results("secondary_capture") if uid in held}
    different = [uid for uid in found.keys() | expected.keys() if found.get(uid) != expected.get(uid)]
    doubled = made.rows(
        "SELECT instance AS ref FROM object WHERE kind = 'secondary_capture' GROUP BY instance HAVING count(*) > 1"
        " UNION ALL SELECT ref FROM history WHERE what = 'instance' AND step = 'report' GROUP BY ref"
        " HAVING count(*) > 1 UNION ALL SELECT batch FROM object WHERE batch IS NOT NULL GROUP BY batch"
        " HAVING count(*) > 1"
    )
    return lost, unknown + different, [str(row["ref"]) for row in doubled]


def _undisturbed(folder: Path, sent: Sequence[Path]) -> dict[str, bytes]:
    """What a node that nobody disturbs makes of the same images."""
    port = free_port()
    folder.mkdir()
    with archive(folder, port) as pacs, node(folder, to_archive(pacs.port), port=port) as made:
        made.insist(list(sent), SETTLE_S)
        made.wait_settled(SETTLE_S)
        held = contents(pacs)
        return {uid: held[uid] for uid in made.results("secondary_capture")}


def _write(soak: Soak, took: float, lost: int, other: int, twice: int) -> None:
    kills = soak.kills.total()
    goals = [
        goal("soak_kills", kills, ">=", max(500, KILLS)),
        goal("soak_images_acknowledged_a_kill", len(soak.sent) / max(1, kills), ">=", 1),
        goal("soak_acknowledged_and_lost", lost, "<=", 0),
        goal("soak_under_other_uids_or_bytes", other, "<=", 0),
        goal("soak_sources_with_two_results", twice, "<=", 0),
    ]
    lines = [
        "kill -9 at random moments under load, then compared with a node that nobody disturbed",
        f"seed {SEED}, {took:.0f} s, {SENDERS} senders, {len(soak.sent)} images acknowledged",
        *(f"  {victim:<8} killed {count:>4} times" for victim, count in sorted(soak.kills.items())),
        f"  retried with `evenray retry`, since processes had died over them: {soak.retried}",
        *goals,
    ]
    print("\n".join(lines))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines) + "\n")
