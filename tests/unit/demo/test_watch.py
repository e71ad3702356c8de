"""When the demo counts everything as settled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node.demo import watch
from dicom_node.demo.watch import Standing, wait_until_settled
from dicom_node.errors import Stop
from dicom_node.ledger import Ledger

DONE = Standing(received=5, decided=5, settled=5, open_batches=0, objects=9, kept=9, parked=0)


def test_all_reported_and_all_kept_is_done() -> None:
    assert DONE.done(5)
    assert DONE.share(5) == 1
    assert DONE.words(5) == "5 of 5 images decided, 9 of 9 objects confirmed by the archive"


def test_what_is_parked_is_not_waited_for() -> None:
    assert replace(DONE, kept=8, parked=1).done(5)


@pytest.mark.parametrize(
    "change", [{"received": 4}, {"settled": 4}, {"open_batches": 1}, {"kept": 8}, {"received": 0, "settled": 0}]
)
def test_anything_under_way_is_not_done(change: dict[str, int]) -> None:
    assert not replace(DONE, **change).done(5)


def test_waiting_ends_when_nothing_changes_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "STALLED_S", 0.2)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    said: list[str] = []
    try:
        last = wait_until_settled(ledger, expected=1, check=lambda: None, tell=lambda words, _share: said.append(words))
    finally:
        ledger.close()
    assert not last.done(1)
    assert said[-1] == "0 of 1 images decided, 0 of 0 objects confirmed by the archive"


def test_waiting_ends_when_the_node_is_gone(tmp_path: Path) -> None:
    def gone() -> None:
        raise Stop("the node ended by itself")

    ledger = Ledger(tmp_path / "ledger.sqlite")
    try:
        with pytest.raises(Stop, match="ended by itself"):
            wait_until_settled(ledger, expected=1, check=gone, tell=lambda _words, _share: None)
    finally:
        ledger.close()
