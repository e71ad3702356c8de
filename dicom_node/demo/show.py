"""`evenray demo`: a study from a modality through the node to a small archive, and what came of it. Owns the order."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from dicom_node.demo import tables
from dicom_node.demo.archive import Archive, Held
from dicom_node.demo.findings import MISSING, Finding, read_back
from dicom_node.demo.gather import gather
from dicom_node.demo.given import Given
from dicom_node.demo.node import CALLING_AE, LOOPBACK, Node, configure, pacs_of, running, usual_quiet
from dicom_node.demo.noise import diverted
from dicom_node.demo.place import Place, cleared
from dicom_node.demo.progress import PLAIN_WIDTH, step
from dicom_node.demo.watch import Standing, wait_until_settled
from dicom_node.errors import Stop
from dicom_node.exits import Exit
from dicom_node.ledger import Ledger
from dicom_node.records import Receipt
from dicom_node.results.report_text import render_report
from dicom_node.sending import Sent, send_files
from dicom_node.settings import Settings

PICTURED = 48
"""More images than this in one demo are decided and reported, but not drawn."""


@dataclass(frozen=True, slots=True)
class _Run:
    """What was sent, what went wrong on the way, how far the node came, and what the archive holds."""

    given: list[Given]
    faults: list[str]
    standing: Standing
    held: list[Held]


def show(source: Path | None, out: Path) -> int:
    """Run the demo in `out`; the exit code is 0 only when everything ended as it should."""
    begun = time.monotonic()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    with cleared(out) as place:
        settings = configure(place)
        _introduce(console, place, settings)
        run = _through_the_node(console, place, settings, source)
        findings, more = _look(settings, run, place.log)
        faults = [*run.faults, *more]
        with diverted(place.log):
            drawn = _draw(console, place, findings)
        _tell(console, place, findings, drawn)
        _conclude(console, findings, faults, run.standing, time.monotonic() - begun)
    return Exit.FAILED if faults else Exit.DONE


def _introduce(console: Console, place: Place, settings: Settings) -> None:
    listen, pacs, quiet, usual = settings.listen, pacs_of(settings), settings.assembly, usual_quiet()
    lines = (
        "Evenray demo: images go from a modality through the node to a PACS. Nothing leaves this machine.",
        f"  node      {listen.ae_title} on {listen.host}:{listen.port}",
        f"  archive   {pacs.ae_title} on {pacs.host}:{pacs.port}; it plays the PACS and confirms what it keeps",
        f"  settings  {place.config}: the embedded default on free ports, and quicker: a study is complete after",
        f"            {quiet.quiet_after_release_s:g} s of quiet instead of {usual.quiet_after_release_s:g} s"
        f" ({quiet.quiet_s:g} s instead of {usual.quiet_s:g} s while its association is open)",
        f"  folder    {place.root}: what the archive received, pictures, reports, the node's state and log",
    )
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
    console.print()


def _through_the_node(console: Console, place: Place, settings: Settings, source: Path | None) -> _Run:
    """Send everything over real associations and wait for the archive's confirmations; then end node and archive."""
    archive = _archive(place, settings)
    try:
        with running(place, settings) as node:
            # The node starts on one core while the study is made on the other.
            given = _given(console, place, source)
            with step(console, "starting the node"):
                node.wait_until_it_listens()
            faults = _send(console, node, given)
            accepted = len(given) - len(faults)
            standing = _wait(console, node, settings, accepted)
            with step(console, "ending the node"):
                node.drain()
    finally:
        archive.stop()
    if not standing.done(accepted):
        faults.append(f"the node did not finish: {standing.words(accepted)}; see {place.log}\n{node.excerpt()}")
    return _Run(given, faults, standing, archive.instances())


def _archive(place: Place, settings: Settings) -> Archive:
    pacs, listen = pacs_of(settings), settings.listen
    archive = Archive(
        place.archive, pacs.ae_title, LOOPBACK, pacs.port, peers={listen.ae_title: (listen.host, listen.port)}
    )
    try:
        archive.start()
    except OSError as fault:
        raise Stop(f"the archive can't listen on port {pacs.port} ({fault.strerror}): run the demo again") from fault
    return archive


def _given(console: Console, place: Place, source: Path | None) -> list[Given]:
    if source is None:
        with step(console, "drawing an invented chest as several vendors would show it") as drawing:
            # Imported here: the phantom brings torch, which takes seconds that a person should not wait in silence.
            from dicom_node.demo.study import ROOMS, make_study  # noqa: PLC0415

            return make_study(
                place.sent, step=lambda done: drawing.tell(f"{done} of {len(ROOMS)} images", done / len(ROOMS))
            )
    with step(console, f"looking for DICOM objects in {source}") as looking:
        gathered = gather(source, place, step=lambda done: looking.tell(f"{done} files looked at"))
        looking.tell(f"{len(gathered.given)} to send")
    for remark in gathered.remarks():
        console.print(f"  note: {remark}", markup=False)
    return gathered.given


def _send(console: Console, node: Node, given: Sequence[Given]) -> list[str]:
    """One C-STORE each; what was not accepted, in words."""
    faults: list[str] = []
    names = {one.path: one.name for one in given}
    with step(console, f"sending them to {node.door.ae_title} by C-STORE") as sending:
        answered = 0

        def count(sent: Sent) -> None:
            nonlocal answered
            answered += 1
            sending.tell(f"{answered} of {len(given)} answered", answered / len(given))
            if not isinstance(sent.answer, Receipt):
                faults.append(f"{names[sent.path]} was not accepted: {sent.answer or 'it is no DICOM object'}")

        send_files([one.path for one in given], node.door, calling_ae=CALLING_AE, progress=count)
    return faults


def _wait(console: Console, node: Node, settings: Settings, expected: int) -> Standing:
    ledger = Ledger(settings.state_dir / "ledger.sqlite")
    try:
        with step(console, "the node works") as waiting:
            return wait_until_settled(ledger, expected=expected, check=node.check, tell=waiting.tell)
    finally:
        ledger.close()


def _look(settings: Settings, run: _Run, log: Path) -> tuple[list[Finding], list[str]]:
    """What the archive holds of every image, and what a person would have to look at."""
    ledger = Ledger(settings.state_dir / "ledger.sqlite")
    try:
        attention = ledger.attention()
    finally:
        ledger.close()
    stranded = {row["uid"]: f"{row['state']}: {row['note']}" for row in attention if row["what"] == "instance"}
    with diverted(log):
        findings = read_back(run.given, run.held, stranded)
    faults = [f"{row['what']}:{row['id']} is {row['state']}: {row['note']}" for row in attention]
    for one in findings:
        faults += [f"{one.given.number} {one.given.name}: {fault}" for fault in one.faults]
        if one.outcome == MISSING and one.given.uid not in stranded:
            faults.append(f"{one.given.number} {one.given.name}: {one.reason}")
    return findings, faults


def _draw(console: Console, place: Place, findings: Sequence[Finding]) -> dict[int, Path]:
    """Draw the pictures from the archive's objects; by image number, where its own picture lies."""
    # Imported here: it takes a second, which the node uses.
    from dicom_node.demo import pictures  # noqa: PLC0415

    shown = findings[:PICTURED]
    drawn: dict[int, Path] = {}
    thumbnails = []
    with step(console, "drawing pictures of what the archive received") as drawing:
        for done, one in enumerate(shown, start=1):
            thumbnail, path = pictures.draw(one, place)
            thumbnails.append(thumbnail)
            if path:
                drawn[one.given.number] = path
            drawing.tell(f"{done} of {len(shown)} images", done / len(shown))
        pictures.draw_overview(thumbnails, place.overview)
    if len(findings) > PICTURED:
        console.print(f"  note: only the first {PICTURED} of {len(findings)} images are drawn", markup=False)
    return drawn


def _tell(console: Console, place: Place, findings: Sequence[Finding], drawn: dict[int, Path]) -> None:
    """The report first, because it is long; what matters most stands last, where a terminal shows it."""
    reports = _write_reports(place, findings)
    console.print()
    if reports:
        first = next(iter(reports))
        others = f" (the first of {len(reports)}: one a study)" if len(reports) > 1 else ""
        console.print(f"The report as the archive holds it{others}", style="bold", markup=False)
        names = {one.given.uid: f"{one.given.number} {one.given.title}" for one in findings}
        console.print(tables.abridged(render_report(first), names), markup=False, soft_wrap=True)
    console.print(tables.decisions(findings))
    console.print()
    made = sum(one.image is not None for one in findings)
    if made:
        console.print(tables.results(findings, place, drawn))
    if made < len(findings):
        console.print(f"  the other {len(findings) - made} were not changed: the archive has their originals as sent")
    console.print(f"  overview  {place.overview}", markup=False, soft_wrap=True)
    console.print(f"  reports   {len(reports)} in {place.archive}; as text in {place.reports}", soft_wrap=True)


def _write_reports(place: Place, findings: Sequence[Finding]) -> dict[Path, Path]:
    """Every report of the archive as a text file, numbered in the order of the images."""
    reports = dict.fromkeys(one.report for one in findings if one.report)
    written = {}
    for number, report in enumerate(reports, start=1):
        written[report] = place.reports / f"report-{number}.txt"
        written[report].write_text(render_report(report), encoding="utf-8")
    return written


def _conclude(
    console: Console, findings: Sequence[Finding], faults: Sequence[str], standing: Standing, took_s: float
) -> None:
    console.print()
    if not faults:
        said = f"{len(findings)} images, {len(findings)} outcomes; {standing.kept} objects delivered and confirmed"
        console.print(f"All is well: {said}. It took {took_s:.0f} s.", style="bold green", markup=False, soft_wrap=True)
        return
    console.print(f"{len(faults)} thing(s) went wrong (it took {took_s:.0f} s):", style="bold red", markup=False)
    for fault in faults:
        console.print(f"  {fault}", markup=False, soft_wrap=True)
