"""The pace of a pull, what it leaves on the disk, and how it reaches its own node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.errors import AlreadyRunning
from dicom_node.pull import BURST, Asked, Pace, alone, listener
from dicom_node.settings import Listen


@given(
    per_minute=st.floats(0.5, 6000),
    studies=st.lists(st.lists(st.integers(1, 16), min_size=1, max_size=6), min_size=1, max_size=12),
    lag_s=st.floats(0, 5),
)
def test_no_more_than_the_pace_and_one_burst_are_ever_asked_for(
    per_minute: float, studies: list[list[int]], lag_s: float
) -> None:
    pace, now, asked = Pace(per_minute), 0.0, 0
    for study in studies:
        for n, count in enumerate(study):
            now += pace.wait_s(now=now, burst=BURST if n else 0)
            assert asked <= now * per_minute / 60 + (BURST if n else 0) + 1e-6
            pace.took(count, now=now)
            asked += count
            now += lag_s


def test_time_that_nothing_was_fetched_in_is_not_saved_up() -> None:
    pace = Pace(60)
    pace.took(1, now=0)
    pace.took(10, now=1000)
    assert pace.wait_s(now=1000) == 10
    assert pace.wait_s(now=1000, burst=4) == 6
    assert pace.wait_s(now=1011) == 0


def test_what_was_asked_for_is_read_back_until_it_is_over(tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    assert asked.left() == set()
    asked.begin(["1.2", "1.3"])
    assert Asked(tmp_path).left() == {"1.2", "1.3"}
    asked.over()
    asked.over()
    assert Asked(tmp_path).left() == set()


@pytest.mark.parametrize("content", [b"", b"{", b"7", b"\xff\xfe"])
def test_a_damaged_note_of_what_was_asked_for_stops_no_pull(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "asked.json").write_bytes(content)
    assert Asked(tmp_path).left() == set()


def test_only_one_pull_runs_and_the_end_of_a_process_frees_it(tmp_path: Path) -> None:
    with alone(tmp_path / "pull"), pytest.raises(AlreadyRunning, match="another pull"), alone(tmp_path / "pull"):
        pass
    with alone(tmp_path / "pull"):
        pass


@pytest.mark.parametrize(
    ("host", "reached"),
    [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("192.0.2.7", "192.0.2.7"), ("localhost", "localhost")],
)
def test_the_own_listener_is_reached_on_this_machine(host: str, reached: str) -> None:
    found = listener(Listen(ae_title="NODE", host=host, port=11113))
    assert (found.ae_title, found.host, found.port, found.tls) == ("NODE", reached, 11113, None)


def test_a_listener_under_tls_is_reached_with_its_own_certificate(tmp_path: Path) -> None:
    tls: dict[str, Any] = {"certificate": tmp_path / "c.pem", "key": tmp_path / "k.pem", "trusted": tmp_path / "t.pem"}
    found = listener(Listen.model_validate({"tls": {**tls, "minimum": "1.3"}})).tls
    assert found
    assert (found.trusted, found.certificate, found.key) == (tls["certificate"], tls["certificate"], tls["key"])
    assert (found.check_hostname, found.minimum) == (False, "1.3")
