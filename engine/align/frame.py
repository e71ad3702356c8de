"""Hold the canonical frame of an exam type, the mean layout of its references, and say what agrees with it.

Knows no image and no placement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from engine.align.geometry import Floats, Geometry

AGREEMENT_MARGIN = 0.1
"""A new image may agree with the frame this much less than the bank's own worst reference does."""
FEWEST_FOR_AGREEMENT = 5
"""With fewer references (of one laterality, perhaps) the frame is a person, not an exam type."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Mean moments and projections of a bank's references, in the coordinates of `align.geometry`."""

    centre: tuple[float, float]
    spread: tuple[float, float]
    profile_x: tuple[float, ...]
    profile_y: tuple[float, ...]


def mean_frame(geometries: Sequence[Geometry]) -> Frame:
    """The frame of one or more geometries: plain means, so that it depends on no order and no search."""
    centre = np.mean([g.centre for g in geometries], axis=0)
    spread = np.mean([g.spread for g in geometries], axis=0)
    return Frame(
        centre=(float(centre[0]), float(centre[1])),
        spread=(float(spread[0]), float(spread[1])),
        profile_x=tuple(np.mean([g.profile_x for g in geometries], axis=0).tolist()),
        profile_y=tuple(np.mean([g.profile_y for g in geometries], axis=0).tolist()),
    )


def agreement(geometry: Geometry, frame: Frame) -> float:
    """Mean correlation of the two projections with the frame's, in [-1, 1], as the image lies.

    Nothing is moved for it, since a free placement would find something alike in any picture. A negative (MONOCHROME1
    shown as it is stored) or another body part agrees little: its dark half lies elsewhere.
    """
    along_x = correlation(smooth(np.array(geometry.profile_x)), smooth(np.array(frame.profile_x)))
    along_y = correlation(smooth(np.array(geometry.profile_y)), smooth(np.array(frame.profile_y)))
    return (along_x + along_y) / 2


def least_agreement(geometries: Sequence[Geometry]) -> float:
    """The agreement that an image of these references' exam type has at least.

    The worst reference's agreement with the frame of all the others, less AGREEMENT_MARGIN; -1, which every image
    reaches, with fewer than FEWEST_FOR_AGREEMENT.
    """
    if len(geometries) < FEWEST_FOR_AGREEMENT:
        return -1.0
    left_out = (
        agreement(geometry, mean_frame([*geometries[:i], *geometries[i + 1 :]]))
        for i, geometry in enumerate(geometries)
    )
    return max(-1.0, min(left_out) - AGREEMENT_MARGIN)


def smooth(bins: Floats) -> Floats:
    """A projection without its bin noise."""
    smoothed: Floats = gaussian_filter1d(bins, 1.0, mode="constant")
    return smoothed


def correlation(a: Floats, b: Floats) -> float:
    """Pearson's; 0 where either is constant."""
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm > 0 else 0.0
