"""The listener against real sockets: who may connect, what Success means, and that nothing is half kept."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID, CTImageStorage, EncapsulatedPDFStorage, EnhancedSRStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification

from dicom_node.results.report_text import parse_report
from dicom_node.syntaxes import STORABLE
from tests import dicom_files
from tests.node import (
    Node,
    archive,
    association,
    contents,
    data_set,
    end,
    node,
    open_association,
    radiograph,
    read,
    store,
    to_archive,
    uid_of,
)
from tests.peers import LOOPBACK, free_port, wait_until

pytestmark = [
    # The library leaves the socket of a peer that died to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
STUDY = "1.2.826.0.1.3680043.10.1.40"
OUT_OF_RESOURCES = 0xA700


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A listener alone: nobody looks at what it keeps."""
    with node(tmp_path_factory.mktemp("listener"), role="listen", listen={"allowed_calling": ["MODALITY"]}) as made:
        yield made


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


def _rejection(port: int, *, called: str, calling: str) -> tuple[int, int, int]:
    """Result, source and reason of an A-ASSOCIATE-RJ. Source: PS3.8 9.3.4."""
    ae = AE(calling)
    ae.add_requested_context(Verification)
    found: list[tuple[int, int, int]] = []

    def read_pdu(event: evt.Event) -> None:
        if event.pdu.pdu_type == 0x03:
            found.append((event.pdu.result, event.pdu.source, event.pdu.reason_diagnostic))

    link = ae.associate(LOOPBACK, port, ae_title=called, evt_handlers=[(evt.EVT_PDU_RECV, read_pdu)])
    established = link.is_established
    end(link)
    assert link.is_rejected
    assert not established
    return found[0]


def _kept(listener: Node) -> tuple[int, list[Path]]:
    """How many rows there are, and every file in the spool that holds something."""
    rows = listener.one("SELECT count(*) FROM instance")
    return int(rows), listener.spooled()


def _stored(listener: Node, uid: str) -> Path:
    """The spooled file of an instance."""
    return listener.spool / str(listener.one("SELECT path FROM instance WHERE sop_instance_uid = ?", uid))


@pytest.mark.parametrize(
    ("called", "calling", "reason"), [("SOMEONE", "MODALITY", 7), ("EVENRAY", "STRANGER", 3)], ids=["called", "calling"]
)
def test_an_unknown_title_is_rejected_for_good_with_the_reason_that_names_it(
    listener: Node, called: str, calling: str, reason: int
) -> None:
    permanent, by_the_service_user = 1, 1
    assert _rejection(listener.port, called=called, calling=calling) == (permanent, by_the_service_user, reason)


def _object(syntax: str, uid: str) -> Dataset:
    """An object in a transfer syntax; for storing, what the pixel data's fragments hold does not matter."""
    ds = dicom_files.dataset("CR", instance=uid, study=STUDY, PatientComments="ä odd length")
    ds.SpecificCharacterSet = "ISO_IR 100"
    if UID(syntax).is_encapsulated:
        ds.PixelData = encapsulate([bytes(range(256)) * 9, b"\xff\xd8\xff\xd9"])
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
    return ds


def _write(path: Path, ds: Dataset, syntax: str) -> Path:
    """A file in any transfer syntax, encapsulated pixel data as it is."""
    if not UID(syntax).is_encapsulated:
        return dicom_files.write(path, ds, syntax)
    dicom_files.write(path, ds)
    body = data_set(path)
    meta = read(path).file_meta
    meta.TransferSyntaxUID = UID(syntax)
    with path.open("wb") as out:
        out.write(b"\0" * 128 + b"DICM")
        write_file_meta_info(out, meta)
        out.write(body)
    return path


@pytest.mark.parametrize("syntax", STORABLE, ids=lambda syntax: UID(syntax).name)
def test_a_data_set_is_kept_byte_for_byte_in_every_transfer_syntax(listener: Node, files: Path, syntax: str) -> None:
    uid = f"{STUDY}.1.{STORABLE.index(syntax)}"
    path = _write(files / "object.dcm", _object(syntax, uid), syntax)
    listener.accept(path)
    kept = _stored(listener, uid)
    assert data_set(kept) == data_set(path)
    assert read(kept).file_meta.TransferSyntaxUID == syntax


def test_an_abort_in_the_middle_of_an_object_leaves_no_file_and_no_row(listener: Node, files: Path) -> None:
    path = radiograph(files, f"{STUDY}.2.1", study=STUDY, size=512)
    before = _kept(listener)
    link = open_association(listener.port, [path])
    sent: list[int] = []

    def cut(_event: evt.Event) -> None:
        sent.append(1)
        if len(sent) == 3:
            # What a cable does: the connection is gone in the middle of the data set.
            wait_until(listener.arriving, 10, "a part of the object has arrived")
            link.dul.socket.close()

    link.bind(evt.EVT_PDU_SENT, cut)
    assert store(link, path) is None
    end(link)
    wait_until(lambda: _kept(listener) == before, 10, "nothing of the object is left")


def test_an_abort_pdu_in_the_middle_of_an_object_leaves_no_file_and_no_row(listener: Node, files: Path) -> None:
    path = radiograph(files, f"{STUDY}.2.2", study=STUDY, size=512)
    before = _kept(listener)
    link = open_association(listener.port, [path])
    sent: list[int] = []

    def cut(_event: evt.Event) -> None:
        sent.append(1)
        if len(sent) == 3:
            wait_until(listener.arriving, 10, "a part of the object has arrived")
            # A-ABORT by the service user. Source: PS3.8 9.3.8.
            link.dul.socket.socket.sendall(struct.pack(">BBIBBBB", 7, 0, 4, 0, 0, 0, 0))
            link.dul.socket.close()

    link.bind(evt.EVT_PDU_SENT, cut)
    assert store(link, path) is None
    end(link)
    wait_until(lambda: _kept(listener) == before, 10, "nothing of the object is left")


def test_memory_stays_flat_while_an_object_of_300_mb_is_received(listener: Node, files: Path) -> None:
    small, large = files / "small.dcm", files / "large.dcm"
    _write(small, _object(ExplicitVRLittleEndian, f"{STUDY}.3.1"), ExplicitVRLittleEndian)
    listener.accept(small)
    size = 300_000_000
    ds = _object(ExplicitVRLittleEndian, f"{STUDY}.3.2")
    del ds.PixelData
    _write(large, ds, ExplicitVRLittleEndian)
    with large.open("ab") as out:
        # (7FE0,0010) OW of that length; a sparse file is as good as any. Source: PS3.5 7.1.2.
        out.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, size))
        out.truncate(out.tell() + size)
    before = _peak_kb(listener)
    listener.accept(large)
    assert _stored(listener, f"{STUDY}.3.2").stat().st_size > size
    assert _peak_kb(listener) - before < 40_000
    _stored(listener, f"{STUDY}.3.2").unlink()


def _peak_kb(listener: Node) -> int:
    """The largest resident set of any receiver so far. Source: proc_pid_status(5)."""
    listener.runs("listen")
    every = [Path(f"/proc/{pid}/status").read_text().splitlines() for pid in listener.pids("listen")]
    return max(int(line.split()[1]) for status in every for line in status if line.startswith("VmHWM"))


def test_success_is_not_sent_before_the_row_is_committed(tmp_path: Path, files: Path) -> None:
    with node(tmp_path, role="listen") as made:
        for n in range(6):
            path = radiograph(files, f"{STUDY}.4.{n}", study=STUDY, size=64 + n)
            link = open_association(made.port, [path])
            assert made.process
            group = made.process.pid

            def cut(_event: evt.Event, group: int = group) -> None:
                # The answer has just been read from the socket: no later moment of the receiver counts.
                os.killpg(group, signal.SIGKILL)

            link.bind(evt.EVT_PDU_RECV, cut)
            status = store(link, path)
            end(link)
            made.process.wait(30)
            found = made.rows("SELECT path FROM instance WHERE sop_instance_uid = ?", uid_of(path))
            assert (status, len(found)) == (0, 1)
            assert data_set(made.spool / found[0]["path"]) == data_set(path)
            made.start()


def test_below_the_reserve_nothing_is_accepted_and_nothing_is_kept(tmp_path: Path, files: Path) -> None:
    path = radiograph(files, f"{STUDY}.5.1", study=STUDY, size=64)
    with node(tmp_path, role="listen", storage={"reserve_mib": 1 << 30}) as made:
        assert made.send(path) == [OUT_OF_RESOURCES]
        made.wait(lambda: _kept(made) == (0, []), 10, "nothing of the object is left")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 6 MB, mounted where the spool will be."""
    folder = tmp_path / "state" / "spool"
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False) if os.geteuid() == 0 else None
    if mounted is None or mounted.returncode:
        pytest.skip("a file system can be mounted by root only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_never_answered_with_success_and_what_comes_after_it_is_accepted(
    tmp_path: Path, tiny_disk: Path, files: Path
) -> None:
    large = radiograph(files, f"{STUDY}.6.1", study=STUDY, size=2048)
    small = radiograph(files, f"{STUDY}.6.2", study=STUDY, size=256)
    with node(tmp_path, role="listen", storage={"reserve_mib": 0, "watermark_percent": 100}) as made:
        made.accept(small)
        kept = _kept(made)
        status = made.send(large)
        assert status != [0]
        assert status in ([OUT_OF_RESOURCES], [None])
        made.wait(lambda: _kept(made) == kept, 10, "nothing of the object is left")
        # The disk is as full as it was before, so what fits is taken.
        again = radiograph(files, f"{STUDY}.6.3", study=STUDY, size=256)
        made.accept(again)
        assert data_set(_stored(made, uid_of(again))) == data_set(again)


def test_other_associations_go_on_while_one_runs_into_the_full_disk(
    tmp_path: Path, tiny_disk: Path, files: Path
) -> None:
    large = radiograph(files, f"{STUDY}.7.1", study=STUDY, size=2048)
    small = [radiograph(files, f"{STUDY}.7.{n}", study=STUDY, size=64) for n in (2, 3)]
    with (
        node(tmp_path, role="listen", storage={"reserve_mib": 0, "watermark_percent": 100}) as made,
        association(made.port, small) as link,
    ):
        assert store(link, small[0]) == 0
        assert made.send(large) != [0]
        made.wait(lambda: _kept(made)[0] == 1 and len(_kept(made)[1]) == 1, 10, "nothing of the large object is left")
        assert store(link, small[1]) == 0


def test_the_largest_number_of_associations_is_a_limit_that_is_refused_for_now(tmp_path: Path, files: Path) -> None:
    path = radiograph(files, f"{STUDY}.8.1", study=STUDY, size=64)
    with (
        node(tmp_path, role="listen", listen={"max_associations": 1}) as made,
        _first(made.port, path) as link,
    ):
        transient, by_presentation, local_limit = 2, 3, 2
        rejected = _rejection(made.port, called="EVENRAY", calling="MODALITY")
        assert rejected == (transient, by_presentation, local_limit)
        assert store(link, path) == 0


@contextmanager
def _first(port: int, path: Path) -> Iterator[Association]:
    """The only association; the one that looked whether the node listens may still be ending."""
    tried: list[Association] = []

    def opens() -> bool:
        tried.append(open_association(port, [path]))
        return tried[-1].is_established

    wait_until(opens, 10, "an association is accepted")
    try:
        yield tried[-1]
    finally:
        end(tried[-1])


def _others(folder: Path) -> dict[str, Path]:
    """An SR, a PDF and a CT by what the node says of them."""
    common: dict[str, Any] = {"study": STUDY + ".9"}
    plain = {"PixelData": None, "Rows": None, "Columns": None, "BodyPartExamined": None, "ViewPosition": None}
    report = dicom_files.dataset("CR", instance=f"{STUDY}.9.1", **common, **plain)
    report.SOPClassUID, report.Modality = EnhancedSRStorage, "SR"
    report.ValueType, report.CompletionFlag = "CONTAINER", "COMPLETE"
    pdf = dicom_files.dataset("CR", instance=f"{STUDY}.9.2", **common, **plain)
    pdf.SOPClassUID, pdf.Modality = EncapsulatedPDFStorage, "DOC"
    pdf.EncapsulatedDocument, pdf.MIMETypeOfEncapsulatedDocument = b"%PDF-1.4 test\n", "application/pdf"
    slice_ = dicom_files.dataset("CR", instance=f"{STUDY}.9.3", **common, ViewPosition=None)
    slice_.SOPClassUID, slice_.Modality = CTImageStorage, "CT"
    found = {"SR": report, "PDF": pdf, "CT": slice_}
    return {name: dicom_files.write(folder / f"{name}.dcm", ds) for name, ds in found.items()}


def test_objects_that_are_no_radiographs_are_kept_forwarded_and_named_as_passed(tmp_path: Path, files: Path) -> None:
    others = _others(files)
    port = free_port()
    with archive(tmp_path, port) as pacs, node(tmp_path, to_archive(pacs.port), port=port) as made:
        made.accept(*others.values())
        made.wait_settled()
        held = contents(pacs)
        assert {uid_of(path): data_set(path) for path in others.values()}.items() <= held.items()
        (report,) = made.results()
        assert len(held) == 4, "three originals and one report, nothing else"
        path = next(one.path for one in pacs.instances() if one.sop_instance_uid == report)
        said = {row["source_instance"]: (row["outcome"], row["reason"]) for row in parse_report(path)}
        assert {uid: outcome for uid, (outcome, _) in said.items()} == {uid_of(p): "passed" for p in others.values()}
        assert said[uid_of(others["PDF"])][1] == "not an image"
        assert "CT" in said[uid_of(others["CT"])][1]


def test_many_associations_at_once_lose_nothing(listener: Node, files: Path) -> None:
    paths = [radiograph(files, f"{STUDY}.10.{n}", study=STUDY, size=64) for n in range(24)]
    answers: dict[int, list[int | None]] = {}

    def sender(n: int) -> None:
        answers[n] = listener.send(*paths[n::8])

    threads = [threading.Thread(target=sender, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert answers == {n: [0, 0, 0] for n in range(8)}
    for path in paths:
        assert data_set(_stored(listener, uid_of(path))) == data_set(path)
