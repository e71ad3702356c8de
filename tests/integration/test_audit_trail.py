"""A real node tells its audit repository what happens, whatever happens to either of them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dicom_node.audit_trail import notes
from dicom_node.audit_trail.spool import MessageSpool, Trouble, segments, trouble
from dicom_node.demo.archive import Archive
from tests.audit import Received, SyslogServer, faults, repository
from tests.certificates import Authority
from tests.node import Node, archive, node, open_association, study, to_archive
from tests.peers import LOOPBACK, free_port, require, wait_until

pytestmark = [
    # The library leaves the socket of a peer that died to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
STUDY = "1.2.826.0.1.3680043.10.1.60"
OTHER = "1.2.826.0.1.3680043.10.1.61"
PATIENT = ("Doe", "P1")
"""What names the patient of the radiographs."""
SOON_S = 60.0


@pytest.fixture
def pacs_port() -> int:
    return free_port()


@pytest.fixture
def pacs(tmp_path: Path, pacs_port: int) -> Iterator[Archive]:
    with archive(tmp_path, pacs_port) as made:
        yield made


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SyslogServer]:
    with repository(tmp_path / "repository") as made:
        yield made


def told(server: SyslogServer, event: str, **wanted: str) -> list[Received]:
    """The messages of one event; `wanted` are properties of them."""
    found = [one for one in list(server.messages) if one.event == event]
    return [one for one in found if all(getattr(one, name) == value for name, value in wanted.items())]


def total(found: list[Received]) -> int:
    return sum(sum(one.instances.values()) for one in found)


def kinds(server: SyslogServer, event: str) -> list[str]:
    return [kind for one in told(server, event) for kind in one.kinds]


def action(server: SyslogServer, value: str) -> list[Received]:
    found = told(server, "110104")
    return [one for one in found if one.get("EventIdentification/@EventActionCode") == [value]]


def shown(made: Node) -> list[str]:
    """What `evenray status` says of the audit trail."""
    facts = json.loads(made.cli("status", "--json").stdout)
    return [row["state"] for row in facts["attention"] if row["what"] == "audit"]


def waiting(made: Node) -> int:
    return sum(one.messages for one in segments(made.state / "audit" / "spool"))


def test_the_life_of_a_study_is_told_from_start_to_stop(
    tmp_path: Path, pacs: Archive, pacs_port: int, server: SyslogServer
) -> None:
    files = study(tmp_path / "in", STUDY, 2)
    to = {**to_archive(pacs.port), "share": {"kind": "folder", "path": "share"}}
    with node(tmp_path, to, port=pacs_port, audit=server.settings()) as made:
        made.accept(*files)
        made.wait_settled()
        made.wait(lambda: total(told(server, "110106")) == 5, SOON_S, "two originals, two results, a report exported")
        made.wait(lambda: total(action(server, "R")) == 5, SOON_S, "and the same sent")
        assert made.terminate() == 0
        log, spooled = made.log(), waiting(made)
    assert kinds(server, "110100") == ["110120", "110121"], "start and stop"
    assert [faults(one.xml) for one in server.messages if faults(one.xml)] == []
    (came,) = action(server, "C")
    assert came.study == STUDY
    assert (came.patient, total([came]), came.outcome) == ("P1", 2, "0")
    source = "ActiveParticipant[RoleIDCode/@csd-code='110153']"
    assert came.get(f"{source}/@UserID") == ["MODALITY"]
    assert came.get(f"{source}/@NetworkAccessPointID") == [LOOPBACK]
    assert {one.study for one in action(server, "R")} == {STUDY}
    assert {one.patient for one in server.messages} == {"P1", ""}
    assert not spooled, "what was read by the repository is not kept"
    assert not [word for word in PATIENT if word in log], "the log names no patient"
    times = [one.at for one in server.messages]
    assert times[0] == min(times)
    assert times[-1] == max(times)


def test_what_happens_while_the_repository_is_away_is_told_when_it_is_back(
    tmp_path: Path, pacs: Archive, pacs_port: int, server: SyslogServer
) -> None:
    server.stop()
    with node(tmp_path, to_archive(pacs.port), port=pacs_port, audit=server.settings()) as made:
        made.accept(*study(tmp_path / "in", STUDY, 2))
        made.wait_settled()
        made.crash()
        made.start()
        made.accept(*study(tmp_path / "other", OTHER, 1))
        made.wait_settled()
        made.wait(lambda: waiting(made) >= 6, SOON_S, "messages of both studies wait")
        files = list((made.state / "audit").rglob("*"))
        assert {one.stat().st_mode & 0o077 for one in files} == {0}, "they are for the node alone"
        made.crash()
        spool = MessageSpool(made.state / "audit" / "spool", limit_bytes=1 << 30)
        assert spool.trouble.down_since
        spool.note(Trouble(spool.trouble.down_since - 60, spool.trouble.reason))
        assert shown(made) == ["away"], "status tells of it a minute later"
        server.start()
        made.start()
        made.wait(lambda: total(action(server, "C")) >= 3, SOON_S, "every reception is told")
        made.wait(lambda: total(action(server, "R")) >= 8, SOON_S, "and everything sent")
        made.wait(lambda: not waiting(made), SOON_S, "nothing waits any more")
        assert trouble(made.state / "audit" / "spool").down_since == 0
        assert made.terminate() == 0
    assert [faults(one.xml) for one in server.messages if faults(one.xml)] == []
    starts = [(one.kinds[0], one.outcome) for one in told(server, "110100")]
    assert starts == [
        ("110120", "0"),
        ("110121", "8"),
        ("110120", "0"),
        ("110121", "8"),
        ("110120", "0"),
        ("110121", "0"),
    ]
    first = {uid: min(n for n, one in enumerate(server.messages) if one.study == uid) for uid in (STUDY, OTHER)}
    assert first[STUDY] < first[OTHER]


def test_a_kill_between_message_and_mark_repeats_and_loses_nothing(
    tmp_path: Path, pacs: Archive, pacs_port: int, server: SyslogServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv("EVENRAY_FAULT", "audit.spooled:kill:2,audit.sent:kill")
    monkeypatch.setenv("EVENRAY_FAULT_MARKS", str(marks))
    with node(tmp_path, to_archive(pacs.port), port=pacs_port, audit=server.settings()) as made:
        made.accept(*study(tmp_path / "in", STUDY, 2))
        made.wait_settled()
        made.wait(lambda: len(list(marks.iterdir())) == 2, SOON_S, "it was killed at both steps")
        made.wait(lambda: total(action(server, "C")) >= 2, SOON_S, "the reception is told")
        made.wait(lambda: total(action(server, "R")) >= 5, SOON_S, "and everything sent")
    assert [faults(one.xml) for one in server.messages if faults(one.xml)] == []


def test_a_caller_that_is_refused_is_told_and_makes_no_flood(
    tmp_path: Path, pacs: Archive, pacs_port: int, server: SyslogServer
) -> None:
    (file,) = study(tmp_path / "in", STUDY, 1)
    listen = {"port": pacs_port, "allowed_calling": ["MODALITY"], "processes": 1}
    with node(tmp_path, to_archive(pacs.port), port=pacs_port, listen=listen, audit=server.settings()) as made:
        for _ in range(20):
            link = open_association(made.port, [file], calling="STRANGER")
            assert link.is_rejected
        made.wait(lambda: told(server, "110113"), SOON_S, "the refusal is told")
        assert made.terminate() == 0
    found = told(server, "110113")
    assert {one.kinds[0] for one in found} == {"110126"}
    assert len(found) <= 2, "the first, and the rest together"
    stranger = "ActiveParticipant[@UserIsRequestor='false']"
    assert found[0].get(f"{stranger}/@UserID") == ["STRANGER"]
    assert found[0].get(f"{stranger}/@NetworkAccessPointID") == [LOOPBACK]
    # The rest was noted when the receiver ended, and is told after the next start.
    noted = [notes.read(path) for path in (made.state / "audit" / "notes").glob("*.json")]
    later = [int(note["count"]) for note in noted if note["kind"] == "refused"]
    assert sum(_times(one) for one in found) + sum(later) == 20
    assert len(later) <= 1
    assert [faults(one.xml) for one in found if faults(one.xml)] == []


def _times(one: Received) -> int:
    words = one.get("//EventOutcomeDescription/text()")[0].rpartition("(")[2]
    return int(words.partition(" times)")[0]) if words.endswith(" times)") else 1


def test_originals_that_leave_are_told_with_their_patient(
    tmp_path: Path, pacs: Archive, pacs_port: int, server: SyslogServer
) -> None:
    at_once = {"originals_days": 1e-9, "results_days": 1e-9, "every_s": 0.2}
    with node(tmp_path, to_archive(pacs.port), port=pacs_port, retention=at_once, audit=server.settings()) as made:
        made.accept(*study(tmp_path / "in", STUDY, 2))
        made.wait(lambda: total(told(server, "110105")) == 2, 120, "the study has left")
    (left,) = told(server, "110105")
    assert (left.study, left.patient) == (STUDY, "P1")
    assert left.get("EventIdentification/@EventActionCode") == ["D"]


def test_changed_settings_and_damaged_files_are_alerts(
    tmp_path: Path, pacs: Archive, pacs_port: int, server: SyslogServer
) -> None:
    often = {"every_days": 1e-5}
    with node(tmp_path, to_archive(pacs.port), port=pacs_port, integrity=often, audit=server.settings()) as made:
        made.accept(*study(tmp_path / "in", STUDY, 1))
        made.wait_settled()
        assert made.terminate() == 0
        path = made.one("SELECT path FROM instance")
        content = bytearray((made.spool / path).read_bytes())
        content[-100] ^= 1
        (made.spool / path).write_bytes(content)
        made.configure(listen={"known_only": False, "check_called_ae": False})
        made.start()
        made.wait(lambda: {"110129", "file-damaged"} <= set(kinds(server, "110113")), SOON_S, "both are told")
    assert kinds(server, "110113").count("110129") == 1
    assert "110131" not in kinds(server, "110113"), "nothing else has changed"
    damage = next(one for one in told(server, "110113") if one.kinds == ["file-damaged"])
    assert damage.get("ParticipantObjectIdentification/@ParticipantObjectID") == [f"evenray-spool:{path}"]


def test_a_caller_whose_certificate_nobody_vouches_for_is_told(
    tmp_path: Path, pacs: Archive, pacs_port: int, server: SyslogServer
) -> None:
    own = server.authority.issue("listener")
    secured = {"certificate": str(own.certificate), "key": str(own.key), "trusted": str(server.authority.file)}
    stranger = Authority(tmp_path, "elsewhere").issue("stranger")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(stranger.certificate, stranger.key)
    with node(tmp_path, port=pacs_port, listen={"port": pacs_port, "tls": secured}, audit=server.settings()) as made:
        with socket.create_connection((LOOPBACK, made.port)) as raw, suppress(OSError):
            context.wrap_socket(raw).recv(1)
        made.wait(lambda: told(server, "110113"), SOON_S, "it is told")
    (found,) = told(server, "110113")
    assert found.kinds == ["110126"]
    assert found.get("ActiveParticipant[@UserIsRequestor='false']/@NetworkAccessPointID") == [LOOPBACK]
    assert "certificate is not accepted" in found.get("//EventOutcomeDescription/text()")[0]


@pytest.fixture
def rsyslog(tmp_path: Path) -> Iterator[tuple[int, Authority, Path]]:
    """A real repository: its port, the authority of its certificate, and the file that it writes."""
    require("rsyslogd")
    authority, port, out = Authority(tmp_path / "rsyslog"), free_port(), tmp_path / "audit.log"
    own = authority.issue("repository")
    config = tmp_path / "rsyslog.conf"
    config.write_text(f"""
global(workDirectory="{tmp_path}" maxMessageSize="64k" defaultNetstreamDriver="ossl" preserveFQDN="on"
  defaultNetstreamDriverCAFile="{authority.file}" defaultNetstreamDriverCertFile="{own.certificate}"
  defaultNetstreamDriverKeyFile="{own.key}" parser.escapeControlCharactersOnReceive="off")
module(load="imtcp" StreamDriver.Name="ossl" StreamDriver.Mode="1" StreamDriver.AuthMode="x509/certvalid")
input(type="imtcp" port="{port}" address="{LOOPBACK}" ruleset="audit")
template(name="raw" type="string" string="%pri% %app-name% %msgid% %msg%\\n")
ruleset(name="audit") {{ action(type="omfile" file="{out}" template="raw") }}
""")
    process = subprocess.Popen(
        [
            shutil.which("rsyslogd", path=f"{os.environ['PATH']}:/usr/sbin") or "rsyslogd",
            "-n",
            "-f",
            str(config),
            "-i",
            str(tmp_path / "rsyslog.pid"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=(tmp_path / "rsyslog.err").open("wb"),
    )
    try:
        wait_until(lambda: _open(port) or process.poll() is not None, 20, "rsyslog listens")
        assert process.poll() is None, (tmp_path / "rsyslog.err").read_text()
        yield port, authority, out
    finally:
        process.terminate()
        process.wait(20)


def _open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


@pytest.mark.peers
def test_rsyslog_understands_every_message(
    tmp_path: Path, pacs: Archive, pacs_port: int, rsyslog: tuple[int, Authority, Path]
) -> None:
    port, authority, out = rsyslog
    where = SyslogServer(authority, port).settings()
    with node(tmp_path, to_archive(pacs.port), port=pacs_port, audit=where) as made:
        made.accept(*study(tmp_path / "in", STUDY, 2))
        made.wait_settled()
        made.wait(lambda: out.exists() and out.read_text().count("DICOM Instances Transferred") >= 2, SOON_S, "told")
        assert made.terminate() == 0
        made.wait(lambda: "Application Stop" in out.read_text(), 10, "the stop is told")
        assert not waiting(made)
    lines = out.read_bytes().splitlines()
    heads = {line.partition(b" \xef\xbb\xbf")[0] for line in lines if b"\xef\xbb\xbf" in line}
    assert heads == {b"85 evenray DICOM+RFC3881"}, heads
    documents = out.read_bytes().split(b"\xef\xbb\xbf")[1:]
    assert len(documents) >= 4
    for one in documents:
        assert faults(one[: one.index(b"</AuditMessage>") + len(b"</AuditMessage>")]) == []
