"""A destination that takes nothing and a damaged file are seen where people and machines look."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dicom_node.commands.status import status
from dicom_node.metrics import Metrics
from tests.unit.house import house


def test_a_destination_that_is_down_is_in_the_status_and_in_the_metrics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "node.yaml"
    config.write_text(f"state_dir: {tmp_path / 'state'}\n")
    with house(tmp_path / "state") as node:
        node.ledger.deliveries.down("pacs", 1_700_000_000, "nobody listens")
        found = Metrics(node.settings, list).text().decode()
        assert 'evenray_destination_down_seconds{destination="pacs"}' in found
        assert "evenray_damaged_files 0.0" in found
        status(config, None, as_json=True)
        assert json.loads(capsys.readouterr().out)["down"] == {
            "pacs": {"since": 1_700_000_000, "reason": "nobody listens"}
        }
        status(config, None, as_json=False)
        assert "pacs takes nothing since 2023-11-14 22:13:20 UTC: nobody listens" in capsys.readouterr().out
        node.ledger.deliveries.up("pacs")
        status(config, None, as_json=True)
        assert json.loads(capsys.readouterr().out)["down"] == {}
        assert "destination_down_seconds{" not in Metrics(node.settings, list).text().decode()
