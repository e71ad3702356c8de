"""`evenray pull`: studies from an archive into the running node, with progress, and what came of it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from dicom_node.commands.ledger_of import ledger_of
from dicom_node.commands.screen import cell, console, table
from dicom_node.errors import BadInput
from dicom_node.exits import Exit
from dicom_node.pull import Interrupted, Plan, Pull, Tally
from dicom_node.settings import Settings
from dicom_node.sources import Wanted
from dicom_node.stopping import Stopping

LINE_EVERY_S = 10.0
"""Where the output is no terminal."""
ANY = "ALL"


def pull(
    name: str,
    wanted: Callable[..., Wanted],
    modality: str,
    config: Path | None,
    state_dir: Path | None,
    *,
    dry_run: bool,
    limit: int | None,
    rate: float | None,
    as_json: bool,
) -> int:
    """Fetch, or only list (`dry_run`); the exit code is 1 when something could not be fetched.

    `wanted` makes the question for `modalities`. Raises BadInput where the source or the question is none, Stop
    where the node does not receive.
    """
    with ledger_of(config, state_dir) as (settings, ledger):
        if name not in settings.sources:
            known = ", ".join(sorted(settings.sources)) or "none is configured"
            raise BadInput(f"{name}: no source is called so; known: {known}")
        question = wanted(modalities=_modalities(modality, settings))
        stopping = Stopping()
        stopping.on_signals()
        with _shown(dry_run=dry_run) as changed:
            fetching = Pull(
                settings,
                name,
                ledger,
                stopping=stopping,
                per_minute=rate or settings.pull.images_per_minute,
                limit=limit,
                changed=changed,
            )
            try:
                plans = list(fetching.plans(question)) if dry_run else []
            except Interrupted:
                return Exit.INTERRUPTED
            tally = fetching.tally if dry_run else fetching.run(question)
    if as_json:
        print(json.dumps(_facts(tally, plans), indent=1))
    else:
        _print(tally, plans, dry_run=dry_run)
    if tally.interrupted:
        return Exit.INTERRUPTED
    return Exit.FAILED if tally.failed or tally.stopped else Exit.DONE


def _modalities(asked: str, settings: Settings) -> tuple[str, ...]:
    """As asked; without a wish those that the routes take; () for all."""
    if asked:
        words = tuple(word.strip().upper() for word in asked.split(",") if word.strip())
        return () if words == (ANY,) else words
    taken = [route.match.modality for route in settings.routes]
    return () if not all(taken) else tuple(sorted({one for some in taken for one in some}))


@contextmanager
def _shown(*, dry_run: bool) -> Iterator[Callable[[Tally], None]]:
    """What to call with the tally: a bar on a terminal, else a line now and then."""
    screen = Console(stderr=True)
    if not screen.is_terminal:
        yield _lines(LINE_EVERY_S)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[more]}"))
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task("studies" if dry_run else "images", total=None, more="")

        def changed(tally: Tally) -> None:
            failed = sum(1 for one in tally.failed if one.sop_instance_uid)
            done, total = tally.fetched + tally.here + tally.own + failed, tally.images
            if dry_run:
                done, total = tally.looked_at, tally.studies
            bar.update(task, completed=done, total=total or None, more=_line(tally))

        yield changed


def _lines(every_s: float) -> Callable[[Tally], None]:
    said_at = time.monotonic()

    def changed(tally: Tally) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= every_s:
            said_at = time.monotonic()
            print(_line(tally), file=sys.stderr)

    return changed


def _line(tally: Tally) -> str:
    return f"study {tally.looked_at} of {tally.studies}; {_counts(tally)}; {tally.doing}"


def _counts(tally: Tally) -> str:
    return f"fetched {tally.fetched}, failed {len(tally.failed)}, already here {tally.here}"


def _facts(tally: Tally, plans: list[Plan]) -> dict[str, Any]:
    facts = {key: value for key, value in asdict(tally).items() if key != "doing"}
    facts["plans"] = [_row(plan) for plan in plans]
    return facts


def _row(plan: Plan) -> dict[str, Any]:
    """What may be shown of a study: no name, no Patient ID, no accession number."""
    return {
        "study_instance_uid": plan.study.study_instance_uid,
        "date": plan.study.date,
        "modalities": sorted({one.modality for one in plan.missing if one.modality} or set(plan.study.modalities)),
        "in_archive": plan.study.instances,
        "to_fetch": len(plan.missing),
        "here": plan.here,
        "own": plan.own,
    }


def _print(tally: Tally, plans: list[Plan], *, dry_run: bool) -> None:
    out = console()
    if plans:
        columns = ("date", "study", "modalities", "in the archive", "to fetch", "already here", "Evenray's own")
        shown = table("studies that match", *columns)
        for plan in plans:
            row = _row(plan)
            cells = (row["date"], row["study_instance_uid"], " ".join(row["modalities"]))
            counts = (row["in_archive"] or "", row["to_fetch"], row["here"], row["own"])
            shown.add_row(*map(cell, (*cells, *counts)))
        out.print(shown)
    if tally.failed:
        shown = table("not fetched", "study", "instance", "why")
        for one in tally.failed:
            shown.add_row(cell(one.study_instance_uid), cell(one.sop_instance_uid), cell(one.why, "red"))
        out.print(shown)
    if tally.stopped:
        typer.echo(f"stopped: {tally.stopped}")
    match = f"{_many(tally.studies, 'study matches', 'studies match')}; "
    if dry_run:
        count = sum(len(plan.missing) for plan in plans)
        typer.echo(f"{match}{_many(count, 'image', 'images')} to fetch, {tally.here} already here")
        return
    words = f"{match}{_counts(tally)}, Evenray's own {tally.own}"
    if tally.interrupted or tally.stopped or tally.limited:
        words += "; the same command goes on from here"
    typer.echo(words)


def _many(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"
