"""What the audit trail asks of the ledger looks at new rows of history only, however long it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.ledger import Ledger
from tests.unit.ledger.test_ledger import _admit, _arrive
from tests.unit.ledger.test_plans import _aliases, _live, _plans


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def _asked(ledger: Ledger) -> None:
    ledger.trail.head()
    ledger.trail.events(0, 5)
    ledger.trail.held("1.2/p")
    ledger.trail.files_of("1.2/p")


def test_no_question_reads_a_whole_table(ledger: Ledger) -> None:
    _live(ledger)
    plans = _plans(ledger, _asked)
    assert len(plans) == 7
    for text, plan in plans.items():
        for step in plan:
            table = step.split()[1] if step.startswith("SCAN ") else ""
            assert table not in _aliases(text), f"{step}: {text}"
            assert not step.endswith("history_by_ref (what=?)"), f"{step}: {text}"
            # All states of one step, or all of one range: the range of numbers comes first.
            if ("history" in step and "max(id)" not in text) or step.startswith(("SEARCH h ", "SEARCH p ")):
                assert "PRIMARY KEY (rowid" in step or "history_by_ref (what=? AND ref=?" in step, f"{step}: {text}"


def test_there_is_a_head_without_any_history(ledger: Ledger) -> None:
    assert ledger.trail.head() == 0
    assert ledger.trail.events(0, 100) == []
    _admit(ledger, _arrive(ledger), to=["pacs"])
    assert ledger.trail.head() > 0
