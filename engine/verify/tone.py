"""Measure what a change did to the order and the number of grey values. Knows no method and no bank."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from engine.settings import EngineSettings
from engine.types import Figure

Floats = NDArray[np.float64]

SLOPE_SPAN = 0.04
"""Grey over which a slope is measured: ten 8-bit codes, wide enough that rounding to codes does not pose as slope."""


def check_tone(
    before: torch.Tensor, after: torch.Tensor, inside: torch.Tensor, levels: int, settings: EngineSettings
) -> tuple[Figure, ...]:
    """All figures of the anatomy check, held against the settings' limits.

    before, after: (1, H, W) int32 grey codes; inside: (1, H, W) bool, the exposed field, not empty.
    """
    old, new = before[inside].long(), after[inside].long()
    tone = _Tone(old, new, levels)
    least, most = _slopes(tone, levels)
    return (
        Figure("curve_monotone", float(tone.is_curve and tone.inverted_share == 0)),
        Figure("kept_codes_share", tone.kept_codes_share, settings.min_kept_codes_share),
        Figure("clipped_share", _clipped_share(old, new, levels), settings.max_clipped_share, at_least=False),
        Figure("minimum_slope", least, settings.min_slope),
        Figure("maximum_slope", most, settings.max_slope, at_least=False),
        Figure("inverted_share", tone.inverted_share, settings.max_inverted_share, at_least=False),
        Figure("tone_residual", tone.residual, settings.max_tone_residual, at_least=False),
    )


class _Tone:
    """Statistics of the new codes for every old code. old, new: (n,) int64.

    mean: (k,) mean new code of each old code that occurs, codes: (k,) those codes, count: (k,) how often.
    """

    def __init__(self, old: torch.Tensor, new: torch.Tensor, levels: int) -> None:
        device = old.device
        count = torch.bincount(old, minlength=levels)
        lowest = torch.full((levels,), levels, dtype=torch.int64, device=device)
        highest = torch.full((levels,), -1, dtype=torch.int64, device=device)
        lowest.scatter_reduce_(0, old, new, "amin")
        highest.scatter_reduce_(0, old, new, "amax")
        total = torch.zeros(levels, dtype=torch.int64, device=device).scatter_add_(0, old, new)
        squares = torch.zeros(levels, dtype=torch.int64, device=device).scatter_add_(0, old, new * new)
        present = count > 0
        self.codes: NDArray[np.int64] = torch.nonzero(present)[:, 0].cpu().numpy()
        self.count: Floats = count[present].double().cpu().numpy()
        self.mean: Floats = total[present].double().cpu().numpy() / self.count
        variance = squares[present].double().cpu().numpy() / self.count - self.mean**2
        self.is_curve = bool((lowest[present] == highest[present]).all())
        self.residual = self._residual(np.maximum(variance, 0), levels)
        reached = torch.cummax(torch.where(present, highest, torch.full_like(highest, -1)), 0).values
        below = torch.cat([torch.full((1,), -1, dtype=torch.int64, device=device), reached[:-1]])
        self.inverted_share = float((new < below[old]).double().mean())
        distinct = int(torch.count_nonzero(torch.bincount(new, minlength=levels)))
        self.kept_codes_share = distinct / len(self.codes)

    def _residual(self, variance: Floats, levels: int) -> float:
        if self.is_curve:
            return 0.0
        return math.sqrt(float(self.count @ variance) / float(self.count.sum())) / (levels - 1)


def _clipped_share(old: torch.Tensor, new: torch.Tensor, levels: int) -> float:
    """Pixels newly at an end. A pixel that was at that end before has lost nothing."""
    top = levels - 1
    moved = ((new == 0) & (old != 0)) | ((new == top) & (old != top))
    return float(moved.double().mean())


def _slopes(tone: _Tone, levels: int) -> tuple[float, float]:
    """(least, greatest) slope of the mean tone curve between the field's 0.5 % and 99.5 % quantiles; 1 if flat."""
    share = np.cumsum(tone.count) / tone.count.sum()
    low = tone.codes[np.searchsorted(share, 0.005)]
    high = tone.codes[min(int(np.searchsorted(share, 0.995)), len(tone.codes) - 1)]
    step = max(1, round(SLOPE_SPAN * (levels - 1)))
    if high - low < step:
        return 1.0, 1.0
    ends = np.arange(low, high - step + 1)
    curve = np.interp(np.arange(levels), tone.codes, tone.mean)
    slopes = (curve[ends + step] - curve[ends]) / step
    return float(slopes.min()), float(slopes.max())
