"""STOW-RS over real sockets: what each answer of a server means for each object, and what travels to it."""

from __future__ import annotations

import email.utils
import hashlib
import json
import logging
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from dicom_node.destinations import Answer, Parcel
from dicom_node.destinations.dicomweb import DicomWebDestination, verify
from dicom_node.errors import Blame, EvenrayError, PeerBusy, PeerRefused, PeerUnreachable, SpoolDamaged
from dicom_node.records import Receipt
from dicom_node.settings import DicomWeb
from tests.peers import free_port
from tests.scripted_web import Asked, Say, ScriptedWeb, all_stored, as_xml, model, module
from tests.unit.destinations.objects import STUDY, data_set, parcel, parcels, pixels_of

SECRET = "Nobody^Patient"
MIB = 1 << 20


@contextmanager
def _web(script: Callable[[Asked], Say] = all_stored, **options: object) -> Iterator[ScriptedWeb]:
    server = ScriptedWeb(script, **options)  # type: ignore[arg-type]
    try:
        yield server
    finally:
        server.stop()


def _port(url: str, **settings: object) -> DicomWebDestination:
    return DicomWebDestination("pacs", DicomWeb.model_validate({"kind": "dicomweb", "url": url, **settings}))


def _send(url: str, *sent: Parcel, **settings: object) -> list[Answer]:
    """Every answer, in the order of the parcels; each must have exactly one."""
    pairs = list(_port(url, **settings).send(sent, beat=lambda: None))
    assert sorted(map(id, (one for one, _ in pairs))) == sorted(map(id, sent))
    return [next(answer for one, answer in pairs if one is each) for each in sent]


def _uids(sent: list[Parcel]) -> list[str]:
    return [one.sop_instance_uid for one in sent]


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEG2000Lossless]
)
def test_an_object_travels_byte_for_byte_in_its_transfer_syntax(tmp_path: Path, syntax: str) -> None:
    sent = parcel(tmp_path, "1.2.3", syntax)
    with _web() as server:
        (answer,) = _send(server.url, sent)
    assert answer == Receipt(accepted=True, status=0, detail="stored")
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/dicom-web/studies")
    assert asked.headers["Content-Type"].startswith('multipart/related; type="application/dicom"; boundary=')
    assert asked.headers["Accept"] == "application/dicom+json"
    ((head, content),) = asked.parts
    assert head == {"Content-Type": "application/dicom"}
    assert content == sent.path.read_bytes()


def test_objects_go_together_up_to_the_limit_and_a_larger_one_alone(tmp_path: Path) -> None:
    # Of 1024 x 1024 words, 2 MiB each.
    sent = parcels(tmp_path, 5, size=1024)
    with _web() as server:
        answers = _send(server.url, *sent, at_once_mib=5)
        alone = _send(server.url, *sent[:2], at_once_mib=1)
    assert all(isinstance(answer, Receipt) for answer in [*answers, *alone])
    assert [len(asked.parts) for asked in server.asked] == [2, 2, 1, 1, 1]


def test_two_objects_of_one_uid_never_share_a_request(tmp_path: Path) -> None:
    first = parcel(tmp_path, "1.2.3")
    (tmp_path / "other").mkdir()
    second = parcel(tmp_path / "other", "1.2.3", size=16)
    with _web() as server:
        assert all(isinstance(answer, Receipt) for answer in _send(server.url, first, second))
    assert [asked.uids for asked in server.asked] == [["1.2.3"], ["1.2.3"]]


def test_a_large_body_is_streamed_from_the_disk(tmp_path: Path) -> None:
    # 32 MiB each.
    sent = parcels(tmp_path, 2, size=4096)
    with _web(lambda _asked: module(_uids(sent)), keeps_bodies=False) as server:
        port = _port(server.url, at_once_mib=4096)
        tracemalloc.start()
        answers = [answer for _, answer in port.send(sent, beat=lambda: None)]
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert all(isinstance(answer, Receipt) for answer in answers)
    assert len(server.asked) == 1
    assert most < 4 * MIB


def _refusing(uid: str, reason: int) -> Callable[[Asked], Say]:
    def script(asked: Asked) -> Say:
        others = [one for one in asked.uids if one != uid]
        return module(others, [(uid, reason)], status=409 if not others else 202)

    return script


@pytest.mark.parametrize(
    ("reason", "kind", "blame"),
    [
        (0xA700, PeerBusy, Blame.EITHER),
        (0xA7FF, PeerBusy, Blame.EITHER),
        (0x0213, PeerBusy, Blame.EITHER),
        (0x0110, PeerBusy, Blame.OBJECT),
        (0xA900, PeerRefused, Blame.OBJECT),
        (0xC000, PeerRefused, Blame.OBJECT),
        (0xC122, PeerRefused, Blame.OBJECT),
        (0x0122, PeerRefused, Blame.OBJECT),
        (0x0124, PeerRefused, Blame.OBJECT),
        (0x4242, PeerRefused, Blame.OBJECT),
        # A warning, or success, among the failures: neither one nor the other.
        (0x0000, PeerBusy, Blame.OBJECT),
        (0xB000, PeerBusy, Blame.OBJECT),
    ],
)
@pytest.mark.parametrize("status", [200, 202, 400, 409])
def test_one_of_three_that_failed_fails_alone_by_its_reason(
    tmp_path: Path, reason: int, kind: type[EvenrayError], blame: Blame, status: int
) -> None:
    sent = parcels(tmp_path, 3)
    bad = sent[1].sop_instance_uid
    good = [sent[0].sop_instance_uid, sent[2].sop_instance_uid]
    with _web(lambda _asked: module(good, [(bad, reason)], status=status)) as server:
        first, second, third = _send(server.url, *sent)
    assert isinstance(first, Receipt)
    assert isinstance(third, Receipt)
    assert isinstance(second, kind)
    assert second.blame is blame  # type: ignore[union-attr]
    assert len(server.asked) == 1


def test_what_is_stored_is_answered_before_what_is_not(tmp_path: Path) -> None:
    sent = parcels(tmp_path, 3)
    with _web(_refusing(sent[0].sop_instance_uid, 0xA700)) as server:
        pairs = list(_port(server.url).send(sent, beat=lambda: None))
    assert [isinstance(answer, Receipt) for _, answer in pairs] == [True, True, False]


@pytest.mark.parametrize(
    ("warning", "words"),
    [(0xB000, "coerced"), (0xB006, "discarded"), (0xB007, "does not match"), (0xB123, "warning 0xB123")],
)
def test_a_warning_is_a_receipt_that_says_so(tmp_path: Path, warning: int, words: str) -> None:
    sent = parcel(tmp_path, "1.2.3")
    with _web(lambda _asked: module([("1.2.3", warning)], status=202)) as server:
        (answer,) = _send(server.url, sent)
    assert isinstance(answer, Receipt)
    assert answer.status == warning
    assert words in answer.detail


ODD_ANSWERS = {
    "nothing": b"",
    "empty object": b"{}",
    "empty array": b"[]",
    "html": b"<html><body>fine</body></html>",
    "garbage": bytes(range(256)) * 20,
    "other uids": json.dumps(model(["9.9.9"], [("9.9.8", 0xA900)])).encode(),
    "another class": json.dumps(model(["1.2.3"], sop_class="1.2.840.10008.5.1.4.1.1.2")).encode(),
    "no sequence": b'{"00081199": {"vr": "SQ", "Value": "1.2.3"}}',
    "a list of numbers": b"[1, 2, 3]",
    "deep": b'{"00081199":' + b"[" * 100000,
    "deep xml": b"<NativeDicomModel>" + b"<a>" * 100000,
    "an entity": b'<!DOCTYPE a [<!ENTITY x "1.2.3">]>'
    + as_xml(model(["&x;"]), space="")[len('<?xml version="1.0"?>') :],
    "a reason that is none": json.dumps(model([], [("1.2.3", 1)])).replace("1]", '"x"]').encode(),
    "an endless reason": json.dumps(model([], [("1.2.3", 1)])).replace("1]", "1e999]").encode(),
    "huge": b" " * (9 * MIB),
}


@pytest.mark.parametrize("name", ODD_ANSWERS)
@pytest.mark.parametrize("status", [200, 202])
def test_an_answer_that_does_not_name_the_object_is_no_receipt_and_it_is_tried_again_later(
    tmp_path: Path, name: str, status: int
) -> None:
    sent = parcel(tmp_path, "1.2.3")
    with _web(lambda _asked: Say(status, ODD_ANSWERS[name])) as server:
        (answer,) = _send(server.url, sent)
    assert isinstance(answer, PeerBusy)
    assert "without saying whether it has 1.2.3" in str(answer)


def test_named_as_stored_and_as_failed_is_failed(tmp_path: Path) -> None:
    with _web(lambda _asked: module(["1.2.3"], [("1.2.3", 0xA900)])) as server:
        (answer,) = _send(server.url, parcel(tmp_path, "1.2.3"))
    assert isinstance(answer, PeerRefused)


def test_a_failure_without_reason_is_a_processing_failure(tmp_path: Path) -> None:
    body = json.dumps(model([], [("1.2.3", 7)])).encode().replace(b'"00081197": {"vr": "US", "Value": [7]}', b'"0": {}')
    with _web(lambda _asked: Say(409, body)) as server:
        (answer,) = _send(server.url, parcel(tmp_path, "1.2.3"))
    assert isinstance(answer, PeerBusy)
    assert "0x0110" in str(answer)


@pytest.mark.parametrize("space", ["", ' xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM"'])
def test_an_answer_in_xml_is_read_as_well(tmp_path: Path, space: str) -> None:
    sent = parcels(tmp_path, 3)
    uids = _uids(sent)
    body = as_xml(model([uids[0], (uids[1], 0xB000)], [(uids[2], 0xA900)]), space=space)
    with _web(lambda _asked: Say(202, body, {"Content-Type": "application/dicom+xml"})) as server:
        first, second, third = _send(server.url, *sent)
    assert isinstance(first, Receipt)
    assert isinstance(second, Receipt)
    assert second.status == 0xB000
    assert isinstance(third, PeerRefused)


def test_what_the_answer_about_a_group_leaves_open_is_asked_for_alone(tmp_path: Path) -> None:
    sent = parcels(tmp_path, 3)
    silent = sent[2].sop_instance_uid

    def script(asked: Asked) -> Say:
        if asked.uids == [silent]:
            # A part in which it finds no instance is named without a UID.
            return module(others=[0xC000], status=409)
        return module([uid for uid in asked.uids if uid != silent], others=[0xC000], status=202)

    with _web(script) as server:
        first, second, third = _send(server.url, *sent)
    assert isinstance(first, Receipt)
    assert isinstance(second, Receipt)
    assert isinstance(third, PeerRefused)
    assert "0xC000" in str(third)
    assert [len(asked.parts) for asked in server.asked] == [3, 1]


@pytest.mark.parametrize("status", [400, 403, 409, 413, 415, 422, 500, 502, 504, 507])
def test_one_object_that_spoils_a_request_costs_the_others_nothing(tmp_path: Path, status: int) -> None:
    sent = parcels(tmp_path, 3)
    bad = sent[0].sop_instance_uid
    with _web(lambda asked: Say(status) if bad in asked.uids else all_stored(asked)) as server:
        first, second, third = _send(server.url, *sent)
    assert isinstance(first, EvenrayError)
    assert isinstance(second, Receipt)
    assert isinstance(third, Receipt)
    assert [len(asked.parts) for asked in server.asked] == [3, 1, 1, 1]


@pytest.mark.parametrize(
    ("status", "kind", "blame"),
    [
        (301, PeerRefused, Blame.PEER),
        (307, PeerRefused, Blame.PEER),
        (400, PeerRefused, Blame.OBJECT),
        (401, PeerRefused, Blame.PEER),
        (403, PeerBusy, Blame.EITHER),
        (404, PeerRefused, Blame.PEER),
        (405, PeerRefused, Blame.PEER),
        (408, PeerBusy, Blame.EITHER),
        (409, PeerRefused, Blame.OBJECT),
        (411, PeerRefused, Blame.PEER),
        (413, PeerRefused, Blame.OBJECT),
        (415, PeerRefused, Blame.OBJECT),
        (418, PeerRefused, Blame.OBJECT),
        (429, PeerBusy, Blame.PEER),
        (500, PeerBusy, Blame.EITHER),
        (502, PeerBusy, Blame.EITHER),
        (503, PeerBusy, Blame.PEER),
        (507, PeerBusy, Blame.EITHER),
        (777, PeerUnreachable, Blame.PEER),
    ],
)
def test_a_status_without_a_list_means_what_the_table_says(
    tmp_path: Path, status: int, kind: type[EvenrayError], blame: Blame
) -> None:
    sent = parcel(tmp_path, "1.2.3")
    with _web(lambda _asked: Say(status, SECRET.encode(), {"Warning": f'299 - "{SECRET}"'})) as server:
        (answer,) = _send(server.url, sent)
    assert isinstance(answer, kind)
    assert answer.blame is blame
    assert f"answered {status}" in str(answer)
    assert SECRET not in str(answer)


@pytest.mark.parametrize("status", [401, 413])
def test_an_answer_that_comes_before_the_body_is_read_is_heard(tmp_path: Path, status: int) -> None:
    sent = parcel(tmp_path, "1.2.3", size=2048)
    with _web(lambda _asked: Say(status), hasty=True) as server:
        (answer,) = _send(server.url, sent)
    assert isinstance(answer, PeerRefused)
    assert f"answered {status}" in str(answer)


@pytest.mark.parametrize("status", [401, 404, 429, 503])
def test_what_is_about_the_server_answers_all_that_wait_after_one_request(tmp_path: Path, status: int) -> None:
    sent = parcels(tmp_path, 3, size=1024)
    with _web(lambda _asked: Say(status)) as server:
        answers = _send(server.url, *sent, at_once_mib=2)
    assert {getattr(answer, "blame", None) for answer in answers} == {Blame.PEER}
    assert len(server.asked) == 1


def test_no_request_is_made_before_retry_after_is_over(tmp_path: Path) -> None:
    now = [100.0]
    sent = parcel(tmp_path, "1.2.3")
    with _web(lambda _asked: Say(429, headers={"Retry-After": "30"})) as server:
        where = DicomWeb.model_validate({"kind": "dicomweb", "url": server.url})
        port = DicomWebDestination("pacs", where, clock=lambda: now[0])

        def send() -> Answer:
            return next(answer for _, answer in port.send([sent], beat=lambda: None))

        assert "left alone for 30 s" in str(send())
        server.script = all_stored
        now[0] += 29.0
        answer = send()
        assert isinstance(answer, PeerBusy)
        assert answer.blame is Blame.PEER
        assert len(server.asked) == 1
        now[0] += 1.1
        assert isinstance(send(), Receipt)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("0", None, None),
        ("5", 5, 5),
        ("999999999999", 900, 900),
        ("soon", None, None),
        ("-3", None, None),
        ("Fri, 31 Dec 1999 23:59:59 GMT", None, None),
        ("in one minute", 50, 60),
        ("in one day", 900, 900),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_has_a_cap(
    tmp_path: Path, text: str, low: float | None, high: float | None
) -> None:
    ahead = {"in one minute": 60, "in one day": 86400}.get(text)
    header = email.utils.formatdate(time.time() + ahead, usegmt=True) if ahead else text
    with _web(lambda _asked: Say(503, headers={"Retry-After": header})) as server:
        where = DicomWeb.model_validate({"kind": "dicomweb", "url": server.url})
        port = DicomWebDestination("pacs", where, clock=lambda: 0.0)
        list(port.send([parcel(tmp_path, "1.2.3")], beat=lambda: None))
    if low is None or high is None:
        assert port._closed_until <= 0
    else:
        assert low <= port._closed_until <= high


def test_a_redirect_is_not_followed_and_nobody_else_sees_the_credentials(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("geheim\n")
    with _web() as elsewhere:
        away = Say(307, headers={"Location": f"{elsewhere.url}/studies"})
        with _web(lambda _asked: away) as server:
            (answer,) = _send(
                server.url, parcel(tmp_path, "1.2.3"), username="node", password_file=tmp_path / "password"
            )
    assert isinstance(answer, PeerRefused)
    assert "redirects to another address" in str(answer)
    assert elsewhere.asked == []


def test_a_renewed_token_is_used_without_a_restart(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")

    def script(asked: Asked) -> Say:
        return all_stored(asked) if asked.headers["Authorization"] == "Bearer new" else Say(401)

    with _web(script) as server:
        port = _port(server.url, token_file=token)
        sent = [parcel(tmp_path, "1.2.3")]
        ((_, refused),) = port.send(sent, beat=lambda: None)
        token.write_text("new\n")
        ((_, stored),) = port.send(sent, beat=lambda: None)
    assert isinstance(refused, PeerRefused)
    assert refused.blame is Blame.PEER
    assert "token_file" in str(refused)
    assert isinstance(stored, Receipt)


def test_the_password_is_sent_as_utf_8_and_a_netrc_or_a_proxy_of_the_environment_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    (tmp_path / "password").write_bytes("pässwörd: x\r\n".encode())
    sent = parcel(tmp_path, "1.2.3")
    with _web() as server:
        _send(server.url, sent, username="node", password_file=tmp_path / "password")
        _send(server.url, sent)
    assert server.asked[0].headers["Authorization"] == "Basic bm9kZTpww6Rzc3fDtnJkOiB4"
    assert "Authorization" not in server.asked[1].headers


@pytest.mark.parametrize("content", [None, b"", b"two\nlines", b"\xff\xfe", "tökén".encode()])
def test_a_token_that_can_not_be_used_is_a_fault_of_the_destination_that_does_not_show_it(
    tmp_path: Path, content: bytes | None
) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_bytes(content)
    with _web() as server:
        (answer,) = _send(server.url, parcel(tmp_path, "1.2.3"), token_file=token)
    assert isinstance(answer, PeerUnreachable)
    assert answer.blame is Blame.PEER
    assert str(token) in str(answer)
    assert "lines" not in str(answer)
    assert server.asked == []


BREAKS = {
    "half an answer": Say(200, b"{" * 1000, break_off=True),
    "closed at once": Say(raw=b""),
    "no http": Say(raw=b"\x00\x01garbage\r\n\r\n"),
    "endless header": Say(raw=b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100000),
    "a bad chunk": Say(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_connection_that_breaks_leaves_the_object_to_be_sent_again(tmp_path: Path, name: str) -> None:
    sent = parcels(tmp_path, 5)
    with _web(lambda _asked: BREAKS[name]) as server:
        answers = _send(server.url, *sent)
        requests = len(server.asked)
        server.script = all_stored
        again = _send(server.url, *sent)
    assert all(isinstance(answer, PeerUnreachable) for answer in answers), [str(answer) for answer in answers]
    # The group, then one and one more: after that the server is at fault, and the others have not been tried.
    assert requests == 3
    blames = [answer.blame for answer in answers if isinstance(answer, PeerUnreachable)]
    assert blames == [Blame.OBJECT] * 2 + [Blame.PEER] * 3
    assert all(isinstance(answer, Receipt) for answer in again)


def test_an_object_on_which_the_server_dies_costs_the_others_nothing(tmp_path: Path) -> None:
    sent = parcels(tmp_path, 3)
    bad = sent[1].sop_instance_uid
    with _web(lambda asked: Say(raw=b"") if bad in asked.uids else all_stored(asked)) as server:
        first, second, third = _send(server.url, *sent)
    assert isinstance(first, Receipt)
    assert isinstance(second, PeerUnreachable)
    assert second.blame is Blame.OBJECT
    assert isinstance(third, Receipt)


def test_a_server_that_is_not_there_is_about_the_server(tmp_path: Path) -> None:
    answers = _send(f"http://127.0.0.1:{free_port()}/dicom-web", *parcels(tmp_path, 2))
    for answer in answers:
        assert isinstance(answer, PeerUnreachable)
        assert answer.blame is Blame.PEER
        assert "Connection refused" in str(answer)
        assert "check url" in str(answer)


@pytest.mark.parametrize("url", ["http://nowhere.invalid/dicom-web", "https://127.0.0.1:{port}/dicom-web"])
def test_a_wrong_name_and_a_wrong_scheme_are_said_with_a_remedy(tmp_path: Path, url: str) -> None:
    with _web() as server:
        answers = _send(url.format(port=server.port), *parcels(tmp_path, 2))
    for answer in answers:
        assert isinstance(answer, PeerUnreachable)
        assert answer.blame is Blame.PEER
        assert "check" in str(answer) or "correct" in str(answer)
    assert server.connections <= 1


def test_an_answer_that_never_comes_ends_in_time_and_the_lease_is_kept_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.dicomweb.session.BEAT_S", 0.5)
    beats = []
    with _web(lambda _asked: Say(silent=True)) as server:
        begun = time.monotonic()
        sending = _port(server.url, timeout_s=2).send([parcel(tmp_path, "1.2.3")], beat=lambda: beats.append(1))
        ((_, answer),) = sending
        took = time.monotonic() - begun
    assert isinstance(answer, PeerUnreachable)
    assert "no answer in time" in str(answer)
    assert 2 <= took < 30
    assert len(beats) >= 2


def test_a_server_that_takes_the_body_late_has_as_long_as_for_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.dicomweb.session.CONNECT_S", 0.3)
    # More than the buffers on the way hold.
    sent = parcel(tmp_path, "1.2.3", size=3072)
    with _web(slow_s=1.0) as server:
        (answer,) = _send(server.url, sent, timeout_s=20)
    assert isinstance(answer, Receipt)


def test_an_answer_that_comes_byte_by_byte_without_end_ends_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.dicomweb.session.SLACK_S", 0.5)
    monkeypatch.setattr("dicom_node.dicomweb.session.BEAT_S", 0.2)
    before = threading.active_count()
    with _web(lambda _asked: Say(dribble=b"H")) as server:
        (answer,) = _send(server.url, parcel(tmp_path, "1.2.3"), timeout_s=1)
        assert isinstance(answer, PeerUnreachable)
        assert "no answer within" in str(answer)
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_a_request_that_had_to_be_ended_costs_the_next_one_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.dicomweb.session.SLACK_S", 0.5)
    monkeypatch.setattr("dicom_node.dicomweb.session.BEAT_S", 0.2)
    with _web(lambda asked: Say(dribble=b"H") if len(asked.uids) > 1 else all_stored(asked)) as server:
        answers = _send(server.url, *parcels(tmp_path, 2), timeout_s=1)
    assert all(isinstance(answer, Receipt) for answer in answers)
    assert server.connections == 2


def test_what_beat_raises_ends_the_request_and_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Enough(Exception):
        pass

    def beat() -> None:
        raise Enough

    monkeypatch.setattr("dicom_node.dicomweb.session.BEAT_S", 0.1)
    with _web(lambda _asked: Say(silent=True)) as server, pytest.raises(Enough):
        list(_port(server.url).send([parcel(tmp_path, "1.2.3")], beat=beat))


@pytest.mark.parametrize("refusal", [Say(415), "C122"])
def test_a_refused_transfer_syntax_is_sent_decompressed_with_the_same_pixels_and_uid(
    tmp_path: Path, refusal: Say | str
) -> None:
    sent = parcels(tmp_path, 2, RLELossless)

    def plain(asked: Asked) -> bool:
        metas = [dcmread(BytesIO(content), stop_before_pixels=True).file_meta for _, content in asked.parts]
        return {meta.TransferSyntaxUID for meta in metas} == {ExplicitVRLittleEndian}

    def script(asked: Asked) -> Say:
        if plain(asked):
            return all_stored(asked)
        return refusal if isinstance(refusal, Say) else module([], [(u, 0xC122) for u in asked.uids], status=409)

    with _web(script) as server:
        answers = _send(server.url, *sent)
    for one, answer in zip(sent, answers, strict=True):
        assert isinstance(answer, Receipt)
        assert "sent as Explicit VR Little Endian instead of RLE Lossless" in answer.detail
        (got,) = (a.parts[0][1] for a in server.asked if a.uids == [one.sop_instance_uid] and plain(a))
        (tmp_path / "got.dcm").write_bytes(got)
        assert (pixels_of(tmp_path / "got.dcm") == pixels_of(one.path)).all()


def test_a_plain_transfer_syntax_that_is_refused_is_refused(tmp_path: Path) -> None:
    with _web(lambda _asked: Say(415)) as server:
        (answer,) = _send(server.url, parcel(tmp_path, "1.2.3"))
    assert isinstance(answer, PeerRefused)
    assert len(server.asked) == 1


def test_a_damaged_object_that_can_not_be_decompressed_is_refused_in_clear_words(tmp_path: Path) -> None:
    sent = parcel(tmp_path, "1.2.3", JPEG2000Lossless)
    dataset = dcmread(sent.path)
    dataset.PixelData = dataset.PixelData[:-200] + b"\0" * 200
    dataset.save_as(sent.path)
    with _web(lambda _asked: Say(415)) as server:
        (answer,) = _send(server.url, sent)
    assert isinstance(answer, PeerRefused)
    assert "can't be decompressed" in str(answer)


def _holding(content: bytes, *, multipart: bool = True, status: int = 200) -> Callable[[Asked], Say]:
    """A server that has an object already, and gives it."""

    def script(asked: Asked) -> Say:
        if asked.method == "POST":
            return module([], [(uid, 0x0111) for uid in asked.uids], status=409)
        if not multipart:
            return Say(status, content, {"Content-Type": "application/dicom"})
        body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n--b--"
        return Say(status, body, {"Content-Type": 'multipart/related; type="application/dicom"; boundary="b"'})

    return script


@pytest.mark.parametrize("multipart", [True, False])
def test_a_duplicate_with_the_same_bytes_is_delivered(tmp_path: Path, multipart: bool) -> None:
    sent = parcel(tmp_path, "1.2.3", RLELossless)
    with _web(_holding(sent.path.read_bytes(), multipart=multipart)) as server:
        (answer,) = _send(server.url, sent)
    assert isinstance(answer, Receipt)
    assert "was there already, with the same bytes" in answer.detail
    assert server.asked[1].path == f"/dicom-web/studies/{STUDY}/series/{STUDY}.1/instances/1.2.3"
    assert "transfer-syntax=*" in server.asked[1].headers["Accept"]


def test_another_object_under_the_uid_is_refused_and_so_is_one_that_is_not_given(tmp_path: Path) -> None:
    sent = parcel(tmp_path, "1.2.3")
    (tmp_path / "other").mkdir()
    other = parcel(tmp_path / "other", "1.2.3", size=16)
    for script in (
        _holding(other.path.read_bytes()),
        _holding(b"no file"),
        _holding(b"", status=404),
        _holding(b"", status=500),
    ):
        with _web(script) as server:
            (answer,) = _send(server.url, sent)
        assert isinstance(answer, PeerRefused)
        assert answer.blame is Blame.OBJECT


def test_a_missing_file_another_object_and_changed_bytes_are_damage_and_the_others_go(tmp_path: Path) -> None:
    good = parcel(tmp_path, "1.2.3")
    gone = Parcel(good.sop_class_uid, "1.2.4", tmp_path / "gone.dcm")
    other = Parcel(good.sop_class_uid, "1.2.5", good.path)
    changed = Parcel(good.sop_class_uid, "1.2.3", good.path, "0" * 64)
    sound = Parcel(good.sop_class_uid, "1.2.3", good.path, hashlib.sha256(data_set(good.path)).hexdigest())
    with _web() as server:
        answers = _send(server.url, gone, other, changed, sound)
    assert [type(answer) for answer in answers] == [SpoolDamaged, SpoolDamaged, SpoolDamaged, Receipt]


def test_a_file_that_is_cut_while_it_is_sent_is_damage(tmp_path: Path) -> None:
    sent = parcel(tmp_path, "1.2.3", size=1024)
    with _web() as server:
        port = _port(server.url)
        import dicom_node.destinations.dicomweb as module_  # noqa: PLC0415

        looked = module_._look(sent)
        assert isinstance(looked, module_._Object)
        sent.path.write_bytes(sent.path.read_bytes()[:-100])
        with module_.Web(port._destination) as web:
            ((_, answer),) = port._store(web, [looked])
    assert isinstance(answer, SpoolDamaged)
    assert "length changed" in str(answer)


def test_nothing_of_an_answer_or_a_request_reaches_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said = Say(409, SECRET.encode(), {"Warning": f'299 - "{SECRET}"', "X-Error": SECRET})
    with _web(lambda _asked: said) as server:
        (answer,) = _send(server.url, parcel(tmp_path, "1.2.3"))
    assert SECRET not in str(answer)
    assert SECRET not in caplog.text
    assert "1.2.3" not in caplog.text


@pytest.mark.parametrize(
    ("status", "words"), [(200, "answered a search"), (204, "answered a search"), (501, "does not search")]
)
def test_verifying_asks_for_nothing_of_a_patient(status: int, words: str) -> None:
    with _web(lambda _asked: Say(status)) as server:
        assert words in verify(DicomWeb.model_validate({"kind": "dicomweb", "url": server.url}))
    (asked,) = server.asked
    assert asked.method == "GET"
    assert "StudyInstanceUID=" in asked.path
    assert "limit=1" in asked.path


@pytest.mark.parametrize("status", [302, 401, 403, 404, 503])
def test_verifying_says_what_is_wrong(status: int) -> None:
    with _web(lambda _asked: Say(status)) as server, pytest.raises(EvenrayError) as fault:
        verify(DicomWeb.model_validate({"kind": "dicomweb", "url": server.url}))
    assert f"answered {status}" in str(fault.value)


@pytest.mark.parametrize(
    "faulty",
    [
        {"url": "https://node:geheim@pacs.example/dicom-web"},
        {"url": "https://pacs.example/dicom-web?x=1"},
        {"url": "http://pacs.example/", "tls": {}},
        {"url": "https://pacs.example/", "username": "x"},
    ],
)
def test_settings_that_can_not_be_meant_are_refused(faulty: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"url|username|tls"):
        DicomWeb.model_validate({"kind": "dicomweb", **faulty})
