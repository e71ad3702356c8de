"""`evenray audit show`: what the node did to which image, read back from its reports, as table, CSV or JSON."""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from dicom_node.audit_trail import Notes
from dicom_node.commands.audit_reports import Found, find_reports
from dicom_node.commands.inputs import files_of
from dicom_node.commands.screen import cell, console, progress, table
from dicom_node.commands.serve import load
from dicom_node.errors import BadInput, EvenrayError
from dicom_node.exits import Exit
from dicom_node.results.report_text import Report, Row
from dicom_node.sources import open_source
from dicom_node.sources.noting import noted
from dicom_node.sources.query import wanted
from dicom_node.sources.reports import fetch_reports
from dicom_node.sources.reports import find_reports as find_in_archive

FORMATS = ("table", "csv", "json")
STYLES = {"harmonized": "green", "refused": "yellow", "unreadable": "bold red"}
PLAIN = (
    *("outcome", "reason", "exam", "route", "method", "method_version", "bank", "distance_before", "distance_after"),
    *("threshold", "exposed_share"),
)
DIGESTS = (
    *("source_digest", "display_digest", "pixels_digest", "label", "sent_digest", "bank_digest", "weights_digest"),
    *("settings_digest", "engine_version", "software", "device"),
)
LISTS = ("references", "results", "result_digests", "notes")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of an archive; empty: anything."""

    source: str = ""
    studies: tuple[str, ...] = ()
    patient: str = ""
    accession: str = ""
    dates: str = ""
    port: int | None = None

    @property
    def narrowed(self) -> bool:
        return bool(self.studies or self.patient or self.accession or self.dates or self.port)


def show(paths: Sequence[Path], asked: Question, form: str, config: Path | None) -> int:
    """Print a row for every image of every report, sorted by study, report and image.

    The exit code is 1 where a report can't be read, can't be fetched, or is not as it was written. Raises BadInput
    where there is nothing to read and on options that don't fit together.
    """
    if form not in FORMATS:
        raise BadInput(f"--format: {form!r} is none: choose {', '.join(FORMATS)}")
    if bool(paths) == bool(asked.source):
        raise BadInput("say where the reports are: files or folders, or an archive with --from")
    if asked.source:
        found = _fetched(asked, config)
    elif asked.narrowed:
        raise BadInput("--study, --patient, --accession, --date and --port ask an archive: name it with --from")
    else:
        files = files_of(paths)
        with progress("reading reports", len(files)) as step:
            found = find_reports(_counted(files, step))
    rows = sorted(((report, row) for _, report in found.reports for row in report.rows), key=_order)
    {"table": _as_table, "csv": _as_csv, "json": _as_json}[form](rows)
    changed = sum(not report.whole for _, report in found.reports)
    _summary(found, len(rows), changed)
    if not found.reports and not found.faults:
        raise BadInput("there is no report of Evenray among them")
    return Exit.FAILED if found.faults or changed else Exit.DONE


def _counted(files: Sequence[Path], step: Callable[[], None]) -> Iterator[Path]:
    for file in files:
        yield file
        step()


def _fetched(asked: Question, config: Path | None) -> Found:
    """Fetch the reports of the matching studies into a folder that is gone afterwards, and read them."""
    settings = load(config, None)
    setting = settings.sources.get(asked.source)
    if setting is None:
        there = ", ".join(sorted(settings.sources)) or "none is configured"
        raise BadInput(f"--from: no source is called {asked.source!r}; known: {there}")
    question = wanted(
        studies=asked.studies, patient=asked.patient, accession=asked.accession, dates=asked.dates, modalities=("SR",)
    )
    ours = settings.listen.ae_title
    try:
        with noted(Notes(settings), asked.source, setting, question):
            images = find_in_archive(open_source(asked.source, setting, calling_ae=ours), question)
        with tempfile.TemporaryDirectory(prefix="evenray-audit-") as folder:
            got = fetch_reports(asked.source, setting, images, Path(folder), calling_ae=ours, port=asked.port)
            found = find_reports(file for _, file in got if isinstance(file, Path))
    except EvenrayError as fault:
        raise BadInput(f"{asked.source}: {fault}") from fault
    missing = [(Path(image.sop_instance_uid), str(why)) for image, why in got if isinstance(why, EvenrayError)]
    found.faults += missing
    return found


def _order(pair: tuple[Report, Row]) -> tuple[str, ...]:
    report, row = pair
    return report.study_uid, report.date, report.time, report.uid, row["source_instance"]


def _flat(report: Report, row: Row) -> dict[str, Any]:
    """One image as plain values; all that a report says of it, and nothing of the patient."""
    return {
        "study": report.study_uid,
        "report": report.uid,
        "report_date": report.date,
        "report_whole": report.whole,
        "earlier_report": report.earlier,
        "image": row["source_instance"],
        "image_class": row["source_class"],
        **{key: row[key] for key in PLAIN},
        "parameters": row["parameters"],
        "alignment": row["alignment"],
        "figures": row["figures"],
        "tried": row["tried"],
        **{key: row[key] for key in (*DIGESTS, *LISTS)},
    }


def _as_json(rows: Sequence[tuple[Report, Row]]) -> None:
    typer.echo(json.dumps([_flat(report, row) for report, row in rows], indent=1))


def _as_csv(rows: Sequence[tuple[Report, Row]]) -> None:
    """One line an image; what is a list or a table stands in one cell, as JSON where it has names."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    names = list(_flat(*rows[0])) if rows else []
    writer.writerow(names)
    for report, row in rows:
        flat = _flat(report, row)
        writer.writerow([_in_cell(flat[name]) for name in names])


def _in_cell(value: object) -> object:
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, dict) for one in value)):
        value = json.dumps(value)
    elif isinstance(value, list):
        value = "\n".join(value)
    elif isinstance(value, bool):
        value = "yes" if value else "no"
    # A spreadsheet takes what begins so for a formula.
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def _as_table(rows: Sequence[tuple[Report, Row]]) -> None:
    if not rows:
        return
    shown = table("", "image", "exam", "outcome", "distance", "method", "bank", "made", "reason", "report")
    for report, row in rows:
        said = "as written" if report.whole else "CHANGED"
        facts = (row["source_instance"], row["exam"] or "-")
        rest = (_distance(row), row["method"] or "-", row["bank"] or "-", str(len(row["results"])), row["reason"])
        outcome = cell(row["outcome"], STYLES.get(row["outcome"], ""))
        shown.add_row(*map(cell, facts), outcome, *map(cell, rest), cell(said, "" if report.whole else "bold red"))
    console().print(shown)


def _distance(row: Row) -> str:
    if row["distance_before"] is None:
        return "-"
    after = "" if row["distance_after"] is None else f" → {row['distance_after']:.2f}"
    return f"{row['distance_before']:.2f}{after}"


def _summary(found: Found, images: int, changed: int) -> None:
    """On standard error, so that CSV and JSON stay what they are."""
    for file, why in found.faults:
        typer.echo(f"not read: {file}: {why}", err=True)
    for file, report in found.reports:
        if not report.whole:
            typer.echo(f"not as written: {file}: it {report.flaw}", err=True)
    said = f"{len(found.reports)} report(s), {images} image(s), {found.skipped} other file(s) skipped"
    said += f", {len(found.faults)} not read" if found.faults else ""
    said += f", {changed} not as written" if changed else ""
    typer.echo(said, err=True)
