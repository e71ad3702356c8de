"""`evenray status`: what is received, waiting, decided, delivered and parked, and which processes run."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dicom_node.audit_trail.attention import attention
from dicom_node.commands import status_timing
from dicom_node.commands.ledger_of import ledger_of
from dicom_node.exits import Exit
from dicom_node.ledger import Figures
from dicom_node.liveness import running
from dicom_node.spool import Spool


def status(config: Path | None, state_dir: Path | None, *, as_json: bool, timing: bool = False) -> int:
    """Print the node's state, or where time goes (`timing`); the exit code is 1 when something needs a person."""
    with ledger_of(config, state_dir) as (settings, ledger):
        if timing:
            return _timing(ledger.figures, as_json=as_json)
        facts: dict[str, Any] = {
            "state_dir": str(settings.state_dir),
            "running": running(settings.state_dir / "locks"),
            "free_mib": Spool(settings.state_dir / "spool").room().free_mib,
            "backlog": status_timing.backlog(ledger.figures, settings.state_dir / "locks", now=time.time()),
            "counts": ledger.counts(),
            "outcomes": ledger.outcomes(),
            "destinations": ledger.deliveries.counts(),
            "down": {
                name: {"since": since, "reason": reason}
                for name, (since, reason) in sorted(ledger.deliveries.all_down().items())
            },
            "commitment_requests": ledger.promises.waiting(),
            "attention": [*ledger.attention(), *attention(settings.state_dir, settings.audit, now=time.time())],
        }
    if as_json:
        print(json.dumps(facts, indent=1))
    else:
        _print(facts, Console())
    return Exit.FAILED if facts["attention"] else Exit.DONE


def _timing(figures: Figures, *, as_json: bool) -> int:
    facts = status_timing.timing(figures)
    if as_json:
        print(json.dumps(facts, indent=1))
    else:
        for table in status_timing.timing_tables(facts):
            Console().print(table)
    return Exit.DONE


def _print(facts: dict[str, Any], console: Console) -> None:
    console.print(f"state directory  {facts['state_dir']}", highlight=False, soft_wrap=True)
    console.print(f"running          {', '.join(facts['running']) or 'nothing'}", highlight=False)
    console.print(f"free space       {facts['free_mib']} MiB", highlight=False)
    console.print(f"queue            {status_timing.in_words(facts['backlog'])}", highlight=False, soft_wrap=True)
    console.print(_states(facts["counts"]))
    if facts["outcomes"]:
        outcomes = Table("outcome", "images", title="outcomes", title_justify="left")
        for name, count in facts["outcomes"].items():
            outcomes.add_row(name, str(count))
        console.print(outcomes)
    if facts["destinations"]:
        console.print(_destinations(facts["destinations"]))
    for name, down in facts["down"].items():
        since = datetime.fromtimestamp(down["since"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        console.print(f"{name} takes nothing since {since}: {down['reason']}", highlight=False, soft_wrap=True)
    for name, asked in facts["commitment_requests"].items():
        since = datetime.fromtimestamp(asked["since"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        words = f"{name} waits for the answer to {asked['requests']} commitment requests, the oldest of {since}"
        console.print(words, highlight=False, soft_wrap=True)
    if facts["attention"]:
        console.print(_attention(facts["attention"]))
        console.print("Try again with `evenray retry WHAT…` or `evenray retry --all`.", highlight=False)
    else:
        console.print("Nothing needs attention.", highlight=False)


def _states(counts: dict[str, dict[str, int]]) -> Table:
    table = Table("", "state", "count", title="work", title_justify="left")
    for what, states in counts.items():
        shown = {state: n for state, n in states.items() if n} or {"none": 0}
        for n, (state, count) in enumerate(shown.items()):
            table.add_row(what if n == 0 else "", state, str(count))
    return table


def _destinations(destinations: dict[str, dict[str, int]]) -> Table:
    table = Table("destination", "state", "objects", title="deliveries", title_justify="left")
    for name, states in destinations.items():
        for n, (state, count) in enumerate(states.items()):
            table.add_row(name if n == 0 else "", state, str(count))
    return table


def _attention(rows: list[dict[str, Any]]) -> Table:
    table = Table("what", "state", "UID", "why", title="needs a person", title_justify="left")
    for row in rows:
        table.add_row(f"{row['what']}:{row['id']}", row["state"], row["uid"], row["note"])
    return table
