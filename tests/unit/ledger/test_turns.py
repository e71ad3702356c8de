"""Processes that want to write wait in a queue: nobody takes two turns while another waits, and the dead hold none."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from dicom_node.errors import LedgerUnavailable
from dicom_node.ledger import Ledger, turns
from dicom_node.ledger.turns import Turns
from tests.peers import wait_until


def _somebody_is_next(ledger: Path) -> bool:
    handle = os.open(f"{ledger}.next", os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def test_who_just_had_a_turn_comes_after_who_waits(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite"
    greedy, patient = Turns(ledger), Turns(ledger)
    order: list[str] = []

    def wait() -> None:
        with patient.mine():
            order.append("patient")

    waiting = threading.Thread(target=wait)
    with greedy.mine():
        waiting.start()
        wait_until(lambda: _somebody_is_next(ledger), 10, "the other waits")
        order.append("greedy")
    # It asks again at once, without a pause in which the other could wake.
    with greedy.mine():
        order.append("greedy")
    waiting.join()
    assert order == ["greedy", "patient", "greedy"]
    greedy.close()
    patient.close()


def test_a_process_that_dies_with_the_turn_holds_nobody_up(tmp_path: Path) -> None:
    file = tmp_path / "ledger.sqlite"
    ledger = Ledger(file)
    script = f"""
        import os, signal
        from pathlib import Path
        from dicom_node.ledger import Ledger
        with Ledger(Path({str(file)!r}))._store.write() as db:
            db.execute("INSERT INTO mark VALUES ('half', '1')")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -signal.SIGKILL
    ledger.association_opened("a", "receive-1", "A", "B", now=0)
    assert ledger.upkeep.mark("half") is None
    ledger.close()


@pytest.mark.parametrize("queued", [False, True], ids=["in its turn", "while it is next"])
def test_a_process_that_is_stopped_with_a_turn_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, queued: bool
) -> None:
    monkeypatch.setattr(turns, "PATIENCE_S", 0.2)
    ledger = tmp_path / "ledger.sqlite"
    stopped, mine = Turns(ledger), Turns(ledger)
    done: list[str] = []
    with stopped.mine():
        if queued:
            fcntl.flock(stopped._next, fcntl.LOCK_EX)
            fcntl.flock(stopped._turn, fcntl.LOCK_UN)

        def go_on() -> None:
            for _ in range(3):
                with mine.mine():
                    done.append("mine")

        waiting = threading.Thread(target=go_on, daemon=True)
        waiting.start()
        waiting.join(30)
        assert len(done) == 3
        fcntl.flock(stopped._next, fcntl.LOCK_UN)
    with mine.mine():
        assert mine._patience_s == turns.PATIENCE_S, "it queues again"
    mine.close()
    stopped.close()


def test_a_ledger_that_a_stopped_process_holds_is_said_to_be_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "PATIENCE_S", 0.2)
    file = tmp_path / "ledger.sqlite"
    ledger = Ledger(file)
    ledger._store._db.execute("PRAGMA busy_timeout=200")
    script = f"""
        import os, signal
        from pathlib import Path
        from dicom_node.ledger import Ledger
        with Ledger(Path({str(file)!r}))._store.write() as db:
            os.kill(os.getpid(), signal.SIGSTOP)
    """
    frozen = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
    try:
        os.waitid(os.P_PID, frozen.pid, os.WSTOPPED | os.WNOWAIT)
        with pytest.raises(LedgerUnavailable):
            ledger.association_opened("a", "receive-1", "A", "B", now=0)
        frozen.send_signal(signal.SIGCONT)
        assert frozen.wait(30) == 0
        ledger.association_opened("a", "receive-1", "A", "B", now=0)
    finally:
        frozen.kill()
        frozen.wait()
    ledger.close()
