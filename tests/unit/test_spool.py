"""The spool: what it keeps survives, what it refuses is said, what a crash leaves is tidied."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.durable import write_durably
from dicom_node.errors import DiskFull, SpoolDamaged
from dicom_node.incoming import Incoming
from dicom_node.ledger import Ledger
from dicom_node.records import Arrival
from dicom_node.recover import GRACE_S, recover
from dicom_node.spool import Spool
from tests.peers import wait_until


def KNOWN(_path: str) -> bool:  # noqa: N802 - reads as the constant answer that it is
    return True


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool")
    made.prepare("receive-1")
    yield made
    made.close()


def _incoming(spool: Spool, content: bytes = b"object") -> Incoming:
    received = spool.receive()
    received.append([content])
    return received


def _kept(spool: Spool) -> str:
    """One object, kept as a receiver does it."""
    received = _incoming(spool)
    path = spool.keep(received)
    received.release()
    return path


def _markers(spool: Spool, receiver: str = "receive-1") -> set[str]:
    return {path.stem for path in (spool.incoming / receiver).glob("*.part")}


def test_a_kept_file_has_its_bytes_and_one_name(spool: Spool) -> None:
    received = _incoming(spool)
    path = spool.keep(received)
    assert spool.at(path).stem in _markers(spool), "until its row is committed a restart must find it"
    received.release()
    assert spool.at(path).read_bytes() == b"object"
    assert spool.at(path).stem not in _markers(spool)
    assert spool.at(path).stat().st_nlink == 1


def test_two_objects_of_one_uid_get_two_files(spool: Spool) -> None:
    assert _kept(spool) != _kept(spool)


def test_a_files_name_is_on_the_disk_before_it_is_taken_and_its_bytes_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Observes the real system calls."""
    synced: list[str] = []
    real = os.fsync

    def watch(handle: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        real(handle)

    monkeypatch.setattr(os, "fsync", watch)
    spool = Spool(tmp_path / "spool")
    spool.prepare("receive-1")
    assert str(spool.root / "originals") in synced, "the folders' own names must survive, too"
    for _ in range(70):
        received = _incoming(spool)
        folder = spool.at(received.path).parent
        assert str(folder) in synced
        path = spool.keep(received)
        received.release()
        # The handle was opened under its second name.
        assert any(Path(name).stem == Path(path).stem for name in synced)
    spool.close()


def test_what_nobody_took_goes_when_the_receiver_ends(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.prepare("receive-1")
    path = _kept(spool)
    spool.close()
    files = [found for found in spool.root.rglob("*") if found.is_file()]
    assert files == [spool.at(path)]
    assert not (spool.incoming / "receive-1").exists()


def test_what_is_partly_written_is_written_to_the_end(spool: Spool) -> None:
    """A pipe takes 64 KiB at once: the kernel's answer is less than what was asked."""
    out, into = os.pipe()
    found = bytearray()
    reader = threading.Thread(target=lambda: found.extend(_read_all(out)))
    reader.start()
    received = spool.receive()
    os.dup2(into, received._handle)
    os.close(into)
    pieces = [bytes([n]) * 70_000 for n in range(9)]
    received.append(pieces)
    received.discard()
    reader.join(20)
    os.close(out)
    assert bytes(found) == b"".join(pieces)
    assert received.size == 630_000


def _read_all(handle: int) -> bytes:
    found = b""
    while piece := os.read(handle, 10_000):
        found += piece
    return found


def test_what_a_dead_receiver_had_of_an_object_goes_and_what_a_living_one_has_stays(tmp_path: Path) -> None:
    dead, living = Spool(tmp_path / "spool"), Spool(tmp_path / "spool")
    dead.prepare("receive-1")
    living.prepare("receive-2")
    partial, committed, other = _incoming(dead), _incoming(dead), _incoming(living)
    (dead.incoming / "of-an-older-version.part").write_bytes(b"x")
    living.clear_incoming(lambda name: name == "receive-2", lambda path: path == committed.path)
    assert not living.at(partial.path).exists()
    assert living.at(committed.path).read_bytes() == b"object"
    assert living.at(committed.path).stat().st_nlink == 1
    assert living.at(other.path).read_bytes() == b"object"
    assert {path.name for path in living.incoming.iterdir()} == {"receive-2"}
    for spool, taken in ((dead, [partial, committed]), (living, [other])):
        for one in taken:
            one.close()
        spool.close()


def test_files_that_are_ready_or_in_hand_are_no_orphans(spool: Spool) -> None:
    received, kept = _incoming(spool), _kept(spool)
    assert list(spool.unknown(lambda _folder: set())) == [kept]
    received.discard()


def test_a_spool_that_is_not_prepared_says_so_and_takes_what_comes(tmp_path: Path) -> None:
    received = Spool(tmp_path / "spool").receive()
    received.append([b"object"])
    assert isinstance(received.fault, FileNotFoundError)


def test_a_folder_that_is_gone_is_a_fault_of_the_object_and_not_of_the_receiver(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.prepare("receive-1")
    wait_until(lambda: len(_markers(spool)) >= 32, 10, "files were made ready")
    shutil.rmtree(spool.incoming)
    faults = [spool.receive().fault for _ in range(80)]
    assert isinstance(faults[-1], FileNotFoundError)
    spool.close()


def test_the_same_result_twice_is_one_file(spool: Spool) -> None:
    first = spool.write_result("2.25.77", b"same", named=KNOWN)
    assert spool.write_result("2.25.77", b"same", named=KNOWN) == first


def test_other_bytes_under_a_results_uid_are_never_overwritten(spool: Spool) -> None:
    path = spool.write_result("2.25.77", b"same", named=KNOWN)
    with pytest.raises(SpoolDamaged):
        spool.write_result("2.25.77", b"other", named=KNOWN)
    assert spool.at(path).read_bytes() == b"same"


def test_what_a_crash_left_unnamed_is_replaced(spool: Spool) -> None:
    path = spool.write_result("2.25.77", b"from a killed process", named=lambda _path: False)
    assert spool.write_result("2.25.77", b"again", named=lambda _path: False) == path
    assert spool.at(path).read_bytes() == b"again"


def test_a_lost_file_is_restored_from_a_good_copy(spool: Spool) -> None:
    lost, good = _kept(spool), _kept(spool)
    spool.at(lost).unlink()
    spool.restore(lost, good)
    spool.discard(good)
    assert spool.at(lost).read_bytes() == b"object"


def test_a_write_that_fails_leaves_no_partial_file(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="make room"):
        write_durably(tmp_path / "no-such-folder" / "file", b"x")
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(DiskFull):
        write_durably(target, b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_less_room_than_the_reserve_is_full(spool: Spool) -> None:
    free = spool.room().free_mib
    assert "are reserved" in spool.full(reserve_mib=free + 1000, watermark_percent=100)
    assert spool.full(reserve_mib=0, watermark_percent=100) == ""


def test_more_in_use_than_the_watermark_is_full(spool: Spool) -> None:
    assert "the watermark is" in spool.full(reserve_mib=0, watermark_percent=0.000001)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "ledger.sqlite")
    yield made
    made.close()


def _aged(spool: Spool, path: str, at: float) -> str:
    os.utime(spool.at(path), (at, at))
    return path


def _empty(spool: Spool) -> str:
    received = spool.receive()
    received.release()
    return received.path


def test_recovery_removes_old_empty_files_and_results_without_a_row_and_nothing_else(
    spool: Spool, ledger: Ledger
) -> None:
    made = ledger.upkeep.born() + 1
    now = made + 2 * GRACE_S
    empty = _aged(spool, _empty(spool), made)
    result = _aged(spool, spool.write_result("2.25.7", b"x", named=KNOWN), made)
    fresh, original = _aged(spool, _empty(spool), now), _aged(spool, _kept(spool), made)
    assert recover(spool, ledger, now=now) == 2
    assert [spool.at(path).exists() for path in (empty, result, fresh, original)] == [False, False, True, True]
    (shown,) = ledger.attention()
    assert "1 files in the spool have no row" in shown["note"]


def test_an_original_whose_row_comes_while_its_folder_is_looked_at_stays(
    spool: Spool, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    received = _incoming(spool, b"")
    path = spool.keep(received)
    real = ledger.paths_in

    def row_comes(folder: str) -> set[str]:
        named = real(folder)
        if path.startswith(folder) and not ledger.instances.has_path(path):
            arrival = Arrival(
                sop_class_uid="1",
                sop_instance_uid="1.2",
                transfer_syntax_uid="1.2",
                calling_ae="A",
                called_ae="B",
                association="",
                path=path,
                size=0,
            )
            ledger.instances.arrive_all([arrival], now=0)
            received.release()
        return named

    monkeypatch.setattr(ledger, "paths_in", row_comes)
    assert recover(spool, ledger, now=spool.at(path).stat().st_mtime + 2 * GRACE_S) == 0
    assert spool.at(path).exists()
    assert ledger.attention() == []


def test_a_ledger_that_is_made_over_files_speaks_for_none_of_them_whatever_the_clock_says(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "state" / "spool")
    spool.prepare("receive-1")
    before = Ledger(tmp_path / "state" / "ledger.sqlite")
    before.close()
    path = _aged(spool, _kept(spool), 4e9)
    assert 0 < _born(tmp_path) < 4e9
    for file in (tmp_path / "state").glob("ledger.sqlite*"):
        file.unlink()
    assert _born(tmp_path) == float("inf")
    spool.close()
    assert spool.at(path).exists()


def _born(folder: Path) -> float:
    ledger = Ledger(folder / "state" / "ledger.sqlite")
    try:
        return ledger.upkeep.born()
    finally:
        ledger.close()


def test_recovery_says_that_it_lives_in_every_folder(spool: Spool, ledger: Ledger) -> None:
    beats: list[int] = []
    recover(spool, ledger, now=0, beat=lambda: beats.append(1))
    folders = {spool.at(path).parent for path in (_kept(spool), _kept(spool))}
    beats.clear()
    recover(spool, ledger, now=0, beat=lambda: beats.append(1))
    assert len(beats) >= len(folders)


def test_a_temporary_name_that_a_crash_left_beside_a_file_with_a_row_is_an_orphan(spool: Spool) -> None:
    target = spool.at("originals/ab/abcd.dcm")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(b"x")
    left = target.with_name(".abcd.dcm.0.part")
    os.link(target, left)
    assert list(spool.unknown(lambda _folder: {"originals/ab/abcd.dcm"})) == ["originals/ab/.abcd.dcm.0.part"]
