"""Read our reports back: as plain values for an audit, and as text for a terminal. Builds nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from dicom_node.errors import BadInput, Unreadable
from dicom_node.results import concepts
from dicom_node.results.report_integrity import is_whole, stated_digest
from dicom_node.tolerant import READ_FAULTS, items, read, text

Row = dict[str, Any]
NUMBERS = {
    concepts.DISTANCE_BEFORE.value: "distance_before",
    concepts.DISTANCE_AFTER.value: "distance_after",
    concepts.THRESHOLD.value: "threshold",
    concepts.EXPOSED_SHARE.value: "exposed_share",
}
TEXT_KEYS = {concept.value: key for key, concept in concepts.TEXTS.items()}
MANY = {"reference": "references", "result": "results", "note": "notes", "result_digest": "result_digests"}
RESULTS = {concepts.RESULT_IMAGE.value, concepts.RESULT_OBJECT.value}
PAIRS = {"figure", "alignment", "tried", "tried_figure", "tried_parameter"}
IMAGING_MEASUREMENTS, MEASUREMENT_GROUP = "126010", "125007"
TRACKING_UID, PARAMETERS = "112040", "111002"
TRIED = re.compile(r"(?P<method>[^:]+): distance=(?P<distance>\S+) verified=(?P<verified>yes|no)")
FIGURE = re.compile(
    r"(?P<name>.+?)=(?P<value>\S+)(?: (?P<side>at least|at most) (?P<limit>\S+))?(?P<failed> not passed)?"
)


@dataclass(frozen=True, slots=True)
class Report:
    """A report that was read back. `dataset` holds the patient's names too: nothing of it is to be shown."""

    uid: str
    study_uid: str
    date: str
    time: str
    earlier: str
    """SOP Instance UID of the report that it adds to, "" where there is none."""
    sealed: bool
    """Whether it carries a digest of its content; those of version 0.1 don't."""
    whole: bool
    """Whether it has one, and its content is what it was when it was written."""
    rows: list[Row]
    """One an instance, every number and parameter with the bits that it was written with."""
    dataset: Dataset

    @property
    def flaw(self) -> str:
        """Why it can't be taken for what was written, "" where it can."""
        if self.whole:
            return ""
        if self.sealed:
            return "was changed: its content does not have the digest that it carries"
        return "carries no digest of its content: nothing shows whether it was changed"


def read_report(path: Path) -> Report:
    """The report in a file.

    Raises BadInput where the object is no report of ours, Unreadable where it is no DICOM object.
    """
    dataset, _ = read(path, whole=True)
    try:
        rows = _rows(dataset, path.name)
    except READ_FAULTS as exc:
        raise Unreadable(f"{path.name}: a damaged report ({type(exc).__name__} while its items were read)") from exc
    earlier = [i for i in items(dataset, "ContentSequence") if _code(i) == concepts.EARLIER_REPORT.value]
    return Report(
        uid=text(dataset, "SOPInstanceUID"),
        study_uid=text(dataset, "StudyInstanceUID"),
        date=text(dataset, "ContentDate"),
        time=text(dataset, "ContentTime"),
        earlier=next(map(_referenced, earlier), ""),
        sealed=bool(stated_digest(dataset)),
        whole=is_whole(dataset),
        rows=rows,
        dataset=dataset,
    )


def parse_report(path: Path) -> list[Row]:
    """The rows of the report in a file. Raises as `read_report` does."""
    return read_report(path).rows


def _rows(report: Dataset, name: str) -> list[Row]:
    found = [
        _row(group)
        for container in items(report, "ContentSequence")
        if _code(container) == IMAGING_MEASUREMENTS
        for group in items(container, "ContentSequence")
        if _code(group) == MEASUREMENT_GROUP
    ]
    if not found or any("outcome" not in row for row in found):
        raise BadInput(f"{name}: not a report of Evenray; give one of its Comprehensive 3D SR objects")
    return found


def render_report(path: Path) -> str:
    """The report as lines of text, names and values of the patient left out."""
    report = read_report(path)
    rows = report.rows
    counts = {outcome: sum(row["outcome"] == outcome for row in rows) for outcome in {row["outcome"] for row in rows}}
    summary = ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items()))
    lines = [
        f"Evenray report {report.uid}",
        f"study {report.study_uid}, content date {report.date}",
        f"{len(rows)} instance(s): {summary}",
    ]
    for row in rows:
        lines += ["", *_lines(row)]
    return "\n".join(lines) + "\n"


def _row(group: Dataset) -> Row:
    row: Row = {"figures": [], "parameters": {}, "alignment": {}, "tried": []}
    row |= {key: "" for key in concepts.TEXTS if key not in MANY and key not in PAIRS}
    row |= {key: [] for key in MANY.values()} | dict.fromkeys(NUMBERS.values())
    for item in items(group, "ContentSequence"):
        kind, code = text(item, "ValueType"), _code(item)
        if kind == "NUM":
            _take_number(row, item, code)
        elif kind == "CODE" and code == concepts.OUTCOME.value:
            for coded in items(item, "ConceptCodeSequence"):
                row["outcome"] = text(coded, "CodeValue").lower()
        elif kind == "TEXT" and code == PARAMETERS:
            name, _, value = text(item, "TextValue").partition("=")
            row["parameters"][name] = value
        elif kind == "TEXT" and code in TEXT_KEYS:
            _take_text(row, TEXT_KEYS[code], text(item, "TextValue"))
        elif kind in ("IMAGE", "COMPOSITE") and code in RESULTS:
            row["results"].append(_referenced(item))
        elif kind == "UIDREF" and code == TRACKING_UID:
            row["tracking_uid"] = text(item, "UID")
    for tried in row["tried"]:
        # What the chosen method shares with the group is written once.
        if tried["method"] == row["method"]:
            tried["figures"] = tried["figures"] or row["figures"]
            tried["parameters"] = tried["parameters"] or row["parameters"]
    return row


def _take_number(row: Row, item: Dataset, code: str) -> None:
    value = _value(item)
    if code in NUMBERS:
        row[NUMBERS[code]] = value
    elif code.startswith(concepts.FIGURE_MARK):
        row["figures"].append({"name": _meaning(item), "value": value, "limit": None, "at_least": True, "passed": True})
    elif code.startswith((concepts.LOWER_MARK, concepts.UPPER_MARK)) and row["figures"]:
        # A limit follows the figure that it belongs to.
        figure, at_least = row["figures"][-1], code.startswith(concepts.LOWER_MARK)
        passed = figure["value"] >= value if at_least else figure["value"] <= value
        figure |= {"limit": value, "at_least": at_least, "passed": passed}


def _take_text(row: Row, key: str, said: str) -> None:
    if key in MANY:
        row[MANY[key]].append(said)
    elif key == "alignment":
        name, _, value = said.partition("=")
        row["alignment"][name] = value
    elif key == "figure":
        row["figures"] += _figures(said)
    elif key == "tried":
        if match := TRIED.fullmatch(said):
            row["tried"].append(
                {
                    "method": match["method"],
                    "distance": float(match["distance"]),
                    "verified": match["verified"] == "yes",
                    "figures": [],
                    "parameters": {},
                }
            )
    elif key in PAIRS and row["tried"]:
        # Figures and parameters follow the method that they belong to.
        _take_tried(row["tried"][-1], key, said.partition(": ")[2])
    elif key not in PAIRS:
        row[key] = said


def _take_tried(tried: Row, key: str, said: str) -> None:
    if key == "tried_parameter":
        name, _, value = said.partition("=")
        tried["parameters"][name] = value
    else:
        tried["figures"] += _figures(said)


def _figures(said: str) -> list[Row]:
    match = FIGURE.fullmatch(said)
    if match is None:
        return []
    return [
        {
            "name": match["name"],
            "value": float(match["value"]),
            "limit": float(match["limit"]) if match["limit"] else None,
            "at_least": match["side"] != "at most",
            "passed": match["failed"] is None,
        }
    ]


def _value(item: Dataset) -> float | None:
    """The number in full: the floating point value, else the decimal string, which is rounded to 16 characters."""
    for measured in items(item, "MeasuredValueSequence"):
        exact = measured.get("FloatingPointValue")
        return float(exact if exact is not None else measured.NumericValue)
    return None


def _referenced(item: Dataset) -> str:
    return next((text(to, "ReferencedSOPInstanceUID") for to in items(item, "ReferencedSOPSequence")), "")


def _code(item: Dataset) -> str:
    return next((text(name, "CodeValue") for name in items(item, "ConceptNameCodeSequence")), "")


def _meaning(item: Dataset) -> str:
    return next((text(name, "CodeMeaning") for name in items(item, "ConceptNameCodeSequence")), "")


def _lines(row: Row) -> list[str]:
    """One instance: the outcome first, then the numbers behind it, then what a replay needs."""
    lines = [f"{row['outcome'].upper()}  {row['source_instance']}", f"  {row['reason']}"]
    if row["distance_before"] is not None:
        distance = f"style distance {row['distance_before']:.4g}"
        distance += f" -> {row['distance_after']:.4g}" if row["distance_after"] is not None else ""
        distance += f" (conforming up to {row['threshold']:.4g})" if row["threshold"] is not None else ""
        lines.append(f"  {distance}")
    lines += [f"  {_figure_line(figure)}" for figure in row["figures"]]
    plain = ("exam", "route", "method", "bank")
    lines += [f"  {key}: {row[key]}" for key in plain if row[key]]
    for tried in row["tried"]:
        verdict = "verified" if tried["verified"] else "not verified"
        lines.append(f"  tried {tried['method']}: style distance {tried['distance']:.4g}, {verdict}")
    if row["parameters"]:
        lines.append("  parameters: " + ", ".join(f"{name}={value}" for name, value in row["parameters"].items()))
    if row["alignment"]:
        lines.append("  alignment: " + ", ".join(f"{name}={value}" for name, value in row["alignment"].items()))
    if row["exposed_share"] is not None:
        lines.append(f"  exposed: {row['exposed_share']:.1%} of the image")
    lines += [f"  reference: {reference}" for reference in row["references"]]
    if row["label"]:
        lines.append(f"  drawn into the pixels: {row['label']}")
    digests = [f"{what}_digest" for what in ("source", "display", "pixels", "sent", "weights", "settings", "bank")]
    lines += [f"  {key.replace('_', ' ')}: {row[key]}" for key in digests if row[key]]
    lines += [f"  result: {result}" for result in row["results"]]
    return lines + [f"  note: {note}" for note in row["notes"]]


def _figure_line(figure: Row) -> str:
    said = f"{figure['name']} {figure['value']:.4g}"
    if figure["limit"] is not None:
        said += f" ({'at least' if figure['at_least'] else 'at most'} {figure['limit']:.4g})"
    return said + ("" if figure["passed"] else "  NOT PASSED")
