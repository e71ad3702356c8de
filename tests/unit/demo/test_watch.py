"""When the demo counts everything as settled."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicom_node.demo.watch import Standing

DONE = Standing(received=5, decided=5, settled=5, open_batches=0, objects=9, kept=9, parked=0)


def test_all_reported_and_all_kept_is_done() -> None:
    assert DONE.done(5)
    assert DONE.share(5) == 1
    assert DONE.words(5) == "5 of 5 images decided, 9 of 9 objects kept by the archive"


def test_what_is_parked_is_not_waited_for() -> None:
    assert replace(DONE, kept=8, parked=1).done(5)


@pytest.mark.parametrize(
    "change", [{"received": 4}, {"settled": 4}, {"open_batches": 1}, {"kept": 8}, {"received": 0, "settled": 0}]
)
def test_anything_under_way_is_not_done(change: dict[str, int]) -> None:
    assert not replace(DONE, **change).done(5)
