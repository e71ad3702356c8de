"""Hold the canonical frame of an exam type: the mean layout of its references. Knows no image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.align.geometry import Geometry


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
