"""Sending over real sockets: to the embedded archive, DCMTK and Orthanc, and to peers that misbehave."""

from __future__ import annotations

import os
import signal
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
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
from pynetdicom import AllStoragePresentationContexts

from dicom_node.demo.archive import Archive
from dicom_node.destinations import Answer, Parcel, association, echo, open_destination
from dicom_node.errors import EvenrayError, LostClaim, PeerBusy, PeerRefused, PeerUnreachable, SpoolDamaged
from dicom_node.records import Receipt
from dicom_node.settings import Dimse
from tests.peers import LOOPBACK, free_port, orthanc, storescp, wait_until
from tests.unit.destinations.objects import STUDY, data_set, inflated, parcel, parcels, pixels_of

SYNTAXES = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
}


def _dimse(port: int, aet: str = "PACS", *, connect_s: float = 10, dimse_s: float = 20) -> Dimse:
    return Dimse(
        kind="dimse", ae_title=aet, host=LOOPBACK, port=port, connect_timeout_s=connect_s, dimse_timeout_s=dimse_s
    )


def _send(where: Dimse, what: list[Parcel], beat: Callable[[], None] = lambda: None) -> dict[str, Answer]:
    answers = list(open_destination("pacs", where, calling_ae="EVENRAY").send(what, beat=beat))
    assert sorted(p.sop_instance_uid for p, _ in answers) == sorted(p.sop_instance_uid for p in what)
    return {parcel.sop_instance_uid: answer for parcel, answer in answers}


def _all_stored(answers: dict[str, Answer]) -> bool:
    return all(isinstance(answer, Receipt) and answer.accepted for answer in answers.values())


@contextmanager
def _archive(folder: Path, **options: object) -> Iterator[tuple[Archive, Dimse]]:
    archive = Archive(folder, "PACS", LOOPBACK, free_port(), **options)  # type: ignore[arg-type]
    archive.start()
    try:
        yield archive, _dimse(archive.port)
    finally:
        archive.stop()


@pytest.fixture
def every_syntax(tmp_path: Path) -> list[Parcel]:
    return [parcel(tmp_path, f"{STUDY}.3.{n}", syntax) for n, syntax in enumerate(SYNTAXES.values(), 1)]


def test_the_archive_holds_every_data_set_byte_for_byte(tmp_path: Path, every_syntax: list[Parcel]) -> None:
    with _archive(tmp_path / "pacs") as (archive, where):
        assert _all_stored(_send(where, every_syntax))
        held = {h.sop_instance_uid: h.path for h in archive.instances()}
    assert {uid: data_set(path) for uid, path in held.items()} == {
        p.sop_instance_uid: data_set(p.path) for p in every_syntax
    }


@pytest.mark.peers
def test_dcmtk_holds_every_data_set_byte_for_byte(tmp_path: Path, every_syntax: list[Parcel]) -> None:
    with storescp(tmp_path / "pacs", "+xa", aet="PACS") as peer:
        answers = _send(_dimse(peer.port), every_syntax)
    assert _all_stored(answers), [str(answer) for answer in answers.values()]
    assert sorted(map(data_set, peer.files())) == sorted(data_set(p.path) for p in every_syntax)


@pytest.mark.peers
def test_orthanc_holds_every_data_set_byte_for_byte(tmp_path: Path, every_syntax: list[Parcel]) -> None:
    with orthanc(tmp_path, aet="PACS") as peer:
        assert _all_stored(_send(_dimse(peer.port), every_syntax))
        assert peer.uids() == sorted(p.sop_instance_uid for p in every_syntax)
        for sent in every_syntax:
            got = tmp_path / "got.dcm"
            got.write_bytes(peer.file(sent.sop_instance_uid))
            # Orthanc deflates anew what comes deflated, so there only what was deflated can be compared.
            assert inflated(got) == inflated(sent.path)


@pytest.mark.parametrize("peer_takes", ["+x=", "+xi"])
@pytest.mark.peers
def test_a_peer_that_takes_only_uncompressed_data_gets_the_same_pixels_and_uid(
    tmp_path: Path, every_syntax: list[Parcel], peer_takes: str
) -> None:
    with storescp(tmp_path / "pacs", peer_takes, aet="PACS") as peer:
        answers = _send(_dimse(peer.port), every_syntax)
    assert _all_stored(answers), [str(answer) for answer in answers.values()]
    assert sum("instead of" in str(answer) for answer in answers.values()) >= 4
    held = {str(dcmread(path).SOPInstanceUID): path for path in peer.files()}
    for sent in every_syntax:
        got = dcmread(held[sent.sop_instance_uid])
        assert not got.file_meta.TransferSyntaxUID.is_encapsulated
        assert np.array_equal(got.pixel_array, pixels_of(sent.path))
        assert got.RedPaletteColorLookupTableDescriptor == [256, 0, 16]


@pytest.mark.peers
def test_a_damaged_compressed_file_that_the_peer_can_not_take_is_refused_in_clear_words(tmp_path: Path) -> None:
    sent = parcel(tmp_path, "1.2.3", JPEG2000Lossless)
    dataset = dcmread(sent.path)
    dataset.PixelData = dataset.PixelData[:-200] + b"\0" * 200
    dataset.save_as(sent.path)
    with storescp(tmp_path / "pacs", aet="PACS") as peer:
        answer = _send(_dimse(peer.port), [sent])["1.2.3"]
    assert isinstance(answer, PeerRefused)
    assert "does not take JPEG 2000" in str(answer)
    assert "can't be decompressed" in str(answer)
    assert peer.files() == []


def test_a_sop_class_that_the_peer_does_not_have_is_refused_and_the_others_go_through(tmp_path: Path) -> None:
    strange = parcel(tmp_path, "1.2.9", sop_class="1.2.826.0.1.3680043.8.498.77")
    with _archive(tmp_path / "pacs") as (_, where):
        answers = _send(where, [strange, parcel(tmp_path, "1.2.3")])
        alone = _send(where, [strange])["1.2.9"]
    assert isinstance(answers["1.2.9"], PeerRefused)
    assert isinstance(answers["1.2.3"], Receipt)
    assert isinstance(alone, PeerRefused)
    assert "none of the proposed SOP classes" in str(alone)


def test_more_classes_than_an_association_has_contexts_take_several_associations(tmp_path: Path) -> None:
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts[:70]]
    sent = [parcel(tmp_path, f"{STUDY}.4.{n}", sop_class=uid, size=8) for n, uid in enumerate(classes, 1)]
    with _archive(tmp_path / "pacs") as (archive, where):
        assert _all_stored(_send(where, sent))
        assert len(archive.instances()) == 70


def test_out_of_resources_is_busy_and_the_same_object_is_taken_later(tmp_path: Path) -> None:
    statuses = iter([0xA700, 0xA7FF, 0xC210, 0x0000])
    sent = parcel(tmp_path, "1.2.3")
    with _archive(tmp_path / "pacs", answer=lambda _uid: next(statuses)) as (_, where):
        kinds = [type(_send(where, [sent])["1.2.3"]) for _ in range(4)]
    assert kinds == [PeerBusy, PeerBusy, PeerRefused, Receipt]


def test_answers_come_one_by_one_before_the_next_object_is_sent(tmp_path: Path) -> None:
    with _archive(tmp_path / "pacs") as (archive, where):
        port = open_destination("pacs", where, calling_ae="EVENRAY")
        held = [len(archive.instances()) for _ in port.send(parcels(tmp_path, 3), beat=lambda: None)]
    assert held == [1, 2, 3]


@pytest.mark.peers
def test_leaving_early_releases_the_association(tmp_path: Path) -> None:
    with storescp(tmp_path / "pacs", "-v", aet="PACS") as peer:
        sending = open_destination("pacs", _dimse(peer.port), calling_ae="EVENRAY").send(
            parcels(tmp_path, 2), beat=lambda: None
        )
        next(sending)
        sending.close()  # type: ignore[attr-defined]
        wait_until(lambda: "Association Release" in peer.log.read_text(), 5, "the peer saw a release")
    assert len(peer.files()) == 1


def test_a_missing_file_and_a_file_of_another_object_are_damage_and_the_others_go_through(tmp_path: Path) -> None:
    sent = parcels(tmp_path, 2)
    gone = Parcel(sent[0].sop_class_uid, "1.2.3", tmp_path / "gone.dcm")
    other = Parcel(sent[0].sop_class_uid, "1.2.4", sent[0].path)
    with _archive(tmp_path / "pacs") as (_, where):
        answers = _send(where, [gone, other, sent[1]])
    assert isinstance(answers["1.2.3"], SpoolDamaged)
    assert isinstance(answers["1.2.4"], SpoolDamaged)
    assert isinstance(answers[sent[1].sop_instance_uid], Receipt)


@pytest.mark.peers
def test_a_peer_killed_between_two_objects_leaves_the_rest_to_be_tried_again(tmp_path: Path) -> None:
    with storescp(tmp_path / "pacs", aet="PACS") as peer:
        sending = open_destination("pacs", _dimse(peer.port), calling_ae="EVENRAY").send(
            parcels(tmp_path, 4), beat=lambda: None
        )
        _, first = next(sending)
        peer.kill()
        rest = [answer for _, answer in sending]
    assert isinstance(first, Receipt)
    assert [type(answer) for answer in rest] == [PeerUnreachable] * 3


@pytest.mark.peers
def test_a_peer_that_aborts_in_every_object_answers_none_and_ends_the_trying(tmp_path: Path) -> None:
    with storescp(tmp_path / "pacs", "-v", "--abort-during", aet="PACS") as peer:
        answers = _send(_dimse(peer.port), parcels(tmp_path, 5, size=512))
        assert peer.log.read_text().count("Association Acknowledged") == 2
    assert {type(answer) for answer in answers.values()} == {PeerUnreachable}


@pytest.mark.peers
def test_a_peer_that_stops_reading_costs_the_time_out_and_not_the_memory(tmp_path: Path) -> None:
    sent = [parcel(tmp_path, "1.2.3"), parcel(tmp_path, "1.2.4", size=4500)]
    with storescp(tmp_path / "pacs", aet="PACS") as peer:
        sending = open_destination("pacs", _dimse(peer.port, connect_s=1, dimse_s=1), calling_ae="EVENRAY").send(
            sent, beat=lambda: None
        )
        next(sending)
        os.kill(peer.process.pid, signal.SIGSTOP)
        tracemalloc.start()
        try:
            answers = [answer for _, answer in sending]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert [type(answer) for answer in answers] == [PeerUnreachable]
    assert peak < 8 << 20, f"{peak >> 20} MiB for a file of {sent[1].path.stat().st_size >> 20} MiB"


@contextmanager
def _answering(answer: bytes | None) -> Iterator[Dimse]:
    """A peer that answers each association request with the same bytes, or with nothing at all."""
    done = threading.Event()

    def serve(listener: socket.socket) -> None:
        while not done.is_set():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                if answer is not None:
                    connection.sendall(answer)
                    connection.recv(65536)
                else:
                    done.wait(10)

    with socket.create_server((LOOPBACK, 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield _dimse(int(listener.getsockname()[1]), connect_s=1)
        finally:
            done.set()
            with socket.create_connection(listener.getsockname()[:2]):
                pass
            thread.join(5)


def _reject(result: int, source: int, reason: int) -> bytes:
    return bytes([3, 0, 0, 0, 0, 4, 0, result, source, reason])


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (_reject(1, 1, 3), PeerRefused, "our AE title is not known there"),
        (_reject(1, 1, 7), PeerRefused, "its AE title is another one"),
        (_reject(1, 2, 2), PeerRefused, "protocol version not supported"),
        (_reject(2, 3, 1), PeerBusy, "temporary congestion"),
        (_reject(2, 3, 2), PeerBusy, "local limit exceeded"),
        (_reject(2, 1, 1), PeerUnreachable, "no reason given"),
        (bytes([7, 0, 0, 0, 0, 4, 0, 0, 2, 0]), PeerUnreachable, "abort"),
        (None, PeerUnreachable, "no association"),
    ],
    ids=["calling", "called", "protocol", "congestion", "limit", "transient", "abort", "silence"],
)
def test_each_way_to_be_turned_away_has_its_kind(
    tmp_path: Path, answer: bytes | None, kind: type[EvenrayError], words: str
) -> None:
    with _answering(answer) as where:
        found = _send(where, [parcel(tmp_path, "1.2.3")])["1.2.3"]
        with pytest.raises(kind, match=words):
            echo(where, calling_ae="EVENRAY")
    assert isinstance(found, kind)
    assert words in str(found)


def test_a_rejection_is_recognised_however_fast_the_peer_closes(tmp_path: Path) -> None:
    sent = parcel(tmp_path, "1.2.3")
    busy = threading.Event()
    # Threads that fight for the interpreter make the answer come before the library looks for it.
    rivals = [threading.Thread(target=lambda: [None for _ in iter(busy.is_set, True)]) for _ in range(2)]
    for rival in rivals:
        rival.start()
    try:
        with _answering(_reject(1, 1, 7)) as where:
            kinds = [type(_send(where, [sent])["1.2.3"]) for _ in range(8)]
    finally:
        busy.set()
        for rival in rivals:
            rival.join()
    assert set(kinds) == {PeerRefused}


@pytest.mark.peers
def test_orthanc_rejects_a_wrong_called_title_for_good(tmp_path: Path) -> None:
    with orthanc(tmp_path, more={"DicomCheckCalledAet": True}) as peer:
        answer = _send(_dimse(peer.port, "WRONG"), [parcel(tmp_path, "1.2.3")])["1.2.3"]
        assert _all_stored(_send(_dimse(peer.port, "ORTHANC"), [parcel(tmp_path, "1.2.3")]))
    assert isinstance(answer, PeerRefused)


def test_a_dead_port_and_an_unknown_host_are_unreachable(tmp_path: Path) -> None:
    nobody = _dimse(free_port())
    unknown = nobody.model_copy(update={"host": "no-such-host.invalid"})
    for where in (nobody, unknown):
        assert isinstance(_send(where, [parcel(tmp_path, "1.2.3")])["1.2.3"], PeerUnreachable)


def test_the_lease_is_renewed_while_a_slow_peer_thinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(association, "BEAT_S", 0.05)
    beats: list[str] = []
    enough = threading.Event()

    def beat() -> None:
        beats.append(threading.current_thread().name)
        if len(beats) >= 3:
            enough.set()

    def slow(_uid: str) -> int:
        enough.wait(10)
        return 0

    with _archive(tmp_path / "pacs", answer=slow) as (_, where):
        assert _all_stored(_send(where, [parcel(tmp_path, "1.2.3")], beat))
    assert len(beats) >= 3
    assert set(beats) == {threading.current_thread().name}


def test_a_lost_claim_ends_the_sending_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(association, "BEAT_S", 0.05)
    release = threading.Event()

    def lost() -> None:
        raise LostClaim("someone else has it")

    def slow(_uid: str) -> int:
        release.wait(10)
        return 0

    with _archive(tmp_path / "pacs", answer=slow) as (_, where):
        with pytest.raises(LostClaim):
            _send(where, parcels(tmp_path, 2), lost)
        release.set()


@pytest.mark.parametrize("peer_kind", ["archive", "storescp", "orthanc"])
@pytest.mark.peers
def test_an_echo_is_answered(tmp_path: Path, peer_kind: str) -> None:
    def check(port: int) -> None:
        assert echo(_dimse(port), calling_ae="EVENRAY") == Receipt(accepted=True, status=0, detail="verified")

    if peer_kind == "archive":
        with _archive(tmp_path / "pacs") as (archive, _):
            check(archive.port)
    elif peer_kind == "storescp":
        with storescp(tmp_path / "pacs", aet="PACS") as peer:
            check(peer.port)
    else:
        with orthanc(tmp_path, aet="PACS") as server:
            check(server.port)


@pytest.mark.peers
def test_a_large_file_is_never_held_in_memory(tmp_path: Path) -> None:
    sent = parcel(tmp_path, "1.2.3", size=5000)
    with storescp(tmp_path / "pacs", "-pdu", "131072", aet="PACS") as peer:
        tracemalloc.start()
        try:
            answer = _send(_dimse(peer.port), [sent])["1.2.3"]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert isinstance(answer, Receipt)
    assert data_set(peer.files()[0]) == data_set(sent.path)
    assert peak < 8 << 20, f"{peak >> 20} MiB for a file of {sent.path.stat().st_size >> 20} MiB"
