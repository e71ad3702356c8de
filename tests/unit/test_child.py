"""One supervised process: when it is started again, when it is killed, when it is given up."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node import child
from dicom_node.child import HOPELESS, LONGEST_WAIT_S, Child, wait_after
from dicom_node.exits import Exit
from tests.peers import wait_until

LIVES = [sys.executable, "-c", "import sys; sys.stdin.read()"]


def _dies(code: int) -> list[str]:
    return [sys.executable, "-c", f"raise SystemExit({code})"]


@pytest.fixture
def steady() -> Iterator[Child]:
    made = Child("steady", "steady", LIVES, hang_s=3600)
    made.look()
    yield made
    made.terminate()
    made.finish(time.monotonic() + 30)


def _starts(made: Child, beside: Child, count: int) -> bool:
    made.look()
    beside.look()
    return made.starts >= count


def test_what_dies_at_once_again_and_again_is_started_with_growing_waits_and_others_live_on(steady: Child) -> None:
    pid = steady.pid
    broken = Child("work", "work", _dies(1), hang_s=3600)
    wait_until(lambda: _starts(broken, steady, 2), 30, "the second start")
    second = time.monotonic()
    wait_until(lambda: _starts(broken, steady, 3), 30, "the third start")
    assert time.monotonic() - second >= wait_after(2) > 0
    assert broken.deaths == 2
    assert broken.down_s() > wait_after(2)
    assert (steady.pid, steady.starts, steady.deaths) == (pid, 1, 0)
    broken.finish(time.monotonic() + 30)


def test_waits_grow_and_have_an_end() -> None:
    waits = [wait_after(failures) for failures in range(100)]
    assert waits[:2] == [0, 0]
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_WAIT_S


def test_a_silent_main_loop_is_killed_and_started_again() -> None:
    made = Child("work", "work", LIVES, hang_s=0.3)
    made.look()
    made.heard(1.0)
    first = made.pid
    wait_until(lambda: _starts(made, made, 2), 30, "it is started again")
    assert (made.hangs, made.deaths) == (1, 1)
    assert made.pid != first
    assert not made.beating
    made.terminate()
    made.finish(time.monotonic() + 30)


def test_heartbeats_keep_a_process_and_only_a_change_of_them_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(child.time, "monotonic", lambda: now[0])
    made = Child("work", "work", LIVES, hang_s=10)
    try:
        made.look()
        for beat in (5.0, 6.0, 2.0):
            # A clock that was set back gives an older time: a heartbeat all the same.
            now[0] += 9
            made.heard(beat)
            made.look()
        assert made.hangs == 0
        now[0] += 9
        made.heard(2.0)
        now[0] += 9
        made.look()
        assert made.hangs == 1
    finally:
        made.finish(now[0])


def test_a_process_that_has_not_begun_gets_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(child.time, "monotonic", lambda: now[0])
    made = Child("work", "work", LIVES, hang_s=10)
    try:
        made.look()
        now[0] += child.START_S
        made.look()
        assert made.hangs == 0
        now[0] += 1
        made.look()
        assert made.hangs == 1
    finally:
        made.finish(now[0])


def test_a_process_is_given_up_only_when_it_could_not_run_at_its_first_start() -> None:
    made = Child("work", "work", _dies(HOPELESS), hang_s=3600)
    codes: list[int | None] = []
    wait_until(lambda: codes.append(made.look()) or codes[-1] == HOPELESS, 30, "it is given up")
    wait_until(lambda: codes.append(made.look()) or made.deaths == 2, 30, "it was tried once more")
    assert codes.count(HOPELESS) == 1
    made.finish(time.monotonic() + 30)


def test_what_does_not_end_in_time_is_killed() -> None:
    deaf = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(); sys.stdin.read()"
    made = Child("work", "work", [sys.executable, "-c", deaf], hang_s=3600)
    made.look()
    process = made.process
    assert process
    made.terminate()
    made.finish(time.monotonic() + 0.2)
    assert process.returncode is not None
    assert process.returncode < 0


def test_a_start_that_the_machine_has_no_room_for_is_tried_again_later(
    tmp_path: Path, steady: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(child.time, "monotonic", lambda: now[0])
    program = tmp_path / "program"
    made = Child("work", "work", [str(program)], hang_s=3600)
    for failures in (1, 2):
        made.look()
        assert (made.process, made.failures) == (None, failures)
    program.write_text(f"#!{sys.executable}\nimport sys\nsys.stdin.read()\n")
    program.chmod(0o755)
    made.look()
    assert made.process is None, "it waits"
    assert steady.process
    now[0] += wait_after(2)
    made.look()
    assert made.process is not None
    assert made.starts == 1
    made.terminate()
    made.finish(now[0] + 30)


def test_a_process_that_could_not_start_for_a_while_is_started_again() -> None:
    made = Child("work", "work", _dies(Exit.LATER), hang_s=3600)
    codes: list[int | None] = []
    wait_until(lambda: codes.append(made.look()) or made.starts == 2, 30, "the second start")
    assert set(codes) == {None}
    made.finish(time.monotonic() + 30)
