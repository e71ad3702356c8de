"""Power cuts of the whole node, one after the other on the same images: nothing acknowledged is lost.

CUTS (20) and SEED are taken from the environment.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.integration.test_power_cut import lost, send_until_the_cut
from tests.node import archive, contents, data_set, node, radiograph, to_archive, uid_of
from tests.peers import free_port
from tests.soak.power import Machine, require_root
from tests.soak.stage import history_is_whole

pytestmark = [pytest.mark.filterwarnings("ignore::ResourceWarning")]
CUTS = int(os.environ.get("CUTS", "20"))
SEED = int(os.environ.get("SEED", "20260104"))
STUDY = "1.2.826.0.1.3680043.10.1.61"


def test_the_whole_node_survives_many_power_cuts(tmp_path: Path) -> None:
    require_root()
    print(f"SEED={SEED} CUTS={CUTS}")
    chance, port, machine = random.Random(SEED), free_port(), Machine(tmp_path)
    acknowledged: list[Path] = []
    try:
        with archive(tmp_path, port) as pacs:
            state = str(machine.mount / "state")
            with node(tmp_path, to_archive(pacs.port), port=port, state_dir=state) as made:
                for number in range(CUTS):
                    root = f"{STUDY}.{number}"
                    hands = {"study": root, "size": 64, "BodyPartExamined": "HAND"}
                    files = [radiograph(tmp_path / "in", f"{root}.{n}", **hands) for n in range(1, 13)]
                    files.insert(0, radiograph(tmp_path / "in", f"{root}.99", study=root))
                    before, _ = send_until_the_cut(
                        made, machine, files, after=chance.randint(1, 10), pause_s=chance.choice((0, 0.05, 1, 3))
                    )
                    acknowledged += before
                    gone = lost(made, acknowledged)
                    print(f"cut {number + 1}: {len(acknowledged)} acknowledged, {len(gone)} lost")
                    assert gone == []
                    made.close()
                    made.start()
                made.wait_settled(600)
                history_is_whole(made)
                assert made.counts()["delivery"].keys() == {"delivered"}
                held = contents(pacs)
                assert [path for path in acknowledged if held.get(uid_of(path)) != data_set(path)] == []
    finally:
        machine.close()
