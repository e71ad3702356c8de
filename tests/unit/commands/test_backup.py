"""Backup, restore and verify on a real state directory: complete, checked, never destructive."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEG2000Lossless

from dicom_node.admit import admit
from dicom_node.commands.backup import Copying
from dicom_node.ledger import Ledger
from dicom_node.liveness import Liveness
from dicom_node.recover import GRACE_S, readmit, recover
from dicom_node.retention import Retention
from dicom_node.settings_file import load
from dicom_node.spool import Spool
from dicom_node.states import Instance
from tests.dicom_files import content, dataset
from tests.unit.commands.running import Ran, config, evenray
from tests.unit.house import DAY, House, house


@pytest.fixture
def node(tmp_path: Path) -> Iterator[House]:
    """A node that does not run, whose images were delivered, but for one that waits."""
    with house(tmp_path / "state") as made:
        made.delivered(dataset("CR", instance="1.2.3.4.1"), dataset("CR", instance="1.2.3.4.2"))
        made.take(dataset("CR", instance="1.2.3.5.1", study="1.2.3.5"))
        banks = tmp_path / "state" / "banks"
        banks.mkdir()
        (banks / "site.bank.json").write_text("{}")
        config(tmp_path, "site: {station: S1}")
        yield made


def run(folder: Path, *arguments: object) -> Ran:
    return evenray(*arguments, "--config", folder / "evenray.yaml")


def backup(folder: Path) -> Ran:
    return run(folder, "backup", folder / "backup")


def restore(folder: Path, *more: object) -> Ran:
    return run(folder, "restore", folder / "backup", "--state-dir", folder / "new", *more)


def files(state: Path) -> dict[str, bytes]:
    spool = state / "spool"
    return {p.relative_to(spool).as_posix(): p.read_bytes() for p in spool.rglob("*.dcm")}


def counts(state: Path) -> dict[str, dict[str, int]]:
    ledger = Ledger(state / "ledger.sqlite")
    try:
        return ledger.counts()
    finally:
        ledger.close()


def part(folder: Path) -> Path:
    return next((folder / "backup" / "spool" / "originals").rglob("*.dcm"))


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_what_was_backed_up_is_restored_to_the_byte(node: House, tmp_path: Path) -> None:
    assert backup(tmp_path).code == 0
    ran = restore(tmp_path)
    assert ran.code == 0, ran.said
    assert files(tmp_path / "new") == files(node.state)
    assert len(files(node.state)) == 6
    assert counts(tmp_path / "new") == counts(node.state)
    assert (tmp_path / "new" / "banks" / "site.bank.json").read_text() == "{}"
    assert (tmp_path / "new" / "config.yaml").read_text() == (tmp_path / "evenray.yaml").read_text()


def test_a_second_backup_copies_only_what_is_new_and_drops_what_has_left(node: House, tmp_path: Path) -> None:
    assert "6 files and" in backup(tmp_path).out
    node.take(dataset("CR", instance="1.2.3.5.2", study="1.2.3.5"))
    assert "1 files and" in backup(tmp_path).out
    Retention(node.ledger, node.spool, node.settings).turn(now=60 * DAY, beat=lambda: None)
    ran = backup(tmp_path)
    assert "0 files and" in ran.out
    assert "5 removed" in ran.out
    assert run(tmp_path, "verify", "--backup", tmp_path / "backup").code == 0
    assert restore(tmp_path).code == 0
    assert files(tmp_path / "new") == files(node.state)


def test_an_interrupted_backup_leaves_the_earlier_one_usable(node: House, tmp_path: Path) -> None:
    backup(tmp_path)
    before = files(node.state)
    settings = load(tmp_path / "evenray.yaml")
    node.take(dataset("CR", instance="1.2.3.5.2", study="1.2.3.5"))
    cut = Copying(settings, None, tmp_path / "backup")
    (cut._target / cut._folder).mkdir()
    cut._files(cut._target / cut._folder / "ledger.sqlite")
    assert restore(tmp_path).code == 0, "as if killed before the manifest"
    assert files(tmp_path / "new") == before
    assert backup(tmp_path).code == 0
    folders = [path.name for path in (tmp_path / "backup").iterdir() if path.is_dir()]
    assert len(folders) == 2, "what the interrupted one left is gone"


def test_a_repetition_discarded_while_the_ledger_was_copied_is_no_loss(
    node: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the copy of the ledger and that of the files, a worker finds that one is a repetition."""
    repeated = node.receive(dataset("CR", instance="1.2.3.4.1"))
    keep, met = Copying._keep, []

    def slow(self: Copying, file: object) -> bool:
        if not met:
            met.append(1)
            row = node.ledger.instances.read("worker", now=0, lease_s=10)
            assert row is not None
            admit(row, ledger=node.ledger, spool=node.spool, settings=node.settings, banks={}, clock=lambda: 0.0)
        return keep(self, file)  # type: ignore[arg-type]

    monkeypatch.setattr(Copying, "_keep", slow)
    assert backup(tmp_path).code == 0
    assert node.row(repeated.id).state is Instance.DUPLICATE
    assert restore(tmp_path).code == 0
    assert files(tmp_path / "new") == files(node.state)


def test_a_file_that_rotted_before_the_backup_is_named_by_it(node: House, tmp_path: Path) -> None:
    path = min(path for path in node.there() if path.startswith("originals"))
    node.rot(path)
    ran = backup(tmp_path)
    assert ran.code == 1
    assert f"DAMAGED {path}: its bytes have changed" in ran.out
    again = restore(tmp_path)
    assert again.code == 1
    assert path in again.out


def test_a_damaged_backup_is_refused_and_nothing_is_restored(node: House, tmp_path: Path) -> None:
    backup(tmp_path)
    bad = part(tmp_path)
    flip(bad)
    for ran in (restore(tmp_path), run(tmp_path, "verify", "--backup", tmp_path / "backup")):
        assert ran.code != 0
        assert bad.name[:8] in ran.said.replace("\n", "")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["locks"]
    bad.unlink()
    assert "missing in the backup" in restore(tmp_path).err


@pytest.mark.parametrize("harm", ["{}", "not json", ""])
def test_a_damaged_manifest_is_refused(node: House, tmp_path: Path, harm: str) -> None:
    backup(tmp_path)
    (tmp_path / "backup" / "manifest.json").write_text(harm)
    ran = restore(tmp_path)
    assert ran.code == 2
    assert "manifest.json" in ran.err


def test_a_state_directory_in_use_or_not_empty_is_refused(node: House, tmp_path: Path) -> None:
    backup(tmp_path)
    before = files(node.state)
    ran = run(tmp_path, "restore", tmp_path / "backup")
    assert (ran.code, "is not empty" in ran.err) == (2, True)
    lock = Liveness(node.state / "locks", "work")
    ran = run(tmp_path, "restore", tmp_path / "backup", "--force")
    lock.close()
    assert (ran.code, "the node runs (work)" in ran.err) == (2, True)
    assert files(node.state) == before


def test_force_moves_what_is_there_aside_and_removes_nothing(node: House, tmp_path: Path) -> None:
    backup(tmp_path)
    before = files(node.state)
    node.ledger.close()
    assert run(tmp_path, "restore", tmp_path / "backup", "--force").code == 0
    (aside,) = node.state.glob("before-restore-*")
    assert files(aside) == files(node.state) == before


@pytest.mark.parametrize(
    "arguments", [(), ("x", "--from-spool"), ("--from-spool", "--ledger-only"), ("--ledger-only",), ("nowhere",)]
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    config(tmp_path)
    assert run(tmp_path, "restore", *arguments).code == 2


def test_a_backup_into_its_own_state_directory_is_refused(node: House, tmp_path: Path) -> None:
    assert "inside the state directory" in run(tmp_path, "backup", node.state / "backup").err


def test_a_lost_ledger_is_made_again_from_the_originals(node: House, tmp_path: Path) -> None:
    originals = {path for path in node.there() if path.startswith("originals")}
    node.ledger.close()
    (node.state / "ledger.sqlite").write_bytes(b"this was a ledger" * 1000)
    ran = run(tmp_path, "restore", "--from-spool")
    assert ran.code == 0, ran.said
    assert "3 originals of the spool had no row" in ran.out
    ledger = Ledger(node.state / "ledger.sqlite")
    assert {row.path for row in ledger.instances.unread()} == originals
    assert {row.sop_instance_uid for row in ledger.instances.unread()} == {"1.2.3.4.1", "1.2.3.4.2", "1.2.3.5.1"}
    ledger.close()
    assert "0 originals" in run(tmp_path, "restore", "--from-spool").out, "a repeat changes nothing"
    assert len(list(node.state.glob("ledger.sqlite.before-restore-*"))) == 1


def test_a_node_that_starts_on_a_new_ledger_removes_no_original(node: House, tmp_path: Path) -> None:
    node.ledger.close()
    (node.state / "ledger.sqlite").rename(tmp_path / "aside")
    ledger, spool = Ledger(node.state / "ledger.sqlite"), Spool(node.state / "spool")
    assert recover(spool, ledger, now=1e12) == 0
    assert len(node.there()) == 6
    (shown,) = ledger.attention()
    assert "6 files in the spool have no row" in shown["note"]
    ledger.close()
    assert "3 originals" in run(tmp_path, "restore", "--from-spool").out
    ledger = Ledger(node.state / "ledger.sqlite")
    assert ledger.attention() == []
    ledger.close()


def test_an_older_ledger_takes_in_what_came_after_it(node: House, tmp_path: Path) -> None:
    backup(tmp_path)
    late = node.take(dataset("CR", instance="1.2.3.5.9", study="1.2.3.5"))
    node.ledger.close()
    (node.state / "ledger.sqlite").write_bytes(b"x" * 5000)
    ran = run(tmp_path, "restore", tmp_path / "backup", "--ledger-only")
    assert ran.code == 0, ran.said
    ledger, spool = Ledger(node.state / "ledger.sqlite"), Spool(node.state / "spool")
    assert [row.path for row in ledger.instances.unread()] == [late.path]
    assert ledger.counts()["instance"]["reported"] == 2
    recover(spool, ledger, now=late.received_at + 1e10 + GRACE_S)
    assert len(node.there()) == 7
    ledger.close()


@pytest.mark.parametrize("way", ["whole", "ledger", "spool"])
def test_what_may_have_been_promised_after_the_backup_stays_when_only_copies_expire(
    node: House, tmp_path: Path, way: str
) -> None:
    only_copy = node.take(dataset("CR", instance="1.2.3.6.1", study="1.2.3.6"))
    node.work([])
    if way != "spool":
        assert backup(tmp_path).code == 0
    # Here a peer asks, is told that it is kept, and deletes its own copy: neither the backup nor a new ledger knows.
    state = tmp_path / ("new" if way == "whole" else "state")
    if way == "spool":
        (state / "ledger.sqlite").unlink()
    source = {"whole": (tmp_path / "backup",), "ledger": (tmp_path / "backup", "--ledger-only"), "spool": ()}[way]
    flags = ("--from-spool",) if way == "spool" else ()
    assert run(tmp_path, "restore", *source, *flags, "--state-dir", state).code == 0
    ledger = Ledger(state / "ledger.sqlite")
    try:
        rows = ledger._store.read("SELECT promised FROM instance WHERE path = ?", only_copy.path)
        assert [row["promised"] for row in rows] == [1]
        for batch in {row["batch"] for row in ledger._store.read("SELECT batch FROM instance WHERE batch NOTNULL")}:
            leaving = ledger.upkeep.leaving(batch, originals=True, results=False, only_copies=True)
            assert only_copy.path not in {file.path for file in leaving}
    finally:
        ledger.close()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_folder_that_holds_anything_else_is_refused_and_left_as_it_is(node: House, tmp_path: Path) -> None:
    (tmp_path / "usb" / "photos").mkdir(parents=True)
    ran = run(tmp_path, "backup", tmp_path / "usb")
    assert (ran.code, "is not empty" in ran.err) == (2, True)
    assert names(tmp_path / "usb") == {"photos"}


def test_a_folder_that_holds_the_state_directory_is_refused(node: House, tmp_path: Path) -> None:
    before = files(node.state)
    for target in (tmp_path, node.state, tmp_path / "state" / ".." / "..", node.state / "spool"):
        assert run(tmp_path, "backup", target).code == 2
    assert files(node.state) == before


def test_the_backup_of_another_node_is_refused_and_left_as_it_is(node: House, tmp_path: Path) -> None:
    backup(tmp_path)
    before = files(tmp_path / "backup")
    with house(tmp_path / "other") as other:
        other.take(dataset("CR", instance="1.2.9.1", study="1.2.9"))
        ran = run(tmp_path, "backup", tmp_path / "backup", "--state-dir", other.state)
    assert (ran.code, "of another node" in ran.err) == (2, True)
    assert files(tmp_path / "backup") == before
    assert restore(tmp_path).code == 0
    assert run(tmp_path, "backup", tmp_path / "backup", "--state-dir", tmp_path / "new").code == 0, "it is that node"


def test_a_backup_of_an_earlier_version_goes_on_and_what_others_put_there_stays(node: House, tmp_path: Path) -> None:
    backup(tmp_path)
    (tmp_path / "backup" / "node").unlink()
    others = [tmp_path / "backup" / "photos" / "x", tmp_path / "backup" / "spool" / "originals" / "aa" / "mine.dcm"]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    assert backup(tmp_path).code == 0
    assert all(path.exists() for path in others)
    config(tmp_path, "site: {station: S2}")
    (tmp_path / "backup" / "node").unlink()
    assert "of another node" in backup(tmp_path).err


def test_the_first_backup_goes_on_after_it_was_interrupted(
    node: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Copying, "_banks", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        backup(tmp_path)
    assert not (tmp_path / "backup" / "manifest.json").exists()
    assert backup(tmp_path).code == 0


@pytest.mark.parametrize("harm", [Path.unlink, flip, lambda file: file.write_bytes(b"")])
@pytest.mark.parametrize("looked_at", [True, False])
def test_a_good_copy_outlives_the_nodes_file(
    node: House, tmp_path: Path, harm: Callable[[Path], object], *, looked_at: bool
) -> None:
    make = node.take if looked_at else node.receive
    path = make(dataset("CR", instance="1.2.3.6.1", study="1.2.3.6")).path
    backup(tmp_path)
    before = files(node.state)
    harm(node.spool.at(path))
    for _ in range(2):
        ran = backup(tmp_path)
        assert ran.code == 1
        assert f"DAMAGED {path}" in ran.out
        assert "the good copy in this backup stays" in ran.out
    assert run(tmp_path, "verify", "--backup", tmp_path / "backup").code == 0
    assert restore(tmp_path).code == 0
    assert files(tmp_path / "new") == before


def test_a_file_that_was_mended_is_backed_up_again(node: House, tmp_path: Path) -> None:
    path = min(path for path in node.there() if path.startswith("originals"))
    good = node.spool.at(path).read_bytes()
    node.rot(path)
    assert backup(tmp_path).code == 1
    node.spool.at(path).write_bytes(good)
    assert backup(tmp_path).code == 0
    assert (tmp_path / "backup" / "spool" / path).read_bytes() == good


@pytest.mark.parametrize("stopped", ["_complete", "_aside", "readmit"])
def test_a_restore_of_the_ledger_that_is_stopped_anywhere_loses_nothing(
    node: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: str
) -> None:
    backup(tmp_path)
    late = node.take(dataset("CR", instance="1.2.3.5.9", study="1.2.3.5"))
    node.ledger.close()
    before = files(node.state)

    def stop(*_arguments: object, **_more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"dicom_node.commands.restore.{stopped}", stop)
        run(tmp_path, "restore", tmp_path / "backup", "--ledger-only")
    ledger, spool = Ledger(node.state / "ledger.sqlite"), Spool(node.state / "spool")
    # The one from before until the other is ready, and that one speaks for no file that it does not know.
    assert ledger.instances.has_path(late.path) or ledger.upkeep.born() == float("inf")
    assert ledger.instances.has_path(late.path) == (stopped != "readmit")
    recover(spool, ledger, now=1e12)
    ledger.close()
    assert files(node.state) == before
    ran = run(tmp_path, "restore", tmp_path / "backup", "--ledger-only")
    assert "1 originals of the spool had no row" in ran.out
    assert not list(node.state.glob(".restoring*"))


@pytest.mark.parametrize("released", [True, False])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEG2000Lossless, DeflatedExplicitVRLittleEndian])
def test_an_object_that_was_cut_off_is_parked_and_does_not_stand_in_the_way_of_the_whole_one(
    tmp_path: Path, syntax: str, *, released: bool
) -> None:
    with house(tmp_path / "state") as node:
        node.spool.prepare("receive-dead")
        whole = dataset("CR", instance="1.2.3.4.1")
        sent, other = content(whole, syntax), content(dataset("CR", instance="1.2.3.4.2"), syntax)
        for taken in (sent[: len(sent) * 3 // 4], other):
            received = node.spool.receive()
            received.append([taken])
            received.release() if released else received.close()
        assert readmit(node.spool, node.ledger, called_ae="E", now=1) == 2
        (early,) = node.ledger.attention()
        assert early["state"] == "parked"
        assert "ends early" in early["note"]
        (waits,) = node.ledger.instances.unread()
        assert node.spool.at(waits.path).read_bytes() == other
        node.look()
        assert node.row(waits.id).state is Instance.WAITING
        assert node.take(whole, now=3).state is Instance.WAITING, "the whole one, sent again"


def test_verify_says_that_all_is_well_or_what_is_not(node: House, tmp_path: Path) -> None:
    ran = run(tmp_path, "verify")
    assert (ran.code, "Every file is as it was recorded." in ran.out) == (0, True), ran.said
    path = min(path for path in node.there() if path.startswith("results"))
    node.rot(path)
    ran = run(tmp_path, "verify", "--json")
    assert ran.code == 1
    (found,) = json.loads(ran.out)["damaged"]
    assert found["path"] == path
    assert run(tmp_path, "status").code == 1
    node.rot(path)
    assert run(tmp_path, "verify").code == 0, "the bytes are back, and so is its good name"
    assert node.ledger.upkeep.damaged() == []
