"""Resample an image by an alignment. Knows nothing of how the alignment was found.

Delivered images keep their geometry; this serves tests, displays and the networks to come."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from engine.align.register import matrix
from engine.types import Alignment


def warp(values: torch.Tensor, alignment: Alignment, background: float = 0.0) -> torch.Tensor:
    """Move (1, H, W) float32 values into the canonical frame, on a grid of the same size, bilinear.

    background: grey value of everything outside the source. It is taken off before and put back after sampling,
    so that the border fades to the true background. Differs: from the report's reference code, which pads with
    0 in normalised units, mid-grey on the screen.
    """
    height, width = int(values.shape[1]), int(values.shape[2])
    side = max(height, width)
    full = np.vstack([matrix(alignment), [0.0, 0.0, 1.0]])
    back = np.linalg.inv(full)[:2]
    # `affine_grid` counts each axis in half sides, we count both in long sides.
    half = np.array([width, height]) / (2 * side)
    back[:, :2] = back[:, :2] * half[None, :] / half[:, None]
    back[:, 2] /= half
    theta = torch.tensor(back, dtype=values.dtype, device=values.device)[None]
    grid = F.affine_grid(theta, [1, 1, height, width], align_corners=False)
    moved = F.grid_sample(values[None] - background, grid, "bilinear", "zeros", align_corners=False)
    return (moved[0] + background).clamp_(0, 1)
