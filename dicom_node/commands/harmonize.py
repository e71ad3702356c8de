"""`evenray harmonize`: the node's engine on files and folders, without a network. Keeps no state between two calls."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import get_args

import typer

from dicom_node.commands.inputs import files_of
from dicom_node.commands.screen import cell, console, progress, table
from dicom_node.commands.serve import load
from dicom_node.durable import write_durably
from dicom_node.errors import BadInput, DiskFull, EvenrayError, ResultInvalid, Stop, Unreadable
from dicom_node.exits import Exit
from dicom_node.header import content_digest, dataset_digest, read_header
from dicom_node.pictures import encode_png, is_png, read_png
from dicom_node.process import Processor
from dicom_node.records import Decision, Outcome, Reported
from dicom_node.report import select
from dicom_node.results.structured_report import make_report
from dicom_node.settings import Method, Route, Settings

REPORT = "report.json"
ALWAYS = ("secondary_capture", "structured_report")
"""Made whatever else the route delivers: who calls this wants to see them."""
STYLES = {Outcome.HARMONIZED: "green", Outcome.REFUSED: "yellow", Outcome.UNREADABLE: "bold red"}


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one input. `fault` says why there is no decision, or why its image could not be written."""

    file: str
    decision: Decision | None = None
    fault: str = ""
    remark: str = ""
    written: str = ""
    """The image made from it, relative to OUT."""
    also: tuple[str, ...] = ()
    """What else was made from it."""
    reported: Reported | None = None

    @property
    def failed(self) -> bool:
        return bool(self.fault) or self.decision is None or self.decision.outcome is Outcome.UNREADABLE


def harmonize(source: Path, target: Path, config: Path | None, bank: str | None, methods: tuple[str, ...]) -> int:
    """Decide about every file, write what is made, and print all of it.

    The exit code is 1 when a file could not be read or a result not be written. Raises BadInput where there is
    nothing to do, and on a bank, method or folder that can't be used.
    """
    files = files_of([source])
    _check_folders(source, target)
    settings = _overridden(load(config, None), bank, methods)
    work = _Work(settings, source if source.is_dir() else source.parent, target)
    work.choose_bank(bank, files)
    lines = []
    with progress("harmonizing", len(files)) as step:
        for file in files:
            lines.append(work.line(file))
            step()
    if all(line.decision is None for line in lines):
        for line in lines:
            typer.echo(f"not used: {line.file}: {line.fault}", err=True)
        raise BadInput(f"{source}: nothing to do: none of {len(lines)} file(s) is a usable DICOM or PNG image")
    reports, selections, faults = work.report(lines)
    _make(target)
    write_durably(target / REPORT, _as_json(lines))
    others = selections + len({name for line in lines for name in line.also})
    _print(lines, faults, reports, others, target)
    return Exit.FAILED if faults or any(line.failed for line in lines) else Exit.DONE


def _check_folders(source: Path, target: Path) -> None:
    """No output may land on an input, and a second run must not find the results of the first as inputs."""
    if target.exists() and not target.is_dir():
        raise BadInput(f"{target}: is a file: name a folder for the results")
    here, there = source.resolve(), target.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise BadInput(f"{target}: lies in, or around, {source}: choose a folder for the results beside it")
    report = target / REPORT
    if report.exists() and not _is_ours(report):
        raise BadInput(f"{report}: is no report of ours and would be replaced: choose another folder")


def _is_ours(report: Path) -> bool:
    try:
        found = json.loads(report.read_bytes())
    except ValueError:
        return False
    return isinstance(found, list) and all(isinstance(one, dict) and "decision" in one for one in found)


def _overridden(settings: Settings, bank: str | None, methods: tuple[str, ...]) -> Settings:
    """The settings with the command line's bank and methods in every route. Raises BadInput on an unknown method."""
    known = get_args(Method)
    for method in methods:
        if method not in known:
            near = difflib.get_close_matches(method, known, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise BadInput(f"--method: no method is called {method!r}: {remedy}")
    changes: dict[str, object] = {}
    if bank:
        changes["bank"] = bank
    if methods:
        changes["methods"] = tuple(dict.fromkeys(methods))
    routes = (
        route.model_copy(update={**changes, "objects": tuple(dict.fromkeys((*ALWAYS, *route.objects)))})
        for route in settings.routes
    )
    return settings.model_copy(update={"routes": tuple(routes)})


class _Work:
    """One run: the engine, where files come from and go to, and which objects were seen."""

    def __init__(self, settings: Settings, base: Path, target: Path) -> None:
        self._processor = Processor(settings)
        self._settings = settings
        self._base = base
        self._target = target
        self._picture_bank = ""
        self._seen: dict[tuple[str, str], Line] = {}
        """By study key and SOP Instance UID."""

    def choose_bank(self, bank: str | None, files: Sequence[Path]) -> None:
        """Raises BadInput where the bank is unknown, or must be named because a PNG does not say what it shows."""
        known = sorted(self._processor.exams)
        if bank is not None and bank not in known:
            raise BadInput(f"--bank: no bank is called {bank!r}: known are {', '.join(known) or 'none'}")
        picture = next((file for file in files if is_png(file)), None)
        if picture and bank is None and len(known) != 1:
            there_are = ", ".join(known) or "none"
            raise BadInput(f"{picture}: a PNG does not say what it shows: name its bank with --bank, of {there_are}")
        self._picture_bank = bank or (known[0] if known else "")

    def line(self, file: Path) -> Line:
        """Decide about one file and write the image that is made from it. Raises Stop where no file could be done."""
        name = file.relative_to(self._base).as_posix()
        try:
            return self._picture(file, name) if is_png(file) else self._object(file, name)
        except (Unreadable, BadInput) as fault:
            return Line(name, fault=str(fault).removeprefix(f"{file.name}: "))
        except Stop:
            raise
        except EvenrayError as fault:
            return Line(name, fault=str(fault))
        except OSError as fault:
            return Line(name, fault=f"can't be read ({fault.strerror}): check its owner")

    def report(self, lines: Sequence[Line]) -> tuple[int, int, list[str]]:
        """Write one SR a study, and the selection of originals that need a look where a route asks for one.

        Returns how many of either were written, and why one was not.
        """
        studies: dict[str, list[Reported]] = {}
        for line in lines:
            if line.reported:
                studies.setdefault(line.reported.header.study_key, []).append(line.reported)
        faults, selections = [], 0
        for reported in studies.values():
            study = reported[0].header.study_instance_uid
            try:
                told, selection = select(reported, self._settings)
                made = make_report(told, self._settings.site)
            except ResultInvalid as fault:
                why = str(fault)
            else:
                why = self._write(f"{study}/{made.sop_instance_uid}.dcm", made.content)
                if selection and not why:
                    why = self._write(f"{study}/{selection.made.sop_instance_uid}.dcm", selection.made.content)
                    selections += not why
            if why:
                faults.append(f"report of study {study}: {why}")
        return len(studies) - len(faults), selections, faults

    def _object(self, file: Path, name: str) -> Line:
        header, digest = read_header(file), dataset_digest(file)
        before = self._seen.get((header.study_key, header.sop_instance_uid))
        if before and before.decision:
            # As in the node: a repeat changes nothing, and another object under a known UID is set aside.
            if before.decision.source_digest != digest:
                raise BadInput(f"another object has its SOP Instance UID, {before.file}: give it a run of its own")
            return replace(before, file=name, remark=f"the same object as {before.file}", reported=None)
        decision, made = self._processor.decide(file, header, calling_ae="", source_digest=digest)
        results = tuple((one.sop_class_uid, one.sop_instance_uid) for one in made)
        digests = {one.sop_instance_uid: content_digest(one.content) for one in made}
        told = Reported(source=file, header=header, decision=decision, results=results, digests=digests)
        line = Line(name, decision, reported=told)
        for one in made:
            line = self._kept(line, f"{header.study_instance_uid}/{one.sop_instance_uid}.dcm", one.content)
        self._seen[header.study_key, header.sop_instance_uid] = line
        return line

    def _picture(self, file: Path, name: str) -> Line:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        bank = self._picture_bank
        route = next((r for r in self._settings.routes if r.bank in (bank, "auto")), Route(name="pictures"))
        decision, codes = self._processor.decide_picture(read_png(file), bank, route.methods, source_digest=digest)
        if codes is not None:
            return self._kept(Line(name, decision), name, encode_png(codes))
        stale = (self._target / name).exists()
        return Line(name, decision, remark=f"{self._target / name} is of an earlier run" if stale else "")

    def _kept(self, line: Line, name: str, content: bytes) -> Line:
        """The line once its image is written, or with why it could not be."""
        why = self._write(name, content)
        if why:
            return replace(line, fault=why)
        return replace(line, also=(*line.also, name)) if line.written else replace(line, written=name)

    def _write(self, name: str, content: bytes) -> str:
        """Write durably under OUT; the same bytes again change nothing. Where others are there: that, and a remedy."""
        path = self._target / name
        if path.exists():
            same = path.is_file() and path.read_bytes() == content
            return "" if same else f"{path}: something else is there, of an earlier run perhaps: choose another folder"
        _make(path.parent)
        write_durably(path, content)
        return ""


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise DiskFull(f"{folder}: can't be made ({fault.strerror}): choose another folder for the results") from fault


def _as_json(lines: Sequence[Line]) -> bytes:
    """Every input with its decision; without what differs from run to run, so that a repeat gives the same bytes."""
    out = []
    for line in lines:
        decision = None if line.decision is None else asdict(line.decision)
        if decision:
            del decision["seconds"]
        facts = {"file": line.file, "written": line.written, "also": line.also, "fault": line.fault}
        out.append({**facts, "decision": decision})
    return (json.dumps(out, indent=1, sort_keys=True) + "\n").encode()


def _print(lines: Sequence[Line], faults: Sequence[str], reports: int, others: int, target: Path) -> None:
    shown = table("", "file", "exam", "distance", "method", "outcome", "reason")
    for line in lines:
        decision = line.decision
        if decision is None:
            failed = (line.file, "-", "-", "-")
            shown.add_row(*map(cell, failed), cell("not used", "bold red"), cell(line.fault))
            continue
        reason = "; ".join(filter(None, (decision.reason, line.remark, line.fault)))
        facts = (line.file, decision.exam or f"as {decision.bank}", _distance(decision), decision.method or "-")
        outcome = cell(decision.outcome.value, STYLES.get(decision.outcome, ""))
        shown.add_row(*map(cell, facts), outcome, cell(reason))
    console().print(shown)
    images = len({line.written for line in lines if line.written})
    more = f"{others} other object(s), " if others else ""
    typer.echo(f"{target}: {images} harmonized image(s), {more}{reports} DICOM report(s), {REPORT}")
    if any(line.decision and line.decision.outcome is not Outcome.HARMONIZED for line in lines):
        typer.echo("No image is written where nothing was harmonized: the original is the image to use.")
    for fault in faults:
        typer.echo(f"not written: {fault}", err=True)


def _distance(decision: Decision) -> str:
    if decision.distance_before is None:
        return "-"
    after = "" if decision.distance_after is None else f" → {decision.distance_after:.2f}"
    return f"{decision.distance_before:.2f}{after}"
