"""When to stop: whoever asks, and wherever the waiting is when the signal comes."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading

from dicom_node.stopping import Stopping


def test_a_signal_at_any_moment_of_waiting_ends_it() -> None:
    # The handler runs after each line of what the waiting consists of, once; a lock held there would be its end.
    script = """
        import signal, sys
        from dicom_node.stopping import Stopping

        def after(lines, stopping):
            left = [lines]

            def trace(frame, event, _):
                if event == "line":
                    left[0] -= 1
                    if left[0] == 0:
                        signal.raise_signal(signal.SIGTERM)
                return trace

            sys.settrace(trace)
            try:
                stopped = stopping.wait(0.001)
            finally:
                sys.settrace(None)
            return left[0] > 0, stopped

        done, lines = False, 0
        while not done:
            lines += 1
            stopping = Stopping()
            stopping.on_signals()
            done, stopped = after(lines, stopping)
            assert done or stopping.asked
        print("waited in", lines, "ways")
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=30, check=False
    )
    assert "waited in" in ran.stdout, ran.stderr


def test_every_thread_that_waits_is_woken_and_so_is_who_comes_later() -> None:
    stopping = Stopping()
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append(stopping.wait(300))) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert not stopping.wait(0.01)
    stopping.ask()
    stopping.ask()
    for thread in threads:
        thread.join(30)
    assert found == [True] * 5
    assert stopping.asked
    assert stopping.wait(300)


def test_the_first_signal_is_named() -> None:
    stopping = Stopping()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        stopping.on_signals()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert (stopping.asked, stopping.why) == (True, "SIGTERM")
