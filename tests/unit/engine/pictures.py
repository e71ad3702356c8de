"""Draw radiographs whose truth is known, and find real ones. Knows no test."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as Picture

from engine import Exam, Image, Reference, describe_reference

DATA = Path(__file__).parents[4] / "shared" / "data"
EXAM = Exam(("CR", "DX"), "CHEST", ("PA", "AP"))

needs_data = pytest.mark.skipif(not (DATA / "index.csv").exists(), reason="public X-rays are not at ../shared/data")


def image_of(
    grey: NDArray[np.floating] | torch.Tensor, levels: int = 4096, padding: torch.Tensor | None = None
) -> Image:
    """An image of (h, w) or (1, h, w) grey values, put on its codes."""
    values = torch.as_tensor(np.asarray(grey, dtype=np.float64))
    values = values[None] if values.ndim == 2 else values
    codes = (values.clamp(0, 1) * (levels - 1)).round()
    if padding is None:
        padding = torch.zeros_like(codes, dtype=torch.bool)
    return Image((codes / (levels - 1)).float(), padding, levels)


def chest(
    height: int = 320, width: int = 288, seed: int = 0, lung: float = 0.3, bone: float = 0.06
) -> NDArray[np.float64]:
    """(height, width) grey: air, a body, two lungs with ribs, a bright spine and abdomen, a little noise."""
    rng = np.random.default_rng(seed)
    size = 1 + 0.05 * rng.standard_normal(4)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    grey = np.full((height, width), 0.02)
    body = _soft(1 - (x / (0.92 * size[0])) ** 4 - ((y - 0.35) / 1.25) ** 4, 12)
    grey += body * (0.6 + 0.15 * y)
    for side in (-1, 1):
        inside = 1 - ((x - side * 0.42) / (0.27 * size[1])) ** 2 - ((y + 0.15) / (0.6 * size[2])) ** 2
        ribs = bone * np.sin(14 * (y + 0.25 * side * x) + seed)
        grey += _soft(inside, 8) * (lung - 0.62 + ribs)
    grey += 0.12 * np.exp(-((x / 0.08) ** 2)) * body
    grey += 0.006 * rng.standard_normal(grey.shape)
    return np.clip(grey, 0, 1)


def references(count: int) -> list[Reference]:
    """References of different patients with one look."""
    return [_reference(number) for number in range(count)]


@cache
def _reference(number: int) -> Reference:
    return describe_reference(image_of(chest(seed=100 + number)), view="PA", source=f"drawn {number}")


def real(name: str) -> Image:
    """One public 8-bit radiograph."""
    codes = np.asarray(Picture.open(DATA / name).convert("L"))
    return image_of(codes / 255, 256)


def _soft(inside: NDArray[np.float64], sharpness: float) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-np.clip(sharpness * inside, -60, 60)))
