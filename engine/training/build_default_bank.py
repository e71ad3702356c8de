"""Build the shipped chest bank from the open NIH images. Knows the data set's index file; nothing imports it.

The preferred style: NIH ChestX-ray14, PA, one image a patient, then the coherent part of it. A bank that mixes every
source has a spread so wide that everything conforms; one clinic's upright PA chests are a look a reader would name.

    python -m engine.training.build_default_bank --data ../shared/data --out engine/weights/chest_frontal.bank.json
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Picture

from engine import Exam, Image, Reference, build_bank, describe_reference, dump_bank
from engine.style import distance, distribution

NAME = "chest_frontal"
EXAM = Exam(modalities=("CR", "DX"), body_part="CHEST", views=("PA", "AP"))
SOURCE = "nih_chestxray14"
KEPT_SHARE = 0.7
"""Of all PA patients, the share nearest to their common centre: NIH holds several processings (white shutters,
unwindowed grey images), and the bank should speak for the one that most of them share."""
PROVENANCE = (
    "Statistics of NIH ChestX-ray14 PA chest radiographs (Wang et al., CVPR 2017; NIH Clinical Center), one image a "
    "patient, the {kept} of {total} nearest to their common centre. No pixels."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the index, describe the images, keep the coherent part, write the bank."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with index.csv")
    parser.add_argument("--out", type=Path, required=True, help="bank file to write")
    options = parser.parse_args(arguments)
    described = [describe(options.data, row) for row in one_image_a_patient(options.data / "index.csv")]
    kept = coherent(described, KEPT_SHARE)
    bank = build_bank(NAME, EXAM, kept, PROVENANCE.format(kept=len(kept), total=len(described)))
    options.out.write_text(dump_bank(bank), encoding="utf-8")
    print(f"{options.out}: {len(kept)} of {len(described)} references, threshold {bank.threshold}, {bank.digest}")


def one_image_a_patient(index: Path) -> list[dict[str, str]]:
    """The first open PA image of every NIH patient, in order of file name."""
    with index.open(newline="", encoding="utf-8") as lines:
        rows = [
            row
            for row in csv.DictReader(lines)
            if row["source"] == SOURCE and row["licence_class"] == "open" and row["view"] == "PA"
        ]
    first: dict[str, dict[str, str]] = {}
    for row in sorted(rows, key=lambda row: row["file"]):
        first.setdefault(row["patient"], row)
    return list(first.values())


def describe(data: Path, row: dict[str, str]) -> Reference:
    """Measure one 8-bit PNG of the set."""
    codes = np.asarray(Picture.open(data / row["file"]).convert("L"))
    values = torch.from_numpy((codes / 255).astype(np.float32))[None]
    image = Image(values, torch.zeros_like(values, dtype=torch.bool), levels=256)
    return describe_reference(image, view=row["view"], source=f"{SOURCE}/{Path(row['file']).name}")


def coherent(references: list[Reference], share: float) -> list[Reference]:
    """The `share` of references nearest to the centre of them all; ties go by id."""
    centre = distribution([r.descriptor for r in references])
    order = sorted(references, key=lambda r: (distance(r.descriptor, centre), r.id))
    return order[: round(share * len(order))]


if __name__ == "__main__":
    main()
