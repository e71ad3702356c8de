"""`evenray retry`: a person's decision to try again what was parked."""

from __future__ import annotations

import re
import time
from pathlib import Path

import typer

from dicom_node.commands.ledger_of import ledger_of
from dicom_node.errors import BadInput
from dicom_node.exits import Exit
from dicom_node.ledger import Ledger

_NAMED = re.compile(r"(instance|batch|delivery|promise):(\d{1,18})")


def retry(what: list[str], config: Path | None, state_dir: Path | None, *, everything: bool) -> int:
    """Retry what is named, or everything that is parked; the exit code."""
    if bool(what) == everything:
        raise BadInput("retry: name what to retry as `evenray status` shows it (delivery:12), or use --all")
    named = [_parse(text) for text in what]
    with ledger_of(config, state_dir) as (_, ledger):
        if everything:
            # A conflict is kept aside on purpose: only a person who names it may let it in.
            named = [(row["what"], row["id"]) for row in ledger.attention() if row["state"] == "parked"]
        done = [_retry(ledger, kind, ref) for kind, ref in named]
    for (kind, ref), retried in zip(named, done, strict=True):
        typer.echo(f"{kind}:{ref} " + ("is tried again" if retried else "is not parked: nothing was changed"))
    if not named:
        typer.echo("nothing is parked")
    return Exit.DONE if all(done) else Exit.FAILED


def _parse(text: str) -> tuple[str, int]:
    found = _NAMED.fullmatch(text)
    if not found:
        kinds = "instance:N, batch:N, delivery:N or promise:N"
        raise BadInput(f"retry: {text!r} is no name: write {kinds} as `evenray status` shows")
    return found[1], int(found[2])


def _retry(ledger: Ledger, kind: str, ref: int) -> bool:
    steps = {
        "instance": ledger.instances.retry,
        "batch": ledger.batches.retry,
        "delivery": ledger.deliveries.retry,
        "promise": ledger.promises.retry,
    }
    return steps[kind](ref, now=time.time())
