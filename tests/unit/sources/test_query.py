"""The question that a person asks: what is refused, what it admits of what an archive answers."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from dicom_node.errors import BadInput
from dicom_node.sources.query import FoundStudy, wanted


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "nothing says which studies"),
        ({"modalities": ("CR",)}, "nothing says which studies"),
        ({"accession": "A*"}, "--accession"),
        ({"patient": "?"}, "--patient"),
        ({"patient": "P1\\P2"}, "--patient"),
        ({"patient": "P1\n"}, "--patient"),
        ({"accession": "A" * 65}, "--accession"),
        ({"studies": ("1.2.x",)}, "--study"),
        ({"studies": ("1.2.*",)}, "--study"),
        ({"studies": ("1." * 33 + "1",)}, "--study"),
        ({"dates": "2024"}, "--date"),
        ({"dates": "20240230"}, "--date"),
        ({"dates": "-"}, "--date"),
        ({"dates": "20240201-20240101"}, "--date"),
        ({"dates": "*"}, "--date"),
        ({"dates": "20240101", "modalities": ("C*",)}, "--modality"),
    ],
)
def test_what_would_ask_for_more_than_was_meant_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        wanted(**options)


def test_no_refusal_repeats_what_names_a_patient() -> None:
    with pytest.raises(BadInput) as refused:
        wanted(patient="SECRET*")
    assert "SECRET" not in str(refused.value)


@pytest.mark.parametrize(
    ("dates", "ends"),
    [
        ("20240131", (date(2024, 1, 31), date(2024, 1, 31))),
        ("20240101-20240131", (date(2024, 1, 1), date(2024, 1, 31))),
        ("20240101-", (date(2024, 1, 1), None)),
        ("-20240131", (None, date(2024, 1, 31))),
    ],
)
def test_dates_are_days_with_both_ends_included(dates: str, ends: tuple[date | None, date | None]) -> None:
    made = wanted(dates=dates)
    assert (made.first, made.last) == ends


@pytest.mark.parametrize(
    ("options", "study", "admitted"),
    [
        ({"studies": ("1.2",)}, {}, True),
        ({"studies": ("1.3",)}, {}, False),
        ({"accession": "A1"}, {"accession": "A1"}, True),
        ({"accession": "A1"}, {"accession": "A12"}, False),
        ({"accession": "A1"}, {}, False),
        ({"patient": "P1"}, {"patient": "P1"}, True),
        ({"patient": "P1"}, {"patient": "P2"}, False),
        ({"dates": "20240101-20240131"}, {"date": "20240131"}, True),
        ({"dates": "20240101-20240131"}, {"date": "20240201"}, False),
        ({"dates": "20240101-"}, {"date": ""}, False),
        ({"dates": "20240101-"}, {"date": "garbage"}, False),
        ({"dates": "-20240131"}, {"date": "19991231"}, True),
        ({"studies": ("1.2",), "modalities": ("CR", "DX")}, {"modalities": ("DX", "SR")}, True),
        ({"studies": ("1.2",), "modalities": ("CR", "DX")}, {"modalities": ("CT",)}, False),
        ({"studies": ("1.2",), "modalities": ("CR", "DX")}, {"modalities": ()}, True),
    ],
)
def test_an_answer_beside_the_question_is_not_admitted(
    options: dict[str, Any], study: dict[str, Any], admitted: bool
) -> None:
    assert wanted(**options).admits(FoundStudy(study_instance_uid="1.2", **study)) is admitted
