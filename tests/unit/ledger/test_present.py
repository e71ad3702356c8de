"""What the ledger has seen of a list of UIDs, whatever became of it: an archive is asked for the rest only."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.ledger import Ledger, NewObject
from dicom_node.records import ResultKind
from tests.unit.ledger.test_ledger import PASSED, _admit, _arrive, _read


def test_every_way_of_being_here_counts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    try:
        received = _arrive(ledger)
        reading = _read(ledger)
        assert ledger.present([received.sop_instance_uid, "9.9"]) == {received.sop_instance_uid}
        ledger.instances.park(reading, "no DICOM", now=1)
        admitted = _admit(ledger, _arrive(ledger, "5.5"))
        claimed = ledger.instances.claim("w", now=5, lease_s=10)
        assert claimed
        made = NewObject(ResultKind.SECONDARY_CAPTURE, "1.2", "8.8", "results/08/8.8.dcm", ())
        ledger.instances.decide(claimed, PASSED, [made], now=6)
        found = ledger.present([received.sop_instance_uid, "5.5", "8.8", "9.9", *(f"7.{n}" for n in range(500))])
        assert found == {received.sop_instance_uid, "5.5", "8.8"}
        assert admitted
    finally:
        ledger.close()


@pytest.mark.parametrize("uids", [[], ["1.2"], [f"1.{n}" for n in range(401)]])
def test_an_empty_ledger_has_nothing(tmp_path: Path, uids: list[str]) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    try:
        assert ledger.present(uids) == set()
    finally:
        ledger.close()
