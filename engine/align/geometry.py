"""Measure the layout of an image: where its dark half lies, as moments and projections. Knows no bank.

Coordinates everywhere in `align`: the image's centre is (0, 0), x to the right, y down, the long side is 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]

PROFILE_BINS = 48
"""Bins of a projection over [-0.5, 0.5]: fine enough for a heart border, too coarse to be a picture of anyone."""
GRID_SIDE = 96
"""Long side of the grid on which layout is measured; two samples a bin."""
DARKEST_SHARE = 0.6
"""Share of the field, from its darkest pixel, that carries weight: lungs in a chest, fat in a breast."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Layout of one image in a few numbers, in the coordinates above.

    centre, spread: weighted mean and standard deviation (x, y). field_share: exposed part of the image's area.
    profile_x, profile_y: PROFILE_BINS projections of the weight, each adding up to 1 (or all 0).
    """

    centre: tuple[float, float]
    spread: tuple[float, float]
    field_share: float
    profile_x: tuple[float, ...]
    profile_y: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The weighted points that a geometry was measured on. x, y, weight: (n,) float64."""

    x: Floats
    y: Floats
    weight: Floats
    geometry: Geometry


def measure_layout(grey: NDArray[np.float32], mask: NDArray[np.bool_]) -> Layout:
    """Measure the layout of a working image inside its field.

    The weight is a rank, not a grey value, so a tone curve or another vendor's contrast can't move it.
    """
    height, width = grey.shape
    scale = GRID_SIDE / max(height, width)
    shape = (max(2, round(height * scale)), max(2, round(width * scale)))
    inside = torch.from_numpy(mask.astype(np.float32))[None, None]
    cover = F.interpolate(inside, size=shape, mode="area")[0, 0].numpy()
    sums = F.interpolate(torch.from_numpy(grey)[None, None] * inside, size=shape, mode="area")[0, 0].numpy()
    chosen = cover > 0.5 if bool((cover > 0.5).any()) else cover > 0
    level = sums[chosen] / cover[chosen]
    rank = (rankdata(np.round(level, 4)) - 0.5) / level.size
    rows, columns = np.nonzero(chosen)
    x = ((columns + 0.5) / shape[1] - 0.5) * width / max(height, width)
    y = ((rows + 0.5) / shape[0] - 0.5) * height / max(height, width)
    weight = np.clip(1 - rank / DARKEST_SHARE, 0, None)
    if weight.sum() <= 0:
        weight = np.ones_like(weight)
    return Layout(x, y, weight, _geometry(x, y, weight, float(mask.mean())))


def profile(position: Floats, weight: Floats) -> Floats:
    """(PROFILE_BINS,) projection over [-0.5, 0.5], each point shared linearly by its two nearest bins; sum 1 or 0."""
    place = (position + 0.5) * PROFILE_BINS - 0.5
    inside = (place >= 0) & (place < PROFILE_BINS - 1)
    place, weight = place[inside], weight[inside]
    low = place.astype(np.int64)
    part = place - low
    bins = np.zeros(PROFILE_BINS)
    bins += np.bincount(low, weight * (1 - part), PROFILE_BINS)
    bins += np.bincount(low + 1, weight * part, PROFILE_BINS)
    total = bins.sum()
    return bins / total if total > 0 else bins


def _geometry(x: Floats, y: Floats, weight: Floats, field_share: float) -> Geometry:
    share = weight / weight.sum()
    cx, cy = float(share @ x), float(share @ y)
    return Geometry(
        centre=(cx, cy),
        spread=(float(np.sqrt(share @ (x - cx) ** 2)), float(np.sqrt(share @ (y - cy) ** 2))),
        field_share=field_share,
        profile_x=tuple(profile(x, weight).tolist()),
        profile_y=tuple(profile(y, weight).tolist()),
    )
