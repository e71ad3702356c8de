"""Bit rot, truncation and loss on a real spool: found, said, and kept from being used or sent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicom_node.integrity import FINISHED, Sweep, check, recheck
from dicom_node.states import Delivery, Instance
from tests.dicom_files import dataset
from tests.peers import wait_until
from tests.unit.house import DAY, House, house


@pytest.fixture
def node(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "state") as made:
        yield made


def sweep(node: House, *, now: float = DAY, every_days: float | None = 7) -> None:
    """One whole round."""
    made = Sweep(node.ledger, node.spool, every_days=every_days, mib_per_s=1000)
    try:
        wait_until(lambda: not made.turn(now=now), 20, "the round is over")
    finally:
        made.close()


def flags(node: House) -> dict[str, str]:
    return {row["path"]: row["reason"] for row in node.ledger.upkeep.damaged()}


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def flip_in_meta(file: Path) -> None:
    """The last figure of the transfer syntax, which the digest of the data set leaves out."""
    content = file.read_bytes()
    at = content.index(b"1.2.840.10008.1.2.1\0", 132)
    file.write_bytes(content[: at + 18] + b"2" + content[at + 19 :])


def rot(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-9] ^= 0x10
    file.write_bytes(content)


def test_a_whole_spool_is_read_and_nothing_is_flagged(node: House) -> None:
    node.delivered(dataset())
    sweep(node)
    assert flags(node) == {}
    assert node.ledger.attention() == []
    assert node.ledger.upkeep.mark(FINISHED) == DAY


@pytest.mark.parametrize(
    ("folder", "harm", "said"),
    [
        ("originals", rot, "bytes have changed"),
        ("originals", cut, "bytes have changed"),
        ("originals", flip_in_meta, "File Meta"),
        ("originals", Path.unlink, "is gone"),
        ("results", rot, "bytes have changed"),
        ("results", Path.unlink, "is gone"),
    ],
)
def test_damage_is_found_and_shown_to_a_person(
    node: House, harm: Callable[[Path], None], said: str, folder: str
) -> None:
    node.delivered(dataset())
    path = next(path for path in sorted(node.there()) if path.startswith(folder))
    harm(node.spool.at(path))
    sweep(node)
    assert list(flags(node)) == [path]
    assert said in flags(node)[path]
    (shown,) = node.ledger.attention()
    assert shown["state"] == "damaged"
    assert shown["note"] == flags(node)[path]


def test_a_damaged_original_that_waits_is_parked_and_the_same_bytes_and_a_retry_heal_it(node: House) -> None:
    row = node.take(dataset())
    rot(node.spool.at(row.path))
    sweep(node)
    assert node.row(row.id).state is Instance.PARKED
    (delivery,) = node.ledger.deliveries.of_instance(row.id)
    assert delivery.state is Delivery.PARKED, "wrong bytes are not sent on"
    assert [shown["state"] for shown in node.ledger.attention()] == ["parked", "parked"], "said once each"
    assert node.take(dataset()).state is Instance.DUPLICATE
    recheck(node.ledger, node.spool, now=DAY)
    assert flags(node) == {}
    assert node.ledger.instances.retry(row.id, now=DAY)
    assert node.ledger.deliveries.retry(delivery.id, now=DAY)


def test_a_damaged_result_that_was_not_sent_yet_is_not_sent(node: House) -> None:
    node.take(dataset())
    node.work(["pacs"])
    path = next(path for path in node.there() if path.startswith("results") and path.endswith(".7.dcm"))
    rot(node.spool.at(path))
    sweep(node)
    states = {d.path: d.state for d in node.ledger.deliveries.of_instance(1)}
    assert states.pop(path) is Delivery.PARKED
    assert set(states.values()) == {Delivery.PENDING}
    assert node.deliver() == 2


def test_an_object_that_was_cut_off_before_it_was_looked_at_is_found_by_its_size(node: House) -> None:
    row = node.receive(dataset())
    cut(node.spool.at(row.path))
    file = node.ledger.upkeep.file("instance", row.id)
    assert file is not None
    assert "were received" in check(node.spool, file).reason


def test_the_digest_of_a_result_from_an_older_version_is_learned_once(node: House) -> None:
    node.delivered(dataset())
    with node.ledger.upkeep._store.write() as db:
        db.execute("UPDATE object SET digest = NULL")
    sweep(node)
    path = next(path for path in node.there() if path.startswith("results"))
    rot(node.spool.at(path))
    sweep(node, now=9 * DAY)
    assert list(flags(node)) == [path]


def test_the_next_round_begins_after_its_days_and_not_before(node: House) -> None:
    (row,) = node.delivered(dataset())
    sweep(node, now=DAY)
    rot(node.spool.at(row.path))
    sweep(node, now=8 * DAY - 1)
    assert flags(node) == {}
    sweep(node, now=8 * DAY)
    assert list(flags(node)) == [row.path]


def test_a_clock_that_was_set_back_does_not_put_the_next_round_off(node: House) -> None:
    (row,) = node.delivered(dataset())
    sweep(node, now=4000 * DAY)
    rot(node.spool.at(row.path))
    sweep(node, now=DAY)
    assert list(flags(node)) == [row.path]


def test_no_round_is_made_where_none_is_wanted(node: House) -> None:
    (row,) = node.delivered(dataset())
    rot(node.spool.at(row.path))
    sweep(node, every_days=None)
    assert flags(node) == {}


def test_a_round_that_was_interrupted_goes_on_where_it_was(node: House) -> None:
    node.delivered(*(dataset("CR", instance=f"1.2.3.4.{n}") for n in range(1, 4)))
    first = Sweep(node.ledger, node.spool, every_days=7, mib_per_s=1e-6)
    try:
        # The first file is read at once; the next one waits for hours at this rate.
        assert first.turn(now=DAY)
    finally:
        first.close()
    assert node.ledger.upkeep.mark(FINISHED) is None
    for path in node.there():
        rot(node.spool.at(path))
    sweep(node, now=2 * DAY)
    assert flags(node).keys() == node.there()
    assert node.ledger.upkeep.mark(FINISHED) == 2 * DAY


def test_looking_again_at_what_is_damaged_says_at_every_file_that_it_lives(node: House) -> None:
    for path in [row.path for row in node.delivered(*(dataset("CR", instance=f"1.2.3.4.{n}") for n in range(1, 4)))]:
        rot(node.spool.at(path))
    sweep(node)
    beats: list[int] = []
    recheck(node.ledger, node.spool, now=DAY, beat=lambda: beats.append(1))
    assert len(beats) == 3
