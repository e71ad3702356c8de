"""DICOMweb with a real Orthanc: stored, searched and fetched byte for byte, under TLS, and by the whole node."""

from __future__ import annotations

import re
import ssl
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicom_node.destinations import Answer, Parcel, open_destination
from dicom_node.destinations.dicomweb import verify
from dicom_node.errors import Blame, PeerRefused, PeerUnreachable
from dicom_node.records import Receipt
from dicom_node.settings import DicomWeb
from dicom_node.settings_peers import TlsServer
from dicom_node.sources import FoundImage, Received, open_source
from dicom_node.sources.query import wanted
from dicom_node.tls import server_context
from tests.certificates import Authority, Issued
from tests.node import data_set, node, study, uid_of
from tests.peers import DICOM_WEB_PLUGIN, LOOPBACK, Orthanc, free_port, orthanc
from tests.scripted_web import Asked, Say, ScriptedWeb, module
from tests.tls_front import tls_front
from tests.unit.destinations.objects import STUDY, inflated, parcel

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(not DICOM_WEB_PLUGIN.exists(), reason="Orthanc has no DICOMweb plug-in: run `make peers`"),
]

SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLSLossless,
    JPEG2000Lossless,
)
USER, PASSWORD = "node", "geheim"
NODE_STUDY = "1.2.826.0.1.3680043.11"


def _where(url: str, **more: object) -> DicomWeb:
    return DicomWeb.model_validate({"kind": "dicomweb", "url": f"{url}/dicom-web", **more})


def _send(where: DicomWeb, sent: list[Parcel]) -> list[Answer]:
    port = open_destination("pacs", where, calling_ae="EVENRAY")
    pairs = list(port.send(sent, beat=lambda: None))
    return [next(answer for one, answer in pairs if one is each) for each in sent]


@pytest.fixture
def every_syntax(tmp_path: Path) -> list[Parcel]:
    return [parcel(tmp_path, f"{STUDY}.3.{n}", syntax) for n, syntax in enumerate(SYNTAXES, 1)]


def test_orthanc_stores_finds_and_gives_back_every_data_set_byte_for_byte(
    tmp_path: Path, every_syntax: list[Parcel]
) -> None:
    with orthanc(tmp_path) as peer:
        where = _where(peer.url)
        answers = _send(where, every_syntax)
        assert all(isinstance(answer, Receipt) for answer in answers), [str(answer) for answer in answers]
        uids = sorted(one.sop_instance_uid for one in every_syntax)
        assert peer.uids() == uids
        for one in every_syntax:
            (tmp_path / "got.dcm").write_bytes(peer.file(one.sop_instance_uid))
            # Orthanc deflates anew what comes deflated, so there only what was deflated can be compared.
            assert inflated(tmp_path / "got.dcm") == inflated(one.path)
        again = _send(where, every_syntax)
        assert all(isinstance(answer, Receipt) for answer in again), "the same objects again are no duplicates"
        assert peer.uids() == uids

        source = open_source("pacs", where, calling_ae="EVENRAY")
        (found,) = source.studies(wanted(patient="T1"), beat=lambda: None)
        assert (found.study_instance_uid, found.instances, found.modalities) == (STUDY, len(uids), ("DX",))
        (series,) = source.series(STUDY, ["DX"], beat=lambda: None)
        images = source.images(series, beat=lambda: None)
        assert sorted(image.sop_instance_uid for image in images) == uids
        kept: dict[str, tuple[str, bytes]] = {}

        def keep(received: Received) -> int:
            kept[received.sop_instance_uid] = (received.transfer_syntax_uid, inflated(received.path))
            return 0

        fetched = dict(source.fetch(images, keep, beat=lambda: None))
        assert all(isinstance(answer, Receipt) for answer in fetched.values()), [str(a) for a in fetched.values()]
        for one, syntax in zip(every_syntax, SYNTAXES, strict=True):
            assert kept[one.sop_instance_uid] == (syntax, inflated(one.path))


def test_orthanc_is_searched_by_every_key_and_only_what_was_asked_for_is_given(tmp_path: Path) -> None:
    with orthanc(tmp_path) as peer:
        where = _where(peer.url)
        sent = []
        for n, (date, accession) in enumerate((("20240131", "A1"), ("20240201", "A2"), ("20240301", "A3")), 1):
            folder = tmp_path / str(n)
            paths = study(folder, f"1.2.826.0.1.3680043.10.{n}", 1, StudyDate=date, AccessionNumber=accession)
            sent += [Parcel("1.2.840.10008.5.1.4.1.1.1", path.stem, path) for path in paths]
        assert all(isinstance(answer, Receipt) for answer in _send(where, sent))
        source = open_source("pacs", where, calling_ae="EVENRAY")

        def found(**question: object) -> list[str]:
            studies = source.studies(wanted(**question), beat=lambda: None)  # type: ignore[arg-type]
            return [one.study_instance_uid[-1] for one in studies]

        assert found(dates="20240131-20240201") == ["1", "2"]
        assert found(dates="20240201-") == ["2", "3"]
        assert found(dates="-20240201") == ["1", "2"]
        assert found(accession="A3") == ["3"]
        assert found(accession="A") == []
        assert found(studies=("1.2.826.0.1.3680043.10.2", "1.2.826.0.1.3680043.10.3", "1.2.3")) == ["2", "3"]
        assert found(dates="20240101-", modalities=("CR", "DX")) == ["1", "2", "3"]
        assert found(dates="20240101-", modalities=("MG",)) == []
        gone = FoundImage(study_instance_uid="1.2.3", series_instance_uid="1.2.4", sop_instance_uid="1.2.5")
        ((_, answer),) = source.fetch([gone], lambda _received: 0, beat=lambda: None)
        assert isinstance(answer, PeerRefused)
        assert answer.blame is Blame.OBJECT


def test_a_password_is_needed_and_a_wrong_one_is_about_the_destination(tmp_path: Path) -> None:
    password = tmp_path / "password"
    sent = [parcel(tmp_path, "1.2.3")]
    with orthanc(tmp_path, user=(USER, PASSWORD)) as peer:
        where = _where(peer.url, username=USER, password_file=password)
        password.write_text("wrong")
        (refused,) = _send(where, sent)
        assert isinstance(refused, PeerRefused)
        assert refused.blame is Blame.PEER
        with pytest.raises(PeerRefused, match="credentials"):
            verify(where)
        password.write_text(f"{PASSWORD}\n")
        (stored,) = _send(where, sent)
        assert isinstance(stored, Receipt)
        assert "answered a search" in verify(where)
        assert peer.uids() == ["1.2.3"]


def test_under_tls_both_sides_show_a_certificate_and_a_wrong_one_is_said_with_a_remedy(tmp_path: Path) -> None:
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    client, stranger = ours.issue("node"), other.issue("stranger")
    elsewhere = ours.issue("elsewhere", hosts=("pacs.example",))
    own = {"certificate": str(client.certificate), "key": str(client.key)}
    right = {"trusted": str(ours.file), **own}
    sent = [parcel(tmp_path, "1.2.3", size=512)]
    with orthanc(tmp_path) as peer:
        behind = int(peer.url.rpartition(":")[2])
        with tls_front(behind, _server(ours, ours.issue("pacs"))) as port:
            url = f"https://{LOOPBACK}:{port}"
            (stored,) = _send(_where(url, tls=right), sent)
            assert isinstance(stored, Receipt), str(stored)
            assert peer.uids() == ["1.2.3"]
            source = open_source("pacs", _where(url, tls=right), calling_ae="EVENRAY")
            assert len(source.studies(wanted(patient="T1"), beat=lambda: None)) == 1
            for tls in (
                {**right, "trusted": str(other.file)},
                own,
                {"trusted": str(ours.file)},
                {**right, "certificate": str(stranger.certificate), "key": str(stranger.key)},
                {**right, "server_name": "pacs.example"},
                {**right, "trusted": str(tmp_path / "nowhere.pem")},
            ):
                (answer,) = _send(_where(url, tls=tls), sent)
                assert isinstance(answer, PeerUnreachable), tls
                assert answer.blame is Blame.PEER, (tls, str(answer))
                assert re.search("check|correct|give|put", str(answer)), str(answer)
        with tls_front(behind, _server(ours, elsewhere)) as port:
            url = f"https://{LOOPBACK}:{port}"
            assert isinstance(_send(_where(url, tls=right), sent)[0], PeerUnreachable)
            for more in ({"server_name": "pacs.example"}, {"check_hostname": False}):
                (stored,) = _send(_where(url, tls={**right, **more}), sent)
                assert isinstance(stored, Receipt), str(stored)


def _server(authority: Authority, shown: Issued) -> ssl.SSLContext:
    """Of a server that authenticates its clients."""
    return server_context(TlsServer(certificate=shown.certificate, key=shown.key, trusted=authority.file))


def test_a_study_is_pulled_into_a_node_byte_for_byte(tmp_path: Path) -> None:
    files = study(tmp_path / "there", f"{NODE_STUDY}.3", 2, syntax=RLELossless)
    (tmp_path / "password").write_text(PASSWORD)
    with orthanc(tmp_path, user=(USER, PASSWORD)) as peer:
        where = {
            "kind": "dicomweb",
            "url": f"{peer.url}/dicom-web",
            "username": USER,
            "password_file": str(tmp_path / "password"),
        }
        sent = [Parcel("1.2.840.10008.5.1.4.1.1.1", uid_of(path), path) for path in files]
        assert all(isinstance(answer, Receipt) for answer in _send(DicomWeb.model_validate(where), sent))
        with node(tmp_path / "node", role="listen", sources={"web": where}) as made:
            for _ in range(2):
                done = made.cli("pull", "web", "--study", f"{NODE_STUDY}.3")
                assert done.returncode == 0, done.stdout + done.stderr
            rows = made.rows("SELECT sop_instance_uid AS uid, path FROM instance WHERE state <> 'duplicate'")
            assert sorted(row["uid"] for row in rows) == sorted(map(uid_of, files))
            held = {row["uid"]: data_set(made.spool / row["path"]) for row in rows}
            assert held == {uid_of(path): data_set(path) for path in files}


class Moody:
    """A server that fails in every way before it is good, and refuses what it has already."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.came: dict[str, set[bytes]] = defaultdict(set)
        self._moods: Iterator[Callable[[Asked], Say]] = iter(
            (
                lambda _asked: Say(503, headers={"Retry-After": "1"}),
                lambda _asked: Say(401),
                lambda _asked: Say(500),
                lambda _asked: Say(raw=b"HTTP/1.1 2"),
                # It has stored them all when the connection breaks.
                lambda asked: replace(self._store(asked), break_off=True),
                lambda asked: Say(202, b"<html/>", headers={"X": str(self._store(asked).status)}),
                lambda asked: module([], [(uid, 0xA700) for uid in asked.uids], status=409),
                lambda _asked: Say(429),
            )
        )

    def __call__(self, asked: Asked) -> Say:
        if asked.method == "GET":
            uid = asked.path.rpartition("/")[2]
            return Say(200, self.held[uid], {"Content-Type": "application/dicom"}) if uid in self.held else Say(404)
        for uid, (_, content) in zip(asked.uids, asked.parts, strict=True):
            self.came[uid].add(content)
        return next(self._moods, self._store)(asked)

    def _store(self, asked: Asked) -> Say:
        new = [uid for uid in asked.uids if uid not in self.held]
        self.held.update((uid, part[1]) for uid, part in zip(asked.uids, asked.parts, strict=True) if uid in new)
        classes = {str(dcmread(BytesIO(part[1]), stop_before_pixels=True).SOPClassUID) for part in asked.parts}
        known = [(uid, 0x0111) for uid in asked.uids if uid not in new]
        return module(new, known, status=202, sop_class=classes.pop() if len(classes) == 1 else "")


def test_the_node_delivers_everything_once_though_the_servers_are_away_or_faulty_for_a_while(tmp_path: Path) -> None:
    """One with a password and TLS is killed while the node delivers, and comes back with what it held; one is moody."""
    authority = Authority(tmp_path)
    shown, client = authority.issue("pacs"), authority.issue("node")
    password, port = tmp_path / "password", free_port()
    password.write_text(PASSWORD)
    where = {
        "kind": "dicomweb",
        "url": f"https://{LOOPBACK}:{port}/dicom-web/",
        "username": USER,
        "password_file": str(password),
        "tls": {"trusted": str(authority.file), "certificate": str(client.certificate), "key": str(client.key)},
        "timeout_s": 20,
    }
    first = study(tmp_path / "a", f"{NODE_STUDY}.1", 2)
    second = study(tmp_path / "b", f"{NODE_STUDY}.2", 2, syntax=RLELossless)
    mood = Moody()
    moody = ScriptedWeb(mood)

    @contextmanager
    def server() -> Iterator[Orthanc]:
        with orthanc(tmp_path, user=(USER, PASSWORD)) as peer:
            behind = int(peer.url.rpartition(":")[2])
            with tls_front(behind, _server(authority, shown), port=port):
                yield peer

    with node(tmp_path / "node", {"pacs": where, "moody": {"kind": "dicomweb", "url": moody.url}}) as made:
        with server() as pacs:
            made.accept(*first)
            made.wait(lambda: len(pacs.uids()) >= 1, 120, "the first objects are delivered")
            pacs.kill()
        made.accept(*second)
        made.wait(lambda: "pacs: left alone" in made.log(), 120, "the node has noticed")
        with server() as pacs:
            made.wait_settled()
            assert made.counts()["delivery"].keys() == {"delivered"}
            sent = {uid_of(path): data_set(path) for path in (*first, *second)}
            everything = sorted([*sent, *made.results()])
            # Orthanc keeps one object of a UID: all are there, and nothing else is.
            assert pacs.uids() == everything
            assert len(made.results("structured_report")) == 2
            for uid, content in sent.items():
                (tmp_path / "got.dcm").write_bytes(pacs.file(uid))
                assert data_set(tmp_path / "got.dcm") == content
            assert "answered a search" in made.cli("doctor").stdout
        moody.stop()
        assert sorted(mood.held) == everything
        assert {uid: len(contents) for uid, contents in mood.came.items()} == dict.fromkeys(everything, 1)
        assert "was there already, with the same bytes" in made.log()
        assert "Doe" not in made.log()
        assert PASSWORD not in made.log()
        assert "check url" in made.cli("doctor").stdout
