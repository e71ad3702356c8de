"""The demo's findings as a person reads them in a terminal of 120 columns. Knows no DICOM and no network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from rich import box
from rich.table import Table

from dicom_node.commands.screen import cell
from dicom_node.demo.findings import MISSING, Finding
from dicom_node.demo.place import Place
from dicom_node.records import Measured, Outcome

REASON_LENGTH = 110
NOTHING = "-"
STYLES = {
    Outcome.HARMONIZED.value: "bold green",
    Outcome.CONFORMING.value: "green",
    Outcome.REFUSED.value: "bold yellow",
    Outcome.UNREADABLE.value: "bold red",
    Outcome.PASSED.value: "dim",
    MISSING: "bold red",
}


def decisions(findings: Sequence[Finding]) -> Table:
    """One row an image: what was decided, and the numbers that decided."""
    made = _table("What was decided (read back from the reports in the archive)")
    made.add_column("image", overflow="fold", max_width=18)
    made.add_column("exam", overflow="fold", max_width=12)
    made.add_column("style distance\nbefore -> after", no_wrap=True)
    made.add_column("method", overflow="fold", max_width=12)
    made.add_column("anatomy check", overflow="fold", max_width=22)
    made.add_column("outcome", no_wrap=True)
    made.add_column("reason", overflow="fold")
    for one in findings:
        made.add_row(
            cell(f"{one.given.number} {one.given.name}"),
            cell(one.exam or NOTHING),
            distances(one) or NOTHING,
            cell(one.method or NOTHING),
            anatomy(one.figures) or NOTHING,
            cell(one.outcome, STYLES.get(one.outcome, "")),
            cell(reason(one)),
        )
    return made


def results(findings: Sequence[Finding], place: Place, pictures: dict[int, Path]) -> Table:
    """One row an image: where what was made of it lies."""
    made = _table(f"Where the results are (in {place.root})")
    made.add_column("image", overflow="fold", max_width=18)
    made.add_column("harmonized image in the archive", overflow="fold")
    made.add_column("picture", overflow="fold")
    for one in findings:
        picture = pictures.get(one.given.number)
        made.add_row(
            cell(f"{one.given.number} {one.given.name}"),
            cell(_inside(one.image, place)) if one.image else cell("none: the original stays as it is", "dim"),
            cell(_inside(picture, place)) if picture else NOTHING,
        )
    return made


def distances(one: Finding) -> str:
    """`3.40 -> 1.18`, and below it up to where an image counts as conforming."""
    if one.before is None:
        return ""
    after = f" -> {one.after:.2f}" if one.after is not None else ""
    limit = f"\n(limit {one.threshold:.2f})" if one.threshold is not None else ""
    return f"{one.before:.2f}{after}{limit}"


def anatomy(figures: Sequence[Measured]) -> str:
    """The figures that a person asks for first, and every one that did not pass."""
    found = {figure.name: figure for figure in figures}
    said = []
    if "kept_codes_share" in found:
        said.append(f"greys kept {found['kept_codes_share'].value:.0%}")
    if "minimum_slope" in found and "maximum_slope" in found:
        said.append(f"slope {found['minimum_slope'].value:.2f} to {found['maximum_slope'].value:.2f}")
    if "clipped_share" in found:
        said.append(f"clipped {found['clipped_share'].value:.1%}")
    said += [_failed(figure) for figure in figures if not figure.passed]
    return "\n".join(said)


def reason(one: Finding) -> str:
    """The reason without the numbers that have columns of their own, and not longer than a few lines."""
    said = re.sub(r"^\w+ brought the style distance from \S+ to [\d.]+, ", "", one.reason)
    if len(said) > REASON_LENGTH:
        said = said[:REASON_LENGTH].rsplit(" ", 1)[0] + " ..."
    return "; ".join([said, *one.faults])


def abridged(report: str) -> str:
    """A report's text with each run of references as one line: there are sixteen an image, all of one kind."""
    lines: list[str] = []
    for is_reference, group in groupby(report.splitlines(), lambda line: line.startswith("  reference: ")):
        found = list(group)
        lines += [f"  references: {len(found)}, named in the report"] if is_reference and len(found) > 1 else found
    return "\n".join(lines) + "\n"


def _failed(figure: Measured) -> str:
    if figure.limit is None:
        return f"{_plain(figure.name)} {figure.value:.2f}"
    side = "at least" if figure.at_least else "at most"
    return f"{_plain(figure.name)} {figure.value:.2f}, {side} {figure.limit:.2f} needed"


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _inside(path: Path, place: Place) -> str:
    return str(path.relative_to(place.root))


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.ROUNDED, show_lines=True)
