"""`evenray health`: does the node live, and can it receive right now? For people, containers and monitoring."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from dicom_node.commands.screen import cell, console, table
from dicom_node.commands.serve import load
from dicom_node.exits import Exit
from dicom_node.health import look
from dicom_node.ledger import faults_in


def health(config: Path | None, state_dir: Path | None, *, as_json: bool) -> int:
    """Print every check; the exit code is 0 when the node is live and ready."""
    found = look(load(config, state_dir), whole=faults_in)
    if as_json:
        print(json.dumps({"is_live": found.is_live, "is_ready": found.is_ready, **asdict(found)}, indent=1))
    else:
        shown = table("", "", "check", "", "found")
        for what, checks in (("live", found.live), ("ready", found.ready)):
            for check in checks:
                state = cell("ok", "green") if check.ok else cell("FAIL", "bold red")
                shown.add_row(what, cell(check.name), state, cell(check.reason))
        out = console()
        out.print(shown)
        out.print("The node can receive." if found.is_ready else "The node can not do its work.")
    return Exit.DONE if found.is_ready else Exit.FAILED
