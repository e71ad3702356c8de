"""The embedded archive and storage commitment, against itself, DCMTK and Orthanc over real sockets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pynetdicom import AE

from dicom_node.demo.archive import Archive
from dicom_node.destinations import Parcel, open_destination
from dicom_node.destinations.commitment import CommitReport, report_contexts, report_handler, request_commitment
from dicom_node.errors import PeerRefused, PeerUnreachable
from dicom_node.records import Receipt
from dicom_node.settings import Dimse
from dicom_node.status import CommitFailure
from tests.peers import LOOPBACK, echoscu, free_port, orthanc, storescp, storescu, wait_until
from tests.unit.destinations.objects import data_set, parcel, parcels

TRANSACTION = "2.25.77"


class Reports(list[CommitReport]):
    """Reports as they arrive in other threads."""

    def wait_for(self, count: int) -> list[CommitReport]:
        wait_until(lambda: len(self) >= count, 15, f"{count} commitment reports")
        return list(self)


@contextmanager
def _listener(reports: Reports, port: int) -> Iterator[None]:
    """What the node's listener does for reports, and nothing else."""
    ae = AE("EVENRAY")
    ae.supported_contexts = report_contexts()
    server = ae.start_server((LOOPBACK, port), block=False, evt_handlers=[report_handler(reports.append)])
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _archive(folder: Path, **options: object) -> Iterator[Archive]:
    archive = Archive(folder, "PACS", LOOPBACK, free_port(), **options)  # type: ignore[arg-type]
    archive.start()
    try:
        yield archive
    finally:
        archive.stop()


def _where(port: int, aet: str = "PACS") -> Dimse:
    return Dimse(kind="dimse", ae_title=aet, host=LOOPBACK, port=port, connect_timeout_s=5, dimse_timeout_s=10)


def _send(where: Dimse, *what: Parcel) -> None:
    for _, answer in open_destination("pacs", where, calling_ae="EVENRAY").send(what, beat=lambda: None):
        assert isinstance(answer, Receipt), answer


def _ask(where: Dimse, reports: Reports, *references: tuple[str, str], wait_s: float) -> None:
    request_commitment(
        where,
        calling_ae="EVENRAY",
        transaction_uid=TRANSACTION,
        references=references,
        on_report=reports.append,
        wait_s=wait_s,
    )


def _reference(sent: Parcel) -> tuple[str, str]:
    return sent.sop_class_uid, sent.sop_instance_uid


def test_a_report_comes_on_the_association_of_the_request(tmp_path: Path) -> None:
    sent = parcels(tmp_path, 3)
    reports = Reports()
    with _archive(tmp_path / "pacs", report_on="same") as archive:
        where = _where(archive.port)
        _send(where, *sent)
        _ask(where, reports, *map(_reference, sent), wait_s=10)
    assert reports == [CommitReport(TRANSACTION, tuple(p.sop_instance_uid for p in sent), ())]


def test_a_report_comes_on_a_new_association(tmp_path: Path) -> None:
    sent = parcels(tmp_path, 2)
    port, reports = free_port(), Reports()
    with _listener(reports, port), _archive(tmp_path / "pacs", peers={"EVENRAY": (LOOPBACK, port)}) as archive:
        _send(_where(archive.port), *sent)
        _ask(_where(archive.port), reports, *map(_reference, sent), wait_s=0)
        assert reports.wait_for(1) == [CommitReport(TRANSACTION, tuple(p.sop_instance_uid for p in sent), ())]


def test_a_report_finds_its_way_when_the_association_of_the_request_is_gone(tmp_path: Path) -> None:
    sent = parcel(tmp_path, "1.2.3")
    port, reports = free_port(), Reports()
    peers = {"EVENRAY": (LOOPBACK, port)}
    with _listener(reports, port), _archive(tmp_path / "pacs", report_on="same", peers=peers) as archive:
        _send(_where(archive.port), sent)
        _ask(_where(archive.port), reports, _reference(sent), wait_s=0)
        assert reports.wait_for(1)[0].committed == ("1.2.3",)


def test_what_is_not_held_or_is_of_another_class_is_not_committed_and_the_reason_says_why(tmp_path: Path) -> None:
    sent = parcels(tmp_path, 2)
    reports = Reports()
    with _archive(tmp_path / "pacs", report_on="same") as archive:
        where = _where(archive.port)
        _send(where, *sent)
        wrong_class = ("1.2.840.10008.5.1.4.1.1.7", sent[1].sop_instance_uid)
        _ask(where, reports, _reference(sent[0]), wrong_class, (sent[0].sop_class_uid, "1.2.99"), wait_s=10)
    assert reports[0].committed == (sent[0].sop_instance_uid,)
    assert dict(reports[0].failed) == {
        sent[1].sop_instance_uid: CommitFailure.CLASS_INSTANCE_CONFLICT,
        "1.2.99": CommitFailure.NO_SUCH_OBJECT_INSTANCE,
    }


def test_an_archive_does_not_commit_a_file_that_is_gone_from_its_folder(tmp_path: Path) -> None:
    sent = parcel(tmp_path, "1.2.3")
    reports = Reports()
    with _archive(tmp_path / "pacs", report_on="same") as archive:
        _send(_where(archive.port), sent)
        archive.instances()[0].path.unlink()
        _ask(_where(archive.port), reports, _reference(sent), wait_s=10)
    assert reports[0].failed == (("1.2.3", CommitFailure.NO_SUCH_OBJECT_INSTANCE),)


def test_no_report_is_no_error_and_the_request_returns_after_its_wait(tmp_path: Path) -> None:
    sent = parcel(tmp_path, "1.2.3")
    reports = Reports()
    with _archive(tmp_path / "pacs") as archive:
        _send(_where(archive.port), sent)
        _ask(_where(archive.port), reports, _reference(sent), wait_s=0.2)
    assert reports == []


def test_a_report_that_can_not_be_kept_is_answered_with_a_failure_so_that_it_is_sent_again(tmp_path: Path) -> None:
    sent = parcel(tmp_path, "1.2.3")
    port, reports, refused = free_port(), Reports(), threading.Event()

    def fail(_report: CommitReport) -> None:
        refused.set()
        raise RuntimeError("the ledger is locked")

    with _archive(tmp_path / "pacs", report_on="same", peers={"EVENRAY": (LOOPBACK, port)}) as archive:
        _send(_where(archive.port), sent)
        with _listener(reports, port):
            request_commitment(
                _where(archive.port),
                calling_ae="EVENRAY",
                transaction_uid=TRANSACTION,
                references=[_reference(sent)],
                on_report=fail,
                wait_s=1,
            )
            assert refused.is_set()
            # The archive took the failure for what it is and reported once more, to the listener.
            assert reports.wait_for(1)[0].committed == ("1.2.3",)


@pytest.mark.peers
def test_a_peer_without_storage_commitment_refuses_and_a_dead_one_is_unreachable(tmp_path: Path) -> None:
    with storescp(tmp_path / "pacs", aet="PACS") as peer, pytest.raises(PeerRefused, match="Storage Commitment"):
        _ask(_where(peer.port), Reports(), ("1.2", "1.2.3"), wait_s=0)
    with pytest.raises(PeerUnreachable):
        _ask(_where(free_port()), Reports(), ("1.2", "1.2.3"), wait_s=0)


@pytest.mark.peers
def test_orthanc_reports_to_our_listener_on_a_new_association(tmp_path: Path) -> None:
    sent = parcels(tmp_path, 2)
    port, reports = free_port(), Reports()
    with orthanc(tmp_path, node=("EVENRAY", LOOPBACK, port)) as peer, _listener(reports, port):
        where = _where(peer.port, "ORTHANC")
        _send(where, *sent)
        _ask(where, reports, *map(_reference, sent), (sent[0].sop_class_uid, "1.2.99"), wait_s=0.2)
        (report,) = reports.wait_for(1)
    assert report.transaction_uid == TRANSACTION
    assert sorted(report.committed) == sorted(p.sop_instance_uid for p in sent)
    assert report.failed == (("1.2.99", CommitFailure.NO_SUCH_OBJECT_INSTANCE),)


def test_the_archive_remembers_what_it_holds_after_a_restart(tmp_path: Path) -> None:
    sent = parcels(tmp_path, 3)
    with _archive(tmp_path / "pacs") as archive:
        _send(_where(archive.port), *sent)
    with _archive(tmp_path / "pacs") as archive:
        assert [h.sop_instance_uid for h in archive.instances()] == sorted(p.sop_instance_uid for p in sent)
        assert {h.sop_class_uid for h in archive.instances()} == {sent[0].sop_class_uid}


def test_the_archive_takes_the_same_bytes_again_and_refuses_others_under_the_same_uid(tmp_path: Path) -> None:
    sent = parcel(tmp_path, "1.2.3")
    (tmp_path / "other").mkdir()
    other = parcel(tmp_path / "other", "1.2.3", size=48)
    with _archive(tmp_path / "pacs") as archive:
        where = _where(archive.port)
        _send(where, sent)
        _send(where, sent)
        port = open_destination("pacs", where, calling_ae="EVENRAY")
        ((_, answer),) = port.send([other], beat=lambda: None)
        held = archive.instances()
    assert isinstance(answer, PeerRefused)
    assert [data_set(h.path) for h in held] == [data_set(sent.path)]


@pytest.mark.peers
def test_dcmtk_can_verify_and_send_to_the_archive(tmp_path: Path) -> None:
    sent = parcels(tmp_path, 2)
    with _archive(tmp_path / "pacs") as archive:
        assert echoscu("PACS", LOOPBACK, archive.port).returncode == 0
        done = storescu([p.path for p in sent], "PACS", LOOPBACK, archive.port)
        assert done.returncode == 0, done.stderr
        assert [h.sop_instance_uid for h in archive.instances()] == [p.sop_instance_uid for p in sent]
