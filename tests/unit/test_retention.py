"""What leaves the spool and when, on a real spool and ledger: never before every receipt, never the only copy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicom_node import marks
from dicom_node.recover import recover
from dicom_node.retention import Retention, holding
from dicom_node.states import Instance
from tests.dicom_files import dataset
from tests.unit.house import DAY, House, house

MONTH = 30 * DAY
OURS = marks.uid_from_hash(b"a result of a node")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "state") as made:
        yield made


def one(n: int = 1, **more: Any) -> Any:
    return dataset("CR", instance=f"1.2.3.4.{n}", **more)


def leave(node: House, now: float, **rules: object) -> int:
    settings = node.settings.model_copy(update={"retention": node.settings.retention.model_copy(update=rules)})
    return Retention(node.ledger, node.spool, settings).turn(now=now, beat=lambda: None)


def test_originals_results_and_the_report_leave_when_their_days_are_over(node: House) -> None:
    (row,) = node.delivered(one(), now=DAY)
    assert len(node.there()) == 3
    assert leave(node, now=DAY + MONTH - 1) == 0
    assert leave(node, now=DAY + MONTH) == 3
    assert node.there() == set()
    assert node.row(row.id).state is Instance.EXPIRED
    steps = [h["step"] for h in node.ledger.history("instance", row.id)]
    assert steps[-2:] == ["report", "expire"]
    assert node.ledger.history("object", 1)[-1]["detail"] == "its days after the last receipt are over: batch 1"


def test_the_days_are_counted_from_the_last_receipt_of_the_whole_batch(node: House) -> None:
    node.take(one(1))
    node.take(one(2))
    node.work(["pacs"])
    node.deliver(limit=3)
    assert leave(node, now=2 * MONTH) == 0, "two objects of the batch have no receipt"
    node.deliver(now=MONTH)
    assert leave(node, now=2 * MONTH - 1) == 0
    assert leave(node, now=2 * MONTH) == 5


@pytest.mark.parametrize("kind", ["originals_days", "results_days"])
def test_what_has_no_number_of_days_never_leaves(node: House, kind: str) -> None:
    node.delivered(one())
    leave(node, now=100 * MONTH, **{kind: None})
    assert {path.partition("/")[0] + "_days" for path in node.there()} == {kind}


def test_nothing_of_a_batch_leaves_while_one_delivery_is_parked(node: House) -> None:
    node.take(one())
    node.work(["pacs"])
    first, *_ = node.ledger.deliveries.claim("pacs", "sender", now=0, lease_s=10, limit=1)
    node.ledger.deliveries.park(first, "refused", now=0)
    node.deliver()
    assert leave(node, now=100 * MONTH) == 0
    assert node.ledger.deliveries.retry(first.id, now=MONTH)
    node.deliver(now=MONTH)
    assert leave(node, now=2 * MONTH) == 3


def test_parked_and_conflicting_instances_never_leave(node: House) -> None:
    node.delivered(one())
    clash = node.take(one(PatientName="Other^Bytes"))
    assert clash.state is Instance.CONFLICT
    parked = node.take(one(2))
    claimed = node.ledger.instances.claim("worker", now=0, lease_s=10)
    assert claimed is not None
    node.ledger.instances.park(claimed, "poison", now=0)
    leave(node, now=100 * MONTH)
    assert node.there() == {clash.path, parked.path}


def test_an_original_that_was_sent_nowhere_is_the_only_copy_and_stays(tmp_path: Path) -> None:
    with house(tmp_path / "state", passed_by={"originals": "keep", "destinations": ["pacs"]}) as node:
        (row,) = node.delivered(one())
        assert leave(node, now=100 * MONTH) == 2, "result and report have their receipts"
        assert node.there() == {row.path}
        assert leave(node, now=100 * MONTH, only_copies="expire") == 1


def test_what_a_person_let_expire_explicitly_leaves_even_without_a_destination(tmp_path: Path) -> None:
    with house(tmp_path / "state", passed_by={}) as node:
        node.take(one())
        node.work([])
        assert leave(node, now=100 * MONTH) == 0
        assert leave(node, now=100 * MONTH, only_copies="expire") == 3


def test_a_result_that_was_routed_back_leaves_after_its_days(node: House) -> None:
    back = node.take(dataset("SC", instance=OURS))
    assert back.state is Instance.OWN
    assert leave(node, now=100 * MONTH) == 0, "it is on its way to where what is passed by goes"
    node.deliver(now=MONTH)
    assert leave(node, now=2 * MONTH - 1) == 0
    assert leave(node, now=2 * MONTH) == 1


def test_the_same_bytes_after_they_have_left_are_a_repetition_and_take_no_room(node: House) -> None:
    (first,) = node.delivered(one())
    leave(node, now=MONTH)
    again = node.take(one(), now=MONTH)
    assert again.state is Instance.DUPLICATE
    assert again.note == f"same bytes as instance {first.id}"
    assert node.there() == set()
    assert node.ledger.deliveries.destinations() == [], "nothing is sent again"


def test_other_bytes_under_the_uid_of_what_has_left_are_still_a_conflict(node: House) -> None:
    node.delivered(one())
    leave(node, now=MONTH)
    assert node.take(one(PatientName="Other^Bytes"), now=MONTH).state is Instance.CONFLICT


def test_what_is_left_of_a_crash_between_row_and_file_goes_as_an_orphan(node: House) -> None:
    node.delivered(one())
    node.ledger.upkeep.settle()
    due = node.ledger.upkeep.leaving(1, originals=True, results=False, only_copies=False)
    node.ledger.upkeep.expire(due, "test", now=MONTH)
    assert due[0].path in node.there(), "as if killed right here"
    recover(node.spool, node.ledger, now=node.spool.at(due[0].path).stat().st_mtime)
    assert len(node.there()) == 2
    assert due[0].path not in node.there()


def test_near_the_limits_of_the_disk_what_has_its_receipts_leaves_early(tmp_path: Path) -> None:
    full = {"reserve_mib": 1 << 40, "watermark_percent": 100}
    with house(tmp_path / "state", storage=full) as node:
        node.delivered(one(1))
        waiting = node.take(one(2, StudyInstanceUID="1.2.3.5"))
        assert leave(node, now=1, when_full="never") == 0
        assert leave(node, now=1) == 3
        assert node.there() == {waiting.path}


def test_nothing_leaves_while_a_backup_holds_the_spool(node: House) -> None:
    node.delivered(one())
    with holding(node.spool.root, wait=True):
        assert leave(node, now=MONTH) == 0
    assert leave(node, now=MONTH) == 3


def test_old_associations_and_settled_commitment_requests_are_forgotten(node: House) -> None:
    for name in ("a", "b"):
        node.ledger.association_opened(name, "listen", "M", "E", now=0)
        node.ledger.association_ended(name, "released", now=1)
    node.ledger.association_opened("open", "listen", "M", "E", now=0)
    node.take(one())
    rows = node.ledger.deliveries.claim("pacs", "sender", now=0, lease_s=10, limit=9)
    node.ledger.deliveries.stored(rows[0], 0, "", commitment=True, now=0)
    stored = node.ledger.deliveries.to_ask("pacs", now=0, limit=9)
    node.ledger.deliveries.asked(stored, "2.25.1", now=0, wait=lambda _: 10)
    assert node.ledger.upkeep.prune(ended_before=100) == 1, "a is the association of an open batch"
    node.work([])
    assert node.ledger.upkeep.prune(ended_before=100) == 1
    node.ledger.deliveries.reported("2.25.1", [stored[0].sop_instance_uid], {}, then=None, now=1)  # type: ignore[arg-type]
    assert node.ledger.upkeep.prune(ended_before=100) == 1, "its commitment is settled"


def test_it_says_at_every_batch_and_file_that_it_lives(node: House) -> None:
    for n in range(1, 4):
        node.delivered(one(n, StudyInstanceUID=f"1.2.3.{n}"))
    beats: list[int] = []
    gone = Retention(node.ledger, node.spool, node.settings).turn(now=MONTH, beat=lambda: beats.append(1))
    assert gone == 9
    assert len(beats) >= gone + 3
