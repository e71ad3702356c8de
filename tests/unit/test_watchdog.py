"""A process that hangs ends itself and says where, whichever way it hangs; one that only works long does not."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dicom_node.watchdog import HUNG, Watchdog
from tests.peers import wait_until

ROOT = Path(__file__).parents[2]
BEGIN = """
import ctypes, logging, time
from dicom_node.watchdog import Watchdog
logging.basicConfig()
def hangs_here():
    {hang}
watchdog = Watchdog(limit_s={limit_s}, frozen_s={frozen_s}, keep_every_s=5, alive=lambda: None)
with watchdog.over("working on instance 7", lambda: None):
    hangs_here()
"""
ASLEEP = "time.sleep(3600)"
FROZEN = "ctypes.PyDLL(None).sleep(3600)"
"""A call into C that keeps the interpreter's lock: no other thread of Python runs."""


def end_of(hang: str, *, limit_s: float, frozen_s: float) -> subprocess.CompletedProcess[str]:
    code = textwrap.dedent(BEGIN).format(hang=hang, limit_s=limit_s, frozen_s=frozen_s)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )


def test_what_hangs_in_python_is_named_and_ended() -> None:
    ended = end_of(ASLEEP, limit_s=0.3, frozen_s=3600)
    assert ended.returncode == HUNG
    assert "working on instance 7 hangs" in ended.stderr
    assert "in hangs_here" in ended.stderr


def test_what_hangs_in_a_library_that_lets_no_thread_run_is_ended_and_shown() -> None:
    ended = end_of(FROZEN + " if time.sleep(1.5) is None else 0", limit_s=3600, frozen_s=2)
    assert ended.returncode == 1
    assert "in hangs_here" in ended.stderr


def test_while_work_is_in_time_its_lease_is_kept_and_the_process_says_that_it_lives() -> None:
    kept: list[str] = []
    alive: list[str] = []

    def keep() -> None:
        kept.append("kept")
        raise RuntimeError("the disk is full")

    watchdog = Watchdog(limit_s=600, frozen_s=600, keep_every_s=0.05, alive=lambda: alive.append("alive"))
    try:
        with watchdog.over("working on instance 7", keep):
            wait_until(lambda: len(kept) > 2, 20, "the lease is kept, again after a fault")
        before = len(kept)
        assert len(alive) >= before
        with watchdog.over("working on instance 8", lambda: kept.append("the next one's")):
            wait_until(lambda: "the next one's" in kept, 20, "the next piece has its own lease")
        assert kept[:before] == ["kept"] * before
    finally:
        watchdog.close()


def test_nothing_is_watched_between_two_pieces(capfd: pytest.CaptureFixture[str]) -> None:
    alive: list[int] = []
    watchdog = Watchdog(limit_s=0.2, frozen_s=600, keep_every_s=0.05, alive=lambda: alive.append(1))
    try:
        for _ in range(3):
            count = len(alive)
            with watchdog.over("working on instance 7", lambda: None):
                wait_until(lambda count=count: len(alive) > count, 20, "it looks")
    finally:
        watchdog.close()
    assert "hangs" not in capfd.readouterr().err
