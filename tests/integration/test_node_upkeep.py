"""A real node keeps house: what has its receipts leaves, bit rot is said, and a backup brings everything back."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dicom_node.demo.archive import Archive
from tests.node import NEVER_S, Node, archive, contents, node, study, to_archive, uid_of
from tests.peers import free_port

pytestmark = [
    # The library leaves the socket of a peer that died to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
STUDY = "1.2.826.0.1.3680043.10.1.70"
OTHER = "1.2.826.0.1.3680043.10.1.71"
AT_ONCE = {"originals_days": 1e-9, "results_days": 1e-9, "every_s": 0.2}
OPEN = {"quiet_s": NEVER_S, "quiet_after_release_s": NEVER_S, "cap_s": 2 * NEVER_S}
QUIET = {"quiet_s": 0.5, "quiet_after_release_s": 0.5}


@pytest.fixture
def pacs_port() -> int:
    return free_port()


@pytest.fixture
def pacs(tmp_path: Path, pacs_port: int) -> Iterator[Archive]:
    with archive(tmp_path, pacs_port) as made:
        yield made


def spooled(made: Node) -> set[str]:
    """Files that hold something: receivers make empty ones ahead."""
    files = (p for kind in ("originals", "results") for p in (made.spool / kind).rglob("*.dcm"))
    return {path.relative_to(made.spool).as_posix() for path in files if path.stat().st_size}


def end(made: Node) -> None:
    """SIGKILL everything, as a power cut does to processes."""
    for pid in made.alive():
        os.kill(pid, signal.SIGKILL)
    made.wait(lambda: not made.alive(), 20, "every process is dead")


def test_what_has_its_receipts_leaves_even_if_the_node_is_killed_between_row_and_file(
    tmp_path: Path, pacs: Archive, pacs_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv("EVENRAY_FAULT", "retention.expired:kill")
    monkeypatch.setenv("EVENRAY_FAULT_MARKS", str(marks))
    files = study(tmp_path / "in", STUDY, 2)
    with node(tmp_path, to_archive(pacs.port), port=pacs_port, retention=AT_ONCE) as made:
        made.accept(*files)
        made.wait(lambda: made.counts()["instance"] == {"expired": 2}, 120, "both originals have expired")
        made.wait(lambda: not spooled(made), 60, "their files have left, and those of the results")
        assert list(marks.iterdir()), "it was killed"
        held = contents(pacs)
        assert len(held) == 5, "two originals, two results, a report"
        assert made.one("SELECT count(*) FROM object WHERE state <> 'expired'") == 0
        made.accept(*files)
        made.wait(lambda: made.counts()["instance"] == {"duplicate": 2, "expired": 2}, 60, "repetitions are known")
        made.wait(lambda: not spooled(made), 20, "and take no room")
        assert contents(pacs) == held


def test_a_file_that_rots_is_found_while_the_node_runs(tmp_path: Path, pacs: Archive, pacs_port: int) -> None:
    (file,) = study(tmp_path / "in", STUDY, 1)
    # A round every second, more or less.
    often = {"every_days": 1e-5}
    with node(tmp_path, to_archive(pacs.port), port=pacs_port, integrity=often) as made:
        made.accept(file)
        made.wait_settled()
        path = made.spool / made.one("SELECT path FROM instance")
        good = path.read_bytes()
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        made.wait(lambda: made.rows("SELECT * FROM damage"), 60, "the sweep finds it")
        assert "DAMAGED: instance 1" in made.log()
        status = made.cli("status")
        assert status.returncode == 1
        assert "damaged" in status.stdout
        verified = made.cli("verify")
        assert verified.returncode == 1
        assert "have changed" in " ".join(verified.stdout.split())
        made.accept(file)
        made.wait(lambda: path.read_bytes() == good, 60, "the same object sent again mends it")
        assert made.cli("verify").returncode == 0
        assert made.cli("status").returncode == 0


def _keeps_sending(made: Node, files: Sequence[Path], enough: threading.Event) -> list[Path]:
    """A modality that sends one object after the other until it is told to stop; what was acknowledged."""
    sent: list[Path] = []
    for path in files:
        if enough.is_set():
            break
        made.accept(path)
        sent.append(path)
    return sent


def test_after_the_loss_of_everything_a_backup_made_while_receiving_brings_it_back(
    tmp_path: Path, pacs: Archive, pacs_port: int
) -> None:
    first, later = study(tmp_path / "in", STUDY, 2), study(tmp_path / "more", OTHER, 8)
    options: dict[str, Any] = {"port": pacs_port, "assembly": QUIET}
    with node(tmp_path, to_archive(pacs.port), **options) as made:
        made.accept(*first)
        made.wait_settled()
        before = set(made.results())
        made.configure(assembly=OPEN)
        made.restart()
        enough = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(_keeps_sending, made, later, enough)
            made.wait(lambda: made.one("SELECT count(*) FROM instance") >= 4, 120, "the modality is at work")
            acknowledged = {row["sop_instance_uid"] for row in made.rows("SELECT * FROM instance")}
            taken = made.cli("backup", str(tmp_path / "backup"))
            enough.set()
            assert sending.result(120)
        assert taken.returncode == 0, taken.stdout + taken.stderr
        end(made)
        shutil.rmtree(made.state)

        restored = made.cli("restore", str(tmp_path / "backup"))
        assert restored.returncode == 0, restored.stdout + restored.stderr
        had = {row["sop_instance_uid"] for row in made.rows("SELECT * FROM instance")}
        assert acknowledged <= had, "nothing that was acknowledged before the backup is missing"
        made.configure(assembly=QUIET)
        made.start()
        made.wait_settled()
        assert set(made.counts()["instance"]) == {"reported"}
        assert set(made.counts()["delivery"]) == {"delivered"}
        held = contents(pacs)
        assert had | set(made.results()) <= held.keys()
        assert before <= set(made.results()), "what was delivered keeps its UIDs"
        # The modality still has what came after the backup, and sends it; repeats change nothing.
        made.accept(*first, *later)
        made.wait_settled()
        after = contents(pacs)
        captures = "SELECT count(*) FROM object WHERE kind = 'secondary_capture'"
        made_of = "SELECT count(*) FROM instance WHERE json_extract(decision, '$.outcome') = 'harmonized'"
        assert made.one(captures) == made.one(made_of)
        assert {uid_of(path) for path in [*first, *later]} <= after.keys()
        assert held.items() <= after.items(), "no object came back with other bytes"


def test_a_lost_ledger_is_rebuilt_from_the_spool_and_gives_the_same_results(
    tmp_path: Path, pacs: Archive, pacs_port: int
) -> None:
    files = study(tmp_path / "in", STUDY, 2)
    with node(tmp_path, to_archive(pacs.port), port=pacs_port, assembly=QUIET) as made:
        made.accept(*files)
        made.wait_settled()
        held, results = contents(pacs), made.results()
        made.terminate()
        (made.state / "ledger.sqlite").write_bytes(b"no ledger any more" * 400)
        made.start(ready=False)
        assert made.process
        assert made.process.wait(60) == 2
        assert "evenray restore --from-spool" in made.log()
        rebuilt = made.cli("restore", "--from-spool")
        assert rebuilt.returncode == 0, rebuilt.stdout + rebuilt.stderr
        made.start()
        made.wait_settled()
        assert made.counts()["instance"] == {"reported": 2}
        assert made.results() == results
        assert contents(pacs) == held, "what is sent again has the same UIDs and bytes"
