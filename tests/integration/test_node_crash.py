"""Kill -9 of every process at awkward moments: nothing is lost, nothing is sent under two UIDs."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from pynetdicom import evt

from dicom_node.demo.archive import Archive
from tests.node import (
    NEVER_S,
    Node,
    archive,
    contents,
    data_set,
    end,
    node,
    open_association,
    store,
    study,
    to_archive,
    uid_of,
)
from tests.peers import free_port, wait_until

pytestmark = [
    # The library leaves the socket of a peer that died to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
STUDY = "1.2.826.0.1.3680043.10.1.50"
OPEN = {"quiet_s": NEVER_S, "quiet_after_release_s": NEVER_S, "cap_s": 2 * NEVER_S}
"""However long a killed process takes to come back, its study stays one batch until the test closes it."""
QUIET = {"quiet_s": 0.5, "quiet_after_release_s": 0.5}
SEED = 20260101


@dataclass
class Truth:
    """What an undisturbed run gives."""

    files: list[Path]
    objects: dict[str, bytes]
    results: list[str]


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    folder = tmp_path_factory.mktemp("undisturbed")
    files = study(folder / "in", STUDY, 4)
    port = free_port()
    with archive(folder, port) as pacs, node(folder, to_archive(pacs.port), port=port) as made:
        made.accept(*files)
        made.wait_settled()
        results = made.results()
        assert len(results) == 4, "three secondary captures and a report"
        return Truth(files, contents(pacs), results)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Node, Archive]]:
    """A node whose batches stay open, and its archive."""
    port = free_port()
    with (
        archive(tmp_path, port) as pacs,
        node(tmp_path, to_archive(pacs.port), port=port, assembly=OPEN, work={"retry": {"attempts": 100}}) as made,
    ):
        yield made, pacs


def _finish(made: Node, pacs: Archive, truth: Truth) -> None:
    """Close the batch, by one more kill, and compare the end with the undisturbed one."""
    wait_for = "SELECT count(*) FROM instance WHERE state IN ('received', 'reading', 'waiting', 'claimed')"
    made.wait(lambda: made.one(wait_for) == 0, 120, "every image is decided")
    made.configure(assembly=QUIET)
    made.kill("work")
    made.wait_settled()
    held = contents(pacs)
    assert held.keys() == truth.objects.keys()
    assert [uid for uid in held if held[uid] != truth.objects[uid]] == []
    assert made.results() == truth.results
    counts = made.counts()
    assert counts["delivery"] == {"delivered": len(truth.objects)}
    assert counts["batch"] == {"reported": 1}
    assert counts["instance"].keys() <= {"reported", "duplicate"}
    assert counts["instance"]["reported"] == len(truth.files)
    # Nothing is left over in the spool: every file has its row.
    with made.ledger() as ledger:
        known = ledger.known_paths()
    spooled = {path.relative_to(made.spool).as_posix() for path in made.spooled()}
    assert known <= spooled
    assert not [path for path in spooled if path.startswith("incoming/")]


def test_a_listener_killed_in_the_middle_of_an_object_has_not_said_success(
    running: tuple[Node, Archive], truth: Truth
) -> None:
    made, pacs = running
    first, second, *others = truth.files
    pid = made.runs("listen")
    link = open_association(made.port, [first, second])
    assert store(link, first) == 0
    sent: list[int] = []

    def cut(_event: evt.Event) -> None:
        sent.append(1)
        if len(sent) == 2:
            wait_until(made.arriving, 10, "a part of the object has arrived")
            made.kill("listen")

    link.bind(evt.EVT_PDU_SENT, cut)
    assert store(link, second) is None
    end(link)
    made.wait(lambda: made.pid("listen") not in (None, pid), 60, "the listener is started again")
    attempts = made.insist([second, *others])
    assert attempts[second] >= 1
    assert made.one("SELECT count(*) FROM instance WHERE sop_instance_uid = ?", uid_of(first)) == 1
    _finish(made, pacs, truth)


def test_a_worker_killed_while_it_has_an_image_leaves_it_to_the_next_one(
    running: tuple[Node, Archive], truth: Truth
) -> None:
    made, pacs = running
    pid = made.runs("work")
    made.accept(*truth.files)
    claimed = "SELECT count(*) FROM instance WHERE state = 'claimed'"
    for _ in range(2):
        made.wait(lambda: made.one(claimed), 120, "an image is claimed")
        made.kill("work")
    assert made.pid("work") != pid
    _finish(made, pacs, truth)
    assert made.one("SELECT count(*) FROM history WHERE what = 'instance' AND step = 'release'") >= 1


def test_a_sender_killed_between_two_objects_delivers_all_of_them_once(
    running: tuple[Node, Archive], truth: Truth
) -> None:
    made, pacs = running
    made.accept(*truth.files)
    for count in (1, 3):
        made.wait(lambda count=count: len(pacs.instances()) >= count, 120, f"the archive has {count} objects")
        made.kill("deliver")
    _finish(made, pacs, truth)


def test_the_processes_of_a_killed_supervisor_end_and_a_new_one_goes_on(
    running: tuple[Node, Archive], truth: Truth
) -> None:
    made, pacs = running
    first, *others = truth.files
    link = open_association(made.port, truth.files)
    assert store(link, first) == 0
    old = [made.runs(role) for role in ("listen", "work", "deliver")]
    made.kill("serve")
    # As a service manager does: at once, while the others are still ending.
    made.start(ready=False)
    # The old receiver finishes the association that it has, but lets go of the port at once.
    made.wait(lambda: made.log().count("holds 127.0.0.1") == 2, 60, "the new supervisor has the port")
    assert store(link, others[0]) == 0
    end(link)
    made.wait(lambda: not set(old) & set(made.alive()), 90, "the children of the killed supervisor end")
    made.insist(others)
    assert made.process
    assert made.process.poll() is None
    _finish(made, pacs, truth)


def test_kills_at_random_moments_while_a_modality_sends_change_nothing(
    running: tuple[Node, Archive], truth: Truth
) -> None:
    made, pacs = running
    chance = random.Random(SEED)
    kills, pause = 7, threading.Event()

    def modality() -> None:
        # Every object twice, the second time as a modality that lost the answer would.
        for path in [*truth.files, *truth.files]:
            made.insist([path])
            pause.wait(chance.uniform(0.1, 1.0))

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(modality)
        for role in chance.choices(("listen", "work", "deliver", "serve"), k=kills):
            # Not a wait for anything: the moment itself is what is drawn.
            pause.wait(chance.uniform(0.2, 3.0))
            made.kill(role)
            if role == "serve":
                made.start(ready=False)
        sending.result(240)
    _finish(made, pacs, truth)
    for path in truth.files:
        assert contents(pacs)[uid_of(path)] == data_set(path)
