"""`evenray doctor` looks at the audit repository as the node would, and tells of messages that wait or were lost."""

from __future__ import annotations

import json
import time
from pathlib import Path

from dicom_node.audit_trail.spool import MessageSpool, Trouble
from tests.audit import repository
from tests.unit.commands.running import config, evenray


def _states(file: Path) -> dict[str, tuple[str, str]]:
    ran = evenray("doctor", "-c", file, "--json")
    assert ran.out, ran
    checks = json.loads(ran.out)["checks"]
    return {check["what"]: (check["state"], check["found"]) for check in checks if check["what"].startswith("audit")}


def test_a_repository_is_asked_for_and_what_it_did_not_take_is_told(tmp_path: Path) -> None:
    with repository(tmp_path) as server:
        file = config(tmp_path, f"audit: {json.dumps(server.settings())}")
        found = _states(file)
        assert found["audit repository"] == ("ok", f"127.0.0.1:{server.port} by tls")
        assert found.keys() <= {"audit repository", "audit.tls"}
    spool = MessageSpool(tmp_path / "state" / "audit" / "spool", limit_bytes=100)
    spool.note(Trouble(lost=3, lost_at=time.time()))
    found = _states(file)
    assert found["audit repository"][0] == "fail"
    assert "refused" in found["audit repository"][1]
