"""What a person reads: numbers in words, long things shortened, nothing lost that decided."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from rich.console import Console

from dicom_node.demo import tables
from dicom_node.demo.findings import Finding
from dicom_node.demo.given import Given
from dicom_node.demo.place import Place
from dicom_node.records import Measured

HARMONIZED = Finding(
    given=Given(2, "Umbra", Path("2.dcm"), "1.2.2"),
    outcome="harmonized",
    reason="fitted_curve brought the style distance from 3.40 to 1.18, within the threshold 1.83",
    exam="DX CHEST PA",
    method="fitted_curve",
    before=3.4,
    after=1.176,
    threshold=1.826,
    figures=(
        Measured("kept_codes_share", 0.9812, 0.6),
        Measured("minimum_slope", 0.6, 0.2),
        Measured("maximum_slope", 1.94, 5.0, at_least=False),
        Measured("clipped_share", 0.0, 0.005, at_least=False),
    ),
    parameters={},
    image=Path("out/archive/2.25.1.dcm"),
)
REFUSED = Finding(
    given=Given(3, "Graven", Path("3.dcm"), "1.2.3"),
    outcome="refused",
    reason="no method came close enough",
    before=3.09,
    threshold=1.83,
    figures=(Measured("distance_after", 2.88, 2.32, at_least=False, passed=False),),
    parameters={},
    faults=("its original did not reach the archive",),
)


def printed(table: object, width: int = 120) -> str:
    out = StringIO()
    Console(file=out, width=width).print(table)
    return out.getvalue()


def test_a_row_says_what_was_decided_and_by_which_numbers() -> None:
    said = printed(tables.decisions([HARMONIZED, REFUSED]))
    for words in (
        "3.40 -> 1.18",
        "(limit 1.83)",
        "greys kept 98%",
        "slope 0.60 to 1.94",
        "clipped 0.0%",
        "DX CHEST PA",
    ):
        assert words in said
    assert tables.anatomy(REFUSED.figures) == ["distance after 2.88, needed is at most 2.32"]
    assert tables.reason(HARMONIZED) == "within the threshold 1.83"
    assert "its original did not reach the archive" in tables.reason(REFUSED)
    assert max(map(len, said.splitlines())) <= 120


def test_names_are_shown_as_they_are_and_never_act() -> None:
    odd = Finding(given=Given(1, "[red]a[/]\x1b[31m", Path("1.dcm"), "1"), outcome="passed", reason="x", parameters={})
    said = printed(tables.decisions([odd]))
    assert "[red]a[/]" in said
    assert "\x1b" not in said


def test_only_images_that_were_made_have_a_place() -> None:
    said = printed(tables.results([HARMONIZED, REFUSED], Place(Path("out")), {2: Path("out/pictures/2-umbra.png")}))
    assert "archive/2.25.1.dcm" in said
    assert "pictures/2-umbra.png" in said
    assert "Graven" not in said


def test_an_abridged_report_names_the_image_and_counts_the_references() -> None:
    report = "HARMONIZED  1.2.2\n  exam: x\n  reference: a\n  reference: b\n  note: y\n  reference: c\n"
    assert tables.abridged(report, {"1.2.2": "2 Umbra"}).splitlines() == [
        "HARMONIZED  1.2.2  (image 2 Umbra)",
        "  exam: x",
        "  references: 2, named in the report",
        "  note: y",
        "  reference: c",
    ]
