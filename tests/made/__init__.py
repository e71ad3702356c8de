"""All odd images, each with its stated outcome. Knows no node code."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.made.attributes import ATTRIBUTES
from tests.made.files import FILES
from tests.made.pixels import PIXELS
from tests.made.table import Odd
from tests.made.texts import TEXTS

EVERY: tuple[Odd, ...] = (*TEXTS, *ATTRIBUTES, *PIXELS, *FILES)


def write(folder: Path, images: Iterable[Odd] = EVERY) -> dict[str, Path]:
    """Their files, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    out = {}
    for one in images:
        out[one.name] = folder / f"{one.name}.dcm"
        out[one.name].write_bytes(one.build(one.name))
    return out
