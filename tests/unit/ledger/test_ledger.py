"""The ledger on real SQLite: arrivals, admission, claims with fences, batches, deliveries, commitment."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dicom_node.errors import IllegalStep, LostClaim
from dicom_node.ledger import DEADLY, InstanceRow, Ledger, NewObject
from dicom_node.records import Arrival, Decision, Header, Measured, Outcome, ResultKind, Tried
from dicom_node.retry import GiveUp, TryAt
from dicom_node.states import Batch, Delivery, Instance
from tests.unit.test_routing import CHEST

COUNTER = itertools.count(1)


def LATER(_asked: int, _reason: str) -> TryAt:  # noqa: N802 - reads as the constant answer that it is
    return TryAt(0)


PASSED = Decision(outcome=Outcome.PASSED, reason="test")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def _arrive(ledger: Ledger, uid: str = "", *, now: float = 0, association: str = "a") -> InstanceRow:
    n = next(COUNTER)
    arrival = Arrival(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
        sop_instance_uid=uid or f"1.2.{n}",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        calling_ae="MODALITY",
        called_ae="EVENRAY",
        association=association,
        path=f"originals/{n}",
        size=n,
    )
    row = ledger.instances.get(ledger.instances.arrive(arrival, now=now))
    assert row is not None
    return row


def _header(row: InstanceRow, **changes: object) -> Header:
    return dataclasses.replace(CHEST, sop_instance_uid=row.sop_instance_uid, **changes)


def _read(ledger: Ledger) -> InstanceRow:
    row = ledger.instances.read("worker", now=0, lease_s=10)
    assert row is not None
    return row


def _admit(
    ledger: Ledger,
    row: InstanceRow,
    digest: str = "",
    *,
    to: Sequence[str] = (),
    own: bool = False,
    **changes: object,
) -> Instance:
    reading = _read(ledger)
    assert reading.id == row.id, "the oldest is read first"
    header = _header(row, **changes)
    given = digest or f"d{row.id}"
    return ledger.instances.admit(reading, header, given, forward_to=to, own=own, now=row.received_at).state


def _decided(ledger: Ledger, *, now: float = 1) -> InstanceRow:
    row = ledger.instances.claim("worker", now=now, lease_s=10)
    assert row is not None
    ledger.instances.decide(row, PASSED, [], now=now)
    return row


def _delivery(ledger: Ledger) -> None:
    row = _arrive(ledger)
    _admit(ledger, row, to=["pacs"])


def test_the_ledger_is_written_through_to_the_disk(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite")
    pragmas = {name: ledger._store.read(f"PRAGMA {name}")[0][0] for name in ("journal_mode", "synchronous")}
    ledger.close()
    assert pragmas == {"journal_mode": "wal", "synchronous": 2}


def test_an_acknowledged_instance_survives_kill_9_right_after_the_commit(tmp_path: Path) -> None:
    script = f"""
        import os, signal
        from pathlib import Path
        from dicom_node.ledger import Ledger
        from tests.unit.ledger.test_ledger import _arrive
        _arrive(Ledger(Path({str(tmp_path / "l.sqlite")!r})), "1.2.3")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -signal.SIGKILL
    ledger = Ledger(tmp_path / "l.sqlite")
    found = [row.sop_instance_uid for row in ledger.instances.unread()]
    ledger.close()
    assert found == ["1.2.3"]


def test_an_interrupted_transaction_leaves_nothing_behind(tmp_path: Path) -> None:
    script = f"""
        import os, signal
        from pathlib import Path
        from dicom_node.ledger import Ledger
        ledger = Ledger(Path({str(tmp_path / "l.sqlite")!r}))
        with ledger._store.write() as db:
            db.execute("INSERT INTO batch (study_key, study_instance_uid, number, state, first_at, last_at)"
                       " VALUES ('k', '1', 1, 'open', 0, 0)")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    ledger = Ledger(tmp_path / "l.sqlite")
    counts = ledger.counts()["batch"]
    ledger.close()
    assert counts["open"] == 0


def test_the_same_bytes_again_are_a_duplicate_and_join_no_batch(ledger: Ledger) -> None:
    first, again = _arrive(ledger, "1.2.3"), _arrive(ledger, "1.2.3")
    assert _admit(ledger, first, "same") is Instance.WAITING
    assert _admit(ledger, again, "same") is Instance.DUPLICATE
    assert ledger.counts()["instance"]["waiting"] == 1


def test_the_same_uid_with_other_bytes_is_kept_aside_and_flagged(ledger: Ledger) -> None:
    first, other = _arrive(ledger, "1.2.3"), _arrive(ledger, "1.2.3")
    _admit(ledger, first, "one")
    assert _admit(ledger, other, "two") is Instance.CONFLICT
    (row,) = ledger.attention()
    assert (row["what"], row["state"], row["note"]) == (
        "instance",
        "conflict",
        f"same UID, other bytes than instance {first.id}",
    )


def test_repeating_a_conflicting_object_is_a_duplicate_of_the_conflict(ledger: Ledger) -> None:
    rows = [_arrive(ledger, "1.2.3") for _ in range(3)]
    states = [_admit(ledger, row, digest) for row, digest in zip(rows, ["one", "two", "two"], strict=True)]
    assert states == [Instance.WAITING, Instance.CONFLICT, Instance.DUPLICATE]


def test_a_person_may_let_a_conflict_in_and_it_is_sent_on_like_any_original(ledger: Ledger) -> None:
    first, other = _arrive(ledger, "1.2.3"), _arrive(ledger, "1.2.3")
    _admit(ledger, first, "one")
    _admit(ledger, other, "two")
    assert ledger.instances.retry(other.id, now=5)
    assert _admit(ledger, other, "two", to=["pacs"]) is Instance.WAITING
    assert [row.destination for row in ledger.deliveries.of_instance(other.id)] == ["pacs"]


def test_a_damaged_first_arrival_does_not_turn_the_good_resend_into_a_conflict(ledger: Ledger) -> None:
    _arrive(ledger, "1.2.3")
    ledger.instances.park(_read(ledger), "cut off: send it again", now=1)
    assert _admit(ledger, _arrive(ledger, "1.2.3"), "good") is Instance.WAITING


def test_a_retried_instance_does_not_clash_with_a_conflict_that_it_caused(ledger: Ledger) -> None:
    first, other = _arrive(ledger, "1.2.3"), _arrive(ledger, "1.2.3")
    _admit(ledger, first, "one")
    claimed = ledger.instances.claim("worker", now=0, lease_s=10)
    assert claimed is not None
    ledger.instances.park(claimed, "broken", now=1)
    _admit(ledger, other, "two")
    ledger.instances.retry(first.id, now=2)
    assert _admit(ledger, first, "one") is Instance.WAITING


def test_the_holder_of_the_same_bytes_is_found_so_that_its_file_can_be_looked_at(ledger: Ledger) -> None:
    first, again = _arrive(ledger, "1.2.3"), _arrive(ledger, "1.2.3")
    _admit(ledger, first, "one")
    holder = ledger.instances.holder(again, "one")
    assert holder is not None
    assert holder.id == first.id
    assert ledger.instances.holder(again, "two") is None


def test_our_own_results_are_recognised_and_never_wait(ledger: Ledger) -> None:
    assert _admit(ledger, _arrive(ledger), own=True) is Instance.OWN
    assert ledger.instances.claim("worker", now=1, lease_s=10) is None
    assert ledger.batches.open() == []


def test_a_claim_that_was_taken_over_can_not_finish(ledger: Ledger) -> None:
    _admit(ledger, _arrive(ledger))
    slow = ledger.instances.claim("slow", now=0, lease_s=10)
    assert slow is not None
    ledger.sweep(lambda _name: True, now=11)
    quick = ledger.instances.claim("quick", now=11, lease_s=10)
    assert quick is not None
    assert quick.fence > slow.fence
    with pytest.raises(LostClaim):
        ledger.instances.decide(slow, PASSED, [], now=12)
    ledger.instances.decide(quick, PASSED, [], now=12)


def test_a_renewed_lease_is_not_taken_over(ledger: Ledger) -> None:
    _admit(ledger, _arrive(ledger))
    row = ledger.instances.claim("worker", now=0, lease_s=10)
    assert row is not None
    assert ledger.renew("instance", row.fence, lease_until=30)
    assert ledger.sweep(lambda _name: True, now=20) == 0
    assert ledger.sweep(lambda _name: True, now=31) == 1


def test_the_claims_of_a_dead_process_are_freed_before_their_lease_ends(ledger: Ledger) -> None:
    _admit(ledger, _arrive(ledger))
    assert ledger.instances.claim("dead", now=0, lease_s=1000)
    assert ledger.sweep(lambda name: name != "dead", now=1) == 1
    assert ledger.instances.claim("alive", now=1, lease_s=10)


def test_an_instance_is_claimed_by_one_worker_only(ledger: Ledger) -> None:
    _admit(ledger, _arrive(ledger))
    claims = [ledger.instances.claim(name, now=0, lease_s=10) for name in ("one", "two")]
    assert [claim is not None for claim in claims] == [True, False]


def test_what_process_after_process_dies_over_is_parked_at_last(ledger: Ledger) -> None:
    _admit(ledger, _arrive(ledger))
    for _ in range(DEADLY[Instance]):
        assert ledger.instances.claim("worker", now=0, lease_s=10), "not parked before its time"
        ledger.sweep(lambda _name: False, now=0)
    (shown,) = ledger.attention()
    assert shown["note"] == f"its process is gone ({DEADLY[Instance]} times, so it may be the cause)"


def test_an_instance_that_kills_its_reader_is_parked_at_last(ledger: Ledger) -> None:
    _arrive(ledger)
    for _ in range(DEADLY[Instance]):
        _read(ledger)
        ledger.sweep(lambda _name: False, now=0)
    assert ledger.counts()["instance"]["parked"] == 1


def test_what_a_sender_died_over_is_taken_alone(ledger: Ledger) -> None:
    for _ in range(3):
        _delivery(ledger)
    assert len(ledger.deliveries.claim("pacs", "sender", now=0, lease_s=10, limit=9)) == 3
    ledger.sweep(lambda _name: False, now=0)
    assert len(ledger.deliveries.claim("pacs", "sender", now=0, lease_s=10, limit=9)) == 1


def test_a_fault_that_is_not_the_images_costs_it_no_attempt(ledger: Ledger) -> None:
    _admit(ledger, _arrive(ledger))
    for counted, expected in ((False, 0), (True, 1)):
        row = ledger.instances.claim("worker", now=0, lease_s=10)
        assert row is not None
        ledger.instances.release(row, "why", next_try=0, counted=counted, now=0)
        back = ledger.instances.get(row.id)
        assert back is not None
        assert back.attempts == expected


def test_an_illegal_step_changes_nothing(ledger: Ledger) -> None:
    row = _arrive(ledger)
    before = ledger.history("instance", row.id)
    with pytest.raises(IllegalStep), ledger._store.write() as db:
        ledger._store.step(db, row.id, Instance.DECIDED, "report", now=1)
    assert ledger.history("instance", row.id) == before
    assert ledger.counts()["instance"]["received"] == 1


def test_every_step_leaves_a_history_row_that_can_not_be_changed(ledger: Ledger) -> None:
    row = _arrive(ledger)
    _admit(ledger, row)
    _decided(ledger)
    steps = [(h["before"], h["step"], h["after"]) for h in ledger.history("instance", row.id)]
    assert steps == [
        (None, "receive", "received"),
        ("received", "read", "reading"),
        ("reading", "admit", "waiting"),
        ("waiting", "claim", "claimed"),
        ("claimed", "decide", "decided"),
    ]
    for statement in ("UPDATE history SET step = 'x'", "DELETE FROM history"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"), ledger._store.write() as db:
            db.execute(statement)


def test_instances_of_one_study_share_a_batch_and_a_late_one_starts_the_next(ledger: Ledger) -> None:
    for now in (0.0, 3.0):
        _admit(ledger, _arrive(ledger, now=now))
    ((batch, snapshot),) = ledger.batches.open()
    assert (snapshot.first_at, snapshot.last_at) == (0, 3)
    ledger.batches.close(batch, "quiet", now=30)
    late = _arrive(ledger, now=31)
    _admit(ledger, late)
    ((second, _),) = ledger.batches.open()
    assert (second.id, second.number) == (2, 2)


def test_two_patients_that_claim_one_study_never_share_a_batch(ledger: Ledger) -> None:
    for patient in ("p", "q"):
        _admit(ledger, _arrive(ledger), patient_key=patient)
    assert len(ledger.batches.open()) == 2


def test_an_unread_instance_and_open_associations_are_part_of_the_snapshot(ledger: Ledger) -> None:
    ledger.association_opened("one", "listen", "A", "B", now=0)
    ledger.association_opened("two", "listen", "A", "B", now=0)
    for association in ("one", "two"):
        _admit(ledger, _arrive(ledger, now=1, association=association))
    ledger.association_ended("one", "released", now=2)
    assert ledger.batches.open()[0][1].released_at is None
    ledger.association_ended("two", "aborted", now=4)
    assert ledger.batches.open()[0][1].released_at == 4
    _arrive(ledger, now=5)
    assert ledger.batches.open()[0][1].unread_since == 5


def test_associations_of_a_dead_listener_do_not_hold_a_batch_open(ledger: Ledger) -> None:
    ledger.association_opened("one", "listen", "A", "B", now=0)
    _admit(ledger, _arrive(ledger, association="one"))
    ledger.sweep(lambda name: name != "listen", now=7)
    assert ledger.batches.open()[0][1].released_at == 7


def _closed(ledger: Ledger, images: int = 1) -> None:
    for _ in range(images):
        _admit(ledger, _arrive(ledger))
    ledger.batches.close(ledger.batches.open()[0][0], "quiet", now=1)


def test_a_batch_is_reported_only_once_every_instance_is_decided(ledger: Ledger) -> None:
    _closed(ledger, images=2)
    _decided(ledger)
    assert ledger.batches.claim("worker", now=2, lease_s=10) is None
    _decided(ledger)
    batch = ledger.batches.claim("worker", now=2, lease_s=10)
    assert batch is not None
    named = [row.id for row in ledger.instances.of_batch(batch.id)]
    report = NewObject(ResultKind.STRUCTURED_REPORT, "1.2", "9.9", "results/9.9", ["pacs"])
    ledger.batches.report(batch, named, report, now=3)
    assert ledger.counts()["instance"]["reported"] == 2
    assert [row.kind for row in ledger.deliveries.of_batch(batch.id)] == [ResultKind.STRUCTURED_REPORT]


def test_a_parked_instance_does_not_hold_up_its_batch_and_joins_the_next_when_retried(ledger: Ledger) -> None:
    _closed(ledger, images=2)
    _decided(ledger)
    stuck = ledger.instances.claim("worker", now=1, lease_s=10)
    assert stuck is not None
    ledger.instances.park(stuck, "broken", now=1)
    assert ledger.batches.claim("worker", now=2, lease_s=10) is not None
    assert ledger.instances.retry(stuck.id, now=3)
    assert _admit(ledger, stuck) is Instance.WAITING
    assert ledger.batches.open()[0][0].number == 2


def test_a_batch_whose_every_instance_is_parked_becomes_void(ledger: Ledger) -> None:
    _closed(ledger)
    row = ledger.instances.claim("worker", now=1, lease_s=10)
    assert row is not None
    ledger.instances.park(row, "broken", now=1)
    assert ledger.batches.claim("worker", now=2, lease_s=10) is None
    assert ledger.counts()["batch"][Batch.VOID.value] == 1


def test_recording_the_same_result_twice_adds_no_second_delivery(ledger: Ledger) -> None:
    row = _arrive(ledger)
    _admit(ledger, row)
    result = NewObject(ResultKind.SECONDARY_CAPTURE, "1.2", "8.8", "results/8.8", ["pacs"])
    claimed = ledger.instances.claim("worker", now=0, lease_s=10)
    assert claimed is not None
    ledger.instances.decide(claimed, PASSED, [result, result], now=1)
    assert [d.sop_instance_uid for d in ledger.deliveries.of_instance(row.id)] == ["8.8"]


def test_a_destination_without_commitment_is_done_with_the_receipt(ledger: Ledger) -> None:
    _delivery(ledger)
    (row,) = ledger.deliveries.claim("pacs", "sender", now=0, lease_s=10, limit=9)
    ledger.deliveries.stored(row, 0, "stored", commitment=False, now=1)
    assert ledger.counts()["delivery"][Delivery.DELIVERED.value] == 1


def test_with_commitment_only_the_report_makes_it_delivered(ledger: Ledger) -> None:
    _delivery(ledger)
    (row,) = ledger.deliveries.claim("pacs", "sender", now=0, lease_s=10, limit=9)
    ledger.deliveries.stored(row, 0, "stored", commitment=True, now=1)
    rows = ledger.deliveries.to_ask("pacs", now=1, limit=9)
    ledger.deliveries.asked(rows, "2.25.1", now=2)
    assert ledger.counts()["delivery"]["awaiting"] == 1
    assert ledger.deliveries.reported("2.25.404", [row.sop_instance_uid], {}, then=LATER, now=3) == 0
    assert ledger.deliveries.reported("2.25.1", [row.sop_instance_uid], {}, then=LATER, now=3) == 1
    assert ledger.counts()["delivery"]["delivered"] == 1


def test_what_is_not_committed_is_sent_again(ledger: Ledger) -> None:
    _delivery(ledger)
    (row,) = ledger.deliveries.claim("pacs", "sender", now=0, lease_s=10, limit=9)
    ledger.deliveries.stored(row, 0, "stored", commitment=True, now=1)
    ledger.deliveries.asked(ledger.deliveries.to_ask("pacs", now=1, limit=9), "2.25.1", now=2)
    ledger.deliveries.reported("2.25.1", [], {row.sop_instance_uid: "reason 0x0112"}, then=LATER, now=3)
    (again,) = ledger.deliveries.claim("pacs", "sender", now=3, lease_s=10, limit=9)
    assert (again.id, again.note) == (row.id, "not committed: reason 0x0112")


def test_a_peer_that_accepts_and_forgets_again_and_again_has_an_end(ledger: Ledger) -> None:
    _delivery(ledger)
    (row,) = ledger.deliveries.claim("pacs", "sender", now=0, lease_s=10, limit=9)
    ledger.deliveries.stored(row, 0, "stored", commitment=True, now=1)
    ledger.deliveries.asked(ledger.deliveries.to_ask("pacs", now=1, limit=9), "2.25.1", now=2)
    failed = {row.sop_instance_uid: "reason 0x0112"}
    ledger.deliveries.reported("2.25.1", [], failed, then=lambda asked, why: GiveUp(f"{why}, {asked} times"), now=3)
    (shown,) = ledger.attention()
    assert shown["note"] == "pacs: not committed: reason 0x0112, 1 times"


def test_a_late_report_settles_even_what_was_parked_meanwhile(ledger: Ledger) -> None:
    _delivery(ledger)
    (row,) = ledger.deliveries.claim("pacs", "sender", now=0, lease_s=10, limit=9)
    ledger.deliveries.stored(row, 0, "stored", commitment=True, now=1)
    ledger.deliveries.asked(ledger.deliveries.to_ask("pacs", now=1, limit=9), "2.25.1", now=2)
    (overdue,) = ledger.deliveries.overdue("pacs", now=400, limit=9)
    ledger.deliveries.give_up_asking(overdue, "no report", now=400)
    assert ledger.deliveries.reported("2.25.1", [row.sop_instance_uid], {}, then=LATER, now=401) == 1
    assert ledger.attention() == []


def test_a_late_report_of_an_earlier_request_counts(ledger: Ledger) -> None:
    _delivery(ledger)
    (row,) = ledger.deliveries.claim("pacs", "sender", now=0, lease_s=10, limit=9)
    ledger.deliveries.stored(row, 0, "stored", commitment=True, now=1)
    ledger.deliveries.asked(ledger.deliveries.to_ask("pacs", now=1, limit=9), "2.25.1", now=2)
    (overdue,) = ledger.deliveries.overdue("pacs", now=400, limit=9)
    ledger.deliveries.ask_again(overdue, "no report", next_try=500, now=400)
    assert ledger.deliveries.reported("2.25.1", [row.sop_instance_uid], {}, then=LATER, now=401) == 1


def test_deliveries_of_one_destination_do_not_wait_for_another(ledger: Ledger) -> None:
    row = _arrive(ledger)
    _admit(ledger, row, to=["dead", "alive"])
    assert ledger.deliveries.claim("dead", "sender", now=0, lease_s=10, limit=9)
    assert ledger.deliveries.claim("alive", "sender", now=0, lease_s=10, limit=9)


def test_a_parked_delivery_is_shown_and_can_be_retried(ledger: Ledger) -> None:
    _delivery(ledger)
    (row,) = ledger.deliveries.claim("pacs", "sender", now=0, lease_s=10, limit=9)
    ledger.deliveries.park(row, "SOP class not supported", now=1)
    (shown,) = ledger.attention()
    assert (shown["what"], shown["id"], shown["note"]) == ("delivery", row.id, "pacs: SOP class not supported")
    assert ledger.deliveries.retry(row.id, now=2)
    assert ledger.deliveries.claim("pacs", "sender", now=2, lease_s=10, limit=9)


def test_two_processes_write_without_losing_a_row(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    Ledger(path).close()
    script = f"""
        from pathlib import Path
        from dicom_node.ledger import Ledger
        from tests.unit.ledger.test_ledger import COUNTER, _arrive
        import itertools, os
        from tests.unit.ledger import test_ledger
        test_ledger.COUNTER = itertools.count(os.getpid() * 1000)
        ledger = Ledger(Path({str(path)!r}))
        for _ in range(50):
            _arrive(ledger)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    processes = [subprocess.Popen(command, env={**os.environ}) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    ledger = Ledger(path)
    counts = ledger.counts()["instance"]["received"]
    ledger.close()
    assert counts == 100


def test_a_number_without_bound_reads_back_as_it_was(ledger: Ledger) -> None:
    _admit(ledger, _arrive(ledger))
    row = ledger.instances.claim("worker", now=0, lease_s=10)
    assert row is not None
    tried = Tried(method="m", distance=float("inf"), verified=False, figures=(Measured("f", float("-inf")),))
    ledger.instances.decide(row, dataclasses.replace(PASSED, tried=(tried,)), [], now=1)
    back = ledger.instances.get(row.id)
    assert back is not None
    assert back.decision is not None
    assert back.decision.tried == (tried,)
