"""`evenray audit replay`: make the pixels of reports again from the originals, and say what that proved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import typer

from dicom_node.commands.audit_reports import Found, find_reports
from dicom_node.commands.inputs import files_of
from dicom_node.commands.screen import cell, console, progress, table
from dicom_node.commands.serve import load
from dicom_node.display import Codes
from dicom_node.durable import write_durably
from dicom_node.errors import BadInput, DiskFull, Unreadable
from dicom_node.exits import Exit
from dicom_node.header import dataset_digest, read_header
from dicom_node.marks import is_our_uid
from dicom_node.pictures import encode_png
from dicom_node.process import Processor
from dicom_node.replay import Proof, Replayed, replay
from dicom_node.results.report_text import Report, Row

STYLES = {Proof.NONE: "bold red", Proof.TOLERANCE: "yellow", Proof.UNCHANGED: ""}


def audit_replay(originals: Path, reports: Path, result: Path | None, out: Path | None, config: Path | None) -> int:
    """Replay every image that a report names and whose original is given, and print what each proved.

    The exit code is 1 where one was not reproduced, a report can't be read, or an original or a report has no partner.
    Raises BadInput where there is nothing to compare.
    """
    found = find_reports(files_of([reports]))
    if not found.reports:
        why = f": {found.faults[0][1]}" if found.faults else ""
        raise BadInput(f"{reports}: no report of Evenray to replay{why}")
    by_uid = _by_uid(files_of([originals]))
    if not by_uid:
        raise BadInput(f"{originals}: no DICOM original to replay: name a file, or a folder of them")
    results = _by_uid(files_of([result])) if result else {}
    pairs, missing = _paired(found, by_uid)
    processor = cache(lambda: Processor(load(config, None)))
    done = []
    with progress("replaying", len(pairs)) as step:
        for report, row, original in pairs:
            done.append(replay(report, row, original, _results(row, results, result), processor))
            step()
    done.sort(key=lambda one: (one.instance, one.report))
    if out is not None:
        _write(done, out)
    _print(done)
    named = {row["source_instance"] for _, report in found.reports for row in report.rows}
    # What Evenray made may lie beside the originals.
    unnamed = sorted(uid for uid in set(by_uid) - named if not is_our_uid(uid))
    _summary(done, missing, unnamed, found)
    whole = bool(pairs) and not (missing or unnamed or found.faults)
    return Exit.DONE if whole and not any(one.failed for one in done) else Exit.FAILED


def _by_uid(files: Sequence[Path]) -> dict[str, list[Path]]:
    """DICOM objects by SOP Instance UID; several files may claim the same."""
    found: dict[str, list[Path]] = {}
    for file in files:
        try:
            found.setdefault(read_header(file).sop_instance_uid, []).append(file)
        except Unreadable:
            continue
    return found


def _paired(found: Found, by_uid: dict[str, list[Path]]) -> tuple[list[tuple[Report, Row, Path]], list[str]]:
    """Every image that a report names with its original, and the instances whose original is not among the files.

    Where a single original and a single row are given, they are partners whatever their UIDs say.
    """
    rows = [(report, row) for _, report in found.reports for row in report.rows]
    if len(rows) == 1 and sum(map(len, by_uid.values())) == 1:
        return [(*rows[0], next(iter(by_uid.values()))[0])], []
    pairs, missing = [], []
    for report, row in rows:
        files = by_uid.get(row["source_instance"])
        if files is None:
            missing.append(row["source_instance"])
            continue
        right = [file for file in files if dataset_digest(file) == row["source_digest"]] if len(files) > 1 else files
        pairs.append((report, row, (right or files)[0]))
    return pairs, sorted(set(missing))


def _results(row: Row, results: dict[str, list[Path]], given: Path | None) -> list[Path]:
    """The objects made from the image among those given; a single file is meant whatever its UID says."""
    if given is not None and given.is_file():
        return [given]
    return [file for uid in row["results"] for file in results.get(uid, ())]


def _write(done: Sequence[Replayed], out: Path) -> None:
    """The pictures of what differs: as made again, and how far each pixel is off, where the result is given."""
    for one in done:
        if not one.failed or one.codes is None:
            continue
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise DiskFull(f"{out}: can't be made ({fault.strerror}): choose another folder") from fault
        write_durably(out / f"{one.instance}-again.png", encode_png(one.codes))
        if one.wanted is not None and one.wanted.shape == one.codes.shape:
            write_durably(out / f"{one.instance}-difference.png", encode_png(_difference(one.codes, one.wanted)))


def _difference(made: Codes, wanted: Codes) -> Codes:
    """How far apart, spread so that the greatest difference is white."""
    off = np.abs(made.astype(np.int64) - wanted)
    spread: Codes = (off * 255 // max(int(off.max()), 1)).astype(np.uint8)
    return spread


def _print(done: Sequence[Replayed]) -> None:
    shown = table("", "original", "method", "outcome of the replay", "why")
    for one in done:
        noted = dict.fromkeys(check.said for check in one.checks if check.noted)
        why = "; ".join(filter(None, (one.said, *noted)))
        outcome = cell(one.proof.value, STYLES.get(one.proof, "green"))
        shown.add_row(cell(one.instance), cell(one.method or "-"), outcome, cell(why or "-"))
    console().print(shown)


def _summary(done: Sequence[Replayed], missing: Sequence[str], unnamed: Sequence[str], found: Found) -> None:
    counts = Counter(one.proof for one in done)
    for proof in Proof:
        if counts[proof]:
            typer.echo(f"{counts[proof]} {proof.value}")
    for instance in missing:
        typer.echo(f"not replayed: {instance}: a report names it, but its original was not given", err=True)
    for instance in unnamed:
        typer.echo(f"not replayed: {instance}: no report given names it", err=True)
    for file, why in found.faults:
        typer.echo(f"not read: {file}: {why}", err=True)
