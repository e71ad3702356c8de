"""A start at a bad moment: what passes is waited for and the node comes up; what does not is said, and it ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.exits import Exit
from tests.node import ROOT, node
from tests.soak.power import require_root

BLOCK = b"\0" * 4096


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a ledger and its log, to be the state directory."""
    require_root()
    folder = tmp_path / "state"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(folder: Path) -> Path:
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as out:
        try:
            while out.write(BLOCK) == len(BLOCK):
                pass
        except OSError:
            return ballast
    return ballast


def test_a_node_that_is_started_on_a_full_disk_comes_up_when_there_is_room(tmp_path: Path, tiny: Path) -> None:
    with node(tmp_path, role="listen", start=False, state_dir=str(tiny), listen={"processes": 1}) as made:
        ballast = _fill(tiny)
        made.start(ready=False)
        made.wait(lambda: made.log().count(f"ended (exit code {Exit.LATER:d})") >= 2, 60, "it is tried again")
        assert made.process
        assert made.process.poll() is None
        ballast.unlink()
        made.wait(lambda: "every process is up" in made.log(), 60, "it is up")


def test_a_process_ends_with_another_code_on_a_full_disk_than_without_rights(tiny: Path) -> None:
    command = [sys.executable, "-m", "dicom_node", "serve", "deliver", "--state-dir", str(tiny)]
    ballast = _fill(tiny)
    full = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert (full.returncode, "can't be used now" in full.stderr) == (Exit.LATER, True), full.stderr
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(tiny)], check=True)
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert (refused.returncode, "Read-only file system" in refused.stderr) == (Exit.USAGE, True), refused.stderr
    assert "Traceback" not in full.stderr + refused.stderr
