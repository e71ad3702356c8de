"""The spool: what it keeps survives, what it refuses is said, what a crash leaves is tidied."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dicom_node.durable import write_durably
from dicom_node.errors import DiskFull, SpoolDamaged
from dicom_node.ledger import Ledger
from dicom_node.recover import GRACE_S, recover
from dicom_node.spool import Spool


def KNOWN(_path: str) -> bool:  # noqa: N802 - reads as the constant answer that it is
    return True


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def _incoming(spool: Spool, content: bytes = b"object") -> Path:
    path = spool.incoming / "tmp.dcm"
    path.write_bytes(content)
    return path


def test_a_kept_file_leaves_incoming_with_the_same_bytes(spool: Spool) -> None:
    path = spool.keep(_incoming(spool))
    assert spool.at(path).read_bytes() == b"object"
    assert list(spool.incoming.iterdir()) == []


def test_two_objects_of_one_uid_get_two_files(spool: Spool) -> None:
    assert spool.keep(_incoming(spool)) != spool.keep(_incoming(spool))


def test_the_file_and_its_folders_are_synced_before_it_counts(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Observes the real system calls: the file before its rename, its new folder after it."""
    synced: list[str] = []
    real = os.fsync

    def watch(handle: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        real(handle)

    monkeypatch.setattr(os, "fsync", watch)
    received = _incoming(spool)
    target = spool.at(spool.keep(received))
    assert synced[0] == str(received)
    assert synced[-1] == str(target.parent)
    assert str(target.parent.parent) in synced, "the new shard's own name must survive, too"


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
    lost, good = spool.keep(_incoming(spool)), spool.keep(_incoming(spool))
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


def test_recovery_removes_old_files_without_a_row_and_nothing_else(spool: Spool, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    orphan, fresh = spool.keep(_incoming(spool)), spool.keep(_incoming(spool))
    now = spool.at(fresh).stat().st_mtime
    os.utime(spool.at(orphan), (now - 2 * GRACE_S, now - 2 * GRACE_S))
    assert recover(spool, ledger, now=now) == 1
    ledger.close()
    assert spool.at(fresh).exists()
    assert not spool.at(orphan).exists()
