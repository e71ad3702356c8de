"""`evenray references`: make, list, show and change the banks of preferred references."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer

from dicom_node import references
from dicom_node.commands.inputs import files_of
from dicom_node.commands.screen import cell, console, progress, table
from dicom_node.commands.serve import load
from dicom_node.errors import BadInput, Unreadable
from dicom_node.exits import Exit
from dicom_node.liveness import running
from dicom_node.references import BankFacts, Banks, Measured
from dicom_node.routing import Exam, describe
from dicom_node.settings import Settings

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,47}")
"""What a route can name, and what is safe as a file name."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The exam type that the command line states for a new bank, as far as it does."""

    modalities: tuple[str, ...]
    body_part: str
    views: tuple[str, ...]


def add(
    bank: str,
    files: list[Path],
    config: Path | None,
    modality: list[str],
    body_part: str | None,
    view: list[str],
    provenance: str,
) -> int:
    """Add the images to a bank; the exit code is 1 when a file could not be used."""
    if not NAME.fullmatch(bank):
        raise BadInput(f"{bank!r} is no name for a bank: use up to 48 of a-z, 0-9, _ and -, not starting with _ or -")
    settings = load(config, None)
    banks = Banks(settings.banks)
    existing = banks.exam(bank)
    wanted = _Wanted(_upper(modality), (body_part or "").strip().upper(), _upper(view))
    if existing and (modality or body_part or view):
        raise BadInput(
            f"{bank}: is for {references.exam_text(existing)} already: leave out --modality, --body-part "
            "and --view, or choose another name"
        )
    found = files_of(files)
    if not found:
        raise BadInput(f"{', '.join(map(str, files))}: no files here: name DICOM or PNG files, or folders of them")
    usable, unusable = _measured(found)
    if not usable:
        _say_unusable(unusable)
        raise BadInput(f"{bank}: nothing was added: none of {len(found)} file(s) is a usable DICOM or PNG image")
    exam = existing or _new_exam(bank, usable, wanted)
    fitting = [one for one in usable if not references.differs(one.header, exam)]
    others = [(one.path, why) for one in usable if (why := references.differs(one.header, exam))]
    if not fitting:
        _say_unusable(unusable + others)
        raise BadInput(f"{bank}: nothing was added: no image is of its exam type, {references.exam_text(exam)}")
    done = banks.add(bank, exam, fitting, provenance)
    _say_added(done, settings, new=existing is None)
    _say_unusable(unusable + others)
    return Exit.FAILED if unusable or others else Exit.DONE


def list_banks(config: Path | None, *, as_json: bool) -> int:
    """Print every bank; the exit code is 1 when one can't be loaded."""
    banks, faults = Banks(load(config, None).banks).all()
    if as_json:
        print(json.dumps({"banks": [_json(bank) for bank in banks], "faults": faults}, indent=1))
        return Exit.FAILED if faults else Exit.DONE
    shown = table("banks", "name", "exam", "references", "threshold", "digest", "where")
    for bank in banks:
        exam = references.exam_text(bank.exam)
        row = (bank.name, exam, bank.count, f"{bank.threshold:.2f}", bank.digest[:12], _where(bank))
        shown.add_row(*map(cell, row))
    console().print(shown)
    for fault in faults:
        typer.echo(f"evenray: {fault}", err=True)
    return Exit.FAILED if faults else Exit.DONE


def show(bank: str, config: Path | None, *, as_json: bool) -> int:
    """Print one bank with all its references."""
    facts, held = Banks(load(config, None).banks).show(bank)
    if as_json:
        print(json.dumps({**_json(facts), "references": [asdict(one) for one in held]}, indent=1))
        return Exit.DONE
    out = console()
    for label, value in (
        ("bank", facts.name),
        ("exam", references.exam_text(facts.exam)),
        ("references", facts.count),
        ("threshold", f"{facts.threshold:.3f} (style distance up to which an image conforms)"),
        ("digest", facts.digest),
        ("provenance", facts.provenance or "not stated"),
        ("where", _where(facts)),
    ):
        out.print(cell(f"{label:<12}{value}"))
    shown = table("references", "id", "vendor", "view", "source")
    for one in held:
        row = (one.id[:12], one.vendor or "-", one.view or "-", one.source or ", ".join(one.uids) or "-")
        shown.add_row(*map(cell, row))
    out.print(shown)
    return Exit.DONE


def remove(bank: str, reference: list[str], config: Path | None, *, whole: bool) -> int:
    """Remove references by the start of their ids, or the whole bank."""
    if bool(reference) == whole:
        raise BadInput(f"{bank}: name references as `evenray references show {bank}` does, or give --whole; not both")
    settings = load(config, None)
    banks = Banks(settings.banks)
    if whole:
        embedded_now = banks.remove_whole(bank)
        typer.echo(f"{bank} is removed" + ("; the embedded bank of this name is used again" if embedded_now else ""))
        if not embedded_now:
            for route in (r.name for r in settings.routes if r.bank == bank):
                typer.echo(f"note: route {route} names {bank}: what it takes is passed by until it names another bank")
    else:
        facts, gone = banks.remove(bank, reference)
        for name in gone:
            typer.echo(f"removed {name[:12]}")
        typer.echo(f"{bank}: {facts.count} reference(s), threshold {facts.threshold:.2f}, digest {facts.digest[:12]}")
    _say_restart(settings)
    return Exit.DONE


def _measured(files: list[Path]) -> tuple[list[Measured], list[tuple[Path, str]]]:
    """Every file as a reference, or why it can't be one."""
    usable, unusable = [], []
    with progress("measuring", len(files)) as step:
        for path in files:
            try:
                usable.append(references.measure(path))
            except (Unreadable, BadInput) as fault:
                unusable.append((path, str(fault)))
            except OSError as fault:
                unusable.append((path, f"can't be read ({fault.strerror}): check its owner"))
            step()
    return usable, unusable


def _new_exam(bank: str, usable: list[Measured], wanted: _Wanted) -> Exam:
    """The exam type of a new bank: as stated, and for the rest as the first DICOM file says and all others agree.

    A type that was only inferred must hold for every file: the first one may be the stray one. Raises BadInput.
    """
    if wanted.modalities and wanted.body_part:
        return Exam(wanted.modalities, wanted.body_part, wanted.views)
    first = next((one.header for one in usable if one.header), None)
    if first is None:
        raise BadInput(f"{bank}: a PNG states no exam type: give --modality and --body-part (and --view)")
    exam = Exam(
        wanted.modalities or tuple(filter(None, [first.modality])),
        wanted.body_part or first.body_part,
        wanted.views or tuple(filter(None, [first.view])),
    )
    if not exam.modalities or not exam.body_part:
        raise BadInput(
            f"{bank}: the first DICOM file states an incomplete exam type ({describe(first)}): "
            "give --modality and --body-part (and --view)"
        )
    strays = [f"  {one.path}: {why}" for one in usable if (why := references.differs(one.header, exam))]
    if strays:
        raise BadInput(
            f"{bank}: nothing was added: the images are of several exam types. Leave these out, or state the type "
            "with --modality, --body-part and --view (each may stand more than once)\n" + "\n".join(strays)
        )
    return exam


def _say_added(done: references.Added, settings: Settings, *, new: bool) -> None:
    bank = done.bank
    for one in done.already:
        typer.echo(f"skipped {one.path}: {bank.name} has these pixels already ({one.reference.id[:12]})")
    what = "new bank " if new else ""
    typer.echo(
        f"{what}{bank.name}: {len(done.added)} added, {bank.count} reference(s), "
        f"{references.exam_text(bank.exam)}, threshold {bank.threshold:.2f}, digest {bank.digest[:12]}"
    )
    if new:
        typer.echo(f"Use it with `bank: {bank.name}` in a route, or `evenray harmonize --bank {bank.name}`.")
    if done.added:
        _say_restart(settings)


def _say_unusable(unusable: list[tuple[Path, str]]) -> None:
    for path, why in unusable:
        typer.echo(f"not used: {path}: {why}", err=True)


def _say_restart(settings: Settings) -> None:
    if "work" in running(settings.state_dir / "locks"):
        typer.echo("note: the running node reads banks when it starts: restart it")


def _upper(values: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value.strip().upper() for value in values if value.strip()))


def _where(bank: BankFacts) -> str:
    if bank.path is None:
        return "embedded"
    return f"{bank.path}" + (" (instead of the embedded one)" if bank.replaces_embedded else "")


def _json(bank: BankFacts) -> dict[str, Any]:
    return {**asdict(bank), "path": None if bank.path is None else str(bank.path), "embedded": bank.path is None}
