"""Who is alive: locks that the kernel drops when a process dies."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dicom_node.errors import AlreadyRunning
from dicom_node.liveness import Liveness, running
from tests.peers import wait_until


def _other(folder: Path) -> subprocess.Popen[bytes]:
    script = f"""
        import sys
        from pathlib import Path
        from dicom_node.liveness import Liveness
        mine = Liveness(Path({str(folder)!r}), "work")
        Path({str(folder)!r}).with_suffix(".name").write_text(mine.name)
        sys.stdin.read()
    """
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdin=subprocess.PIPE)


def test_a_process_is_alive_until_it_is_killed_and_dead_at_once_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    mine = Liveness(folder, "deliver")
    process = _other(folder)
    note = folder.with_suffix(".name")
    wait_until(lambda: note.exists() and note.read_text(), 20, "the other process to start")
    name = note.read_text()
    assert mine.alive(name)
    assert running(folder) == ["deliver", "work"]
    process.kill()
    process.wait()
    assert process.stdin is not None
    process.stdin.close()
    assert not mine.alive(name)
    assert running(folder) == ["deliver"]
    mine.close()


def test_a_role_that_runs_once_can_not_be_started_twice(tmp_path: Path) -> None:
    first = Liveness(tmp_path, "listen", alone=True)
    with pytest.raises(AlreadyRunning, match="another `listen` runs"):
        Liveness(tmp_path, "listen", alone=True)
    first.close()
    Liveness(tmp_path, "listen", alone=True).close()


def test_a_role_that_may_run_many_times_gets_a_name_each(tmp_path: Path) -> None:
    one, two = Liveness(tmp_path, "work"), Liveness(tmp_path, "work")
    assert one.name != two.name
    assert one.alive(two.name)
    one.close()
    two.close()


def test_an_unknown_name_is_dead(tmp_path: Path) -> None:
    mine = Liveness(tmp_path, "work")
    assert not mine.alive("work-never-was")
    mine.close()
