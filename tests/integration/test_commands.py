"""The commands against real peers and a real shell: exit codes, sockets, and nothing of a patient on the screen."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import RLELossless
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, StoragePresentationContexts, evt

from tests.dicom_files import dataset, without_meta, write
from tests.peers import LOOPBACK, free_port, orthanc, storescp, wait_until
from tests.unit.commands.running import NAME, Ran, config, evenray

ENTRY = Path(sys.executable).with_name("evenray")


def study(folder: Path) -> Path:
    """Three objects in three forms, and two files that are none."""
    folder.mkdir()
    write(folder / "rle.dcm", dataset(instance="1.2.3.1", PatientName=NAME), RLELossless)
    write(folder / "plain.dcm", dataset("DX", instance="1.2.3.2", PatientName=NAME))
    without_meta(folder / "bare.dcm", dataset(instance="1.2.3.3", PatientName=NAME))
    (folder / "note.txt").write_text("hello")
    (folder / "empty").touch()
    return folder


def quiet_about_patients(ran: Ran) -> bool:
    return not any(part.lower() in ran.said.lower() for part in NAME.split("^"))


@contextmanager
def refusing(statuses: dict[str, int]) -> Iterator[int]:
    """A peer that answers each SOP Instance UID with the status that is wanted; its port."""
    ae = AE("PACS")
    for context in StoragePresentationContexts:
        ae.add_supported_context(str(context.abstract_syntax), ALL_TRANSFER_SYNTAXES)
    handlers = [(evt.EVT_C_STORE, lambda event: statuses[event.request.AffectedSOPInstanceUID])]
    server = ae.start_server((LOOPBACK, 0), block=False, evt_handlers=handlers)
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()


@pytest.mark.peers
def test_a_folder_arrives_in_orthanc_and_the_table_says_what_was_skipped(tmp_path: Path) -> None:
    with orthanc(tmp_path) as pacs:
        ran = evenray("send", study(tmp_path / "in"), f"{pacs.aet}@{LOOPBACK}:{pacs.port}")
        assert pacs.uids() == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]
    assert ran.code == 0, ran.said
    assert "sent 3, failed 0, skipped 2" in ran.out
    assert all(f"{name} " in ran.out for name in ("note.txt", "empty"))
    assert quiet_about_patients(ran)


@pytest.mark.peers
def test_objects_keep_their_transfer_syntax(tmp_path: Path) -> None:
    with storescp(tmp_path / "received", "+xr") as peer:
        file = write(tmp_path / "rle.dcm", dataset(PatientName=NAME), RLELossless)
        assert evenray("send", file, f"{peer.aet}@{LOOPBACK}:{peer.port}").code == 0
        wait_until(lambda: len(peer.files()) == 1, 10, "the object is written")
        (received,) = peer.files()
    assert dcmread(received).file_meta.TransferSyntaxUID == RLELossless


@pytest.mark.peers
def test_a_peer_without_the_syntax_is_sent_it_decompressed_and_that_is_said(tmp_path: Path) -> None:
    with storescp(tmp_path / "received") as peer:
        file = write(tmp_path / "rle.dcm", dataset(PatientName=NAME), RLELossless)
        ran = evenray("send", file, f"{peer.aet}@{LOOPBACK}:{peer.port}")
    assert ran.code == 0, ran.said
    assert "1 file(s): stored, sent as Explicit VR Little Endian instead of RLE Lossless" in ran.out


def test_an_object_that_is_refused_is_named_with_its_status_and_the_others_are_sent(tmp_path: Path) -> None:
    statuses = {"1.2.3.1": 0xA700, "1.2.3.2": 0xC000, "1.2.3.3": 0x0000}
    with refusing(statuses) as port:
        ran = evenray("send", study(tmp_path / "in"), f"PACS@{LOOPBACK}:{port}")
    assert ran.code == 1
    assert "sent 1, failed 2, skipped 2" in ran.out
    (rle,) = [line for line in ran.out.splitlines() if "rle.dcm" in line]
    (plain,) = [line for line in ran.out.splitlines() if "plain.dcm" in line]
    assert "0xA700, out of resources" in rle
    assert "0xC000, cannot understand" in plain
    assert "bare.dcm" not in ran.out
    assert quiet_about_patients(ran)


def test_a_peer_that_is_not_there_is_exit_code_2_with_the_remedy(tmp_path: Path) -> None:
    port = free_port()
    ran = evenray("send", study(tmp_path / "in"), f"PACS@{LOOPBACK}:{port}")
    assert ran.code == 2
    assert f"nothing was sent: PACS@{LOOPBACK}:{port}" in ran.err
    assert "start the peer, or check host, port and AE title" in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("address", "options", "sentence"),
    [
        ("nowhere", [], "'nowhere' is no address: write AE@host:port"),
        ("PACS@host:99999", [], "is no address"),
        ("PÄCS@127.0.0.1:104", [], "'PÄCS' is no AE title: use 1 to 16 ASCII characters"),
        ("PACS@127.0.0.1:104", ["--calling", "x" * 17], "--calling: 'xxxxxxxxxxxxxxxxx' is no AE title"),
    ],
)
def test_a_bad_address_is_exit_code_2(tmp_path: Path, address: str, options: list[str], sentence: str) -> None:
    ran = evenray("send", study(tmp_path / "in"), address, *options)
    assert ran.code == 2
    assert sentence in ran.err


def test_nothing_to_send_is_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    for source, sentence in (
        (tmp_path / "note.txt", "nothing to send: none of 1 file(s) is a DICOM object"),
        (tmp_path / "gone", "gone: no such file or folder"),
    ):
        ran = evenray("send", source, f"PACS@{LOOPBACK}:{free_port()}")
        assert ran.code == 2
        assert sentence in ran.err


@pytest.mark.peers
def test_the_doctor_sees_a_peer_by_its_echo(tmp_path: Path) -> None:
    with orthanc(tmp_path) as pacs:
        more = f"destinations: {{pacs: {{kind: dimse, ae_title: {pacs.aet}, host: 127.0.0.1, port: {pacs.port}}}}}"
        ran = evenray("doctor", "--json", "-c", config(tmp_path, f"listen: {{port: {free_port()}}}", more))
    (found,) = [c for c in json.loads(ran.out)["checks"] if c["what"] == "destination pacs"]
    assert (ran.code, found["state"]) == (0, "ok")
    assert "answered C-ECHO" in found["found"]


def test_the_doctor_knows_its_own_running_node(tmp_path: Path) -> None:
    port = free_port()
    file = config(tmp_path, f"listen: {{port: {port}}}")
    node = subprocess.Popen(
        [ENTRY, "serve", "listen", "-c", file], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:

        def answers() -> bool:
            ran = evenray("doctor", "--json", "-c", file)
            (found,) = [c for c in json.loads(ran.out)["checks"] if c["what"] == "listen"]
            return "the node runs and answers as EVENRAY" in found["found"]

        wait_until(answers, 30, "the doctor sees the node")
    finally:
        node.terminate()
        assert node.wait(30) == 0


def test_the_shell_sees_the_exit_code_and_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [ENTRY, "harmonize", tmp_path / "gone", tmp_path / "out"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"evenray: {tmp_path}/gone: no such file or folder: check the path\n"
