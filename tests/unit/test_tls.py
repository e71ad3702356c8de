"""TLS contexts, their renewal, and the sentences about certificates and faults; no node, no DICOM."""

from __future__ import annotations

import logging
import os
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from dicom_node import tls
from dicom_node.callers import names_in
from dicom_node.commands.check_config import check_config
from dicom_node.errors import SettingsInvalid
from dicom_node.metrics import Metrics
from dicom_node.settings import Settings
from dicom_node.settings_file import load
from dicom_node.settings_peers import TlsClient, TlsServer
from tests.certificates import Authority, Issued
from tests.peers import LOOPBACK, require


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def ours(authority: Authority) -> Issued:
    return authority.issue("node")


def _server(authority: Authority, issued: Issued, **more: object) -> TlsServer:
    given = {"certificate": issued.certificate, "key": issued.key, "trusted": authority.file, **more}
    return TlsServer.model_validate(given)


def _client(authority: Authority, issued: Issued | None, **more: object) -> TlsClient:
    shown = {"certificate": issued.certificate, "key": issued.key} if issued else {}
    return TlsClient.model_validate({"trusted": authority.file, **shown, **more})


@contextmanager
def _pair(server: TlsServer) -> Iterator[tuple[socket.socket, Callable[[], tls.TlsSocket | OSError | None]]]:
    """A connection: the client's end, and what the server says of its own end once it has shaken hands."""
    context = tls.server_context(server)
    found: list[tls.TlsSocket | OSError | None] = []
    with socket.create_server((LOOPBACK, 0)) as listening:
        client = socket.create_connection(listening.getsockname(), timeout=10)
        end, _ = listening.accept()

    def shake() -> None:
        try:
            found.append(tls.accept(end, context, 2, lambda _begun: None))
        except OSError as fault:
            found.append(fault)

    thread = threading.Thread(target=shake)
    thread.start()

    def other() -> tls.TlsSocket | OSError | None:
        thread.join(10)
        return found[0]

    try:
        yield client, other
    finally:
        client.close()
        thread.join(10)
        end.close()
        if isinstance(found[0], tls.TlsSocket):
            found[0].close()


@contextmanager
def _both(server: TlsServer, client: TlsClient) -> Iterator[tuple[tls.TlsSocket, tls.TlsSocket]]:
    """The two ends of a connection after the handshake: the client's and the server's."""
    with _pair(server) as (plain, other), _connected(plain, client) as secured:
        end = other()
        assert isinstance(end, tls.TlsSocket)
        yield secured, end


def _connected(client: socket.socket, section: TlsClient) -> tls.TlsSocket:
    secured = tls.client_socket(client, section, LOOPBACK)
    secured.settimeout(5)
    try:
        secured.do_handshake()
    except OSError:
        secured.close()
        raise
    return secured


def test_both_sides_speak_the_newest_version_and_know_each_other(authority: Authority, ours: Issued) -> None:
    with _both(_server(authority, ours), _client(authority, authority.issue("peer"))) as (secured, end):
        assert secured.version() == end.version() == "TLSv1.3"
        assert "peer" in names_in(end.getpeercert())
        assert "localhost" in names_in(secured.getpeercert())


def test_only_suites_of_the_profile_are_offered_and_nothing_is_compressed_or_renegotiated(
    authority: Authority, ours: Issued
) -> None:
    for context in (tls.server_context(_server(authority, ours)), tls.client_context(_client(authority, ours))):
        for suite in context.get_ciphers():
            assert suite["aead"]
            assert suite["protocol"] == "TLSv1.3" or suite["kea"] == "kx-ecdhe"
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.options & ssl.OP_NO_COMPRESSION
    assert tls.server_context(_server(authority, ours)).num_tickets == 0, "nobody comes back without a certificate"
    strict = tls.server_context(_server(authority, ours, minimum="1.3"))
    assert strict.minimum_version == ssl.TLSVersion.TLSv1_3


def test_the_end_is_said_to_the_peer_when_a_connection_is_shut_down(authority: Authority, ours: Issued) -> None:
    with _both(_server(authority, ours), _client(authority, ours)) as (secured, end):
        end.sendall(b"last words")
        end.shutdown(socket.SHUT_WR)
        assert not secured.context.options & ssl.OP_IGNORE_UNEXPECTED_EOF
        secured.suppress_ragged_eofs = False
        assert secured.recv(100) == b"last words"
        assert secured.recv(100) == b"", "an end without a word would be a fault here"


def test_a_shutdown_by_another_thread_ends_a_read_and_no_byte_goes_out_in_clear(
    authority: Authority, ours: Issued
) -> None:
    with _both(_server(authority, ours), _client(authority, ours)) as (secured, end):
        end.settimeout(30)
        begun = time.monotonic()
        threading.Timer(0.2, lambda: end.shutdown(socket.SHUT_RD)).start()
        assert end.recv(100) == b""
        assert time.monotonic() - begun < 10
        end.sendall(b"an abort")
        assert secured.recv(100) == b"an abort"


def test_a_second_thread_waits_for_its_turn_no_longer_than_its_time_limit(authority: Authority, ours: Issued) -> None:
    with _both(_server(authority, ours), _client(authority, ours)) as (secured, end):
        end.settimeout(20)
        reader = threading.Thread(target=end.recv, args=(1,))
        reader.start()
        while not end._busy.locked():
            time.sleep(0.001)
        end.settimeout(0.2)
        with pytest.raises(TimeoutError):
            end.sendall(b"x")
        secured.sendall(b"y")
        reader.join(20)
        assert not reader.is_alive()


REFUSED = {
    "no certificate": "it shows no certificate",
    "untrusted": "its certificate is not accepted",
    "expired": "its certificate is not accepted (certificate has expired): renew it there",
    "early": "its certificate is not accepted (certificate is not yet valid): check the clocks",
    "plain": "it speaks without TLS",
    "silent": "it did not finish the TLS handshake in time",
    "old": "it offers no TLS version from listen.tls.minimum up",
    "other suites": "it offers no cipher suite of the BCP 195 profile",
    "distrusts us": "it does not accept our certificate",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_why_somebody_was_not_let_in_is_said_in_words(
    authority: Authority, ours: Issued, tmp_path: Path, kind: str
) -> None:
    other_authority = Authority(tmp_path, "other")
    shown = {
        "no certificate": None,
        "untrusted": other_authority.issue("x"),
        "expired": authority.issue("expired", days=-1),
        "early": authority.issue("early", since_days=-1),
    }.get(kind, ours)
    trusts = other_authority if kind == "distrusts us" else authority
    context = tls.client_context(_client(trusts, shown))
    if kind == "old":
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
    if kind == "other suites":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE+AES+SHA256")
    with _pair(_server(authority, ours)) as (client, other):
        if kind == "plain":
            client.sendall(b"\1\0\0\0\0\0")
        elif kind == "silent":
            client.sendall(b"\x16\3\1")
        else:
            try:
                with context.wrap_socket(client, server_hostname=LOOPBACK) as secured:
                    secured.recv(1)
            except OSError:
                pass
        fault = other()
    assert isinstance(fault, OSError)
    assert REFUSED[kind] in tls.why_refused(fault)


def test_who_connects_and_leaves_without_a_word_is_no_fault(authority: Authority, ours: Issued) -> None:
    with _pair(_server(authority, ours)) as (client, other):
        client.close()
        assert other() is None


UNREACHED = {
    "untrusted": "its certificate is not trusted",
    "expired": "its certificate has expired: renew it there",
    "early": "its certificate is not yet valid: check the clocks",
    "wrong name": "give that in tls.server_name, or set tls.check_hostname: false",
    "wants ours": "it may want a certificate of ours (tls.certificate and tls.key)",
    "refuses ours": "it does not accept our certificate",
}


@pytest.mark.parametrize("kind", UNREACHED)
def test_why_a_peer_is_not_reached_names_the_setting_that_helps(
    authority: Authority, ours: Issued, tmp_path: Path, kind: str
) -> None:
    other_authority = Authority(tmp_path, "other")
    theirs = {
        "expired": authority.issue("expired", days=-1),
        "early": authority.issue("early", since_days=-1),
        "wrong name": authority.issue("elsewhere", hosts=("elsewhere.example.org",)),
    }.get(kind, ours)
    shown = {"wants ours": None, "refuses ours": other_authority.issue("y")}.get(kind, ours)
    section = _client(other_authority if kind == "untrusted" else authority, shown)
    with (
        _pair(_server(authority, theirs)) as (client, _),
        pytest.raises(ssl.SSLError) as raised,
        _connected(client, section) as secured,
    ):
        secured.recv(1)
    assert UNREACHED[kind] in tls.why(raised.value)


def test_a_name_of_another_host_is_taken_where_it_is_expected_or_not_looked_at(
    authority: Authority, ours: Issued
) -> None:
    theirs = authority.issue("elsewhere", hosts=("elsewhere.example.org",))
    for more in ({"server_name": "elsewhere.example.org"}, {"check_hostname": False}):
        with _both(_server(authority, theirs), _client(authority, ours, **more)) as (secured, _):
            assert secured.version() == "TLSv1.3"


def test_a_peer_s_own_certificate_may_be_trusted_instead_of_its_authority(authority: Authority, ours: Issued) -> None:
    section = TlsClient(trusted=ours.certificate, certificate=ours.certificate, key=ours.key)
    with _pair(_server(authority, ours, trusted=ours.certificate)) as (client, other), _connected(client, section):
        assert isinstance(other(), tls.TlsSocket)


@pytest.mark.parametrize("who", ["node", "sibling"])
def test_our_own_certificate_lets_ourselves_in_and_nobody_else_of_its_authority(
    authority: Authority, ours: Issued, tmp_path: Path, who: str
) -> None:
    chained = tmp_path / "chained.crt"
    chained.write_bytes(ours.certificate.read_bytes() + authority.file.read_bytes())
    server = _server(Authority(tmp_path, "clients"), Issued(chained, ours.key))
    client = server.to_itself()
    if who == "sibling":
        issued = authority.issue("sibling")
        client = client.model_copy(update={"certificate": issued.certificate, "key": issued.key})
    with _pair(server) as (plain, other), _connected(plain, client) as secured:
        with suppress(OSError):
            secured.send(b"x")
        found = other()
    assert isinstance(found, tls.TlsSocket) is (who == "node")


def test_a_peer_that_speaks_without_tls_is_named_so(authority: Authority, ours: Issued) -> None:
    with socket.create_server((LOOPBACK, 0)) as listening:
        client = socket.create_connection(listening.getsockname(), timeout=10)
        end, _ = listening.accept()
        end.sendall(b"\7\0\0\0\0\4\0\0\0\0")
        with pytest.raises(ssl.SSLError) as raised:
            _connected(client, _client(authority, ours))
        end.close()
    assert "it answers without TLS" in tls.why(raised.value)


def test_what_can_not_be_used_is_named_with_its_file_and_a_remedy(
    authority: Authority, ours: Issued, tmp_path: Path
) -> None:
    require("openssl")
    locked, weak = tmp_path / "locked.key", Issued(tmp_path / "weak.crt", tmp_path / "weak.key")
    _openssl("ec", "-aes128", "-passout", "pass:x", "-in", ours.key, "-out", locked)
    new = ["-x509", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=weak"]
    _openssl("req", *new, "-keyout", weak.key, "-out", weak.certificate)
    other = Authority(tmp_path, "other").issue("x")
    faults = {
        "node.key: this is": {"certificate": other.certificate},
        "locked.key: this key has a password": {"key": locked},
        "none.crt: can't be read (no such file or directory): check certificate": {
            "certificate": tmp_path / "none.crt"
        },
        "none.key: can't be read (no such file or directory): check key": {"key": tmp_path / "none.key"},
        "none.pem: can't be read (no such file or directory): check trusted": {"trusted": tmp_path / "none.pem"},
        "node.key: holds no certificate in PEM form": {"certificate": ours.key},
        "authority.pem: holds no private key": {"key": authority.file},
        "node.key: holds no certificate": {"trusted": ours.key},
        "weak.crt: too weak": {"certificate": weak.certificate, "key": weak.key},
    }
    for sentence, more in faults.items():
        with pytest.raises(SettingsInvalid) as raised:
            tls.server_context(_server(authority, ours, **more))
        assert sentence in str(raised.value)


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("side", [TlsServer, TlsClient])
def test_a_certificate_s_last_days_and_a_key_for_everybody_are_spoken_of(
    authority: Authority, ours: Issued, side: type[TlsServer | TlsClient]
) -> None:
    def said(issued: Issued) -> str:
        section = side(certificate=issued.certificate, key=issued.key, trusted=authority.file)
        return "\n".join(tls.remarks_on(section, now=time.time()))

    assert said(ours) == ""
    assert said(authority.issue("month", days=31)) == ""
    assert "soon.crt: expires in 3 day(s): renew it" in said(authority.issue("soon", days=3.1))
    assert "(certificate has expired): renew it" in said(authority.issue("expired", days=-1))
    assert "(certificate is not yet valid)" in said(authority.issue("early", since_days=-1))
    shared = authority.issue("shared")
    shared.key.chmod(0o644)
    assert "everybody on this machine may read this key" in said(shared)
    assert tls.remarks_on(TlsClient(trusted=authority.file), now=time.time()) == []


def test_every_use_of_tls_in_the_settings_is_looked_at() -> None:
    own = {"certificate": "c", "key": "k"}
    settings = Settings.model_validate(
        {
            "listen": {"tls": {**own, "clients": "any"}, "peers": {"room": {"ae_title": "R", "tls": own}}},
            "destinations": {
                "pacs": {"kind": "dimse", "ae_title": "P", "host": "h", "port": 1, "tls": own},
                "plain": {"kind": "dimse", "ae_title": "P", "host": "h", "port": 1},
                "files": {"kind": "folder", "path": "x"},
                "web": {"kind": "dicomweb", "url": "https://h/", "tls": own},
            },
            "sources": {"old": {"kind": "dimse", "ae_title": "O", "host": "h", "port": 1, "tls": own}},
            "audit": {"transport": "tls", "tls": own},
        }
    )
    named = {"listen.tls", "listen.peers.room.tls", "destinations.pacs.tls", "destinations.web.tls", "sources.old.tls"}
    assert set(settings.tls_sections()) == named | {"audit.tls"}


def test_monitoring_is_told_how_long_our_certificates_last(authority: Authority, ours: Issued, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    old = authority.issue("old", days=-1)
    pacs = {"kind": "dimse", "ae_title": "P", "host": "h", "port": 1}
    shown = {"certificate": str(old.certificate), "key": str(old.key)}
    settings = Settings.model_validate(
        {
            "state_dir": str(tmp_path / "state"),
            "listen": {"tls": _server(authority, ours).model_dump()},
            "destinations": {"pacs": {**pacs, "tls": shown}, "none": {**pacs, "tls": {"trusted": str(authority.file)}}},
        }
    )
    text = Metrics(settings, list).text().decode()
    assert re.search(r'^evenray_certificate_days\{section="listen.tls"\} 36[45]\.', text, re.MULTILINE)
    assert 'evenray_certificate_days{section="destinations.pacs.tls"} 0.0' in text
    assert "destinations.none" not in text


def test_new_files_are_taken_and_broken_ones_leave_the_old_in_force_and_are_told_once(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    mine = Authority(tmp_path, "mine").issue("node")
    renewing = tls.Renewing(_server(authority, mine))
    first = renewing.context
    renewing.look()
    assert renewing.context is first
    mine.replace_by(authority.issue("renewed"))
    renewing.look()
    second = renewing.context
    assert second is not first
    assert "the TLS files have changed" in caplog.text
    caplog.clear()
    # A pair is replaced one file after the other: for a moment they don't belong together.
    good = mine.key.read_bytes()
    mine.key.write_bytes(authority.issue("next").key.read_bytes())
    renewing.look()
    assert (renewing.context, caplog.text) == (second, "")
    mine.certificate.write_bytes((authority.file.parent / "next.crt").read_bytes())
    renewing.look()
    third = renewing.context
    assert third is not second
    caplog.clear()
    for broken in (b"", good):
        mine.key.write_bytes(broken)
        os.utime(mine.key, (time.time() + len(broken),) * 2)
        for _ in range(5):
            renewing.look()
        assert renewing.context is third
    assert caplog.text.count("the old certificate stays in force") == 2, "once for each"
    caplog.clear()
    mine.key.unlink()
    for _ in range(5):
        renewing.look()
    assert caplog.text.count("can't be read") == 1


def test_the_hospital_s_example_has_no_faults_and_its_files_lie_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    example = Path(__file__).parents[2] / "configs" / "hospital.yaml"
    assert check_config(example) == 0
    assert "no faults" in capsys.readouterr().out
    listen = load(example).listen
    assert listen.tls
    assert listen.tls.key == example.parent / "tls" / "evenray.key"
    assert listen.known_only
    for path, section in load(example).tls_sections().items():
        assert section.certificate == listen.tls.certificate, path
