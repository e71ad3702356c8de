"""The demo's findings as a person reads them in a terminal of 120 columns. Knows no DICOM and no network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from rich import box
from rich.table import Table

from dicom_node.commands.screen import cell
from dicom_node.demo.findings import MISSING, Finding
from dicom_node.demo.place import Place
from dicom_node.records import Measured, Outcome

REASON_LENGTH = 130
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
    made = _table("What was decided, as the reports in the archive say")
    made.add_column("", no_wrap=True, justify="right")
    made.add_column("image", overflow="fold", min_width=10, max_width=24)
    made.add_column("exam", no_wrap=False, max_width=12)
    made.add_column("style distance\nbefore -> after", no_wrap=True)
    made.add_column("outcome", no_wrap=True)
    made.add_column("method and\nanatomy check", max_width=24)
    made.add_column("reason")
    for one in findings:
        made.add_row(
            str(one.given.number),
            cell(one.given.title),
            cell(one.exam or NOTHING),
            distances(one) or NOTHING,
            cell(one.outcome, STYLES.get(one.outcome, "")),
            "\n".join(filter(None, (one.method, *anatomy(one.figures)))) or NOTHING,
            cell(reason(one)),
        )
    return made


def results(findings: Sequence[Finding], place: Place, pictures: Mapping[int, Path]) -> Table:
    """One row a harmonized image: where it and its picture lie."""
    made = _table(f"Where the harmonized images are, in {place.root}")
    made.add_column("", no_wrap=True, justify="right")
    made.add_column("image", overflow="fold", min_width=10, max_width=24)
    made.add_column("in the archive", overflow="fold")
    made.add_column("picture", overflow="fold")
    for one in findings:
        picture = pictures.get(one.given.number)
        if one.image:
            made.add_row(
                str(one.given.number),
                cell(one.given.title),
                cell(one.image.relative_to(place.root)),
                cell(picture.relative_to(place.root)) if picture else NOTHING,
            )
    return made


def distances(one: Finding) -> str:
    """`3.40 -> 1.18`, and below it up to where an image counts as conforming."""
    if one.before is None:
        return ""
    after = f" -> {one.after:.2f}" if one.after is not None else ""
    limit = f"\n(limit {one.threshold:.2f})" if one.threshold is not None else ""
    return f"{one.before:.2f}{after}{limit}"


def anatomy(figures: Sequence[Measured]) -> list[str]:
    """The figures that a person asks for first, and every one that did not pass."""
    found = {figure.name: figure for figure in figures}
    said = []
    if "kept_codes_share" in found:
        said.append(f"greys kept {found['kept_codes_share'].value:.0%}")
    if "minimum_slope" in found and "maximum_slope" in found:
        said.append(f"slope {found['minimum_slope'].value:.2f} to {found['maximum_slope'].value:.2f}")
    if "clipped_share" in found:
        said.append(f"clipped {found['clipped_share'].value:.1%}")
    return said + [_failed(figure) for figure in figures if not figure.passed]


def reason(one: Finding) -> str:
    """The reason without the numbers that have columns of their own, and not longer than a few lines."""
    said = re.sub(r"^\w+ brought the style distance from \S+ to [\d.]+, ", "", one.reason)
    if len(said) > REASON_LENGTH:
        said = said[:REASON_LENGTH].rsplit(" ", 1)[0] + " ..."
    return "; ".join([said, *one.faults])


def abridged(report: str, names: Mapping[str, str]) -> str:
    """A report's text with the images' names beside their UIDs, and each run of references as one line.

    There are sixteen references an image, all of one kind.
    """
    lines: list[str] = []
    for is_reference, group in groupby(report.splitlines(), lambda line: line.startswith("  reference: ")):
        found = list(group)
        if is_reference and len(found) > 1:
            lines.append(f"  references: {len(found)}, named in the report")
        else:
            lines += [_named(line, names) for line in found]
    return "\n".join(lines) + "\n"


def _named(line: str, names: Mapping[str, str]) -> str:
    uid = line.partition("  ")[2]
    return f"{line}  (image {names[uid]})" if uid in names else line


def _failed(figure: Measured) -> str:
    name = figure.name.replace("_", " ")
    if figure.limit is None:
        return f"{name} {figure.value:.2f}"
    side = "at least" if figure.at_least else "at most"
    return f"{name} {figure.value:.2f}, needed is {side} {figure.limit:.2f}"


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.ROUNDED, show_lines=True)
