"""Who is alive: locks that the kernel drops when a process dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dicom_node.errors import AlreadyRunning
from dicom_node.liveness import Liveness, beats, remove_dead, running
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


def test_what_a_killed_process_left_is_no_heartbeat_of_another_one_with_its_number(tmp_path: Path) -> None:
    mine = Liveness(tmp_path, "work")
    left = tmp_path / "work-0123456789ab"
    left.write_text(json.dumps({"pid": os.getpid() + 1}))
    assert set(beats(tmp_path)) == {os.getpid()}
    mine.close()


def test_files_of_the_dead_are_removed_and_no_others(tmp_path: Path) -> None:
    mine = Liveness(tmp_path, "work")
    Liveness(tmp_path, "listen", alone=True).close()
    (tmp_path / "associations.count").write_text("")
    (tmp_path / "work-0123456789ab").write_text("{}")
    remove_dead(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {mine.name, "listen", "associations.count"}
    mine.close()


def test_a_file_that_is_taken_for_one_of_the_dead_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, between = Liveness._lock, [remove_dead]

    def late(starting: Liveness) -> bool:
        while between:
            between.pop()(tmp_path)
        return lock(starting)

    monkeypatch.setattr(Liveness, "_lock", late)
    mine = Liveness(tmp_path, "work")
    assert running(tmp_path) == ["work"]
    mine.close()
