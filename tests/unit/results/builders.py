"""Decisions and reported instances for tests of results. Reads only files that a test wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from dicom_node.header import dataset_digest, read_header
from dicom_node.records import Decision, Measured, Outcome, Reported, Tried
from dicom_node.results.secondary_capture import image_uid
from dicom_node.settings import Site

SITE = Site(institution="Klinik", station="RAY1", timezone="+0100")
FIGURES = (
    Measured("ssim", 0.9876543210123456, 0.98),
    Measured("share_of_new_local_extrema", 1e-3 / 3, 1e-3, at_least=False),
    Measured("blur", 0.1, 0.2, at_least=True, passed=False),
    Measured("entropy", 7.1),
)
SECONDARY = "1.2.840.10008.5.1.4.1.1.7"


def decision(source: Path, outcome: Outcome = Outcome.HARMONIZED, **changes: Any) -> Decision:
    """A full decision; floats that a decimal string can't hold."""
    chosen = Tried(
        method="fitted_curve",
        distance=0.1 + 0.2,
        verified=True,
        figures=FIGURES,
        parameters={f"alpha_{i}": repr(i / 7) for i in range(1, 9)},
    )
    other = Tried(
        method="z_score",
        distance=1 / 3,
        verified=False,
        figures=(Measured("ssim", 0.5, 0.98, passed=False), Measured("blur", float("inf"))),
        parameters={"gain": repr(1.1), "form": "affine"},
    )
    base = Decision(
        outcome=outcome,
        reason="closer to the bank and the anatomy is unchanged",
        exam="CR CHEST PA",
        route="chest",
        bank="chest-pa",
        bank_digest="b" * 64,
        references=("ref-1", "ref-2"),
        method="fitted_curve",
        distance_before=1.25,
        distance_after=0.1 + 0.2,
        threshold=0.5,
        exposed_share=2 / 3,
        alignment={"method": "affine", "tx": repr(0.01 / 3)},
        figures=FIGURES,
        tried=(chosen, other),
        engine_version="1.2.3",
        settings_digest="5" * 64,
        weights_digest="e" * 64,
        source_digest=dataset_digest(source),
        pixels_digest="f" * 64,
        notes=("window 2048/4096 LINEAR (1 of 1)",),
        seconds={"decode": 0.5},
    )
    return replace(base, **changes)


def reported(source: Path, outcome: Outcome = Outcome.HARMONIZED, **changes: Any) -> Reported:
    """An instance of a batch, with the image that was made from it where one was."""
    header, decided = read_header(source), decision(source, outcome, **changes)
    made = ((SECONDARY, image_uid(decided, header)),) if outcome is Outcome.HARMONIZED else ()
    return Reported(source=source, header=header, decision=decided, results=made)
