"""A folder as destination: complete files only, never another object overwritten."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dicom_node.destinations import Answer, Parcel, open_destination
from dicom_node.errors import PeerBusy, PeerRefused, PeerUnreachable, SpoolDamaged
from dicom_node.records import Receipt
from dicom_node.settings import Folder
from tests.unit.destinations.objects import STUDY, data_set, parcel


def _send(root: Path, *parcels: Parcel) -> list[Answer]:
    port = open_destination("disk", Folder(kind="folder", path=root), calling_ae="EVENRAY")
    return [answer for _, answer in port.send(parcels, beat=lambda: None)]


def test_an_object_is_one_file_in_the_folder_of_its_study(tmp_path: Path) -> None:
    sent = parcel(tmp_path, "1.2.3")
    (answer,) = _send(tmp_path / "out", sent)
    assert isinstance(answer, Receipt)
    assert answer.status is None
    written = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert written == [tmp_path / "out" / STUDY / "1.2.3.dcm"]
    assert written[0].read_bytes() == sent.path.read_bytes()


def test_the_same_bytes_again_are_accepted(tmp_path: Path) -> None:
    sent = parcel(tmp_path, "1.2.3")
    first, second = _send(tmp_path / "out", sent, sent)
    assert isinstance(first, Receipt)
    assert isinstance(second, Receipt)
    assert second.accepted


def test_other_bytes_under_the_same_name_are_refused_and_the_first_stay(tmp_path: Path) -> None:
    sent = parcel(tmp_path, "1.2.3")
    _send(tmp_path / "out", sent)
    kept = sent.path.read_bytes()
    other = Parcel(sent.sop_class_uid, sent.sop_instance_uid, parcel(tmp_path, "1.2.3", size=48).path)
    (answer,) = _send(tmp_path / "out", other)
    assert isinstance(answer, PeerRefused)
    assert "another object is there" in str(answer)
    assert (tmp_path / "out" / STUDY / "1.2.3.dcm").read_bytes() == kept


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, PeerBusy),
        (errno.EDQUOT, PeerBusy),
        (errno.EACCES, PeerBusy),
        (errno.EROFS, PeerBusy),
        (errno.EIO, PeerUnreachable),
    ],
)
def test_a_disk_fault_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    def fail(_from: object, into: object, _length: int) -> None:
        into.write(b"half of it")  # type: ignore[attr-defined]
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    (answer,) = _send(tmp_path / "out", parcel(tmp_path, "1.2.3"))
    assert isinstance(answer, kind)
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == []


def test_a_file_in_place_of_the_folder_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    (answer,) = _send(tmp_path / "out", parcel(tmp_path, "1.2.3"))
    assert isinstance(answer, PeerRefused)
    assert "can't be written" in str(answer)


def test_a_missing_or_foreign_file_is_damage_of_the_spool(tmp_path: Path) -> None:
    text = tmp_path / "note.txt"
    text.write_text("no DICOM at all, but longer than a preamble would be\n" * 5)
    missing, foreign = _send(
        tmp_path / "out", Parcel("1.2", "1.2.3", tmp_path / "gone.dcm"), Parcel("1.2", "1.2.3", text)
    )
    assert isinstance(missing, SpoolDamaged)
    assert isinstance(foreign, SpoolDamaged)


@pytest.mark.parametrize("study", ["../../escape", "", "..", "/etc"])
def test_a_study_uid_never_leads_out_of_the_folder(tmp_path: Path, study: str) -> None:
    sent = parcel(tmp_path, "1.2.3")
    # Padded to the length that the element states.
    raw = sent.path.read_bytes().replace(STUDY.encode(), study.encode().ljust(len(STUDY), b"\0"))
    sent.path.write_bytes(raw)
    (answer,) = _send(tmp_path / "out", sent)
    assert isinstance(answer, Receipt)
    inside = list((tmp_path / "out").rglob("*.dcm"))
    assert len(inside) == 1
    assert inside[0].parent == tmp_path / "out" / "no-study-uid"


def test_a_part_that_a_killed_process_left_goes_and_never_becomes_the_file(tmp_path: Path) -> None:
    sent = parcel(tmp_path, "1.2.3")
    study = tmp_path / "out" / STUDY
    study.mkdir(parents=True)
    (study / ".1.2.3.dcm.99999.part").write_bytes(b"half of it")
    (answer,) = _send(tmp_path / "out", sent)
    assert isinstance(answer, Receipt)
    assert {p.name: p.read_bytes() for p in study.iterdir()} == {"1.2.3.dcm": sent.path.read_bytes()}


def test_a_process_killed_while_it_writes_leaves_no_half_file_under_the_final_name(tmp_path: Path) -> None:
    sent = parcel(tmp_path, "1.2.3", size=256)
    program = (
        "import os, shutil, signal, sys; from pathlib import Path\n"
        "from dicom_node.destinations import Parcel, open_destination; from dicom_node.settings import Folder\n"
        "def die(read, into, size):\n"
        "    into.write(read.read(1000)); into.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "shutil.copyfileobj = die\n"
        "port = open_destination('disk', Folder(kind='folder', path=Path(sys.argv[2])), calling_ae='EVENRAY')\n"
        "list(port.send([Parcel(sys.argv[3], '1.2.3', Path(sys.argv[1]))], beat=lambda: None))\n"
    )
    command = [sys.executable, "-c", program, str(sent.path), str(tmp_path / "out"), sent.sop_class_uid]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    assert list((tmp_path / "out").rglob("*.dcm")) == []
    (answer,) = _send(tmp_path / "out", sent)
    assert isinstance(answer, Receipt)
    (only,) = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert only.read_bytes() == sent.path.read_bytes()


@pytest.mark.parametrize("uid", ["../1.2", "1.2/3", "", "1.2\0", "/etc/passwd", "1" * 65, "patient^name"])
def test_an_instance_uid_that_is_none_names_no_file(tmp_path: Path, uid: str) -> None:
    sent = parcel(tmp_path, "1.2.3")
    (answer,) = _send(tmp_path / "out", Parcel(sent.sop_class_uid, uid, sent.path))
    assert isinstance(answer, PeerRefused)
    assert list(tmp_path.iterdir()) == [sent.path]


def test_bytes_that_are_not_what_was_recorded_are_not_copied(tmp_path: Path) -> None:
    sent = parcel(tmp_path, "1.2.3")
    good = hashlib.sha256(data_set(sent.path)).hexdigest()
    wrong, right = _send(
        tmp_path / "out",
        Parcel(sent.sop_class_uid, "1.2.3", sent.path, "0" * 64),
        Parcel(sent.sop_class_uid, "1.2.3", sent.path, good),
    )
    assert isinstance(wrong, SpoolDamaged)
    assert isinstance(right, Receipt)
