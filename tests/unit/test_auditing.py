"""What the history and the notes say becomes messages: each event once, by study and peer, with whose study it is."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dicom_node import auditing
from dicom_node.audit_trail import Notes
from dicom_node.audit_trail.spool import segments, split
from dicom_node.auditing import AuditThread, before_leaving
from dicom_node.auditing.auditor import POSITION, Auditor
from dicom_node.auditing.changes import digests
from dicom_node.errors import AlreadyRunning
from dicom_node.header import read_header
from dicom_node.ledger import InstanceRow, Ledger, NewObject
from dicom_node.records import Arrival, Decision, Outcome, ResultKind
from dicom_node.settings import Assembly, Settings
from dicom_node.spool import Spool
from dicom_node.states import Instance
from dicom_node.stopping import Stopping
from tests import dicom_files
from tests.audit import Received, faults

ROOT = Path(__file__).parents[2]
RULES = Assembly(quiet_s=1, quiet_after_release_s=1, cap_s=10)
PASSED = Decision(outcome=Outcome.PASSED, reason="")
SR = "1.2.840.10008.5.1.4.1.1.88.34"
NOW = 1_700_000_000.0


class House:
    """A ledger and a spool as the processes leave them, and the auditor that reads them."""

    def __init__(self, folder: Path, **audit: Any) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        pacs = {"kind": "dimse", "ae_title": "PACS", "host": "pacs.example", "port": 104}
        self.raw: dict[str, Any] = {
            "state_dir": str(folder / "state"),
            "audit": {"transport": "udp", "port": self.port, **audit},
            "destinations": {"pacs": pacs, "share": {"kind": "folder", "path": str(folder / "share")}},
        }
        self.settings = Settings.model_validate(self.raw)
        self.ledger = Ledger(self.settings.state_dir / "ledger.sqlite")
        self.spool = Spool(self.settings.state_dir / "spool")
        self.count = 0

    def auditor(self) -> Auditor:
        return Auditor(self.settings, self.ledger, self.spool)

    def told(self, auditor: Auditor | None = None) -> list[Received]:
        """What one look makes messages of; all of them are well formed."""
        before = {one.number for one in segments(self.folder)}
        own = auditor or self.auditor()
        own.gather(now=NOW)
        if auditor is None:
            own.close()
        new = [one for one in segments(self.folder) if one.number not in before]
        found = [Received(raw) for one in new for raw in split(one.path.read_bytes())]
        assert [faults(one.xml) for one in found if faults(one.xml)] == []
        return found

    @property
    def folder(self) -> Path:
        return self.settings.state_dir / "audit" / "spool"

    def arrive(
        self, study: str, *, instance: str = "", association: str = "a", patient: str = "P1", at: float = NOW
    ) -> int:
        self.count += 1
        uid = instance or f"{study}.{self.count}"
        path = f"originals/{self.count:02d}/{self.count}.dcm"
        file = self.spool.at(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        made = dicom_files.dataset("CR", instance=uid, study=study, series=f"{study}.9", PatientID=patient)
        dicom_files.write(file, made)
        arrival = Arrival(
            sop_class_uid=str(made.SOPClassUID),
            sop_instance_uid=uid,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            calling_ae="MODALITY",
            called_ae="EVENRAY",
            association=association,
            path=path,
            size=file.stat().st_size,
        )
        return self.ledger.instances.arrive(arrival, now=at)

    def admit(self, to: Sequence[str] = (), *, own: bool = False) -> None:
        """Read whatever has arrived."""
        while (row := self.ledger.instances.read("worker", now=NOW, lease_s=9)) is not None:
            header = read_header(self.spool.at(row.path))
            digest = str(self.spool.at(row.path).stat().st_size) + header.patient_key + header.sop_instance_uid
            self.ledger.instances.admit(row, header, digest, forward_to=to, own=own, now=NOW)

    def close_batches(self) -> None:
        for batch, _ in self.ledger.batches.to_decide(now=NOW + 100, rules=RULES):
            self.ledger.batches.close(batch, "quiet", now=NOW + 100)

    def end(self) -> None:
        self.ledger.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    # From here on: what was before there was an audit trail is none of it.
    made.told()
    yield made
    made.end()


def _actions(found: Sequence[Received]) -> list[tuple[str, str, str, int]]:
    return sorted(
        (one.event, one.get("EventIdentification/@EventActionCode")[0], one.study, sum(one.instances.values()))
        for one in found
    )


def test_a_study_is_told_once_for_each_association_that_brought_it(house: House) -> None:
    house.ledger.association_opened("a", "l", "MODALITY", "EVENRAY", "192.0.2.5", now=NOW)
    house.arrive("1.2.1", at=NOW)
    house.arrive("1.2.1", at=NOW + 7)
    house.arrive("1.2.1", association="b")
    house.arrive("1.2.2", patient="P2")
    house.admit()
    auditor = house.auditor()
    assert house.told(auditor) == [], "nothing is complete yet"
    house.close_batches()
    found = house.told(auditor)
    assert _actions(found) == [("110104", "C", "1.2.1", 1), ("110104", "C", "1.2.1", 2), ("110104", "C", "1.2.2", 1)]
    assert {(one.study, one.patient) for one in found} == {("1.2.1", "P1"), ("1.2.2", "P2")}
    (first,) = [one for one in found if one.instances and sum(one.instances.values()) == 2]
    assert first.at == "2023-11-14T22:13:27.000+00:00", "the time of the last instance"
    assert first.get("ActiveParticipant[@UserIsRequestor='true']/@NetworkAccessPointID") == ["192.0.2.5"]
    assert house.told(auditor) == [], "told once"
    auditor.close()


def test_two_patients_under_one_study_uid_share_no_message(house: House) -> None:
    house.arrive("1.2.1", patient="P1")
    house.arrive("1.2.1", patient="P2")
    house.admit()
    house.close_batches()
    assert sorted(one.patient for one in house.told()) == ["P1", "P2"]


def test_what_was_here_already_is_read_not_created(house: House) -> None:
    house.arrive("1.2.1", instance="1.2.1.7")
    house.admit()
    house.close_batches()
    house.told()
    house.arrive("1.2.1", instance="1.2.1.7")
    house.admit()
    (found,) = house.told()
    assert _actions([found]) == [("110104", "R", "1.2.1", 1)]
    assert found.patient == "P1"


def test_what_goes_out_is_told_by_destination_and_outcome(house: House) -> None:
    house.arrive("1.2.1")
    house.arrive("1.2.1")
    house.admit(["pacs", "share"])
    deliveries, now = house.ledger.deliveries, NOW + 1
    first, second = deliveries.claim("pacs", "s", now=now, lease_s=9, limit=9)
    deliveries.stored(first, 0, "0x0000", commitment=True, now=now)
    deliveries.release(second, "0xA700: no room", next_try=now, now=now)
    for row in deliveries.claim("share", "s", now=now, lease_s=9, limit=9):
        deliveries.stored(row, None, "written", commitment=False, now=now)
    found = house.told()
    outcomes = sorted((one.event, one.outcome, sum(one.instances.values())) for one in found)
    assert outcomes == [("110104", "0", 1), ("110104", "4", 1), ("110106", "0", 2)]
    failed = next(one for one in found if one.outcome == "4")
    assert failed.get("//EventOutcomeDescription/text()") == ["0xA700: no room"]
    assert failed.header["pri"] == "84"
    assert failed.get("ActiveParticipant[RoleIDCode/@csd-code='110152']/@UserID") == ["PACS"]


def test_an_object_that_is_tried_again_and_again_says_so_once(house: House) -> None:
    house.arrive("1.2.1")
    house.admit(["pacs"])
    outcomes = []
    for n in range(5):
        (row,) = house.ledger.deliveries.claim("pacs", "s", now=NOW + n, lease_s=9, limit=9)
        why = "not sent this time" if n == 0 else "it is busy"
        house.ledger.deliveries.release(row, why, next_try=NOW, now=NOW + n)
        outcomes += [one.outcome for one in house.told()]
    (row,) = house.ledger.deliveries.claim("pacs", "s", now=NOW + 9, lease_s=9, limit=9)
    house.ledger.deliveries.park(row, "it will not have it", now=NOW + 9)
    outcomes += [one.outcome for one in house.told()]
    assert outcomes == ["4", "8"]


def test_a_report_is_told_with_the_study_and_patient_of_its_batch(house: House) -> None:
    house.arrive("1.2.1")
    house.admit()
    row = house.ledger.instances.claim("w", now=NOW, lease_s=9)
    assert row is not None
    house.ledger.instances.decide(row, PASSED, [], now=NOW)
    house.close_batches()
    house.told()
    batch = house.ledger.batches.claim("w", now=NOW + 200, lease_s=9)
    assert batch is not None
    report = NewObject(ResultKind.STRUCTURED_REPORT, SR, "9.9", "results/9.9", ["pacs"])
    house.ledger.batches.report(batch, [row.id], report, now=NOW + 200)
    (sending,) = house.ledger.deliveries.claim("pacs", "s", now=NOW + 200, lease_s=9, limit=9)
    house.ledger.deliveries.stored(sending, 0, "0x0000", commitment=False, now=NOW + 201)
    (found,) = house.told()
    assert (found.study, found.patient, found.instances) == ("1.2.1", "P1", {SR: 1})


def _leave(house: House, row: InstanceRow) -> None:
    house.ledger.instances.decide(row, PASSED, [], now=NOW)
    with house.ledger._store.write() as db:
        house.ledger._store.step(db, row.id, Instance.DECIDED, "report", now=NOW)
    files = house.ledger.upkeep.leaving(row.batch or 0, originals=True, results=True, only_copies=True)
    before_leaving(house.settings, house.ledger, house.spool)(files)
    house.ledger.upkeep.expire(files, "its days are over", now=NOW + 5)
    for file in files:
        house.spool.at(file.path).unlink()


def test_the_last_original_that_leaves_makes_a_study_deleted(house: House) -> None:
    house.arrive("1.2.1")
    house.arrive("1.2.1")
    house.admit()
    house.close_batches()
    house.told()
    for expected in ("110103", "110105"):
        row = house.ledger.instances.claim("w", now=NOW, lease_s=9)
        assert row is not None
        _leave(house, row)
        (found,) = house.told()
        assert _actions([found]) == [(expected, "D", "1.2.1", 1)]
        assert found.patient == "P1", "whose it was is known although its file has gone"


def test_what_happened_before_there_was_an_audit_trail_is_not_told(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.arrive("1.2.1")
    house.admit()
    house.close_batches()
    assert house.told() == []
    house.end()


def test_a_kill_before_the_mark_repeats_and_a_kill_after_it_does_not(house: House, monkeypatch: Any) -> None:
    house.arrive("1.2.1")
    house.admit()
    house.close_batches()

    def killed(*_given: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(house.ledger.upkeep, "set_mark", killed)
        with closing(house.auditor()) as auditor, pytest.raises(SystemExit):
            auditor.gather(now=NOW)
    assert len(segments(house.folder)) == 1
    assert [one.study for one in house.told()] == ["1.2.1"]
    assert house.told() == []


def test_a_long_history_is_told_in_pieces(house: House, monkeypatch: Any) -> None:
    monkeypatch.setattr("dicom_node.auditing.auditor.STEPS_AT_ONCE", 7)
    for n in range(4):
        house.arrive(f"1.2.{n}")
        house.admit()
        house.close_batches()
    found = house.told()
    assert [one.study for one in found] == [f"1.2.{n}" for n in range(4)]
    assert house.ledger.upkeep.mark(POSITION) == house.ledger.trail.head()


def test_notes_become_messages_and_go(house: House) -> None:
    notes = Notes(house.settings)
    notes.write("start", at=NOW, launcher="uid-0@n")
    notes.write("refused", at=NOW + 1, why="its title is unknown", address="192.0.2.9", title="X", count=3)
    notes.asked("archive", sop_class_uid="1.2.840.10008.5.1.4.1.2.2.1", transfer_syntax_uid="1.2", query=b"P1")
    (notes.folder / "00-broken.json").write_text("{")
    found = house.told()
    assert [one.event for one in found] == ["110100", "110113", "110112"]
    assert "(3 times)" in found[1].get("//EventOutcomeDescription/text()")[0]
    assert notes.pending() == []


def test_a_ledger_from_a_backup_is_told(house: House) -> None:
    for _ in range(3):
        house.arrive("1.2.1")
    house.told()
    house.end()
    for file in house.settings.state_dir.glob("ledger.sqlite*"):
        file.unlink()
    house.ledger = Ledger(house.settings.state_dir / "ledger.sqlite")
    assert [one.kinds for one in house.told()] == [["ledger-replaced"]]
    assert house.told() == []


@pytest.mark.parametrize(
    ("path", "value", "changed"),
    [
        (("listen", "known_only"), True, {"security"}),
        (("listen", "port"), 11113, {"network"}),
        (("destinations", "pacs", "host"), "other.example", {"network"}),
        (("destinations", "pacs", "tls"), {}, {"security"}),
        (("retention", "originals_days"), 5, {"software"}),
        (("site", "station"), "OTHER", {"software"}),
        (("audit", "port"), 6515, {"network"}),
        (("state_dir",), "/elsewhere", set()),
    ],
)
def test_a_change_of_the_settings_is_told_as_what_it_is(
    house: House, path: tuple[str, ...], value: object, changed: set[str]
) -> None:
    before = digests(house.settings)
    at = house.raw
    for name in path[:-1]:
        at = at.setdefault(name, {})
    at[path[-1]] = value
    after = digests(Settings.model_validate(house.raw))
    assert {name for name in before if before[name] != after[name]} == changed


def test_two_processes_never_number_messages_at_once(house: House) -> None:
    with closing(house.auditor()), pytest.raises(AlreadyRunning, match="another process"):
        house.auditor()
    assert house.told() == []


def test_a_receiver_loads_nothing_of_messages_and_their_sending() -> None:
    names = "messages", "syslog", "spool", "sender"
    heavy = [f"dicom_node.audit_trail.{name}" for name in names] + ["dicom_node.auditing"]
    code = f"import sys, dicom_node.listen, dicom_node.supervise; assert not set({heavy}) & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_switched_off_nothing_is_kept_and_switched_on_it_begins_then(house: House) -> None:
    off = house.settings.model_copy(update={"audit": house.settings.audit.model_copy(update={"transport": "none"})})
    AuditThread(off, house.ledger, house.spool).run(Stopping())
    house.arrive("1.2.1")
    house.admit()
    house.close_batches()
    assert house.told() == []
    assert house.told() == []


def test_the_thread_outlives_a_fault_and_names_no_value_of_it(
    house: House, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(auditing, "AFTER_FAULT_S", 0.01)
    faulty = [True]
    gather = Auditor.gather

    def once(self: Auditor, *, now: float) -> None:
        if faulty.pop() if faulty else False:
            raise ValueError("Doe^Jane")
        gather(self, now=now)

    monkeypatch.setattr(Auditor, "gather", once)
    Notes(house.settings).write("start", at=NOW)
    stopping = Stopping()
    thread = threading.Thread(target=AuditThread(house.settings, house.ledger, house.spool).run, args=(stopping,))
    thread.start()
    deadline = time.monotonic() + 10
    while not segments(house.folder) and time.monotonic() < deadline:
        time.sleep(0.01)
    stopping.ask()
    thread.join(10)
    assert segments(house.folder)
    assert "audit messages: ValueError" in caplog.text
    assert "Doe" not in caplog.text
