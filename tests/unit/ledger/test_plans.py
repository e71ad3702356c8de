"""No query of the loops looks at more rows than it takes: its plan walks an index, whatever the ledger has grown to."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dicom_node.ledger import Batches, Deliveries, Instances, Ledger, NewObject, Opened, Promises
from dicom_node.records import ResultKind
from dicom_node.retry import TryAt
from dicom_node.settings import Assembly
from dicom_node.states import Instance
from tests.unit.ledger.test_ledger import PASSED, _admit, _arrive, _header, _read

GROWING = ("association", "batch", "instance", "object", "delivery", "commitment", "promise", "history", "damage")
NOT_IN_LOOPS = {
    "Ledger.make_room": "once when a receiver starts",
    "Batches.open": "for reports and tests",
    "Deliveries.counts": "`evenray status`: counts along an index",
    "Deliveries.of_batch": "for commands and tests",
    "Deliveries.of_instance": "for commands and tests",
    "Instances.unread": "for reports and tests",
    "Promises.assume": "`evenray restore`, once, while no process of the node runs",
    "Ledger.attention": "`evenray status`",
    "Ledger.close": "asks nothing",
    "Ledger.counts": "`evenray status`: counts along an index",
    "Ledger.history": "for tests",
    "Ledger.known_paths": "for tests",
    "Promises.waiting": "`evenray status`: counts along an index",
    "Ledger.outcomes": "`evenray status`: counts along an index",
}
"""Everything else that is public is called by this test, so that a new query can't be forgotten."""
PARTS = (Ledger, Instances, Batches, Deliveries, Promises)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def _public() -> set[str]:
    return {
        f"{part.__name__}.{name}"
        for part in PARTS
        for name, what in vars(part).items()
        if inspect.isfunction(what) and not name.startswith("_")
    }


def _live(ledger: Ledger) -> None:
    """One life of everything: each public call of the loops once."""
    instances, batches, deliveries = ledger.instances, ledger.batches, ledger.deliveries
    rules = Assembly(quiet_s=2, quiet_after_release_s=1, cap_s=2)
    ledger.association_opened("a", "receive-1", "A", "B", now=0)
    for _ in range(6):
        _admit(ledger, _arrive(ledger), to=["pacs", "other"])
    ledger.association_ended("a", "released", now=1)
    instances.arrive_all([], opened=[Opened("b", "receive-1", "A", "B", 0)], now=1)
    row = _arrive(ledger, association="b")
    reading = _read(ledger)
    instances.holder(reading, "d1")
    instances.has_path(row.path)
    instances.park(reading, "broken", now=1)
    instances.retry(row.id, now=1)
    reading = _read(ledger)
    instances.release(reading, "later", next_try=1.0, now=1)
    reading = instances.read("worker", now=2, lease_s=10)
    assert reading is not None
    instances.admit(reading, _header(reading), "d7", forward_to=["pacs"], now=2)
    result = NewObject(ResultKind.SECONDARY_CAPTURE, "1.2", "8.8", "results/8.8", ["pacs"])
    while (claimed := instances.claim("worker", now=3, lease_s=10)) is not None:
        ledger.renew("instance", claimed.fence, lease_until=9)
        instances.decide(claimed, PASSED, [result], now=3)
    ledger.objects_of(1)
    ledger.is_result("8.8")
    ledger.names("results/8.8")
    ledger.present({"8.8", "8.9"})
    ledger.paths_in("originals/")
    for batch, _ in batches.to_decide(now=100, rules=rules):
        batches.close(batch, "quiet", now=100)
    for ending in ("release", "park", "report"):
        batch = batches.claim("worker", now=100, lease_s=10)
        assert batch is not None
        named = [row.id for row in instances.of_batch(batch.id) if row.state is Instance.DECIDED]
        if ending == "release":
            batches.release(batch, "later", next_try=100.0, now=100)
        elif ending == "park":
            batches.park(batch, "broken", now=100)
            batches.retry(batch.id, now=100)
        else:
            report = NewObject(ResultKind.STRUCTURED_REPORT, "1.2", "9.9", "results/9.9", ["pacs"])
            batches.earlier_report(batch)
            batches.report(batch, named, report, now=100)
    batches.get(1)
    _send(deliveries)
    _promise(ledger)
    ledger.sweep(lambda _name: False, longest_s=10, now=300)
    ledger.checkpoint()


def _send(deliveries: Deliveries) -> None:
    deliveries.destinations()
    deliveries.due("pacs", now=100)
    sent = deliveries.claim("pacs", "sender", now=100, lease_s=10, limit=5)
    for n, row in enumerate(sent):
        if n:
            deliveries.stored(row, 0, "stored", commitment=True, now=100)
        else:
            deliveries.release(row, "later", next_try=200.0, now=100)
    deliveries.unconfirmed("pacs", limit=9)
    rows = deliveries.to_ask("pacs", now=100, limit=9)
    deliveries.asked(rows, "2.25.1", now=100)
    late = deliveries.overdue("pacs", now=1000, limit=9)
    deliveries.ask_again(late[0], "no report", next_try=100.0, now=100)
    deliveries.give_up_asking(late[1], "no report", now=100)
    deliveries.reported("2.25.1", [late[2].sop_instance_uid], {}, then=lambda _asked, _why: TryAt(0), now=100)
    deliveries.accepted(deliveries.to_ask("pacs", now=100, limit=1)[0], "none is asked for any more", now=100)
    deliveries.retry(late[1].id, now=100)
    deliveries.unfinished("pacs")
    (first,) = deliveries.claim("other", "sender", now=100, lease_s=10, limit=1)
    deliveries.park(first, "refused", now=100)
    deliveries.waited("pacs", made_before=100, limit=9)
    deliveries.down("pacs", 100, "nobody there")
    deliveries.all_down()
    deliveries.up("pacs")


def _promise(ledger: Ledger) -> None:
    promises = ledger.promises
    asked = {"calling_ae": "A", "called_ae": "B", "address": "", "most": 99, "duplicate": 1, "report_after": 0.0}
    for _ in range(2):
        promises.ask("2.25.8", [("1.2", "8.8")], **asked, now=100)
    promises.unread_since()
    asked_first = promises.next_asked()
    assert asked_first is not None
    row = promises.get(asked_first[0])
    assert row is not None
    held = promises.held("8.8")
    assert [promises.held_elsewhere(file) for file in held] == [False]
    assert promises.keep(held)
    promises.decide(row, [0], now=100)
    assert promises.callers() == ["A"]
    assert promises.untold("A", limit=9) == [row.id]
    for ending in ("release", "park", "report"):
        promises.free(row.id)
        assert promises.decided(row.id)
        assert promises.due("A", now=100) == promises.get(row.id)
        claimed = promises.claim(row.id, "sender", now=100, lease_s=10)
        assert claimed is not None
        if ending == "release":
            promises.release(claimed, "later", next_try=200.0, now=100)
        elif ending == "park":
            promises.park(claimed, "never", now=100)
            promises.retry(row.id, now=100)
        else:
            promises.reported(claimed, "told", now=100)
    promises.ask("2.25.8", [("1.2", "8.8")], **asked, now=100)
    # What another peer waits for, when the sweep comes.
    promises.ask("2.25.9", [("1.2", "8.8")], **{**asked, "calling_ae": "C"}, now=100)
    while (asked_first := promises.next_asked()) is not None:
        row = promises.get(asked_first[0])
        assert row is not None
        promises.decide(row, [0], now=100)


def _noting(called: set[str], name: str, what: Callable[..., Any]) -> Callable[..., Any]:
    def noted(*given: Any, **named: Any) -> Any:
        called.add(name)
        return what(*given, **named)

    return noted


def _calls(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The public functions that are called from now on."""
    called: set[str] = set()
    for part in PARTS:
        for name, what in list(vars(part).items()):
            if inspect.isfunction(what) and not name.startswith("_"):
                monkeypatch.setattr(part, name, _noting(called, f"{part.__name__}.{name}", what))
    return called


def _keep_house(ledger: Ledger) -> None:
    """A batch with all its receipts, and one look of the housekeeper at it."""
    _admit(ledger, _arrive(ledger), to=["pacs"])
    claimed = ledger.instances.claim("worker", now=3, lease_s=10)
    assert claimed is not None
    ledger.instances.decide(claimed, PASSED, [], now=3)
    for batch, _ in ledger.batches.to_decide(now=1e9, rules=Assembly()):
        ledger.batches.close(batch, "quiet", now=1e9)
    batch = ledger.batches.claim("worker", now=1e9, lease_s=10)
    assert batch is not None
    report = NewObject(ResultKind.STRUCTURED_REPORT, "1.2", "9.9", "results/9.9", ["pacs"])
    ledger.batches.report(batch, [claimed.id], report, now=1e9)
    for row in ledger.deliveries.claim("pacs", "sender", now=1e9, lease_s=10, limit=5):
        ledger.deliveries.stored(row, 0, "stored", commitment=False, now=1e9)
    assert ledger.upkeep.settle() == 1
    assert ledger.upkeep.due(settled_before=2e9, after=(0.0, 0))
    assert ledger.upkeep.leaving(batch.id, originals=True, results=True, only_copies=True)
    ledger.upkeep.own_due(before=2e9, only_copies=True, limit=9)


def _plans(ledger: Ledger, life: Callable[[Ledger], None] = _live) -> dict[str, list[str]]:
    """The plan of every statement of one life."""
    seen: list[str] = []
    ledger._store._db.set_trace_callback(seen.append)
    life(ledger)
    ledger._store._db.set_trace_callback(None)
    asked = {text for text in seen if re.match(r"\s*(WITH|SELECT|UPDATE|DELETE|INSERT)", text)}
    return {
        text: [str(row["detail"]) for row in ledger._store.read(f"EXPLAIN QUERY PLAN {text}")] for text in sorted(asked)
    }


def test_every_call_of_the_loops_is_looked_at(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    called = _calls(monkeypatch)
    _live(ledger)
    assert _public() - called == set(NOT_IN_LOOPS)


def _aliases(text: str) -> set[str]:
    """The names under which a statement knows tables that grow."""
    named = re.findall(rf"\b({'|'.join(GROWING)})\b(?:\s+(?:AS\s+)?(\w+))?", text)
    return {name for pair in named for name in pair if name}


def _grows(step: str, text: str) -> bool:
    """Whether one step of a plan costs more the more rows there are."""
    table = step.split()[1] if step.startswith(("SCAN ", "SEARCH ")) else ""
    # The least or greatest of a column without an index is called a search, too: the greatest number is at the end.
    without = " USING " not in step and "max(id)" not in text
    # The first of a partial index that is in the order asked for is one row.
    first = step.endswith("USING INDEX instance_unread") and text.endswith("ORDER BY received_at LIMIT 1")
    scans = table in _aliases(text) and not first and (step.startswith("SCAN ") or without)
    # An aggregate over all of one state reads all of it, by whatever index: the first of an order is asked for.
    scans |= (
        re.search(r"(?:min|max|count)\(\w+\)(?: AS \w+)? FROM instance", text) is not None and "max(id)" not in text
    )
    # Most of history is about deliveries: to look for those alone is to read it all.
    scans |= step.endswith("history_by_ref (what=?)")
    return scans or "TEMP B-TREE" in step or "AUTOMATIC" in step


def test_no_query_of_the_loops_scans_or_sorts_what_grows(ledger: Ledger) -> None:
    plans = _plans(ledger)
    assert len(plans) > 50
    faults = [f"{step}: {text}" for text, plan in plans.items() for step in plan if _grows(step, text)]
    assert not faults, "\n".join(faults)


def test_the_housekeeper_reads_the_history_of_its_own_batch_only(ledger: Ledger) -> None:
    plans = _plans(ledger, _keep_house)
    of_history = [
        step for text, plan in plans.items() if text.startswith("SELECT") for step in plan if "history" in step
    ]
    assert len(of_history) >= 4
    assert all(step.endswith("(what=? AND ref=?)") for step in of_history), "\n".join(of_history)


def test_a_scan_and_a_sort_would_be_noticed(ledger: Ledger) -> None:
    for text in (
        "SELECT i.id FROM instance i WHERE i.note = 'x'",
        "SELECT min(received_at) FROM instance WHERE state = 'waiting' AND note = '' OR note = 'x'",
        "SELECT id FROM instance WHERE state = 'waiting' AND next_try <= 5 ORDER BY id LIMIT 1",
        "SELECT max(at) FROM history WHERE what = 'delivery'",
    ):
        plan = [str(row["detail"]) for row in ledger._store.read(f"EXPLAIN QUERY PLAN {text}")]
        assert any(_grows(step, text) for step in plan)
