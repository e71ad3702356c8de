"""Storage commitment as SCP: modalities ask a real node whether it keeps their images, and are told in the end."""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, build_context
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]

from dicom_node import settings_file
from dicom_node.admit import admit
from dicom_node.deliver import Promising, turning
from dicom_node.keeping import telling
from dicom_node.ledger import Ledger
from dicom_node.liveness import Liveness
from dicom_node.spool import Spool
from dicom_node.stopping import Stopping
from tests import raw_peer
from tests.certificates import Authority
from tests.modality import INSTANCE, REPORT_S, Modality, Report, action, references, request
from tests.node import Node, end, node, store, study, to_archive
from tests.peers import LOOPBACK, Orthanc, free_port, orthanc
from tests.scripted_pacs import Mode, ScriptedPacs

STUDY = "1.2.826.0.1.3680043.10.1.77"
CR = "1.2.840.10008.5.1.4.1.1.1"
pytestmark = [
    # The library leaves the socket of a peer that died to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def reported(made: Node) -> None:
    made.wait(lambda: states(made) == {"reported"}, REPORT_S, "the peer was told")


def states(made: Node) -> set[str]:
    return {row["state"] for row in made.rows("SELECT state FROM promise")}


@contextmanager
def receiving(folder: Path, modality: Modality, **peer: Any) -> Iterator[Node]:
    """A node whose receivers run, and which looks at everything at once; it answers only in `answering`."""
    listen = {"processes": 1, **({"peers": {"m": {"ae_title": modality.aet, **peer}}} if peer else {})}
    deliver = {"retry": {"attempts": 4, "first_s": 0.1, "factor": 1.5, "longest_s": 0.5}}
    with node(folder, role="listen", listen=listen, deliver=deliver) as made:
        yield made


@contextmanager
def answering(made: Node) -> Iterator[Ledger]:
    """What the sending process does about promises, in this one."""
    settings = settings_file.load(made.config).model_copy(update={"state_dir": made.state})
    ledger, stopping = Ledger(made.state / "ledger.sqlite"), Stopping()
    alive = Liveness(made.state / "locks", "deliver")
    promising = Promising(settings, ledger, alive.name)
    threads = [threading.Thread(target=turning, args=(n, turn, stopping)) for n, turn in promising.turns]
    for thread in threads:
        thread.start()
    try:
        yield ledger
    finally:
        stopping.ask()
        for thread in threads:
            thread.join()
        promising.close()
        ledger.close()
        alive.close()


def look(made: Node) -> None:
    """Look at everything that was received, as a worker does first."""
    settings = settings_file.load(made.config).model_copy(update={"state_dir": made.state})
    with made.ledger() as ledger:
        while (row := ledger.instances.read("worker", now=time.time(), lease_s=60)) is not None:
            admit(row, ledger=ledger, spool=Spool(made.spool), settings=settings, banks={}, clock=time.time)


def test_images_and_request_on_one_association_are_answered_on_it(tmp_path: Path) -> None:
    files, modality = study(tmp_path / "in", STUDY, 2), Modality()
    with node(tmp_path) as made:
        with modality.association(made.port, *files) as link:
            assert [store(link, path) for path in files] == [0, 0]
            assert action(link, request("2.25.1", references(files))) == 0
            (report,) = modality.wait()
            # The association is as good as before.
            assert (
                link.send_n_action(request("2.25.2", [(CR, "1.2.3")]), 1, StorageCommitmentPushModel, INSTANCE)[
                    0
                ].Status
                == 0
            )
            modality.wait(2)
        reported(made)
    uids = tuple(uid for _, uid in references(files))
    assert report == Report(1, "2.25.1", uids, (), frozenset({"TransactionUID", "ReferencedSOPSequence"}))
    assert modality.reports[1].failed == (("1.2.3", 0x0112),)
    assert modality.reports[1].event_type == 2


def test_the_answer_comes_on_an_association_of_ours_when_that_of_the_request_is_gone(tmp_path: Path) -> None:
    files, modality = study(tmp_path / "in", STUDY, 1), Modality(port=free_port())
    with receiving(tmp_path, modality, port=modality.port) as made, modality.listens():
        assert modality.ask(made.port, "2.25.1", [*references(files), (CR, "1.2.3")]) == 0
        assert modality.ask(made.port, "2.25.2", [(CR, "1.2.4")]) == 0
        with answering(made):
            modality.wait(2)
            reported(made)
    assert {report.transaction_uid: report.event_type for report in modality.reports} == {"2.25.1": 2, "2.25.2": 2}
    assert modality.reports[0].failed == ((references(files)[0][1], 0x0112), ("1.2.3", 0x0112))


def test_a_peer_that_says_nothing_of_roles_is_told_all_the_same(tmp_path: Path) -> None:
    modality = Modality(port=free_port())
    with receiving(tmp_path, modality, port=modality.port) as made, modality.listens(role=False), answering(made):
        assert modality.ask(made.port, "2.25.1", [(CR, "1.2.3")]) == 0
        modality.wait()
        reported(made)


def test_a_peer_without_a_port_is_told_on_the_association_of_its_next_request(tmp_path: Path) -> None:
    modality = Modality()
    with receiving(tmp_path, modality) as made, answering(made):
        assert modality.ask(made.port, "2.25.1", [(CR, "1.2.3")]) == 0
        made.wait(lambda: states(made) == {"decided"}, REPORT_S, "it is decided")
        shown = json.loads(made.cli("status", "--json").stdout)["commitment_requests"]
        assert shown.keys() == {modality.aet}
        assert shown[modality.aet]["requests"] == 1
        with modality.association(made.port) as link:
            assert action(link, request("2.25.2", [(CR, "1.2.4")])) == 0
            modality.wait(2)
        reported(made)
    assert sorted(report.transaction_uid for report in modality.reports) == ["2.25.1", "2.25.2"]


def test_requests_that_cross_are_answered_and_the_association_lives_on(tmp_path: Path) -> None:
    """The peer sends its next requests while our report waits for its answer."""
    modality = Modality()
    held = threading.Event()

    def slowly() -> int:
        held.wait(5)
        return 0

    modality.status = slowly
    with receiving(tmp_path, modality) as made, answering(made), modality.association(made.port) as link:
        for n in range(5):
            assert action(link, request(f"2.25.{n + 1}", [(CR, "1.2.3")])) == 0
        held.set()
        modality.wait(5)
        reported(made)
        assert link.is_established


def test_a_peer_that_is_away_is_told_once_when_it_is_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    modality = Modality(port=free_port())
    with receiving(tmp_path, modality, port=modality.port) as made, answering(made):
        assert modality.ask(made.port, "2.25.1", [(CR, "1.2.3")]) == 0
        later = "commitment request 1 is to be answered later"
        made.wait(lambda: caplog.text.count(later) >= 2, REPORT_S, "it was tried twice")
        assert states(made) == {"decided"}
        with modality.listens():
            modality.wait()
            reported(made)
            time.sleep(1)
    assert len(modality.reports) == 1


@pytest.mark.parametrize(
    ("status", "tries", "end"), [(0x0110, 4, "parked"), (0x0115, 1, "parked"), (0x0107, 1, "reported")]
)
def test_what_a_peer_answers_decides_whether_it_is_told_again(
    tmp_path: Path, status: int, tries: int, end: str
) -> None:
    modality = Modality(port=free_port(), status=lambda: status)
    with receiving(tmp_path, modality, port=modality.port) as made, modality.listens(), answering(made) as ledger:
        assert modality.ask(made.port, "2.25.1", [(CR, "1.2.3")]) == 0
        made.wait(lambda: states(made) == {end}, REPORT_S, f"it is {end}")
        assert len(modality.reports) == tries
        if end == "parked":
            (shown,) = ledger.attention()
            assert shown["what"] == "promise"
            assert f"0x{status:04X}" in shown["note"]
            modality.status = lambda: 0
            assert made.cli("retry", "--all").returncode == 0
            reported(made)


@pytest.mark.parametrize(
    "mode",
    [
        Mode(mute=True),
        Mode(hang_up=True),
        Mode(abort_when_open=True),
        Mode(takes_commitment=False),
        # It takes the association and answers nothing.
        Mode(),
    ],
    ids=["mute", "hangs up", "aborts", "refuses the class", "answers nothing"],
)
def test_a_peer_that_can_not_be_told_is_tried_again_and_parked_after_the_patience(
    tmp_path: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, modality = ScriptedPacs(mode), Modality()
    try:
        with receiving(tmp_path, modality, port=peer.port) as made:
            made.configure(deliver={"patience_days": 3.0 / 86400})
            monkeypatch.setattr(telling, "CONNECT_S", 1.0)
            monkeypatch.setattr(telling, "ANSWER_S", 1.0)
            with answering(made):
                assert modality.ask(made.port, "2.25.1", [(CR, "1.2.3")]) == 0
                made.wait(lambda: states(made) == {"parked"}, REPORT_S, "it is parked")
        assert len(peer.connected_at) >= 1
    finally:
        peer.stop()


def test_a_request_that_breaks_the_rules_leaves_no_row(tmp_path: Path) -> None:
    modality = Modality()
    with receiving(tmp_path, modality) as made, modality.association(made.port) as link:
        good = request("2.25.1", [(CR, "1.2.3")])
        assert action(link, good, kind=2) == 0x0123
        assert action(link, good, instance="1.2.3") == 0x0112
        assert action(link, request("", [(CR, "1.2.3")])) == 0x0115
        assert action(link, request("2.25.1", [])) == 0x0115
        assert action(link, request("2.25.1", [(CR, "")])) == 0x0115
        made.wait(lambda: made.rows("SELECT 1 FROM association"), REPORT_S, "there is a ledger")
        assert made.rows("SELECT * FROM promise") == []
        # Nothing of that has ended the association.
        assert action(link, good) == 0


def test_without_the_setting_there_is_no_such_context(tmp_path: Path) -> None:
    with node(tmp_path, role="listen", listen={"commitment": False}) as made:
        ae = AE("MODALITY")
        wanted = [build_context(StorageCommitmentPushModel), build_context(Verification)]
        link = ae.associate(LOOPBACK, made.port, contexts=wanted, ae_title="EVENRAY")
        assert [context.abstract_syntax for context in link.accepted_contexts] == [Verification]
        end(link)
    with node(tmp_path / "asking", to_archive(free_port()), role="listen", listen={"commitment": False}) as made:
        with Modality().association(made.port) as link:
            # The class is known for the reports that we wait for ourselves.
            assert action(link, request("2.25.1", [(CR, "1.2.3")])) == 0x0124
        assert made.rows("SELECT * FROM promise") == []


def test_orthanc_asks_the_node_and_is_told_what_is_kept(tmp_path: Path) -> None:
    port = free_port()
    files = study(tmp_path / "in", STUDY, 2)
    with orthanc(tmp_path, node=("EVENRAY", LOOPBACK, port)) as asker:
        _upload(asker, files)
        peer = {"ae_title": "ORTHANC", "port": asker.dicom_port}
        with node(tmp_path / "node", role="listen", port=port, listen={"peers": {"orthanc": peer}}) as made:
            held = [instance["ID"] for instance in asker.instances()]
            asker.post("/modalities/evenray/store", held)
            look(made)
            with answering(made):
                of_all = asker.post("/modalities/evenray/storage-commitment", {"Resources": asker.json("/studies")})
                strange = {"DicomInstances": [[CR, "1.2.3"], [CR, references(files)[0][1]]]}
                of_some = asker.post("/modalities/evenray/storage-commitment", strange)
                for asked, expected in ((of_all, "Success"), (of_some, "Failure")):
                    made.wait(lambda at=asked["Path"]: asker.json(at)["Status"] != "Pending", REPORT_S, "it is told")
                    assert asker.json(asked["Path"])["Status"] == expected
            told = asker.json(of_some["Path"])
            reported(made)
    assert [item["SOPInstanceUID"] for item in told["Success"]] == [references(files)[0][1]]
    assert [item["SOPInstanceUID"] for item in told["Failures"]] == ["1.2.3"]
    assert told["Failures"][0]["Description"]


def _upload(asker: Orthanc, files: Sequence[Path]) -> None:
    for path in files:
        body = urllib.request.Request(f"{asker.url}/instances", data=path.read_bytes(), method="POST")
        with urllib.request.urlopen(body, timeout=30):
            pass


def test_ten_thousand_objects_are_asked_for_at_once_in_little_time_and_memory(tmp_path: Path) -> None:
    files, modality = study(tmp_path / "in", STUDY, 1), Modality(port=free_port())
    many = [*references(files), *((CR, f"2.25.{10**37 + n}") for n in range(10_000))]
    with receiving(tmp_path, modality, port=modality.port) as made, modality.listens():
        made.accept(*files)
        look(made)
        receiver = made.runs("listen")
        before = _memory_mib(receiver)
        begun = time.monotonic()
        assert modality.ask(made.port, "2.25.1", many) == 0
        asked_s = time.monotonic() - begun
        with answering(made):
            modality.wait()
            reported(made)
        told_s = time.monotonic() - begun
        grown = _memory_mib(receiver) - before
    (report,) = modality.reports
    assert report.committed == (references(files)[0][1],)
    assert len(report.failed) == 10_000
    print(f"asked in {asked_s:.1f} s, told in {told_s:.1f} s, the receiver grew by {grown:.1f} MiB")
    assert asked_s < 20, "building and encoding it included"
    assert told_s < 40, "decoding it included"
    assert grown < 64


def _memory_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return float(re.search(r"VmHWM:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


@pytest.fixture
def sender() -> Iterator[Callable[[Node], Node]]:
    """Starts the sending process of a node of which only the receivers run."""
    started: list[Node] = []

    def start(made: Node) -> Node:
        started.append(Node(made.folder, made.port, made.settings, "deliver"))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_a_node_that_is_killed_between_request_and_report_reports_once_after_its_restart(
    tmp_path: Path, sender: Callable[[Node], Node]
) -> None:
    files, modality = study(tmp_path / "in", STUDY, 2), Modality(port=free_port())
    with receiving(tmp_path, modality, port=modality.port) as made, modality.listens():
        made.accept(*files)
        look(made)
        assert modality.ask(made.port, "2.25.1", references(files)) == 0
        made.crash()
        assert states(made) == {"asked"}
        made.start()
        sending = sender(made)
        modality.wait()
        reported(made)
        sending.kill("deliver")
        sender(made)
        time.sleep(3)
    assert [report.event_type for report in modality.reports] == [1]


def test_a_sender_that_is_killed_while_it_reports_reports_again_and_then_no_more(
    tmp_path: Path, sender: Callable[[Node], Node]
) -> None:
    modality, asked, kill = Modality(port=free_port()), threading.Event(), threading.Event()

    def hang() -> int:
        asked.set()
        kill.wait(30)
        return 0

    modality.status = hang
    with receiving(tmp_path, modality, port=modality.port) as made, modality.listens():
        sending = sender(made)
        assert modality.ask(made.port, "2.25.1", [(CR, "1.2.3")]) == 0
        assert asked.wait(REPORT_S)
        sending.kill("deliver")
        kill.set()
        sender(made)
        modality.wait(2)
        reported(made)
        time.sleep(1)
    assert len(modality.reports) == 2


def test_the_report_goes_over_tls_to_a_peer_that_listens_with_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ours, theirs = authority.issue("node"), authority.issue("modality")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.file))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(theirs.certificate, theirs.key)
    modality = Modality(port=free_port(), tls=context)
    tls = {"trusted": str(authority.file), "certificate": str(ours.certificate), "key": str(ours.key)}
    with receiving(tmp_path / "node", modality, port=modality.port, tls=tls) as made, modality.listens():
        assert modality.ask(made.port, "2.25.1", [(CR, "1.2.3")]) == 0
        with answering(made):
            modality.wait()
            reported(made)
    assert len(modality.reports) == 1


@pytest.mark.parametrize(("action_", "status"), [("nospace", 0x0213), ("fail", 0x0110)])
def test_a_request_that_can_not_be_recorded_is_not_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action_: str, status: int
) -> None:
    (tmp_path / "marks").mkdir()
    monkeypatch.setenv("EVENRAY_FAULT", f"promise.new.ask.begun:{action_}")
    monkeypatch.setenv("EVENRAY_FAULT_MARKS", str(tmp_path / "marks"))
    modality = Modality()
    with receiving(tmp_path, modality) as made:
        assert modality.ask(made.port, "2.25.1", [(CR, "1.2.3")]) == status
        assert made.rows("SELECT * FROM promise") == []
        assert modality.ask(made.port, "2.25.1", [(CR, "1.2.3")]) == 0


def test_a_full_disk_takes_no_request(tmp_path: Path) -> None:
    with node(tmp_path, role="listen", storage={"reserve_mib": 1 << 40}) as made:
        assert Modality().ask(made.port, "2.25.1", [(CR, "1.2.3")]) == 0x0213
        assert made.rows("SELECT * FROM promise") == []


def test_a_request_without_end_is_cut_off_before_it_fills_the_memory(tmp_path: Path) -> None:
    with receiving(tmp_path, Modality()) as made:
        receiver = made.runs("listen")
        before = _memory_mib(receiver)
        peer = raw_peer.RawPeer.associated(made.port, [(1, StorageCommitmentPushModel, [raw_peer.EXPLICIT])])
        with closing(peer.sock):
            request_of = raw_peer.command(0x0130, sop_class=StorageCommitmentPushModel, instance=INSTANCE)
            with suppress(OSError):
                peer.send(raw_peer.p_data(raw_peer.pdv(request_of, control=raw_peer.COMMAND | raw_peer.LAST)))
                end = time.monotonic() + 60
                while time.monotonic() < end:
                    peer.send(raw_peer.p_data(raw_peer.pdv(bytes(100_000))))
                pytest.fail("data was taken for a minute")
        assert "a message without end" in made.log()
        assert _memory_mib(receiver) - before < 100
        assert Modality().ask(made.port, "2.25.1", [(CR, "1.2.3")]) == 0
