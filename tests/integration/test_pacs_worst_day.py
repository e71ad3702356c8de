"""Archives on their worst day, over real sockets: nothing is lost, nothing loops, and nobody else waits for them.

All the ways in which a PACS can fail happen at once, each to a destination of one sender; then all of them work.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from dicom_node import deliver
from dicom_node.destinations import association
from dicom_node.ledger import DeliveryRow, Ledger, NewObject
from dicom_node.outage import Outage
from dicom_node.records import Decision, Outcome, ResultKind
from dicom_node.settings import Deliver, Dimse, Retrying, Settings
from dicom_node.spool import Spool
from dicom_node.stopping import Stopping
from tests.peers import LOOPBACK, free_port, wait_until
from tests.scripted_pacs import ABORT, Mode, ScriptedPacs, always, failing, honest
from tests.unit.destinations.objects import data_set, parcel
from tests.unit.ledger.test_ledger import _admit, _arrive

QUICK = Deliver(retry=Retrying(attempts=100, first_s=0.05, factor=2, longest_s=0.4), longest_pause_s=0.4)
"""A day in a few seconds: the shape of the pauses is the real one."""
OBJECTS = 5


def _reject(result: int, source: int, reason: int) -> bytes:
    return bytes([3, 0, 0, 0, 0, 4, 0, result, source, reason])


def _strange(request: Dataset) -> list[Dataset]:
    """Reports that settle nothing: of a transaction that nobody knows, and of objects that nobody asked for."""
    unknown, foreign = Dataset(), Dataset()
    unknown.TransactionUID = generate_uid()
    unknown.ReferencedSOPSequence = request.ReferencedSOPSequence
    foreign.TransactionUID = request.TransactionUID
    foreign.ReferencedSOPSequence = [Dataset()]
    foreign.ReferencedSOPSequence[0].ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    foreign.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3.4"
    return [unknown, foreign]


@dataclass
class Scenario:
    """What a PACS does, and what is the state of its deliveries as long as it does it."""

    mode: Mode | None
    """None: nothing listens on its port."""
    meanwhile: str
    """`waiting`, `delivered` or `parked`."""
    down: bool = False
    """Whether the destination counts as down."""
    repeats: bool = False
    """Answers get lost or lie, so that an object may come again, with the same UID and bytes."""
    commitment: bool = False
    port: int = 0
    pacs: ScriptedPacs | None = None
    seconds: float = 0.0
    connections: int = 0
    states: dict[str, int] = field(default_factory=dict)
    attempts: int = 0


def _away(mode: Mode | None) -> Scenario:
    return Scenario(mode, "waiting", down=True)


def _commits(mode: Mode, meanwhile: str, *, repeats: bool = False) -> Scenario:
    return Scenario(mode, meanwhile, repeats=repeats, commitment=True)


def _scenarios() -> dict[str, Scenario]:
    every = lambda _uid: True  # noqa: E731 - the shortest way to say it
    found = {
        "good": Scenario(Mode(), "delivered"),
        "nothing-listens": _away(None),
        "takes-connections-and-is-mute": _away(Mode(mute=True)),
        "closes-when-asked": _away(Mode(hang_up=True)),
        "aborts-when-asked": _away(Mode(open_with=ABORT)),
        "garbage-when-asked": _away(Mode(open_with=b"\x42garbage" * 9)),
        "rejects-congestion": _away(Mode(open_with=_reject(2, 3, 1))),
        "rejects-local-limit": _away(Mode(open_with=_reject(2, 3, 2))),
        "rejects-transient": _away(Mode(open_with=_reject(2, 1, 1))),
        "rejects-our-title": _away(Mode(open_with=_reject(1, 1, 3))),
        "rejects-its-title": _away(Mode(open_with=_reject(1, 1, 7))),
        "takes-tiny-pdus-only": _away(Mode(max_pdu=10)),
        "accepts-then-aborts": _away(Mode(abort_when_open=True)),
        "aborts-in-the-data": _away(Mode(abort_in=every)),
        "never-answers": _away(Mode(silent_on=every)),
        "garbage-as-answer": _away(Mode(answer_with=b"\xff" * 64)),
        "endless-pdu-as-answer": _away(Mode(answer_with=b"\x04\0\x7f\xff\xff\xff" + bytes(64))),
        "answers-another-request": Scenario(Mode(answer_id=lambda n: n + 1), "waiting", down=True, repeats=True),
        "answers-twice": Scenario(Mode(answers=2), "delivered", repeats=True),
        "closes-after-each-object": Scenario(Mode(close_after=1), "delivered"),
        "small-pdus": Scenario(Mode(max_pdu=128), "delivered"),
        "no-longest-pdu": Scenario(Mode(max_pdu=0), "delivered"),
        "commits-nothing-by-contract": _commits(Mode(takes_commitment=False), "parked", repeats=True),
        "commitment-refused": _commits(Mode(action_status=0x0112), "parked", repeats=True),
        "commitment-busy": _commits(Mode(action_status=0x0213), "waiting"),
        "commitment-never-reported": _commits(Mode(report=lambda _request: []), "waiting"),
        "commitment-failed-for-all": _commits(Mode(report=failing), "waiting", repeats=True),
        "commitment-failed-for-some": _commits(Mode(report=lambda r: failing(r, every=2)), "some", repeats=True),
        "commitment-of-strangers": _commits(Mode(report=_strange), "waiting"),
        "commitment-twice": _commits(Mode(report=lambda r: honest(r) * 2), "delivered"),
        "commitment-good": _commits(Mode(), "delivered"),
    }
    for status in (0x0110, 0x0210, 0x0213, 0xA700):
        found[f"status-{status:04x}"] = Scenario(Mode(status=always(status)), "waiting", down=True)
    # PS3.4 table B.2-1, PS3.7 annex C, a status of other services (pending), and invented ones.
    refusals = (0x0106, 0x0112, 0x0117, 0x0122, 0x0124, 0x0211, 0xA900, 0xC000, 0xCFFF, 0xFF00, 0x1234, 0xB123)
    for status in refusals:
        found[f"status-{status:04x}"] = Scenario(Mode(status=always(status)), "parked")
    for status in (0xB000, 0xB006, 0xB007):
        found[f"status-{status:04x}"] = Scenario(Mode(status=always(status)), "delivered")
    return found


SCENARIOS = _scenarios()


def _where(port: int, *, commitment: bool = False) -> Dimse:
    return Dimse(
        kind="dimse",
        ae_title="PACS",
        host=LOOPBACK,
        port=port,
        connect_timeout_s=0.4,
        dimse_timeout_s=0.4,
        commitment=commitment,
        commitment_timeout_s=0.4,
        commitment_wait_s=0.3,
    )


@dataclass
class Sender:
    """The sender of a node, in threads of this process, and a view of its ledger."""

    settings: Settings
    ledger: Ledger
    digests: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each object's data set, by SOP Instance UID."""

    def queue(self, folder: Path, count: int, *names: str, size: int = 16, start: int = 1) -> list[str]:
        """Objects on their way to these destinations; their UIDs."""
        spool = Spool(self.settings.state_dir / "spool")
        _admit(self.ledger, _arrive(self.ledger))
        objects = []
        for n in range(start, start + count):
            made = parcel(folder, f"1.2.826.0.1.3680043.8.498.7.{n}", size=size)
            self.digests[made.sop_instance_uid] = hashlib.sha256(data_set(made.path)).hexdigest()
            path = spool.write_result(made.sop_instance_uid, made.path.read_bytes(), named=lambda _path: False)
            kind = ResultKind.SECONDARY_CAPTURE
            digest = self.digests[made.sop_instance_uid]
            objects.append(NewObject(kind, made.sop_class_uid, made.sop_instance_uid, path, names, digest))
        # Not before everything is made: a running sender sweeps what belongs to no living process.
        row = self.ledger.instances.claim("worker", now=time.time(), lease_s=60)
        assert row is not None
        self.ledger.instances.decide(row, Decision(outcome=Outcome.HARMONIZED, reason="r"), objects, now=time.time())
        return [new.sop_instance_uid for new in objects]

    @contextmanager
    def running(self) -> Iterator[Stopping]:
        stopping = Stopping()
        thread = threading.Thread(target=deliver.run, args=(self.settings, stopping))
        thread.start()
        try:
            yield stopping
        finally:
            stopping.ask()
            thread.join(60)
            assert not thread.is_alive(), "the sender does not end"

    def states(self, name: str) -> dict[str, int]:
        return self.ledger.deliveries.counts().get(name, {})

    def rows(self, name: str) -> list[DeliveryRow]:
        return sorted(self.ledger.deliveries.unfinished(name), key=lambda row: row.id)

    def wait_delivered(self, name: str, count: int) -> None:
        wait_until(lambda: self.states(name) == {"delivered": count}, 60, f"all is delivered to {name}")

    def parked(self, name: str) -> list[str]:
        return [str(one["note"]) for one in self.ledger.attention() if str(one["note"]).startswith(f"{name}: ")]

    def retry_all(self) -> None:
        for one in self.ledger.attention():
            self.ledger.deliveries.retry(int(one["id"]), now=time.time())


@contextmanager
def _sender(folder: Path, rules: Deliver = QUICK, **destinations: Dimse) -> Iterator[Sender]:
    settings = Settings(state_dir=folder / "state", destinations=dict(destinations), deliver=rules)
    ledger = Ledger(settings.state_dir / "ledger.sqlite")
    try:
        yield Sender(settings, ledger)
    finally:
        ledger.close()


@contextmanager
def _pacs(mode: Mode | None = None) -> Iterator[ScriptedPacs]:
    made = ScriptedPacs(mode)
    try:
        yield made
    finally:
        made.stop()


@dataclass
class Story:
    """What was seen while everything was broken, and the node as it was when all worked again."""

    sender: Sender
    uids: list[str]
    down: dict[str, tuple[float, str]]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("worst-day")
    where = {}
    for name, scenario in SCENARIOS.items():
        scenario.pacs = ScriptedPacs(scenario.mode) if scenario.mode else None
        scenario.port = scenario.pacs.port if scenario.pacs else free_port()
        where[name] = _where(scenario.port, commitment=scenario.commitment)
    try:
        with _sender(folder, **where) as sender:
            uids = sender.queue(folder, OBJECTS, *SCENARIOS)
            began = time.monotonic()
            with sender.running():
                wait_until(lambda: not _unseen(sender), 60, "every scenario was seen often enough")
                down = sender.ledger.deliveries.all_down()
                for name, scenario in SCENARIOS.items():
                    _note(sender, name, scenario, time.monotonic() - began)
                    if scenario.pacs:
                        scenario.pacs.mode = Mode()
                        scenario.pacs.drop()
                    else:
                        scenario.pacs = ScriptedPacs(port=scenario.port)
                sender.retry_all()
                done = {name: {"delivered": OBJECTS} for name in SCENARIOS}
                wait_until(lambda: sender.ledger.deliveries.counts() == done, 60, "all is delivered everywhere")
                wait_until(lambda: not sender.ledger.deliveries.all_down(), 10, "no destination counts as down")
            yield Story(sender, uids, down)
    finally:
        for scenario in SCENARIOS.values():
            if scenario.pacs:
                scenario.pacs.stop()


def _unseen(sender: Sender) -> list[str]:
    """The scenarios of which not enough was seen yet."""
    counts, down = sender.ledger.deliveries.counts(), sender.ledger.deliveries.all_down()
    return [name for name, one in SCENARIOS.items() if not _seen(one, counts.get(name, {}), name in down)]


def _seen(scenario: Scenario, states: dict[str, int], down: bool) -> bool:
    if scenario.meanwhile in ("delivered", "parked"):
        return states == {scenario.meanwhile: OBJECTS}
    if scenario.pacs and scenario.commitment:
        return len(scenario.pacs.requests) >= 3
    return down and (scenario.pacs is None or len(scenario.pacs.connected_at) >= 4)


def _note(sender: Sender, name: str, scenario: Scenario, seconds: float) -> None:
    scenario.seconds = seconds
    scenario.connections = len(scenario.pacs.connected_at) if scenario.pacs else 0
    scenario.states = sender.states(name)
    scenario.attempts = sum(row.attempts for row in sender.rows(name))


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_lost_or_changed_and_nothing_comes_twice_without_a_reason(story: Story, name: str) -> None:
    pacs = SCENARIOS[name].pacs
    assert pacs is not None
    assert set(pacs.stored) == set(story.uids)
    for uid, copies in pacs.stored.items():
        assert set(copies) == {story.sender.digests[uid]}
        if not SCENARIOS[name].repeats:
            assert len(copies) == 1, "sent again although its answer was clear"


@pytest.mark.parametrize("name", SCENARIOS)
def test_as_long_as_it_lasts_everything_is_where_it_should_be(story: Story, name: str) -> None:
    scenario = SCENARIOS[name]
    if scenario.meanwhile in ("delivered", "parked"):
        assert scenario.states == {scenario.meanwhile: OBJECTS}
    else:
        assert "parked" not in scenario.states, "a peer that is away is no reason to park"
        settled = scenario.states.get("delivered", 0)
        assert settled == 0 if scenario.meanwhile == "waiting" else 0 < settled < OBJECTS
    assert (name in story.down) is scenario.down


@pytest.mark.parametrize("name", [name for name, one in SCENARIOS.items() if one.down and one.mode])
def test_one_look_a_pause_and_one_connection_at_a_time(story: Story, name: str) -> None:
    scenario = SCENARIOS[name]
    # The shortest pauses that chance allows. They grow with each object that fails for the first time: the first
    # look takes several objects that are refused for the moment.
    looks, at = 0, 0.0
    shortest = Outage(QUICK, lambda: 1.0)
    while at < scenario.seconds:
        at += shortest.failed(now=0.0, again=looks > OBJECTS - deliver.BUSY_IN_A_ROW)
        looks += 1
    assert scenario.connections <= looks + 1
    # One more may be under way while the figures are read.
    assert scenario.attempts <= scenario.connections + 1
    assert scenario.pacs is not None
    assert scenario.pacs.most_at_once <= 1


def test_what_was_not_tried_is_charged_to_nobody(story: Story) -> None:
    for name in ("takes-connections-and-is-mute", "closes-when-asked", "rejects-our-title", "nothing-listens"):
        assert SCENARIOS[name].attempts == 0


def test_whoever_looks_is_told_why_a_destination_is_down(story: Story) -> None:
    assert "our AE title is not known there" in story.down["rejects-our-title"][1]
    assert "takes no PDU longer than 10 bytes" in story.down["takes-tiny-pdus-only"][1]
    assert "out of resources" in story.down["status-a700"][1]


def test_ten_thousand_waiting_objects_make_no_storm_and_no_growth(tmp_path: Path) -> None:
    with _pacs(Mode(hang_up=True)) as pacs, _sender(tmp_path, pacs=_where(pacs.port)) as sender:
        sender.queue(tmp_path, 40, "pacs", size=8)
        _multiply(sender, 10_000)
        before = _history(sender)
        with sender.running():
            wait_until(lambda: len(pacs.connected_at) >= 8, 60, "it was looked at again and again")
            assert sender.states("pacs").get("parked") is None
            pauses = [b - a for a, b in zip(pacs.connected_at, pacs.connected_at[1:], strict=False)]
            assert min(pauses[3:]) >= 0.2, "half of the longest pause at least"
        grown = _history(sender) - before
        # The first look takes many in hand and gives them back, each other one takes one.
        assert grown <= 2 * (deliver.AT_ONCE + len(pacs.connected_at) + 1)


def _multiply(sender: Sender, count: int) -> None:
    """More deliveries of the same objects: rows are what this is about, not files."""
    store = sender.ledger.deliveries._store
    with store.write() as db:
        db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO object (kind, sop_class_uid, sop_instance_uid, path, instance, made_at)"
            " SELECT o.kind, o.sop_class_uid, o.sop_instance_uid, o.path || '/' || n.i, o.instance, o.made_at"
            " FROM n JOIN object o ON o.id = (SELECT min(id) FROM object)",
            (count,),
        )
        db.execute(
            "INSERT INTO delivery (destination, object, state) SELECT 'pacs', id, 'pending' FROM object"
            " WHERE id NOT IN (SELECT object FROM delivery)"
        )


def _history(sender: Sender) -> int:
    return int(sender.ledger.deliveries._store.read("SELECT count(*) AS n FROM history")[0]["n"])


def test_an_object_that_breaks_every_association_holds_up_no_other_and_is_parked_at_last(tmp_path: Path) -> None:
    rules = QUICK.model_copy(update={"retry": QUICK.retry.model_copy(update={"attempts": 4})})
    with _pacs() as pacs, _sender(tmp_path, rules, pacs=_where(pacs.port)) as sender:
        uids = sender.queue(tmp_path, 40, "pacs")
        pacs.mode = Mode(abort_in=lambda uid: uid == uids[1])
        with sender.running():
            wait_until(lambda: sender.states("pacs") == {"delivered": 39, "parked": 1}, 60, "only it is parked")
            (reason,) = sender.parked("pacs")
            assert "gave up after 4 attempts" in reason
            assert max(len(copies) for copies in pacs.stored.values()) == 1
            pacs.mode = Mode()
            sender.retry_all()
            sender.wait_delivered("pacs", 40)
            assert not sender.ledger.deliveries.all_down()


def test_some_refused_for_the_moment_do_not_stop_the_others(tmp_path: Path) -> None:
    with _pacs() as pacs, _sender(tmp_path, pacs=_where(pacs.port)) as sender:
        uids = sender.queue(tmp_path, 40, "pacs")
        full = set(uids[::5])
        pacs.mode = Mode(status=lambda uid: 0xA700 if uid in full else 0)
        with sender.running():
            wait_until(lambda: sender.states("pacs").get("delivered") == 32, 60, "the others are through")
            pacs.mode = Mode()
            sender.wait_delivered("pacs", 40)
    assert {len(copies) for copies in pacs.stored.values()} == {1}


def test_a_destination_that_stays_away_longer_than_patience_parks_what_waited_as_long(tmp_path: Path) -> None:
    rules = QUICK.model_copy(update={"patience_days": 1 / 86400})
    with _pacs(Mode(hang_up=True)) as pacs, _sender(tmp_path, rules, pacs=_where(pacs.port)) as sender:
        sender.queue(tmp_path, 40, "pacs")
        with sender.running():
            wait_until(lambda: sender.states("pacs") == {"parked": 40}, 30, "what waited too long is parked")
            assert "has taken nothing for" in sender.parked("pacs")[0]
            pacs.mode = Mode()
            sender.retry_all()
            sender.wait_delivered("pacs", 40)


def test_how_long_a_destination_has_been_down_survives_a_restart_and_one_look_is_enough(tmp_path: Path) -> None:
    with _pacs(Mode(hang_up=True)) as pacs, _sender(tmp_path, pacs=_where(pacs.port)) as sender:
        sender.queue(tmp_path, 40, "pacs")
        with sender.running():
            wait_until(sender.ledger.deliveries.all_down, 30, "it is known to be down")
        since, before = sender.ledger.deliveries.all_down()["pacs"][0], _history(sender)
        seen = len(pacs.connected_at)
        with sender.running():
            wait_until(lambda: len(pacs.connected_at) > seen, 30, "it was looked at")
        assert sender.ledger.deliveries.all_down()["pacs"][0] == since
        assert _history(sender) - before <= 2 * (len(pacs.connected_at) - seen + 1), "one object in hand, not many"


def test_a_slow_peer_keeps_its_object_however_short_the_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(association, "BEAT_S", 0.05)
    monkeypatch.setattr(deliver, "SWEEP_S", 0.05)
    rules = QUICK.model_copy(update={"lease_s": 0.5})
    with _pacs(Mode(delay_s=1.5)) as pacs:
        where = _where(pacs.port).model_copy(update={"dimse_timeout_s": 20.0})
        with _sender(tmp_path, rules, pacs=where) as sender:
            sender.queue(tmp_path, 2, "pacs")
            with sender.running():
                sender.wait_delivered("pacs", 2)
    assert {len(copies) for copies in pacs.stored.values()} == {1}


def test_a_request_to_stop_does_not_wait_for_a_peer_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(association, "BEAT_S", 0.05)
    monkeypatch.setattr(deliver, "DRAIN_S", 0.2)
    with _pacs(Mode(silent_on=lambda _uid: True)) as pacs:
        where = _where(pacs.port).model_copy(update={"dimse_timeout_s": 3600.0})
        with _sender(tmp_path, pacs=where) as sender:
            uids = sender.queue(tmp_path, 3, "pacs")
            with sender.running():
                wait_until(lambda: pacs.received, 30, "an object is under way")
            assert [row.attempts for row in sender.rows("pacs")] == [0, 0, 0]
            pacs.mode = Mode()
            with sender.running():
                sender.wait_delivered("pacs", 3)
    assert Counter(dict(pacs.received)) == Counter({uids[0]: 2, uids[1]: 1, uids[2]: 1})


def test_a_damaged_or_missing_file_is_parked_and_never_sent(tmp_path: Path) -> None:
    with _pacs() as pacs, _sender(tmp_path, pacs=_where(pacs.port)) as sender:
        uids = sender.queue(tmp_path, 6, "pacs")
        spool = sender.settings.state_dir / "spool"
        rows = {row.sop_instance_uid: spool / row.path for row in sender.rows("pacs")}
        rows[uids[1]].unlink()
        rows[uids[3]].write_bytes(b"no DICOM file at all, but as long as a preamble would be" * 9)
        rotten = bytearray(rows[uids[4]].read_bytes())
        rotten[-1] ^= 1
        rows[uids[4]].write_bytes(rotten)
        with sender.running():
            wait_until(lambda: sender.states("pacs") == {"delivered": 3, "parked": 3}, 30, "the others are through")
            assert [note for note in sender.parked("pacs") if "other bytes than were received or made" in note]
    assert set(pacs.stored) == set(pacs.received) == {uids[0], uids[2], uids[5]}


def test_an_answer_that_the_ledger_could_not_take_is_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver, "SWEEP_S", 0.1)
    with _pacs() as pacs, _sender(tmp_path, pacs=_where(pacs.port)) as sender:
        sender.queue(tmp_path, 5, "pacs")
        store = sender.ledger.deliveries._store
        with store.write() as db:
            db.execute(
                "CREATE TRIGGER no_room BEFORE UPDATE ON delivery WHEN NEW.state = 'delivered'"
                " BEGIN SELECT RAISE(ABORT, 'no room'); END"
            )
        with sender.running():
            held = {"sending": 1, "pending": 4}
            wait_until(lambda: pacs.stored and sender.states("pacs") == held, 30, "one is answered, the others wait")
            with store.write() as db:
                db.execute("DROP TRIGGER no_room")
            sender.wait_delivered("pacs", 5)
    assert {len(copies) for copies in pacs.stored.values()} == {1}


def test_a_late_report_settles_and_a_repeated_or_foreign_one_changes_nothing(tmp_path: Path) -> None:
    with _pacs(Mode(report=lambda _request: [])) as pacs:
        where = _where(pacs.port, commitment=True).model_copy(update={"commitment_timeout_s": 3600.0})
        with _sender(tmp_path, pacs=where) as sender:
            uids = sender.queue(tmp_path, 3, "pacs")
            with sender.running():
                wait_until(lambda: sender.states("pacs") == {"awaiting": 3}, 30, "it was asked for all")
            (transaction,) = {str(request.TransactionUID) for request in pacs.requests}
            days = time.time() + 3 * 86400

            def report(uid: str, committed: list[str]) -> int:
                return sender.ledger.deliveries.reported(uid, committed, {}, then=None, now=days)  # type: ignore[arg-type]

            assert report("1.2.3", uids) == 0
            assert report(transaction, ["9.9.9"]) == 0
            assert report(transaction, uids) == 3
            assert report(transaction, uids) == 0
            assert sender.states("pacs") == {"delivered": 3}
