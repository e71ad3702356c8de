"""What belongs together, what came before, what came back, and destinations that fail: a real node and its archive."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dicom_node.demo.archive import Archive
from dicom_node.results.report_text import parse_report
from dicom_node.status import StoreStatus
from tests.node import (
    Node,
    archive,
    association,
    contents,
    data_set,
    node,
    radiograph,
    read,
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
ROOT = "1.2.826.0.1.3680043.10.1.70"
REFUSED = 0xA900


@dataclass
class Policy:
    """What the archive answers: the next statuses of an object, then Success; and how often it was asked."""

    trouble: dict[str, list[int]] = field(default_factory=dict)
    always: int = StoreStatus.SUCCESS
    asked: Counter[str] = field(default_factory=Counter)

    def __call__(self, uid: str) -> int:
        self.asked[uid] += 1
        left = self.trouble.get(uid)
        return left.pop(0) if left else self.always


@dataclass
class Place:
    """A node with its archive."""

    node: Node
    pacs: Archive
    policy: Policy

    def reports(self, study_uid: str) -> dict[str, list[dict[str, Any]]]:
        """The reports of one study that the archive holds: their rows by UID."""
        found = {}
        for uid in self.node.results("structured_report"):
            held = next((one for one in self.pacs.instances() if one.sop_instance_uid == uid), None)
            if held and read(held.path).StudyInstanceUID == study_uid:
                found[uid] = parse_report(held.path)
        return found

    def captures(self, source: str) -> list[str]:
        """Secondary captures made from one source."""
        query = (
            "SELECT o.sop_instance_uid AS uid FROM object o JOIN instance i ON i.id = o.instance"
            " WHERE o.kind = 'secondary_capture' AND i.sop_instance_uid = ?"
        )
        return [row["uid"] for row in self.node.rows(query, source)]

    def states(self, uid: str) -> list[str]:
        query = "SELECT state FROM instance WHERE sop_instance_uid = ? ORDER BY id"
        return [row["state"] for row in self.node.rows(query, uid)]

    def file(self, uid: str) -> Path:
        return next(one.path for one in self.pacs.instances() if one.sop_instance_uid == uid)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder, port, policy = tmp_path_factory.mktemp("place"), free_port(), Policy()
    with (
        archive(folder, port, answer=policy) as pacs,
        node(folder, to_archive(pacs.port), port=port, assembly={"quiet_s": 6, "quiet_after_release_s": 1}) as made,
    ):
        yield Place(made, pacs, policy)


def _sources(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(row["source_instance"] for row in rows)


def test_studies_that_come_interleaved_over_several_associations_get_one_report_each(
    place: Place, tmp_path: Path
) -> None:
    one, two = (study(tmp_path, f"{ROOT}.1.{n}", 3, vendor="Norlund") for n in (1, 2))
    with association(place.node.port, one) as first:
        assert [store(first, one[0]), store(first, two[0])] == [0, 0]
        with association(place.node.port, one) as second:
            # The first association is still open when the second one goes on with its studies.
            assert [store(second, two[1]), store(second, one[1])] == [0, 0]
            assert store(first, one[2]) == 0
        place.node.accept(two[2])
    place.node.wait_settled()
    for files, uid in ((one, f"{ROOT}.1.1"), (two, f"{ROOT}.1.2")):
        (rows,) = place.reports(uid).values()
        assert _sources(rows) == sorted(map(uid_of, files))


def test_the_same_object_sent_twice_gives_one_result_and_is_noted_as_a_repetition(place: Place, tmp_path: Path) -> None:
    path = radiograph(tmp_path, f"{ROOT}.2.1", study=f"{ROOT}.2")
    place.node.accept(path, path)
    place.node.wait_settled()
    place.node.accept(path)
    place.node.wait(lambda: len(place.states(uid_of(path))) == 3, 30, "three rows")
    place.node.wait_settled()
    assert sorted(place.states(uid_of(path))) == ["duplicate", "duplicate", "reported"]
    assert len(place.captures(uid_of(path))) == 1
    assert len(place.reports(f"{ROOT}.2")) == 1
    query = "SELECT note, path FROM instance WHERE sop_instance_uid = ? AND state = 'duplicate'"
    for row in place.node.rows(query, uid_of(path)):
        assert row["note"].startswith("same bytes as instance ")
        place.node.wait(
            lambda row=row: not (place.node.spool / row["path"]).exists(), 10, "its bytes are not kept twice"
        )


def test_the_same_uid_with_other_bytes_is_kept_aside_shown_and_not_forwarded(place: Place, tmp_path: Path) -> None:
    uid = f"{ROOT}.3.1"
    first = radiograph(tmp_path / "a", uid, study=f"{ROOT}.3")
    other = radiograph(tmp_path / "b", uid, study=f"{ROOT}.3", vendor="Umbra")
    place.node.accept(first)
    place.node.wait_settled()
    place.node.accept(other)
    place.node.wait(lambda: place.states(uid) == ["reported", "conflict"], 30, "the second one is in conflict")
    place.node.wait_settled()
    assert data_set(place.file(uid)) == data_set(first)
    assert place.policy.asked[uid] == 1
    row = place.node.rows("SELECT id, path FROM instance WHERE sop_instance_uid = ? AND state = 'conflict'", uid)[0]
    assert data_set(place.node.spool / row["path"]) == data_set(other)
    shown = place.node.cli("status", "--json")
    assert shown.returncode == 1
    attention = [one for one in json.loads(shown.stdout)["attention"] if one["uid"] == uid]
    assert [(one["what"], one["id"], one["state"]) for one in attention] == [("instance", row["id"], "conflict")]
    assert "other bytes" in attention[0]["note"]


def test_an_image_after_the_report_starts_the_next_batch_and_leaves_the_first_report_alone(
    place: Place, tmp_path: Path
) -> None:
    early, late = study(tmp_path, f"{ROOT}.4", 2, vendor="Norlund")
    place.node.accept(early)
    place.node.wait_settled()
    (first,) = place.reports(f"{ROOT}.4")
    before = data_set(place.file(first))
    place.node.accept(late)
    place.node.wait_settled()
    reports = place.reports(f"{ROOT}.4")
    assert {uid: _sources(rows) for uid, rows in reports.items() if uid != first} == {
        next(uid for uid in reports if uid != first): [uid_of(late)]
    }
    assert _sources(reports[first]) == [uid_of(early)]
    assert data_set(place.file(first)) == before
    assert place.policy.asked[first] == 1


def test_own_results_that_a_pacs_sends_back_are_recognised_and_never_processed(place: Place, tmp_path: Path) -> None:
    source = radiograph(tmp_path, f"{ROOT}.5.1", study=f"{ROOT}.5")
    place.node.accept(source)
    place.node.wait_settled()
    (capture,) = place.captures(uid_of(source))
    (report,) = place.reports(f"{ROOT}.5")
    made, held = place.node.results(), contents(place.pacs).keys()
    deliveries = place.node.one("SELECT count(*) FROM delivery")
    back = []
    for uid in (capture, report):
        back.append(place.file(uid))
        # What a PACS that normalises does to an object: other encoding, coerced patient, private elements gone.
        changed = read(place.file(uid))
        changed.remove_private_tags()
        changed.PatientID = "COERCED"
        changed.SpecificCharacterSet = "ISO_IR 192"
        changed.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
        back.append(tmp_path / f"{uid}.changed.dcm")
        changed.save_as(back[-1], implicit_vr=True, little_endian=True, enforce_file_format=True)
    place.node.accept(*back)
    unread = {"received", "reading"}
    place.node.wait(lambda: not unread & {*place.states(capture), *place.states(report)}, 30, "all were looked at")
    place.node.wait_settled()
    assert place.states(capture) == place.states(report) == ["own", "own"]
    assert place.node.results() == made
    assert contents(place.pacs).keys() == held
    assert place.node.one("SELECT count(*) FROM delivery") == deliveries


def test_two_patients_under_one_study_uid_never_share_a_report(place: Place, tmp_path: Path) -> None:
    uid = f"{ROOT}.6"
    files = [
        radiograph(tmp_path, f"{uid}.{n}", study=uid, vendor="Norlund", PatientID=f"P{n}", PatientName=f"Doe^{n}")
        for n in (1, 2)
    ]
    place.node.accept(*files)
    place.node.wait_settled()
    reports = place.reports(uid)
    named = {read(place.file(report)).PatientID: _sources(rows) for report, rows in reports.items()}
    assert named == {f"P{n}": [f"{uid}.{n}"] for n in (1, 2)}


def test_a_dead_worker_takes_no_association_down(place: Place, tmp_path: Path) -> None:
    files = study(tmp_path, f"{ROOT}.7", 2, vendor="Norlund")
    with association(place.node.port, files) as link:
        assert store(link, files[0]) == 0
        old = place.node.kill("work")
        assert store(link, files[1]) == 0
        assert link.is_established
    place.node.wait(lambda: place.node.pid("work") not in (None, old), 60, "the worker is started again")
    place.node.wait_settled()
    assert sum(map(len, place.reports(f"{ROOT}.7").values())) == 2


def test_a_destination_that_is_dead_at_first_gets_everything_when_it_is_up(place: Place, tmp_path: Path) -> None:
    path = radiograph(tmp_path, f"{ROOT}.8.1", study=f"{ROOT}.8")
    place.pacs.stop()
    try:
        place.node.accept(path)
        tried = (
            "SELECT count(*) > 1 FROM history h JOIN delivery d ON d.id = h.ref"
            " WHERE h.what = 'delivery' AND h.step = 'release' AND d.state IN ('pending', 'sending')"
        )
        place.node.wait(lambda: place.node.one(tried), 60, "the original was tried twice")
    finally:
        place.pacs.start()
    place.node.wait_settled()
    expected = {uid_of(path), *place.captures(uid_of(path)), *place.reports(f"{ROOT}.8")}
    assert len(expected) == 3
    assert {uid: place.policy.asked[uid] for uid in expected} == dict.fromkeys(expected, 1)


def test_a_destination_without_room_is_tried_again_until_it_takes_the_object_once(place: Place, tmp_path: Path) -> None:
    path = radiograph(tmp_path, f"{ROOT}.9.1", study=f"{ROOT}.9", vendor="Norlund")
    place.policy.trouble[uid_of(path)] = [StoreStatus.OUT_OF_RESOURCES] * 3
    place.node.accept(path)
    place.node.wait_settled()
    assert place.policy.asked[uid_of(path)] == 4
    assert data_set(place.file(uid_of(path))) == data_set(path)
    query = "SELECT step FROM history h JOIN delivery d ON h.what = 'delivery' AND h.ref = d.id JOIN object o"
    query += " ON o.id = d.object WHERE o.sop_instance_uid = ? ORDER BY h.id"
    steps = Counter(row["step"] for row in place.node.rows(query, uid_of(path)))
    assert (steps["release"], steps["store"], steps["deliver"]) == (3, 1, 1)


def test_what_a_destination_refuses_is_parked_shown_and_delivered_when_a_person_asks(
    place: Place, tmp_path: Path
) -> None:
    path = radiograph(tmp_path, f"{ROOT}.10.1", study=f"{ROOT}.10", vendor="Norlund")
    place.policy.trouble[uid_of(path)] = [REFUSED]
    place.node.accept(path)
    place.node.wait_settled()
    shown = place.node.cli("status", "--json")
    assert shown.returncode == 1
    (parked,) = (one for one in json.loads(shown.stdout)["attention"] if one["uid"] == uid_of(path))
    assert (parked["what"], parked["state"]) == ("delivery", "parked")
    assert "0xA900" in parked["note"]
    # The refused object held up no other: the report is there.
    assert len(place.reports(f"{ROOT}.10")) == 1
    retried = place.node.cli("retry", "--all")
    assert retried.returncode == 0, retried.stdout + retried.stderr
    assert f"delivery:{parked['id']} is tried again" in retried.stdout
    place.node.wait_settled()
    assert data_set(place.file(uid_of(path))) == data_set(path)
    attention = json.loads(place.node.cli("status", "--json").stdout)["attention"]
    assert not [one for one in attention if one["what"] == "delivery"]


def test_sigterm_finishes_the_image_in_hand_and_a_new_start_goes_on(tmp_path: Path) -> None:
    files = study(tmp_path / "in", f"{ROOT}.11", 4, vendor="Meridian")
    port = free_port()
    with archive(tmp_path, port) as pacs, node(tmp_path, to_archive(pacs.port), port=port) as made:
        made.accept(*files)
        made.wait(lambda: made.one("SELECT count(*) FROM instance WHERE state = 'claimed'"), 60, "an image is claimed")
        assert made.terminate() == 0
        assert made.alive() == []
        states = made.counts()["instance"]
        assert states.get("claimed", 0) == 0
        assert states.get("decided", 0) + states.get("reported", 0) >= 1
        assert made.one("SELECT count(*) FROM history WHERE what = 'instance' AND step = 'release'") == 0
        assert "Traceback" not in made.log()
        made.start()
        made.wait_settled()
        wait_until(lambda: len(pacs.instances()) >= 9, 10, "four originals, four captures and a report")
        assert contents(pacs).keys() == {*map(uid_of, files), *made.results()}
        assert made.counts()["instance"] == {"reported": 4}
