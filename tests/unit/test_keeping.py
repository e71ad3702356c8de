"""What a peer is promised, what stays because of it, and the requests and reports on the wire."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import BytesIO
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode, encode

from dicom_node.deliver import Promising
from dicom_node.destinations.commitment_scp import (
    MOST_BYTES,
    MOST_REFERENCES,
    CommitRequest,
    RequestInvalid,
    read_request,
    report_data_set,
)
from dicom_node.errors import IllegalStep
from dicom_node.keeping import deciding as decisions
from dicom_node.keeping.deciding import KEPT, judge
from dicom_node.keeping.telling import address_of
from dicom_node.ledger import Spooled, TooMany
from dicom_node.marks import uid_from_hash
from dicom_node.records import Decision, Outcome, ResultKind
from dicom_node.retention import Retention
from dicom_node.settings import Peer
from dicom_node.states import Instance, Promise
from dicom_node.status import CommitFailure, EventStatus
from dicom_node.stopping import Stopping
from tests import dicom_files
from tests.unit.house import DAY, House, house

INSTANCE = "1.2.840.10008.1.20.1.1"
CR, OTHER = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1"
STUDY = "1.2.826.0.1.3680043.10.1.78"
ASKER = {"calling_ae": "MODALITY", "called_ae": "EVENRAY", "address": "192.0.2.7", "report_after": 0.0}
NEVER = Stopping()


@pytest.fixture
def made(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path) as built:
        yield built


def _image(number: int = 1, **more: Any) -> Dataset:
    return dicom_files.dataset("CR", instance=f"{STUDY}.{number}", study=STUDY, **more)


def _ask(made: House, *references: tuple[str, str], transaction: str = "2.25.1", now: float = 1e6) -> int:
    return made.ledger.promises.ask(
        transaction, references, most=1000, duplicate=CommitFailure.DUPLICATE_TRANSACTION, now=now, **ASKER
    )


def _answers(made: House, *references: tuple[str, str], transaction: str = "2.25.1") -> Sequence[int]:
    """What is decided about these, by the real thing."""
    ref = _ask(made, *references, transaction=transaction)
    promising = Promising(made.settings, made.ledger, "test")
    try:
        deciding = dict(promising.turns)["deciding what is kept"]
        assert deciding(NEVER)
    finally:
        promising.close()
    row = made.ledger.promises.get(ref)
    assert row is not None
    assert row.state is Promise.DECIDED
    return row.answer or ()


def _uid(number: int = 1) -> tuple[str, str]:
    return CR, f"{STUDY}.{number}"


def test_what_is_in_the_spool_with_its_bytes_is_kept(made: House) -> None:
    made.take(_image(1))
    assert _answers(made, _uid(1)) == (KEPT,)


def test_what_is_not_there_is_not_kept_and_the_reason_says_why(made: House) -> None:
    made.take(_image(1))
    missing, unknown_class, other_class = (CR, "1.2.3"), ("1.2.840.9", "1.2.3.4"), (OTHER, f"{STUDY}.1")
    assert _answers(made, missing, unknown_class, other_class) == (
        CommitFailure.NO_SUCH_OBJECT_INSTANCE,
        CommitFailure.SOP_CLASS_NOT_SUPPORTED,
        CommitFailure.CLASS_INSTANCE_CONFLICT,
    )


def test_a_damaged_file_is_not_kept_and_a_person_is_told(made: House) -> None:
    row = made.take(_image(1))
    made.rot(row.path)
    assert _answers(made, _uid(1)) == (CommitFailure.PROCESSING_FAILURE,)
    assert [found["path"] for found in made.ledger.upkeep.damaged()] == [row.path]
    assert made.ledger._store.read("SELECT 1 FROM instance WHERE promised") == []


def test_a_uid_that_two_objects_claim_is_not_kept_until_a_person_has_decided(made: House) -> None:
    made.take(_image(1))
    clash = made.take(_image(1, Manufacturer="Another"))
    assert clash.state is Instance.CONFLICT
    assert _answers(made, _uid(1)) == (CommitFailure.PROCESSING_FAILURE,)
    made.ledger.instances.retry(clash.id, now=0)
    made.look()
    assert _answers(made, _uid(1), transaction="2.25.2") == (KEPT,)


def test_a_parked_image_stays_until_a_person_looks_at_it_so_it_is_kept(made: House) -> None:
    made.take(_image(1))
    row = made.ledger.instances.claim("worker", now=0, lease_s=10)
    assert row is not None
    made.ledger.instances.park(row, "broken", now=0)
    assert _answers(made, _uid(1)) == (KEPT,)


def test_a_repetition_is_kept_by_the_first_copy_and_by_no_other(made: House) -> None:
    first = made.take(_image(1))
    assert made.take(_image(1)).state is Instance.DUPLICATE
    assert _answers(made, _uid(1)) == (KEPT,)
    made.spool.at(first.path).unlink()
    assert _answers(made, _uid(1), transaction="2.25.2") == (CommitFailure.PROCESSING_FAILURE,)


def test_what_was_made_here_may_be_asked_for_too(made: House) -> None:
    made.take(_image(1))
    made.work([])
    (result,) = made.ledger._store.read("SELECT * FROM object WHERE kind = 'secondary_capture'")
    assert _answers(made, (result["sop_class_uid"], result["sop_instance_uid"])) == (KEPT,)


def test_a_request_waits_for_what_was_received_before_it_and_for_nothing_later(made: House) -> None:
    made.receive(_image(1), now=1e6 - 1)
    ref = _ask(made, _uid(1))
    promising = Promising(made.settings, made.ledger, "test")
    try:
        deciding = promising.turns[0][1]
        assert not deciding(NEVER)
        made.look(now=1e6)
        made.receive(_image(2), now=1e6 + 1)
        assert deciding(NEVER)
    finally:
        promising.close()
    row = made.ledger.promises.get(ref)
    assert row is not None
    assert row.answer == (KEPT,)


def test_where_nobody_looks_at_what_came_only_the_first_request_waits(
    made: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.take(_image(1))
    made.receive(_image(2))
    monkeypatch.setattr(decisions, "UNREAD_S", 0.2)
    promising = Promising(made.settings, made.ledger, "test")
    turn = dict(promising.turns)["deciding what is kept"]
    try:
        refs = [_ask(made, _uid(1), transaction=f"2.25.{n}", now=1e12) for n in (1, 2, 3)]
        assert not turn(NEVER)
        time.sleep(0.3)
        assert [turn(NEVER) for _ in refs] == [True] * 3
        assert [row.answer for row in map(made.ledger.promises.get, refs) if row] == [(KEPT,)] * 3
    finally:
        promising.close()


def _held(state: str, sop_class: str = CR) -> Spooled:
    return Spooled("instance", 1, state, "originals/1", sop_class, "1.2.3", "", 1, "d")


@pytest.mark.parametrize(
    ("held", "options", "reason"),
    [
        ([_held("waiting")], {}, KEPT),
        ([_held("own")], {}, KEPT),
        ([_held("kept")], {}, KEPT),
        ([_held("waiting"), _held("expired")], {}, KEPT),
        ([_held("waiting"), _held("waiting", OTHER)], {}, KEPT),
        ([_held("waiting")], {"whole": False}, CommitFailure.PROCESSING_FAILURE),
        ([_held("waiting"), _held("conflict")], {}, CommitFailure.PROCESSING_FAILURE),
        ([_held("waiting", OTHER)], {}, CommitFailure.CLASS_INSTANCE_CONFLICT),
        ([_held("expired")], {}, CommitFailure.NO_SUCH_OBJECT_INSTANCE),
        ([_held("expired")], {"elsewhere": True}, KEPT),
        ([_held("expired", OTHER)], {"elsewhere": True}, CommitFailure.NO_SUCH_OBJECT_INSTANCE),
        ([], {}, CommitFailure.NO_SUCH_OBJECT_INSTANCE),
        ([], {"elsewhere": True}, CommitFailure.NO_SUCH_OBJECT_INSTANCE),
        ([], {"supported": False}, CommitFailure.SOP_CLASS_NOT_SUPPORTED),
        ([], {"unread": True}, CommitFailure.PROCESSING_FAILURE),
    ],
)
def test_a_reference_is_judged_by_what_the_ledger_has(
    held: list[Spooled], options: dict[str, bool], reason: int
) -> None:
    found, stay = judge(
        CR,
        held,
        whole=lambda _file: options.get("whole", True),
        supported=options.get("supported", True),
        unread=options.get("unread", False),
        elsewhere=lambda _file: options.get("elsewhere", False),
    )
    assert found == reason
    assert [file.state for file in stay] == [f.state for f in held if f.state != "expired" and f.sop_class_uid == CR][
        : len(held) * (reason == KEPT)
    ]


EXPIRING = {"originals_days": 1, "results_days": 1, "only_copies": "expire"}


@pytest.mark.parametrize("promised", [False, True])
def test_an_only_copy_that_was_promised_stays_whatever_the_rules_say(tmp_path: Path, promised: bool) -> None:
    with house(tmp_path, retention=EXPIRING, destinations={}, passed_by={}) as made:
        row = made.take(_image(1))
        made.work([])
        if promised:
            assert _answers(made, _uid(1)) == (KEPT,)
        Retention(made.ledger, made.spool, made.settings).turn(now=40 * DAY, beat=lambda: None)
        assert (row.path in made.there()) is promised


def test_what_was_promised_leaves_after_its_receipts_as_ever(tmp_path: Path) -> None:
    with house(tmp_path, retention=EXPIRING) as made:
        made.take(_image(1))
        made.work(["pacs"])
        assert _answers(made, _uid(1)) == (KEPT,)
        retention = Retention(made.ledger, made.spool, made.settings)
        retention.turn(now=40 * DAY, beat=lambda: None)
        row = made.row(1)
        assert row.path in made.there(), "it has no receipt"
        made.deliver()
        retention.turn(now=80 * DAY, beat=lambda: None)
        assert row.path not in made.there()
        assert _answers(made, _uid(1), transaction="2.25.2") == (CommitFailure.NO_SUCH_OBJECT_INSTANCE,)


def test_what_left_for_a_destination_that_committed_is_kept_only_where_the_setting_says_so(tmp_path: Path) -> None:
    for elsewhere in (False, True):
        listen = {"commitment_elsewhere": elsewhere}
        with house(tmp_path / str(elsewhere), retention=EXPIRING, listen=listen) as made:
            made.take(_image(1))
            made.work(["pacs"])
            deliveries = made.ledger.deliveries
            for row in deliveries.claim("pacs", "sender", now=0, lease_s=10, limit=9):
                deliveries.stored(row, 0, "stored", commitment=True, now=0)
            rows = deliveries.to_ask("pacs", now=0, limit=9)
            deliveries.asked(rows, "2.25.9", now=0)
            uids = [row.sop_instance_uid for row in rows]
            assert deliveries.reported("2.25.9", uids, {}, then=None, now=0) == len(rows)  # type: ignore[arg-type]
            Retention(made.ledger, made.spool, made.settings).turn(now=40 * DAY, beat=lambda: None)
            assert made.row(1).state is Instance.EXPIRED
            expected = KEPT if elsewhere else CommitFailure.NO_SUCH_OBJECT_INSTANCE
            assert _answers(made, _uid(1)) == (expected,)


@pytest.mark.parametrize("promised", [False, True])
def test_a_result_that_came_back_and_was_promised_stays_while_it_is_nowhere_else(
    tmp_path: Path, promised: bool
) -> None:
    with house(tmp_path, retention=EXPIRING, destinations={}, passed_by={}) as made:
        made.take(_image(1))
        row = made.ledger.instances.claim("worker", now=0, lease_s=10)
        assert row is not None
        uid = uid_from_hash(b"a result of this node")
        result = made._result("SC", uid, ResultKind.SECONDARY_CAPTURE, [])
        made.ledger.instances.decide(row, Decision(outcome=Outcome.HARMONIZED, reason="test"), [result], now=0)
        made.work([])
        retention = Retention(made.ledger, made.spool, made.settings)
        retention.turn(now=40 * DAY, beat=lambda: None)
        assert made.ledger._store.read("SELECT 1 FROM object WHERE state = 'expired'"), "the only copy has left"
        back = made.take(dicom_files.dataset("SC", instance=uid), now=41 * DAY)
        assert back.state is Instance.OWN
        if promised:
            assert _answers(made, (back.sop_class_uid, uid)) == (KEPT,)
        retention.turn(now=90 * DAY, beat=lambda: None)
        assert (back.path in made.there()) is promised


def test_a_promise_that_is_made_while_an_only_copy_is_about_to_leave_holds_it_back(tmp_path: Path) -> None:
    with house(tmp_path, retention=EXPIRING, destinations={}, passed_by={}) as made:
        made.take(_image(1))
        made.work([])
        made.ledger.upkeep.settle()
        leaving = made.ledger.upkeep.leaving(1, originals=True, results=True, only_copies=True)
        assert made.ledger.promises.keep(made.ledger.promises.held(f"{STUDY}.1"))
        with pytest.raises(IllegalStep, match="promised"):
            made.ledger.upkeep.expire(leaving, "test", now=0)
        assert made.row(1).state is Instance.REPORTED


def test_what_leaves_while_it_is_looked_at_is_not_promised(made: House) -> None:
    made.delivered(_image(1))
    held = made.ledger.promises.held(f"{STUDY}.1")
    made.ledger.upkeep.settle()
    made.ledger.upkeep.expire(
        made.ledger.upkeep.leaving(1, originals=True, results=False, only_copies=False), "test", now=0
    )
    assert not made.ledger.promises.keep(held)


def test_the_same_request_once_more_is_one_request_and_is_answered_anew(made: House) -> None:
    assert _answers(made, _uid(1)) == (CommitFailure.NO_SUCH_OBJECT_INSTANCE,)
    made.take(_image(1))
    assert _answers(made, _uid(1)) == (KEPT,)
    assert len(made.ledger._store.read("SELECT 1 FROM promise")) == 1


def test_another_request_under_the_same_transaction_uid_is_told_so(made: House) -> None:
    made.take(_image(1))
    assert _answers(made, _uid(1)) == (KEPT,)
    assert _answers(made, _uid(1), _uid(2)) == (CommitFailure.DUPLICATE_TRANSACTION,) * 2


def test_a_peer_that_asks_without_end_is_refused(made: House) -> None:
    for n in range(400):
        _ask(made, (CR, f"1.2.{n}"), transaction=f"2.25.{n + 10}")
    with pytest.raises(TooMany):
        _ask(made, *((CR, f"1.3.{n}") for n in range(700)))


def test_a_report_that_was_taken_is_not_due_again(made: House) -> None:
    _answers(made, _uid(1))
    promises = made.ledger.promises
    due = promises.due("MODALITY", now=time.time())
    assert due is not None
    row = promises.claim(due.id, "a", now=0, lease_s=10)
    assert row is not None
    assert promises.claim(due.id, "b", now=0, lease_s=10) is None
    promises.reported(row, "told", now=0)
    assert promises.callers() == []
    (left,) = made.ledger._store.read("SELECT wanted, answer FROM promise")
    assert tuple(left) == ("[]", None), "what was asked for is not kept for ever"


def test_what_a_dead_process_was_telling_is_told_by_another(made: House) -> None:
    _answers(made, _uid(1))
    assert made.ledger.promises.claim(1, "gone", now=0, lease_s=900)
    made.ledger.sweep(lambda _name: False, now=0)
    assert made.ledger.promises.due("MODALITY", now=0) == made.ledger.promises.get(1)


def _peer(aet: str = "MODALITY", **more: Any) -> Peer:
    return Peer(ae_title=aet, **more)


def test_a_peer_is_told_where_the_settings_say_that_it_listens() -> None:
    peers = {
        "a": _peer("OTHER", port=1),
        "b": _peer(port=2, addresses=(ip_network("198.51.100.0/24"),)),
        "c": _peer(port=3, host="mod.example"),
    }
    assert address_of(peers, "NOBODY", "192.0.2.7") is None
    far, near = address_of(peers, "MODALITY", "192.0.2.7"), address_of(peers, "MODALITY", "198.51.100.4")
    assert far is not None
    assert (far.host, far.port) == ("mod.example", 3)
    assert near is not None
    assert (near.host, near.port) == ("198.51.100.4", 2)
    assert address_of({"a": _peer()}, "MODALITY", "192.0.2.7") is None


UIDS = st.lists(st.integers(0, 10**30).map(lambda n: f"2.25.{n}"), min_size=1, max_size=12, unique=True)


def _request(uids: Sequence[str], *, transaction: str | None = "2.25.5", **item: Any) -> Dataset:
    made = Dataset()
    # What the standard allows beside: it holds the same attributes at another place.
    step = Dataset()
    step.ReferencedSOPClassUID, step.ReferencedSOPInstanceUID = "1.9", "1.9.9"
    made.ReferencedPerformedProcedureStepSequence = [step]
    if transaction is not None:
        made.TransactionUID = transaction
    made.ReferencedSOPSequence = []
    for uid in uids:
        one = Dataset()
        one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = CR, uid
        one.update({})
        for keyword, value in item.items():
            setattr(one, keyword, value)
        made.ReferencedSOPSequence.append(one)
    return made


def _encoded(dataset: Dataset, *, implicit: bool, undefined: bool = False) -> bytes:
    if undefined:
        for element in dataset.iterall():
            element.is_undefined_length = element.VR == "SQ"
        for item in (*dataset.ReferencedSOPSequence, *dataset.ReferencedPerformedProcedureStepSequence):
            item.is_undefined_length_sequence_item = True
    raw = encode(dataset, implicit, True)
    assert raw is not None
    return raw


@given(uids=UIDS, implicit=st.booleans(), undefined=st.booleans())
def test_a_request_is_read_as_it_was_written(uids: list[str], implicit: bool, undefined: bool) -> None:
    raw = _encoded(_request(uids), implicit=implicit, undefined=undefined)
    asked = read_request(1, INSTANCE, raw, implicit=implicit)
    assert asked == CommitRequest("2.25.5", tuple((CR, uid) for uid in uids))


@given(uids=UIDS, implicit=st.booleans(), failing=st.sets(st.integers(0, 11)))
def test_a_report_is_read_by_others_as_it_was_written(uids: list[str], implicit: bool, failing: set[int]) -> None:
    answer = [0x0112 if n in failing else 0 for n in range(len(uids))]
    event_type, raw = report_data_set("2.25.5", [(CR, uid) for uid in uids], answer, implicit=implicit)
    read = decode(BytesIO(raw), implicit, True)
    good = [str(item.ReferencedSOPInstanceUID) for item in read.get("ReferencedSOPSequence", [])]
    bad = [(str(i.ReferencedSOPInstanceUID), i.FailureReason) for i in read.get("FailedSOPSequence", [])]
    assert good == [uid for uid, reason in zip(uids, answer, strict=True) if not reason]
    assert bad == [(uid, 0x0112) for uid, reason in zip(uids, answer, strict=True) if reason]
    assert event_type == (2 if bad else 1)
    assert read.TransactionUID == "2.25.5"
    assert "RetrieveAETitle" not in read
    again = encode(read, implicit, True)
    assert again == raw, "in the order and lengths of the standard"


@given(raw=st.binary(max_size=200), implicit=st.booleans())
def test_whatever_bytes_come_a_request_is_read_or_refused(raw: bytes, implicit: bool) -> None:
    head = _encoded(_request(["1.2.3"]), implicit=implicit)
    for content in (raw, head[: len(raw)], head + raw, raw + head):
        with suppress(RequestInvalid):
            read_request(1, INSTANCE, content, implicit=implicit)


def _nested(depth: int) -> bytes:
    """A sequence in a sequence in a sequence, of undefined length each."""
    head = bytes.fromhex("0800 9911 ffffffff".replace(" ", ""))
    return (head + bytes.fromhex("feff00e0ffffffff")) * depth


@pytest.mark.parametrize(
    ("kind", "instance", "raw", "status"),
    [
        (2, INSTANCE, _encoded(_request(["1.2"]), implicit=True), EventStatus.NO_SUCH_ACTION),
        (1, "1.2.3", _encoded(_request(["1.2"]), implicit=True), EventStatus.NO_SUCH_INSTANCE),
        (1, INSTANCE, b"", EventStatus.INVALID_ARGUMENT),
        (1, INSTANCE, _encoded(_request(["1.2"], transaction=None), implicit=True), EventStatus.INVALID_ARGUMENT),
        (1, INSTANCE, _encoded(_request(["1.2"], transaction=""), implicit=True), EventStatus.INVALID_ARGUMENT),
        (1, INSTANCE, _encoded(_request([]), implicit=True), EventStatus.INVALID_ARGUMENT),
        (1, INSTANCE, _encoded(_request([""]), implicit=True), EventStatus.INVALID_ARGUMENT),
        (
            1,
            INSTANCE,
            _encoded(_request(["1.2"], ReferencedSOPClassUID=""), implicit=True),
            EventStatus.INVALID_ARGUMENT,
        ),
        (1, INSTANCE, _nested(10_000), EventStatus.INVALID_ARGUMENT),
        (1, INSTANCE, bytes(MOST_BYTES + 1), EventStatus.RESOURCE_LIMITATION),
    ],
)
def test_a_request_that_breaks_the_rules_is_refused_with_the_status_for_it(
    kind: int, instance: str, raw: bytes, status: EventStatus
) -> None:
    with pytest.raises(RequestInvalid) as refused:
        read_request(kind, instance, raw, implicit=True)
    assert refused.value.status is status


def test_an_object_that_is_named_twice_is_answered_once() -> None:
    raw = _encoded(_request(["1.2", "1.3", "1.2"]), implicit=True)
    assert read_request(1, INSTANCE, raw, implicit=True).references == ((CR, "1.2"), (CR, "1.3"))


def test_one_object_under_two_classes_is_refused() -> None:
    request = _request(["1.2", "1.2"])
    request.ReferencedSOPSequence[1].ReferencedSOPClassUID = OTHER
    with pytest.raises(RequestInvalid, match="two SOP classes"):
        read_request(1, INSTANCE, _encoded(request, implicit=False), implicit=False)


def test_a_request_of_as_many_objects_as_may_be_is_read_at_once_and_one_more_is_refused() -> None:
    _, raw = report_data_set(
        "2.25.5", [(CR, f"2.25.{10**30 + n}") for n in range(MOST_REFERENCES)], [0] * MOST_REFERENCES, implicit=False
    )
    begun = time.process_time()
    assert len(read_request(1, INSTANCE, raw, implicit=False).references) == MOST_REFERENCES
    assert time.process_time() - begun < 5
    _, more = report_data_set(
        "2.25.5", [(CR, f"2.25.{n}") for n in range(MOST_REFERENCES + 1)], [0] * (MOST_REFERENCES + 1), implicit=False
    )
    with pytest.raises(RequestInvalid, match="more than"):
        read_request(1, INSTANCE, more, implicit=False)
