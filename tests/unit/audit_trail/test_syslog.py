"""Messages over real sockets: framing, certificates, a repository that goes and comes back, and nothing left behind."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from dicom_node.audit_trail.sender import Sender
from dicom_node.audit_trail.spool import AT_ONCE, MessageSpool, segments, split, trouble
from dicom_node.audit_trail.syslog import Tls, Udp, form, framed, open_repository
from dicom_node.errors import PeerUnreachable
from dicom_node.settings_peers import Audit
from tests.audit import Received, SyslogServer, repository
from tests.certificates import Authority
from tests.peers import LOOPBACK, wait_until

MIB = 1 << 20


def _messages(count: int, start: int = 0) -> list[bytes]:
    numbers = range(start, start + count)
    return [form(b"<n>%d</n>" % n, at=1_700_000_000 + n, host="h", pid=1, warning=False) for n in numbers]


def _numbers(found: Sequence[Received]) -> list[int]:
    return [int(one.xml[3:-4]) for one in found]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SyslogServer]:
    with repository(tmp_path / "repository") as made:
        yield made


@pytest.fixture
def spool(tmp_path: Path) -> MessageSpool:
    return MessageSpool(tmp_path / "spool", limit_bytes=MIB)


def _settings(server: SyslogServer) -> Audit:
    return Audit.model_validate(server.settings())


def _sender(spool: MessageSpool, audit: Audit, *, confirm_s: float = 0.2) -> Sender:
    return Sender(spool, open_repository(audit), per_s=1e6, confirm_s=confirm_s, chance=lambda: 1.0)


def _send_all(sender: Sender, spool: MessageSpool, timeout_s: float = 20.0) -> None:
    def sent() -> bool:
        sender.turn(now=time.time())
        return not spool.messages

    wait_until(sent, timeout_s, "everything is delivered")


def test_messages_arrive_in_their_order_each_with_its_length(server: SyslogServer, spool: MessageSpool) -> None:
    spool.add(_messages(150), now=0)
    with closing(_sender(spool, _settings(server))) as sender:
        _send_all(sender, spool)
    assert _numbers(server.messages) == list(range(150))
    assert not server.broken
    assert server.connections == 1


def test_a_repository_of_another_authority_gets_nothing(server: SyslogServer, tmp_path: Path) -> None:
    audit = _settings(server)
    other = audit.tls.model_copy(update={"trusted": Authority(tmp_path, "other").file})
    with closing(Tls(audit.model_copy(update={"tls": other}))) as link, pytest.raises(PeerUnreachable, match="trusted"):
        link.send(_messages(1))
    assert not server.messages


def test_a_repository_refuses_who_shows_no_certificate(server: SyslogServer) -> None:
    audit = _settings(server)
    bare = audit.tls.model_copy(update={"certificate": None, "key": None})
    with closing(Tls(audit.model_copy(update={"tls": bare}))) as link:
        # Under TLS 1.3 it is found out only by the first answer.
        def refused() -> bool:
            try:
                link.send(_messages(1))
            except PeerUnreachable:
                return True
            return False

        wait_until(refused, 10, "it is refused")
    assert not server.messages


def test_what_a_killed_repository_had_not_read_is_sent_again(server: SyslogServer, spool: MessageSpool) -> None:
    with closing(_sender(spool, _settings(server), confirm_s=2.0)) as sender:
        spool.add(_messages(3), now=0)
        assert sender.turn(now=0)
        wait_until(lambda: len(server.messages) == 3, 5, "it has the first three")
        # Its system takes what comes, and the program never reads it.
        server.take = lambda: False
        spool.add(_messages(3, 3), now=0)
        assert sender.turn(now=0)
        assert not sender.turn(now=0), "nothing is left to send, and nothing is believed yet"
        server.stop()
        server.take = lambda: True
        server.start()
        _send_all(sender, spool)
    found = _numbers(server.messages)
    assert set(found) == set(range(6))
    assert found[-3:] == [3, 4, 5]


def test_a_connection_that_ended_while_idle_is_opened_anew_without_a_fuss(
    server: SyslogServer, spool: MessageSpool, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(_sender(spool, _settings(server), confirm_s=0.05)) as sender:
        spool.add(_messages(1), now=0)
        _send_all(sender, spool)
        server.stop()
        server.start()
        spool.add(_messages(1, 1), now=0)
        _send_all(sender, spool)
    assert _numbers(server.messages) == [0, 1]
    assert not caplog.records


def test_an_absent_repository_is_tried_after_growing_pauses_and_nothing_is_lost(
    server: SyslogServer, spool: MessageSpool, caplog: pytest.LogCaptureFixture
) -> None:
    server.stop()
    now = [100.0]
    sender = Sender(spool, Tls(_settings(server)), per_s=1e6, clock=lambda: now[0], chance=lambda: 0.0)
    spool.add(_messages(5), now=0)
    waits = []
    for _ in range(8):
        assert not sender.turn(now=1000.0)
        waits.append(sender.pause_s(1e9))
        now[0] += waits[-1]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert trouble(spool._folder).down_since == 1000.0
    assert "refused" in trouble(spool._folder).reason
    assert caplog.text.count("messages are kept") == 1
    server.start()
    now[0] += 60
    assert sender.turn(now=2000.0)
    wait_until(lambda: len(server.messages) == 5, 5, "they have come")
    assert trouble(spool._folder).down_since == 0
    sender.close()


def test_a_repository_that_comes_back_is_not_overrun(server: SyslogServer, spool: MessageSpool) -> None:
    spool.add(_messages(3 * AT_ONCE), now=0)
    now = [0.0]
    sender = Sender(spool, Tls(_settings(server)), per_s=10, clock=lambda: now[0])
    assert sender.turn(now=0)
    assert not sender.turn(now=0)
    assert sender.pause_s(1e9) == AT_ONCE / 10
    now[0] += AT_ONCE / 10
    assert sender.turn(now=0)
    sender.close()
    assert _numbers(server.messages) == list(range(2 * AT_ONCE))


def test_a_clean_end_is_confirmed_and_nothing_is_repeated(server: SyslogServer, spool: MessageSpool) -> None:
    spool.add(_messages(3), now=0)
    sender = _sender(spool, _settings(server), confirm_s=3600)
    assert sender.turn(now=0)
    assert spool.messages == 3
    sender.close()
    assert spool.messages == 0


def test_udp_carries_one_message_in_a_datagram(spool: MessageSpool) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as there:
        there.bind((LOOPBACK, 0))
        there.settimeout(5)
        audit = Audit(transport="udp", host=LOOPBACK, port=there.getsockname()[1])
        spool.add(_messages(3), now=0)
        with closing(_sender(spool, audit)) as sender:
            _send_all(sender, spool)
        assert _numbers([Received(there.recv(65536)) for _ in range(3)]) == [0, 1, 2]


def test_udp_notices_that_nobody_listens() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as there:
        there.bind((LOOPBACK, 0))
        port = there.getsockname()[1]
    with closing(Udp(Audit(transport="udp", port=port))) as link, pytest.raises(PeerUnreachable, match=str(port)):
        link.send(_messages(1))


def test_messages_survive_a_restart_and_are_for_the_node_alone(tmp_path: Path) -> None:
    MessageSpool(tmp_path / "s", limit_bytes=MIB).add(_messages(70), now=0)
    again = MessageSpool(tmp_path / "s", limit_bytes=MIB)
    assert again.messages == 70
    again.add(_messages(1, 70), now=0)
    found = segments(tmp_path / "s")
    assert [split(one.path.read_bytes()) for one in found] == [_messages(64), _messages(6, 64), _messages(1, 70)]
    assert {one.path.stat().st_mode & 0o777 for one in found} == {0o600}
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700


def test_beyond_the_limit_the_oldest_leave_and_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = len(framed(_messages(1)[0]))
    spool = MessageSpool(tmp_path, limit_bytes=5 * one + 10)
    for n in range(9):
        spool.add(_messages(1, n), now=1000.0 + n)
    kept = [split(found.path.read_bytes())[0] for found in segments(tmp_path)]
    assert kept == _messages(5, 4)
    assert trouble(tmp_path).lost == 4
    assert trouble(tmp_path).lost_at == 1008.0
    assert "audit.spool_mib" in caplog.text
    assert "<n>" not in caplog.text


def test_a_damaged_segment_holds_up_nothing(tmp_path: Path, server: SyslogServer) -> None:
    spool = MessageSpool(tmp_path / "s", limit_bytes=MIB)
    for n in range(3):
        spool.add(_messages(1, n), now=0)
    segments(tmp_path / "s")[1].path.write_bytes(b"99 <85>")
    with closing(_sender(spool, _settings(server))) as sender:
        _send_all(sender, spool)
    assert _numbers(server.messages) == [0, 2]
