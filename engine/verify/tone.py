"""Measure what a change did to the order and the number of grey values. Knows no method and no bank."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from engine.settings import EngineSettings
from engine.types import Figure

Floats = NDArray[np.float64]

SLOPE_SPAN = 0.04
"""Grey over which a slope is measured: ten 8-bit codes, wide enough that rounding to codes does not pose as slope."""


@dataclass(frozen=True, slots=True)
class Tone:
    """What became of every grey code that occurs in the field, k of them, rising.

    codes: (k,) int64 before. count: (k,) float64 how often. mean, variance: (k,) float64 of the codes after.
    is_curve: each code became exactly one. distinct: number of codes after. clipped, inverted: shares of the field.
    """

    codes: NDArray[np.int64]
    count: Floats
    mean: Floats
    variance: Floats
    is_curve: bool
    distinct: int
    clipped: float
    inverted: float


def check_tone(tone: Tone, levels: int, settings: EngineSettings) -> tuple[Figure, ...]:
    """All figures of the anatomy check, held against the settings' limits."""
    least, most = _slopes(tone, levels)
    kept = tone.distinct / tone.codes.size
    residual = 0.0 if tone.is_curve else _root_mean(tone.variance, tone.count) / (levels - 1)
    return (
        Figure("curve_monotone", float(tone.is_curve and tone.inverted == 0)),
        Figure("kept_codes_share", kept, settings.min_kept_codes_share),
        Figure("clipped_share", tone.clipped, settings.max_clipped_share, at_least=False),
        Figure("minimum_slope", least, settings.min_slope),
        Figure("maximum_slope", most, settings.max_slope, at_least=False),
        Figure("inverted_share", tone.inverted, settings.max_inverted_share, at_least=False),
        Figure("tone_residual", residual, settings.max_tone_residual, at_least=False),
    )


def tone_of_table(histogram: NDArray[np.int64], lut: torch.Tensor) -> Tone:
    """Measure a change that is a table, from the histogram of the field alone.

    histogram: (levels,) how often each code occurs in the field, which is not empty; lut: (levels,) int32.
    """
    levels = int(lut.numel())
    codes = np.flatnonzero(histogram)
    count = histogram[codes].astype(np.float64)
    new = lut.cpu().numpy().astype(np.int64)[codes]
    reached = np.concatenate([[-1], np.maximum.accumulate(new)[:-1]])
    clipped = _newly_at(0, codes, new) | _newly_at(levels - 1, codes, new)
    return Tone(
        codes=codes,
        count=count,
        mean=new.astype(np.float64),
        variance=np.zeros(codes.size),
        is_curve=True,
        distinct=int(np.unique(new).size),
        clipped=float(count[clipped].sum() / count.sum()),
        inverted=float(count[new < reached].sum() / count.sum()),
    )


def tone_of_pixels(before: torch.Tensor, after: torch.Tensor, inside: torch.Tensor, levels: int) -> Tone:
    """Measure any change, pixel by pixel. before, after: (1, H, W) int32 codes; inside: (1, H, W) bool, not empty."""
    old, new = before[inside].long(), after[inside].long()
    count = torch.bincount(old, minlength=levels)
    zeros = torch.zeros_like(count)
    codes: NDArray[np.int64] = torch.nonzero(count)[:, 0].cpu().numpy()
    lowest = torch.full_like(count, levels).scatter_reduce_(0, old, new, "amin")
    highest = torch.full_like(count, -1).scatter_reduce_(0, old, new, "amax")
    present = count > 0
    times: Floats = count[present].double().cpu().numpy()
    mean = zeros.scatter_add(0, old, new)[present].double().cpu().numpy() / times
    square = zeros.scatter_add(0, old, new * new)[present].double().cpu().numpy() / times
    # The brightest that any lower code became: whatever of this code is darker has changed places.
    below = torch.cat([torch.full_like(count[:1], -1), torch.cummax(highest, 0).values[:-1]])
    clipped = _newly_at(0, old, new) | _newly_at(levels - 1, old, new)
    return Tone(
        codes=codes,
        count=times,
        mean=mean,
        variance=np.maximum(square - mean**2, 0),
        is_curve=bool((lowest[present] == highest[present]).all()),
        distinct=int(torch.count_nonzero(torch.bincount(new, minlength=levels))),
        # Not by `mean`, which one device divides and another multiplies by a reciprocal.
        clipped=int(torch.count_nonzero(clipped)) / new.numel(),
        inverted=int(torch.count_nonzero(new < below[old])) / new.numel(),
    )


_Codes = TypeVar("_Codes", torch.Tensor, NDArray[np.int64])


def _newly_at(end: int, old: _Codes, new: _Codes) -> _Codes:
    """Where an end of the range was reached by the change; what was there before has lost nothing."""
    newly: _Codes = (new == end) & (old != end)
    return newly


def _root_mean(variance: Floats, count: Floats) -> float:
    return math.sqrt(float(count @ variance) / float(count.sum()))


def _slopes(tone: Tone, levels: int) -> tuple[float, float]:
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
