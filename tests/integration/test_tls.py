"""TLS in and out against DCMTK, Orthanc and the library: who is let in, what arrives, renewal, limits."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, build_context
from pynetdicom.sop_class import ComputedRadiographyImageStorage, Verification

from dicom_node.errors import PeerUnreachable
from dicom_node.records import Receipt
from dicom_node.sending import send_files
from dicom_node.settings import Dimse
from tests import dicom_files, raw_peer
from tests.attack import shape
from tests.certificates import Authority, Issued
from tests.node import ROOT, Node, data_set, end, node, radiograph, store, uid_of
from tests.peers import LOOPBACK, free_port, orthanc, storescp, storescu, wait_until
from tests.raw_peer import CR_IMAGE, EXPLICIT, RELEASE_RQ, VERIFICATION, RawPeer, associate_rq

pytestmark = [
    pytest.mark.peers,
    # The library leaves the socket of a peer that died to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
STUDY = "1.2.826.0.1.3680043.10.1.90"
STOPS_WAITING_S = 2


@dataclass(frozen=True)
class Papers:
    """Certificates of everybody in these tests."""

    authority: Authority
    node: Issued
    modality: Issued
    stranger: Issued
    expired: Issued

    def server(self, **more: Any) -> dict[str, Any]:
        """The node's section `listen.tls`."""
        ours = {"certificate": str(self.node.certificate), "key": str(self.node.key)}
        return {**ours, "trusted": str(self.authority.file), **more}

    def client(self, issued: Issued | None = None, **more: Any) -> dict[str, Any]:
        """A section `tls` towards a peer."""
        issued = issued or self.modality
        shown = {"certificate": str(issued.certificate), "key": str(issued.key)}
        return {**shown, "trusted": str(self.authority.file), **more}

    def flags(self, issued: Issued | None = None) -> list[str]:
        """The same for DCMTK."""
        issued = issued or self.modality
        return ["+tls", str(issued.key), str(issued.certificate), "+cf", str(self.authority.file)]

    def context(self, issued: Issued | None = None) -> ssl.SSLContext:
        """A client of the standard library, which the node's own code has no part in."""
        made = ssl.create_default_context(cafile=str(self.authority.file))
        if issued:
            made.load_cert_chain(issued.certificate, issued.key)
        return made

    def connect(self, port: int, issued: Issued | None = None, source: str = LOOPBACK) -> RawPeer:
        """A scripted peer behind a finished handshake."""
        plain = socket.create_connection((LOOPBACK, port), timeout=20, source_address=(source, 0))
        return RawPeer(self.context(issued or self.modality).wrap_socket(plain, server_hostname=LOOPBACK))

    def associated(self, port: int) -> RawPeer:
        made = self.connect(port)
        made.send(associate_rq([(1, CR_IMAGE, [EXPLICIT])]))
        answer = made.read()
        assert answer is not None
        assert answer.kind == 2
        return made


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("papers")
    authority = Authority(folder)
    return Papers(
        authority,
        authority.issue("node"),
        authority.issue("modality", hosts=("room1.example.org", LOOPBACK)),
        Authority(folder, "elsewhere").issue("stranger"),
        authority.issue("expired", days=-1),
    )


def _ready(made: Node) -> Node:
    """With every receiver's loop turning."""
    made.wait(lambda: "every process is up" in made.log(), 60, "the node is up")
    return made


@pytest.fixture(scope="module", params=["fast", "plain"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, papers: Papers) -> Iterator[Node]:
    """Receivers behind TLS: by the own reader of the stream, and by the library's."""
    listen = {"fast": request.param == "fast", "tls": papers.server(), "max_associations": 6, "processes": 1}
    with node(
        tmp_path_factory.mktemp(request.param), role="listen", listen={**listen, "acse_timeout_s": STOPS_WAITING_S}
    ) as found:
        yield _ready(found)


def _kept(made: Node, uid: str) -> bytes:
    rows = made.rows("SELECT path FROM instance WHERE sop_instance_uid = ? ORDER BY id DESC", uid)
    return (made.spool / rows[0]["path"]).read_bytes()


def _at_rest(made: Node) -> None:
    """A receiver at rest has four threads and no socket but the listening one."""

    def busy() -> list[tuple[int, int, int]]:
        return [seen for seen in map(shape, made.pids("listen")) if seen[0] > 4 or seen[1] > 2]

    made.wait(lambda: not busy(), 30, "every connection is let go")


def test_what_dcmtk_sends_over_tls_is_kept_as_without(made: Node, papers: Papers, tmp_path: Path) -> None:
    files = []
    for size in (2, 90, 300, 1500):
        ds = dicom_files.dataset("CR", dicom_files.ramp(size, size), instance=f"{STUDY}.1.{size}")
        files.append(dicom_files.write(tmp_path / f"{size}.dcm", ds))
    with node(tmp_path / "other", role="listen", listen={"fast": made.settings["listen"]["fast"]}) as without:
        assert storescu(files, "EVENRAY", LOOPBACK, without.port).returncode == 0
        for pdu in ("4096", "131072"):
            done = storescu(files, "EVENRAY", LOOPBACK, made.port, "--max-send-pdu", pdu, *papers.flags())
            assert done.returncode == 0, done.stderr
            for path in files:
                assert _kept(made, uid_of(path)) == _kept(without, uid_of(path))
                assert data_set(path) in _kept(made, uid_of(path))
    _at_rest(made)


def test_the_library_sends_and_verifies_over_tls(made: Node, papers: Papers, tmp_path: Path) -> None:
    path = radiograph(tmp_path, f"{STUDY}.2", study=STUDY, size=64)
    ae = AE("LIBRARY")
    contexts = [build_context(ComputedRadiographyImageStorage, EXPLICIT), build_context(Verification)]
    secure = (papers.context(papers.modality), LOOPBACK)
    link = ae.associate(LOOPBACK, made.port, contexts=contexts, ae_title="EVENRAY", tls_args=secure)
    try:
        assert link.is_established
        assert link.send_c_echo().Status == 0
        assert store(link, path) == 0
    finally:
        end(link)
    assert data_set(path) in _kept(made, uid_of(path))


def _speak(papers: Papers, port: int, kind: str) -> None:
    """Connect as one who is not to be let in."""
    context = papers.context(
        {"untrusted": papers.stranger, "expired": papers.expired, "tls 1.1": papers.modality}.get(kind)
    )
    if kind == "tls 1.1":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection((LOOPBACK, port), timeout=20) as plain:
        if kind in ("plain", "garbage"):
            noise = bytes(number * 197 % 256 for number in range(512))
            plain.sendall(b"\x16\3\1\2\0" + noise if kind == "garbage" else associate_rq([(1, CR_IMAGE, [EXPLICIT])]))
            assert RawPeer(plain).read() is None
            return
        try:
            with context.wrap_socket(plain, server_hostname=LOOPBACK) as secured:
                peer = RawPeer(secured)
                peer.send(associate_rq([(1, CR_IMAGE, [EXPLICIT])]))
                assert peer.read() is None
        except OSError:
            pass


NOT_LET_IN = {
    "plain": "it speaks without TLS",
    "garbage": "the TLS handshake failed",
    "no certificate": "it shows no certificate",
    "untrusted": "its certificate is not accepted (unable to get",
    "expired": "its certificate is not accepted (certificate has expired)",
    "tls 1.1": "it offers no TLS version",
}


@pytest.mark.parametrize("kind", NOT_LET_IN)
def test_who_is_not_let_in_is_told_of_and_holds_no_place(made: Node, papers: Papers, tmp_path: Path, kind: str) -> None:
    before, pids = made.log().count(NOT_LET_IN[kind]), made.pids("listen")
    for _ in range(12):
        _speak(papers, made.port, kind)
    _at_rest(made)
    told = made.log().count(NOT_LET_IN[kind]) - before
    assert 1 <= told <= 12
    path = radiograph(tmp_path, f"{STUDY}.3", study=STUDY, size=64)
    assert storescu([path], "EVENRAY", LOOPBACK, made.port, *papers.flags()).returncode == 0
    assert made.pids("listen") == pids


def test_who_speaks_tls_to_a_port_without_is_told_of(papers: Papers, tmp_path: Path) -> None:
    with node(tmp_path, role="listen") as found:
        with pytest.raises(ssl.SSLError):
            papers.connect(found.port)
        found.wait(lambda: "it speaks TLS, and listen.tls is not set" in found.log(), 20, "it is said")
        found.accept(radiograph(tmp_path / "in", f"{STUDY}.4", study=STUDY, size=64))


def test_an_object_in_the_smallest_pieces_and_records_arrives_whole(made: Node, papers: Papers) -> None:
    content = bytes(range(256)) * 40
    with papers.associated(made.port) as peer:
        message = raw_peer.store(content, instance=f"{STUDY}.5", piece=77)
        for at in range(0, len(message), 1000):
            # Each piece is a TLS record of its own, and none ends where a PDU does.
            peer.send(message[at : at + 1000])
        answer = peer.read()
        assert answer is not None
        assert answer.status == 0
        # Several messages in one record: what is decrypted already is not seen by a poll of the socket.
        peer.send(b"".join(raw_peer.store(content, message=n, instance=f"{STUDY}.5.{n}") for n in (1, 2, 3)))
        assert [(peer.read() or raw_peer.Answer(0, b"")).status for _ in range(3)] == [0, 0, 0]
        peer.send(RELEASE_RQ)
        answer = peer.read()
        assert answer is not None
        assert answer.kind == 6
    assert _kept(made, f"{STUDY}.5").endswith(content)
    _at_rest(made)


@pytest.mark.parametrize("ending", ["aborts", "vanishes", "garbage", "silent"])
def test_an_association_that_breaks_off_over_tls_leaves_nothing(made: Node, papers: Papers, ending: str) -> None:
    whole = raw_peer.store(bytes(5000), instance=f"{STUDY}.6")
    peer = papers.connect(made.port)
    if ending != "silent":
        peer.send(associate_rq([(1, CR_IMAGE, [EXPLICIT])]))
        assert peer.read() is not None
        peer.send(whole[:-1000])
    if ending == "aborts":
        peer.send(raw_peer.ABORT)
    elif ending == "garbage":
        # Beneath TLS: no record at all.
        socket.socket.send(peer.sock, b"this is no record")
    elif ending == "vanishes":
        peer.close()
    if ending == "silent":
        assert peer.read() is None, "who asks for nothing is let go in time"
    if ending != "aborts":
        _at_rest(made)
    peer.close()
    _at_rest(made)
    made.wait(lambda: not made.arriving(), 20, "nothing of an incomplete object is left")


def test_hundreds_of_half_open_handshakes_leave_room_for_an_honest_sender(papers: Papers, tmp_path: Path) -> None:
    listen = {"max_associations": 16, "max_associations_per_host": 8, "processes": 2, "tls": papers.server()}
    path = radiograph(tmp_path / "in", f"{STUDY}.7", study=STUDY, size=64)
    with node(tmp_path, role="listen", listen={**listen, "acse_timeout_s": 20}) as found, ExitStack() as stack:
        _ready(found)
        for number in range(300):
            opened = socket.create_connection((LOOPBACK, found.port), timeout=20, source_address=("127.0.0.2", 0))
            stack.enter_context(opened)
            if number % 2:
                # The beginning of a ClientHello.
                opened.sendall(b"\x16\x03\x01\x02\x00\x01")
        begun = time.monotonic()
        assert storescu([path], "EVENRAY", LOOPBACK, found.port, *papers.flags()).returncode == 0
        assert time.monotonic() - begun < 15, "it waits for none of them"
        stack.close()
        _at_rest(found)
        assert "a connection from 127.0.0.2 was closed at once" in found.log()


@pytest.mark.parametrize("clients", ["authenticated", "any"])
def test_a_node_under_tls_that_knows_its_peers_alone_still_sees_its_own_port(
    papers: Papers, tmp_path: Path, clients: str
) -> None:
    # Not of the authority that clients are held against.
    issued = Authority(tmp_path, "ours").issue("node")
    ours = {"certificate": str(issued.certificate), "key": str(issued.key), "clients": clients}
    listen = {"known_only": True, "peers": {"other": PEERS["other"]}, "allowed_calling": ["OTHER"], "processes": 1}
    with node(tmp_path, role="listen", listen={**listen, "tls": papers.server(**ours)}) as found:
        _ready(found)
        checks = json.loads(found.cli("health", "--json").stdout)["ready"]
        (port,) = [check for check in checks if check["name"] == "port"]
        assert (port["ok"], port["reason"]) == (True, f"127.0.0.1:{found.port}: takes an association")
        assert "refused a connection" not in found.log()
        assert "rejected an association" not in found.log()


def test_our_title_from_our_machine_opens_no_door_to_objects(known: Node, papers: Papers) -> None:
    for classes in ([CR_IMAGE], [CR_IMAGE, VERIFICATION]):
        with papers.connect(known.port) as peer:
            contexts = [(2 * n + 1, uid, [EXPLICIT]) for n, uid in enumerate(classes)]
            peer.send(associate_rq(contexts, calling="EVENRAY"))
            answer = peer.read()
            assert answer is not None
            assert answer.kind == 3
    with papers.connect(known.port, source="127.0.0.2") as peer:
        peer.send(associate_rq([(1, VERIFICATION, [EXPLICIT])], calling="EVENRAY"))
        answer = peer.read()
        assert answer is not None
        assert answer.kind == 3, "from elsewhere it is nobody"


def test_renewed_files_are_shown_to_the_next_and_broken_ones_are_not(papers: Papers, tmp_path: Path) -> None:
    mine = Authority(tmp_path, "mine").issue("first")
    mine.replace_by(papers.node)
    tls = papers.server(certificate=str(mine.certificate), key=str(mine.key))
    with node(tmp_path, role="listen", listen={"tls": tls, "processes": 1}) as found:
        _ready(found)
        with papers.associated(found.port) as running:
            before = _serial(running)
            mine.replace_by(papers.authority.issue("second"))
            wait_until(lambda: _seen(papers, found.port) != before, 20, "the next sees the new certificate")
            after = _seen(papers, found.port)
            mine.key.write_text("nothing that is a key")
            found.wait(lambda: "the old certificate stays in force" in found.log(), 20, "it is said")
            assert _seen(papers, found.port) == after
            running.send(raw_peer.store(b"12345678", instance=f"{STUDY}.8"))
            answer = running.read()
            assert answer is not None
            assert answer.status == 0, "what was running goes on"
        assert found.log().count("the old certificate stays in force") == 1


def _serial(peer: RawPeer) -> object:
    assert isinstance(peer.sock, ssl.SSLSocket)
    certificate = peer.sock.getpeercert()
    assert certificate
    return certificate["serialNumber"]


def _seen(papers: Papers, port: int) -> object:
    with papers.connect(port) as peer:
        return _serial(peer)


PEERS = {
    "room": {"ae_title": "ROOM", "addresses": ["127.0.0.0/30"], "certificate_name": "room1.example.org"},
    "other": {"ae_title": "OTHER", "addresses": ["127.0.0.3"]},
}


@pytest.mark.parametrize(
    ("title", "address", "who", "why"),
    [
        ("ROOM", "127.0.0.1", "modality", ""),
        ("ROOM", "127.0.0.1", "node", "its certificate bears another name"),
        ("ROOM", "127.0.0.9", "modality", "its address is none of that title"),
        ("OTHER", "127.0.0.1", "modality", "its address is none of that title"),
        ("OTHER", "127.0.0.3", "node", ""),
        ("NOBODY", "127.0.0.1", "modality", "its title is not in listen.peers"),
    ],
)
def test_only_known_peers_are_let_in(known: Node, papers: Papers, title: str, address: str, who: str, why: str) -> None:
    with papers.connect(known.port, getattr(papers, who), source=address) as peer:
        peer.send(associate_rq([(1, CR_IMAGE, [EXPLICIT])], calling=title))
        answer = peer.read()
        assert answer is not None
        assert answer.kind == (3 if why else 2)
        if why:
            # Rejected for good, by the user: calling AE title not recognised. Source: PS3.8 table 9-21.
            assert tuple(answer.body[1:4]) == (1, 1, 3)
            assert why in known.log()
    _at_rest(known)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory, papers: Papers) -> Iterator[Node]:
    listen = {"known_only": True, "peers": PEERS, "tls": papers.server(), "processes": 1}
    with node(tmp_path_factory.mktemp("known"), role="listen", listen=listen) as found:
        yield _ready(found)


def test_titles_that_are_allowed_stay_a_list_of_their_own(tmp_path: Path) -> None:
    path = radiograph(tmp_path / "in", f"{STUDY}.9", study=STUDY, size=64)
    with node(tmp_path, role="listen", listen={"allowed_calling": ["ROOM"]}) as found:
        assert storescu([path], "EVENRAY", LOOPBACK, found.port, "-aet", "ROOM").returncode == 0
        assert storescu([path], "EVENRAY", LOOPBACK, found.port, "-aet", "OTHER").returncode != 0
        assert "its title is not in listen.allowed_calling" in found.log()


def test_an_address_is_known_by_a_listener_for_both_protocols(tmp_path: Path) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    room = {"ae_title": "ROOM", "addresses": ["127.0.0.1"]}
    with node(tmp_path, role="listen", listen={"host": "::", "known_only": True, "peers": {"room": room}}) as found:
        for address, kind in (("127.0.0.1", 2), ("127.0.0.2", 3)):
            opened = socket.create_connection((LOOPBACK, found.port), timeout=20, source_address=(address, 0))
            with RawPeer(opened) as peer:
                peer.send(associate_rq([(1, CR_IMAGE, [EXPLICIT])], calling="ROOM"))
                answer = peer.read()
                assert answer is not None
                assert answer.kind == kind


def test_an_address_connects_no_more_often_in_a_minute_than_it_may(tmp_path: Path) -> None:
    listen = {"max_associations_per_minute": 10, "processes": 2}
    with node(tmp_path, role="listen", listen=listen) as found:
        _ready(found)
        served = 0
        for _ in range(40):
            with socket.create_connection((LOOPBACK, found.port), timeout=20, source_address=("127.0.0.2", 0)) as sock:
                served += _is_accepted(RawPeer(sock))
        assert served == 10, "over both receivers"
        found.accept(radiograph(tmp_path / "in", f"{STUDY}.10", study=STUDY, size=64))
        assert found.log().count("connections from 127.0.0.2 are closed at once") == 1


def _is_accepted(peer: RawPeer) -> bool:
    try:
        peer.send(associate_rq([(1, CR_IMAGE, [EXPLICIT])]))
        answer = peer.read()
    except OSError:
        return False
    return answer is not None and answer.kind == 2


def test_our_sender_reaches_dcmtk_over_tls(papers: Papers, tmp_path: Path) -> None:
    path = radiograph(tmp_path, f"{STUDY}.11", study=STUDY, size=300)
    with storescp(tmp_path / "pacs", *papers.flags(papers.node), "--require-peer-cert") as pacs:
        (sent,) = send_files([path], _to(pacs.port, papers.client()), calling_ae="EVENRAY")
        assert isinstance(sent.answer, Receipt)
        (held,) = pacs.files()
        assert data_set(held) == data_set(path)
        for more, words in {
            "server_name": "give that in tls.server_name",
            "trusted": "its certificate is not trusted",
            "certificate": "does not accept our certificate",
            "nothing": "it may want a certificate of ours",
        }.items():
            (sent,) = send_files([path], _to(pacs.port, _wrong(papers, more)), calling_ae="EVENRAY")
            assert isinstance(sent.answer, PeerUnreachable)
            assert words in str(sent.answer), more
    with storescp(tmp_path / "plain") as pacs:
        (sent,) = send_files([path], _to(pacs.port, papers.client()), calling_ae="EVENRAY")
        assert isinstance(sent.answer, PeerUnreachable)
        assert "tls" in str(sent.answer).lower()


def _to(port: int, tls: dict[str, Any] | None) -> Dimse:
    return Dimse.model_validate(
        {"kind": "dimse", "ae_title": "STORESCP", "host": LOOPBACK, "port": port, "connect_timeout_s": 5, "tls": tls}
    )


def _wrong(papers: Papers, what: str) -> dict[str, Any]:
    """A section `tls` with one fault."""
    if what == "server_name":
        return papers.client(server_name="another.example.org")
    if what == "trusted":
        return papers.client(trusted=str(papers.stranger.certificate))
    if what == "certificate":
        return papers.client(papers.stranger)
    return {"trusted": str(papers.authority.file)}


def test_a_peer_that_never_shakes_hands_is_given_up_in_time(papers: Papers, tmp_path: Path) -> None:
    path = radiograph(tmp_path, f"{STUDY}.12", study=STUDY, size=64)
    with socket.create_server((LOOPBACK, 0)) as silent:
        where = _to(silent.getsockname()[1], papers.client()).model_copy(update={"connect_timeout_s": 1})
        begun = time.monotonic()
        (sent,) = send_files([path], where, calling_ae="EVENRAY")
    assert time.monotonic() - begun < 10
    assert isinstance(sent.answer, PeerUnreachable)
    assert "no TLS handshake in time" in str(sent.answer)


def test_the_command_sends_over_tls_and_says_what_is_wrong(papers: Papers, tmp_path: Path) -> None:
    path = radiograph(tmp_path, f"{STUDY}.13", study=STUDY, size=64)
    ours = ["--tls-certificate", papers.modality.certificate, "--tls-key", papers.modality.key]
    options = ["--tls-trusted", papers.authority.file, *ours]
    with storescp(tmp_path / "pacs", *papers.flags(papers.node), "--require-peer-cert") as pacs:
        done = _send(path, pacs.port, *options)
        assert done.returncode == 0, done.stderr
        assert "sent 1, failed 0" in done.stdout
        # Its certificate is for one address of this machine, not for every one.
        assert "its certificate is for another name" in _send(path, pacs.port, *options, host="127.0.0.2").stderr
        done = _send(path, pacs.port, *options, "--no-tls-hostname-check", host="127.0.0.2")
        assert done.returncode == 0, done.stderr
    assert "belong together" in _send(path, pacs.port, *ours[:2]).stderr
    assert "can't be read" in _send(path, pacs.port, "--tls-trusted", tmp_path / "none").stderr


def _send(path: Path, port: int, *options: object, host: str = LOOPBACK) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dicom_node", "send", str(path), f"EVENRAY@{host}:{port}", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)


def test_a_node_says_at_its_start_what_is_wrong_with_its_certificate(papers: Papers, tmp_path: Path) -> None:
    old = papers.expired
    with node(
        tmp_path / "old",
        role="listen",
        listen={"tls": papers.server(certificate=str(old.certificate), key=str(old.key))},
    ) as found:
        assert "listen.tls: " in found.log()
        assert "(certificate has expired): renew it" in found.log()
        doctor = found.cli("doctor")
        assert doctor.returncode != 0
        assert "certificate has expired" in " ".join(doctor.stdout.split())
    tls = papers.server(key=str(papers.modality.key))
    with node(tmp_path / "pair", role="listen", start=False, listen={"tls": tls}) as found:
        found.start(ready=False)
        assert found.process is not None
        assert found.process.wait(60) == 2
        assert "this is not the key of" in found.log()


def test_a_request_to_stop_lets_associations_over_tls_end(papers: Papers, tmp_path: Path) -> None:
    listen = {"tls": papers.server(), "drain_s": 1, "acse_timeout_s": 300}
    with node(tmp_path, role="listen", listen=listen) as found, ExitStack() as stack:
        _ready(found)
        for begun in (b"", b"\x16\3\1\2\0"):
            silent = stack.enter_context(socket.create_connection((LOOPBACK, found.port)))
            silent.sendall(begun)
        with papers.associated(found.port) as peer:
            peer.send(raw_peer.store(bytes(5000), instance=f"{STUDY}.14")[:-1000])
            assert found.terminate(60) == 0, "nor does it wait for who has not finished the handshake"
            answer = peer.read()
            assert answer is not None
            assert answer.kind == 7, "it is told by an A-ABORT, under TLS"
            assert peer.read() is None


def test_the_whole_loop_with_orthanc_is_under_tls_with_commitment_both_ways(papers: Papers, tmp_path: Path) -> None:
    files = [radiograph(tmp_path / "in", f"{STUDY}.15.{n}", study=f"{STUDY}.15") for n in (1, 2)]
    port, theirs = free_port(), papers.authority.issue("pacs")
    modality = {"AET": "EVENRAY", "Host": LOOPBACK, "Port": port, "AllowStorageCommitment": True, "UseDicomTls": True}
    secure = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(theirs.certificate),
        "DicomTlsPrivateKey": str(theirs.key),
        "DicomTlsTrustedCertificates": str(papers.authority.file),
        "DicomModalities": {"evenray": modality},
    }
    with orthanc(tmp_path, more=secure) as pacs:
        tls = papers.client(papers.node)
        known = {"ae_title": "ORTHANC", "certificate_name": "pacs", "host": LOOPBACK, "port": pacs.port, "tls": tls}
        room = {"ae_title": "STORESCU", "certificate_name": "modality"}
        listen = {"tls": papers.server(), "known_only": True, "peers": {"pacs": known, "room": room}}
        where = {"kind": "dimse", "ae_title": "ORTHANC", "host": LOOPBACK, "port": pacs.port, "commitment": True}
        with node(tmp_path / "node", {"pacs": {**where, "tls": tls}}, port=port, listen=listen) as found:
            assert storescu(files, "EVENRAY", LOOPBACK, port, *papers.flags()).returncode == 0
            found.wait_settled()
            assert set(pacs.uids()) == {uid_of(path) for path in files} | set(found.results())
            receipts = found.rows("SELECT state FROM delivery")
            assert {row["state"] for row in receipts} == {"delivered"}, "each with its commitment"
            asked = pacs.post("/modalities/evenray/storage-commitment", {"DicomInstances": _references(files)})
            found.wait(lambda: pacs.json(asked["Path"])["Status"] != "Pending", 60, "Orthanc is told")
            assert pacs.json(asked["Path"])["Status"] == "Success"


def _references(files: list[Path]) -> list[list[str]]:
    return [[str(ComputedRadiographyImageStorage), uid_of(path)] for path in files]
