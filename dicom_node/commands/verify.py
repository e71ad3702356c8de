"""`evenray verify`: read everything now and compare it with its digests, in the spool or in a backup."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import typer

from dicom_node import integrity
from dicom_node.commands.backup import parts, read_manifest, sha256_of
from dicom_node.commands.ledger_of import ledger_of
from dicom_node.exits import Exit
from dicom_node.spool import MIB, Spool


def verify(config: Path | None, state_dir: Path | None, backup: Path | None, *, as_json: bool) -> int:
    """Compare every file with its digest; the exit code is 1 when one differs or is missing."""
    began = time.monotonic()
    with integrity.yielding():
        count, size, damaged = _backup(backup) if backup else _spool(config, state_dir)
    seconds = time.monotonic() - began
    facts = {"files": count, "mib": round(size / MIB, 1), "seconds": round(seconds, 1), "damaged": damaged}
    if as_json:
        print(json.dumps(facts, indent=1))
    else:
        _print(facts)
    return Exit.FAILED if damaged else Exit.DONE


def _spool(config: Path | None, state_dir: Path | None) -> tuple[int, int, list[dict[str, Any]]]:
    """Every file of the node's spool; what is found is flagged, and what is whole again is not any more."""
    count = size = 0
    damaged = []
    with ledger_of(config, state_dir) as (settings, ledger):
        spool = Spool(settings.state_dir / "spool")
        for kind in integrity.KINDS:
            at = 0
            while files := ledger.upkeep.files(kind, after=at):
                at = files[-1].id
                for file in files:
                    found = integrity.check(spool, file)
                    reason = integrity.settle(ledger, spool, file, found, now=time.time())
                    count, size = count + 1, size + found.size
                    if reason:
                        what, uid = f"{file.what}:{file.id}", file.sop_instance_uid
                        damaged.append({"what": what, "path": file.path, "uid": uid, "reason": reason})
        integrity.recheck(ledger, spool, now=time.time())
    return count, size, damaged


def _backup(folder: Path) -> tuple[int, int, list[dict[str, Any]]]:
    """Every file of a backup."""
    count = size = 0
    damaged = []
    manifest = read_manifest(folder)
    for name, path, digest in parts(folder, manifest):
        count += 1
        reason = ""
        try:
            reason = "" if sha256_of(path) == digest else "its bytes have changed since the backup"
            size += path.stat().st_size
        except OSError as fault:
            reason = f"can't be read ({fault.strerror})"
        if reason:
            damaged.append({"what": "backup", "path": name, "uid": "", "reason": reason})
    was = manifest["damaged"].items()
    return count, size, [*damaged, *({"what": "node", "path": p, "uid": "", "reason": why} for p, why in was)]


def _print(facts: dict[str, Any]) -> None:
    rate = facts["mib"] / facts["seconds"] if facts["seconds"] else 0
    typer.echo(f"{facts['files']} files, {facts['mib']} MiB compared in {facts['seconds']} s ({rate:.0f} MiB/s)")
    for row in facts["damaged"]:
        # One line each, whole: paths and UIDs are there to be copied.
        typer.echo(f"DAMAGED {row['what']} {row['path']}: {row['reason']}")
    if facts["damaged"]:
        typer.echo("The same object sent again mends its file; a backup may have it, too: evenray restore.")
    else:
        typer.echo("Every file is as it was recorded.")
