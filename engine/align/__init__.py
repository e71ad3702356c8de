"""Say where an image lies in the canonical frame of its exam type. Knows no style and no method."""

from __future__ import annotations

from engine.align.frame import Frame, agreement, least_agreement, mean_frame
from engine.align.geometry import Geometry, Layout, measure_layout
from engine.align.register import estimate, matrix
from engine.align.warp import warp

__all__ = [
    "Frame",
    "Geometry",
    "Layout",
    "agreement",
    "estimate",
    "least_agreement",
    "matrix",
    "mean_frame",
    "measure_layout",
    "warp",
]
