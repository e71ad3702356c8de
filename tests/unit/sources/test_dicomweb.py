"""QIDO-RS and WADO-RS over real sockets, with servers that answer more, less or something else than was asked."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydicom.uid import JPEG2000Lossless, RLELossless

from dicom_node.errors import Blame, EvenrayError, PeerBusy, PeerRefused, PeerUnreachable
from dicom_node.records import Receipt
from dicom_node.settings import DicomWeb
from dicom_node.sources import FoundImage, FoundSeries, Received
from dicom_node.sources.dicomweb import DicomWebSource
from dicom_node.sources.query import wanted
from tests.scripted_web import Asked, Say, ScriptedWeb
from tests.unit.destinations.objects import parcel

SECRET = "PATIENT-4711"
SERIES = FoundSeries(study_instance_uid="1.2", series_instance_uid="1.2.3", modality="DX")


@contextmanager
def _source(script: Callable[[Asked], Say], **settings: object) -> Iterator[tuple[DicomWebSource, ScriptedWeb]]:
    server = ScriptedWeb(script)
    try:
        where = DicomWeb.model_validate({"kind": "dicomweb", "url": server.url, **settings})
        yield DicomWebSource("archive", where), server
    finally:
        server.stop()


def _beat() -> None:
    return


def _study(uid: str, **more: Any) -> dict[str, Any]:
    given = {"0020000D": uid, "00080020": "20240131", "00080050": "A1", "00100020": SECRET, **more}
    return {tag: {"vr": "LO", "Value": [value]} for tag, value in given.items()}


def _found(results: object, status: int = 200) -> Say:
    return Say(status, json.dumps(results).encode(), {"Content-Type": "application/dicom+json"})


def _query(asked: Asked) -> dict[str, list[str]]:
    return parse_qs(urlsplit(asked.path).query)


def _paged(results: list[dict[str, Any]], most: int) -> Callable[[Asked], Say]:
    """A server that gives at most so many at once, whatever is asked for."""

    def script(asked: Asked) -> Say:
        query = _query(asked)
        offset = int(query["offset"][0])
        page = results[offset : offset + min(most, int(query["limit"][0]))]
        return _found(page) if page else Say(204)

    return script


def test_a_search_asks_for_what_is_wanted_and_no_more() -> None:
    with _source(lambda _asked: Say(204)) as (source, server):
        question = wanted(studies=("1.2", "1.3"), accession="A 1", patient="P&1", dates="20240101-", modalities=("CR",))
        assert source.studies(question, beat=_beat) == []
    first, second = map(_query, (asked for asked in server.asked))
    assert first["StudyInstanceUID"] == ["1.2"]
    assert second["StudyInstanceUID"] == ["1.3"]
    assert first["AccessionNumber"] == ["A 1"]
    assert first["PatientID"] == ["P&1"]
    assert first["StudyDate"] == ["20240101-"]
    assert first["ModalitiesInStudy"] == ["CR"]
    assert "fuzzymatching" not in first
    assert sorted(first["includefield"]) == ["00080020", "00080050", "00080061", "00100020", "00201208"]
    assert urlsplit(server.asked[0].path).path == "/dicom-web/studies"
    assert server.asked[0].headers["Host"] == f"127.0.0.1:{server.port}"


@pytest.mark.parametrize("most", [1, 3, 200])
def test_all_pages_are_fetched_whatever_the_server_gives_at_once(most: int) -> None:
    results = [_study(f"1.2.{n}") for n in range(7)]
    with _source(_paged(results, most)) as (source, _):
        found = source.studies(wanted(dates="20240131"), beat=_beat)
    assert [one.study_instance_uid for one in found] == [f"1.2.{n}" for n in range(7)]


def test_a_server_that_knows_no_offset_and_one_without_end_do_not_hold_us(monkeypatch: pytest.MonkeyPatch) -> None:
    with _source(lambda _asked: _found([_study("1.2.1"), _study("1.2.2")])) as (source, server):
        assert len(source.studies(wanted(patient=SECRET), beat=_beat)) == 2
    assert len(server.asked) == 2
    monkeypatch.setattr("dicom_node.sources.dicomweb.MOST_PAGES", 5)
    with _source(lambda asked: _found([_study(f"1.2.{_query(asked)['offset'][0]}")])) as (source, server):
        with pytest.raises(PeerRefused, match="without end"):
            source.studies(wanted(patient=SECRET), beat=_beat)
        assert len(server.asked) == 5


def test_what_was_not_asked_for_and_what_is_no_uid_is_left_out() -> None:
    results = [
        _study("1.2.1", **{"00201208": "9" * 5000}),
        _study("1.2.2", **{"00080020": "20230101"}),
        _study("1.2.3", **{"00100020": "another"}),
        _study("../../1.2"),
        _study(""),
        {"0020000D": {"vr": "UI"}},
        {"0020000D": {"vr": "UI", "Value": [None]}},
        {"0020000D": "1.2.4"},
        "1.2.5",
    ]
    with _source(_paged(results, 200)) as (source, _):  # type: ignore[arg-type]
        found = source.studies(wanted(patient=SECRET, dates="20240131"), beat=_beat)
    assert [one.study_instance_uid for one in found] == ["1.2.1"]


def test_series_and_images_say_what_the_server_tells() -> None:
    def script(asked: Asked) -> Say:
        offset = int(_query(asked)["offset"][0])
        if offset:
            return _found([])
        if asked.path.startswith("/dicom-web/studies/1.2/series/1.2.3/instances?"):
            # One of them twice.
            return _found([_study("1.2", **{"00080018": f"1.2.3.{n}", "00080016": "1.2.840"}) for n in (1, 2, 1)])
        assert asked.path.startswith("/dicom-web/studies/1.2/series?")
        more = {"00080060": "DX", "00080070": "Evenray", "0008103E": "hand", "00201209": 2}
        other = {"0020000E": "1.2.4", "00080060": "SR"}
        return _found([_study("1.2", **{"0020000E": "1.2.3", **more}), _study("1.2", **other)])

    with _source(script) as (source, _):
        (series,) = source.series("1.2", ["DX", "CR"], beat=_beat)
        assert len(source.series("1.2", [], beat=_beat)) == 2
        images = source.images(series, beat=_beat)
    assert (series.manufacturer, series.description, series.instances) == ("Evenray", "hand", 2)
    assert [(one.sop_instance_uid, one.sop_class_uid, one.modality) for one in images] == [
        ("1.2.3.1", "1.2.840", "DX"),
        ("1.2.3.2", "1.2.840", "DX"),
    ]


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (Say(200, f"<html>{SECRET}</html>".encode()), PeerUnreachable),
        (Say(200, f'{{"x": "{SECRET}'.encode()), PeerUnreachable),
        (_found(SECRET), PeerUnreachable),
        (Say(200, b"[" * 100000), PeerUnreachable),
        (Say(200, b" " * (9 << 20)), PeerRefused),
        (Say(302, headers={"Location": "/login"}), PeerRefused),
        (Say(401), PeerRefused),
        (Say(404), PeerRefused),
        (Say(429, headers={"Retry-After": "7"}), PeerBusy),
        (Say(500, SECRET.encode()), PeerBusy),
        (Say(200, b"[" * 100, break_off=True), PeerUnreachable),
        (Say(raw=b""), PeerUnreachable),
    ],
    ids=["html", "cut", "text", "deep", "huge", "redirect", "401", "404", "429", "500", "broken", "closed"],
)
def test_an_answer_that_is_none_is_never_taken_for_no_results(
    said: Say, kind: type[EvenrayError], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with _source(lambda _asked: said) as (source, _), pytest.raises(kind) as fault:
        source.studies(wanted(patient=SECRET), beat=_beat)
    assert SECRET not in str(fault.value)
    assert SECRET not in caplog.text


def test_a_uid_that_leads_elsewhere_is_never_asked_for() -> None:
    evil = FoundImage(study_instance_uid="1.2", series_instance_uid="1.2/../../x", sop_instance_uid="1")
    with _source(lambda _asked: Say(204)) as (source, server):
        with pytest.raises(PeerRefused):
            source.series("1.2/../..", [], beat=_beat)
        ((_, answer),) = source.fetch([evil], lambda _received: 0, beat=_beat)
    assert isinstance(answer, PeerRefused)
    assert server.asked == []


def _image(uid: str) -> FoundImage:
    return FoundImage(study_instance_uid="1.2", series_instance_uid="1.2.3", sop_instance_uid=uid)


def _multipart(*contents: bytes, boundary: str = "b", quoted: bool = False) -> Say:
    body = b"".join(
        f"\r\n--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + content for content in contents
    )
    shown = f'"{boundary}"' if quoted else boundary
    kind = f'multipart/related; type="application/dicom"; boundary={shown}'
    return Say(200, body + f"\r\n--{boundary}--".encode(), {"Content-Type": kind})


@pytest.mark.parametrize("form", ["multipart", "quoted", "single", "chunked"])
@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_an_object_is_kept_as_it_is_stored_there(tmp_path: Path, form: str, syntax: str) -> None:
    sent = parcel(tmp_path, "1.2.3.1", syntax)
    content = sent.path.read_bytes()
    said = _multipart(content, boundary="a=b c" if form == "quoted" else "b", quoted=form == "quoted")
    if form == "single":
        said = Say(200, content, {"Content-Type": "application/dicom"})
    if form == "chunked":
        pieces = [said.body[at : at + 1000] for at in range(0, len(said.body), 1000)] + [b""]
        chunks = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)
        kind = said.headers["Content-Type"]
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
        said = Say(raw=head.encode() + chunks)
    kept: list[tuple[str, str, bytes]] = []

    def keep(received: Received) -> int:
        kept.append((received.sop_instance_uid, received.transfer_syntax_uid, received.path.read_bytes()))
        return 0

    with _source(lambda _asked: said) as (source, server):
        ((_, answer),) = source.fetch([_image("1.2.3.1")], keep, beat=_beat)
    assert isinstance(answer, Receipt)
    assert kept == [("1.2.3.1", syntax, content)]
    assert server.asked[0].path == "/dicom-web/studies/1.2/series/1.2.3/instances/1.2.3.1"
    assert server.asked[0].headers["Accept"] == 'multipart/related; type="application/dicom"; transfer-syntax=*'


@pytest.mark.parametrize(
    ("status", "kind"), [(0x0000, Receipt), (0xB000, Receipt), (0xA700, PeerBusy), (0x0122, PeerRefused)]
)
def test_the_answer_is_what_became_of_it_here(tmp_path: Path, status: int, kind: type) -> None:
    content = parcel(tmp_path, "1.2.3.1").path.read_bytes()
    with _source(lambda _asked: _multipart(content)) as (source, _):
        ((_, answer),) = source.fetch([_image("1.2.3.1")], lambda _received: status, beat=_beat)
    assert isinstance(answer, kind)


def _bad(content: bytes) -> dict[str, Say]:
    return {
        "another object": _multipart(content.replace(b"1.2.3.1", b"1.2.3.9")),
        "no dicom": _multipart(b"hello" * 100),
        "no part": _multipart(),
        "cut": Say(200, b"--b\r\n\r\n" + content, {"Content-Type": "multipart/related; boundary=b"}),
        "html": Say(200, b"<html></html>", {"Content-Type": "text/html"}),
        "no boundary": Say(200, content, {"Content-Type": "multipart/related"}),
        "empty": Say(200, b"", {"Content-Type": "application/dicom"}),
        "broken": Say(200, content, {"Content-Type": "application/dicom"}, break_off=True),
    }


@pytest.mark.parametrize("name", _bad(b""))
def test_what_is_not_the_object_is_never_kept_and_the_others_are(tmp_path: Path, name: str) -> None:
    contents = {uid: parcel(tmp_path, uid).path.read_bytes() for uid in ("1.2.3.1", "1.2.3.2")}
    kept: list[str] = []

    def script(asked: Asked) -> Say:
        uid = asked.path.rpartition("/")[2]
        return _bad(contents[uid])[name] if uid == "1.2.3.1" else _multipart(contents[uid])

    def keep(received: Received) -> int:
        kept.append(received.sop_instance_uid)
        return 0

    with _source(script) as (source, _):
        bad, good = (answer for _, answer in source.fetch([_image("1.2.3.1"), _image("1.2.3.2")], keep, beat=_beat))
    assert isinstance(bad, PeerUnreachable)
    assert bad.blame is Blame.OBJECT
    assert isinstance(good, Receipt)
    assert kept == ["1.2.3.2"]


def test_an_object_without_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_node.dicomweb.retrieving.LARGEST_OBJECT", 1000)
    content = parcel(tmp_path, "1.2.3.1").path.read_bytes()
    for said in (_multipart(content), Say(200, content, {"Content-Type": "application/dicom"})):
        with _source(lambda _asked, said=said: said) as (source, _):  # type: ignore[misc]
            ((_, answer),) = source.fetch([_image("1.2.3.1")], lambda _received: 0, beat=_beat)
        assert isinstance(answer, PeerUnreachable)
        assert "longer than allowed" in str(answer)


def test_what_is_missing_there_is_refused_alone_and_what_is_about_the_server_ends_it(tmp_path: Path) -> None:
    content = parcel(tmp_path, "1.2.3.2").path.read_bytes()
    images = [_image(f"1.2.3.{n}") for n in (1, 2, 3, 4)]

    def script(asked: Asked) -> Say:
        uid = asked.path.rpartition("/")[2]
        return {"1.2.3.1": Say(404), "1.2.3.2": _multipart(content)}.get(uid, Say(503))

    with _source(script) as (source, server):
        answers = [answer for _, answer in source.fetch(images, lambda _received: 0, beat=_beat)]
    assert [type(answer) for answer in answers] == [PeerRefused, Receipt, PeerBusy, PeerBusy]
    assert len(server.asked) == 3
