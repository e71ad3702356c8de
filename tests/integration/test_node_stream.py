"""The node's own reader of storage associations against real senders and a scripted peer, beside the library's path."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydicom.uid import CTImageStorage
from pynetdicom import AE
from pynetdicom.sop_class import StorageCommitmentPushModel

from tests import dicom_files, raw_peer
from tests.node import Node, association, data_set, end, node, radiograph, read, store, uid_of
from tests.peers import LOOPBACK, orthanc, storescu, wait_until
from tests.raw_peer import ABORT, COMMAND, LAST, RELEASE_RQ, RawPeer, command, p_data, pdu, pdv

pytestmark = [
    # The library leaves the socket of a peer that died to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
STUDY = "1.2.826.0.1.3680043.10.1.47"


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Receivers as they are by default."""
    with node(tmp_path_factory.mktemp("fast"), role="listen", listen={"max_pdu": 32768}) as made:
        yield made


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Receivers that leave everything to the library: the reference."""
    with node(
        tmp_path_factory.mktemp("plain"), role="listen", listen={"max_pdu": 32768, "fast": False, "processes": 1}
    ) as made:
        yield made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Sizes around those of PDUs and buffers."""
    folder = tmp_path_factory.mktemp("files")
    sizes = (2, 90, 128, 300, 600)
    made = {n: dicom_files.dataset("CR", dicom_files.ramp(n, n), instance=f"{STUDY}.1.{n}") for n in sizes}
    return [dicom_files.write(folder / f"{size}.dcm", ds) for size, ds in made.items()]


def _kept(made: Node, uid: str) -> bytes:
    """The last file that the node has of a UID."""
    rows = made.rows("SELECT path FROM instance WHERE sop_instance_uid = ? ORDER BY id DESC", uid)
    return (made.spool / rows[0]["path"]).read_bytes()


def _nothing_arrives(made: Node) -> None:
    wait_until(lambda: not made.arriving(), 20, "nothing of an incomplete object is left")


def _endings(made: Node, calling: str) -> list[str | None]:
    return [row["how"] for row in made.rows("SELECT how FROM association WHERE calling_ae = ? ORDER BY rowid", calling)]


def test_both_paths_keep_the_same_bytes_of_what_the_library_sends(fast: Node, plain: Node, files: list[Path]) -> None:
    for made in (fast, plain):
        made.accept(*files)
    for path in files:
        kept = _kept(fast, uid_of(path))
        assert kept == _kept(plain, uid_of(path)), "meta information included"
        assert data_set(path) in kept


def test_both_paths_keep_the_same_bytes_of_what_dcmtk_sends(fast: Node, plain: Node, files: list[Path]) -> None:
    for made in (fast, plain):
        # A different maximum each time, down to the smallest that DCMTK knows.
        for pdu_size in ("4096", "16384", "131072"):
            done = storescu(files, "EVENRAY", LOOPBACK, made.port, "--max-send-pdu", pdu_size)
            assert done.returncode == 0, done.stderr
    for path in files:
        assert _kept(fast, uid_of(path)) == _kept(plain, uid_of(path))
        assert data_set(path) in _kept(fast, uid_of(path))


def test_both_paths_keep_the_same_bytes_of_what_orthanc_sends(
    tmp_path: Path, fast: Node, plain: Node, files: list[Path]
) -> None:
    modalities = {
        name: {"AET": "EVENRAY", "Host": LOOPBACK, "Port": made.port}
        for name, made in (("fast", fast), ("plain", plain))
    }
    with orthanc(tmp_path, more={"DicomModalities": modalities}) as pacs:
        assert storescu(files, "ORTHANC", LOOPBACK, pacs.port).returncode == 0
        wait_until(lambda: len(pacs.uids()) == len(files), 20, "Orthanc has the files")
        held = [found["ID"] for found in pacs.instances()]
        for name in modalities:
            answer = pacs.post(f"/modalities/{name}/store", held)
            assert answer["FailedInstancesCount"] == 0
    for path in files:
        assert _kept(fast, uid_of(path)) == _kept(plain, uid_of(path))


def test_eight_senders_at_once_over_several_receivers_lose_nothing(fast: Node, tmp_path: Path) -> None:
    sent = [radiograph(tmp_path, f"{STUDY}.2.{n}", study=STUDY, size=96) for n in range(32)]
    codes: dict[int, int] = {}

    def sender(number: int) -> None:
        codes[number] = storescu(sent[number::8], "EVENRAY", LOOPBACK, fast.port).returncode

    threads = [threading.Thread(target=sender, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert codes == dict.fromkeys(range(8), 0)
    for path in sent:
        assert data_set(path) in _kept(fast, uid_of(path))
    wait_until(lambda: None not in _endings(fast, "STORESCU"), 20, "every association has its end")
    assert set(_endings(fast, "STORESCU")) == {"released"}


def test_several_presentation_contexts_in_one_association_each_keep_their_transfer_syntax(fast: Node) -> None:
    contexts = [
        (1, raw_peer.CR_IMAGE, [raw_peer.EXPLICIT]),
        (3, raw_peer.CR_IMAGE, [raw_peer.IMPLICIT]),
        (5, str(CTImageStorage), [raw_peer.IMPLICIT]),
        (7, "1.2.3.4.5.6", [raw_peer.IMPLICIT]),
        (9, raw_peer.VERIFICATION, [raw_peer.IMPLICIT]),
    ]
    with RawPeer.associated(fast.port, contexts) as peer:
        for context in (1, 3, 5):
            peer.send(raw_peer.store(b"12345678", instance=f"{STUDY}.3.{context}", context=context))
            answer = peer.read()
            assert answer is not None
            assert (answer.status, answer.body[4]) == (0, context)
        echo = command(0x30, sop_class=raw_peer.VERIFICATION, instance="", data=raw_peer.NO_DATA)
        peer.send(p_data(pdv(echo, context=9, control=COMMAND | LAST)))
        answer = peer.read()
        assert answer is not None
        assert answer.status == 0
        # The seventh was not accepted.
        peer.send(raw_peer.store(b"x", instance=f"{STUDY}.3.7", context=7))
        answer = peer.read()
        assert answer is not None
        assert answer.kind == 7
    found = fast.rows(
        "SELECT sop_instance_uid AS uid, transfer_syntax_uid AS ts FROM instance WHERE sop_instance_uid LIKE ?",
        f"{STUDY}.3.%",
    )
    syntaxes = {row["uid"].rpartition(".")[2]: row["ts"] for row in found}
    assert syntaxes == {"1": raw_peer.EXPLICIT, "3": raw_peer.IMPLICIT, "5": raw_peer.IMPLICIT}


@pytest.mark.parametrize(
    ("name", "content", "how"),
    [
        ("ABORTS", ABORT, "aborted"),
        ("VANISHES", b"", "closed"),
        ("BREAKS", pdu(0x33, b"what?"), "protocol error"),
        ("TOOLONG", pdu(4, b"", length=32769), "protocol error"),
        ("RELEASES", RELEASE_RQ, "released"),
    ],
)
def test_whatever_ends_an_association_in_an_object_leaves_no_file_and_says_how_it_ended(
    fast: Node, name: str, content: bytes, how: str
) -> None:
    rows = fast.one("SELECT count(*) FROM instance")
    peer = RawPeer.connect(fast.port)
    with peer:
        peer.send(raw_peer.associate_rq([(1, raw_peer.CR_IMAGE, [raw_peer.EXPLICIT])], calling=name))
        assert peer.read()
        whole = raw_peer.store(bytes(100_000), instance=f"{STUDY}.4.1", piece=20_000)
        peer.send(whole[:70_000])
        wait_until(fast.arriving, 10, "a part of the object has arrived")
        if content:
            # At a border of PDUs.
            peer.send(whole[70_000 : len(whole) - 20_012])
        peer.send(content)
    wait_until(lambda: _endings(fast, name) == [how], 20, f"the association counts as {how}: {_endings(fast, name)}")
    _nothing_arrives(fast)
    assert fast.one("SELECT count(*) FROM instance") == rows


def test_an_association_that_may_carry_more_than_storage_is_served_by_the_library(
    fast: Node, files: list[Path]
) -> None:
    ae = AE("MIXED")
    ae.add_requested_context(read(files[0]).SOPClassUID, read(files[0]).file_meta.TransferSyntaxUID)
    ae.add_requested_context(StorageCommitmentPushModel)
    link = ae.associate(LOOPBACK, fast.port, ae_title="EVENRAY")
    assert link.is_established
    assert {str(context.abstract_syntax) for context in link.accepted_contexts} >= {str(StorageCommitmentPushModel)}
    before = fast.one("SELECT count(*) FROM instance")
    assert store(link, files[0]) == 0
    end(link)
    assert fast.one("SELECT count(*) FROM instance") == before + 1


def test_the_limit_of_associations_holds_over_all_receivers(tmp_path: Path, files: list[Path]) -> None:
    with (
        node(tmp_path, role="listen", listen={"max_associations": 3, "processes": 2}) as made,
        ExitStack() as open_ones,
    ):
        wait_until(lambda: len(made.pids("listen")) == 2, 20, "both receivers run")
        wait_until(lambda: _accepts(made), 20, "whoever looked whether the node listens is gone")
        for _ in range(3):
            open_ones.enter_context(association(made.port, files[:1]))
        assert not _accepts(made)
        open_ones.close()
        wait_until(lambda: _accepts(made), 20, "an association that ended makes room")


def _accepts(made: Node) -> bool:
    """Whether an association would be accepted right now."""
    with RawPeer.connect(made.port) as peer:
        peer.send(raw_peer.associate_rq([(1, raw_peer.CR_IMAGE, [raw_peer.EXPLICIT])]))
        answer = peer.read()
        if answer is not None and answer.kind == 2:
            peer.send(RELEASE_RQ)
            peer.read()
            return True
        return False


def test_connections_without_number_take_no_thread_each_and_leave_the_node_as_it_was(tmp_path: Path) -> None:
    path = dicom_files.write(tmp_path / "object.dcm", dicom_files.dataset("CR", instance=f"{STUDY}.6.1"))
    with node(
        tmp_path / "node", role="listen", listen={"max_associations": 4, "acse_timeout_s": 2, "processes": 1}
    ) as made:
        pid = made.runs("listen")
        with ExitStack() as held:
            for _ in range(400):
                sock = held.enter_context(socket.socket())
                sock.settimeout(5)
                # The backlog is bounded, too: one that waits there for ever is as good as refused.
                if sock.connect_ex((LOOPBACK, made.port)) == 0:
                    sock.sendall(b"\x01\0\0")
            assert _threads(pid) < 150
        wait_until(lambda: _accepts(made), 60, "the connections have run into their time-out")
        made.accept(path)
        wait_until(lambda: _threads(pid) < 20, 30, "their threads are gone")


def _threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def test_a_request_for_an_association_that_comes_byte_by_byte_is_cut_off(tmp_path: Path) -> None:
    with node(tmp_path, role="listen", listen={"acse_timeout_s": 1, "processes": 1}) as made:
        wait_until(lambda: _accepts(made), 20, "the receiver is up")
        pid = made.runs("listen")
        before = _threads(pid)
        with RawPeer.connect(made.port) as peer:
            request = raw_peer.associate_rq([(1, raw_peer.CR_IMAGE, [raw_peer.EXPLICIT])])
            pause = threading.Event()
            cut = False
            for at in range(40):
                try:
                    peer.send(request[at : at + 1])
                except OSError:
                    cut = True
                    break
                pause.wait(0.2)
            assert cut, "the connection was closed"
        wait_until(lambda: _threads(pid) <= before, 20, "its threads are gone")


def test_a_request_for_an_association_of_4_gb_takes_no_memory(tmp_path: Path) -> None:
    with node(tmp_path, role="listen", listen={"processes": 1}) as made:
        with RawPeer.connect(made.port) as peer:
            peer.send(pdu(1, bytes(100_000), length=0xFFFFFFF0))
            assert peer.read() is None
        status = Path(f"/proc/{made.runs('listen')}/status").read_text()
        peak_kb = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
        assert peak_kb < 100_000
        assert _accepts(made)
