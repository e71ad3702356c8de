"""Own the working image: every radiograph at one small size, so that no number depends on its resolution.

Knows nothing of fields, styles or banks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from engine.types import SMALLEST_SIDE, Image

WORKING_SIDE = 512
"""Pixels of the long side. Finer detail is mostly noise and detector, which a global curve can't change anyway;
public chest sets are published at this size, so a reference and a full-size clinical image measure alike."""


@dataclass(frozen=True, slots=True)
class Working:
    """One radiograph at working size, on the CPU.

    grey: (h, w) float32 in [0, 1], display sense; 0 where nothing is covered.
    covered: (h, w) bool, True where more than half of a working pixel's area is no padding.
    """

    grey: NDArray[np.float32]
    covered: NDArray[np.bool_]


def working_shape(height: int, width: int) -> tuple[int, int]:
    """Size (h, w) of the working image: long side WORKING_SIDE, same aspect, no side under SMALLEST_SIDE."""
    scale = WORKING_SIDE / max(height, width)
    return max(SMALLEST_SIDE, round(height * scale)), max(SMALLEST_SIDE, round(width * scale))


def to_working(values: torch.Tensor, padding: torch.Tensor) -> Working:
    """Resample (1, H, W) float32 values to working size; padded pixels take no part in any average.

    Always on the CPU: an average is a sum of real numbers, and no two devices add them up in the same order.
    """
    values, padding = values.cpu(), padding.cpu()
    shape = working_shape(int(values.shape[1]), int(values.shape[2]))
    if not bool(padding.any()):
        return Working(_resample(values, shape), np.ones(shape, dtype=np.bool_))
    inside = (~padding).to(values.dtype)
    weight = _resample(inside, shape)
    covered = weight > 0.5
    grey = _resample(values * inside, shape) / np.maximum(weight, 1e-6)
    return Working(np.where(covered, np.clip(grey, 0, 1), 0).astype(np.float32), covered)


def working_image(image: Image) -> Working:
    """Resample one image to working size."""
    return to_working(image.values, image.padding)


def _resample(values: torch.Tensor, shape: tuple[int, int]) -> NDArray[np.float32]:
    small = F.interpolate(values[None], size=shape, mode="bilinear", antialias=True, align_corners=False)
    array: NDArray[np.float32] = small[0, 0].clamp_(0, 1).numpy()
    return array
