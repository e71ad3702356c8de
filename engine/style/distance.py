"""Own the style distance: how far a descriptor lies from a set of references. Knows no image and no file.

    d = sqrt( 0.7 * mean_i zq_i**2 + 0.3 * mean_k ze_k**2 ),   z = (value - median) / max(1.4826 MAD, floor)

over the 33 quantiles q and the 5 band energies e. 0 is the references' centre, 1 about one robust standard
deviation of them. The floors are the smallest difference that a reader would notice, so a bank of one reference
has a meaning too: then d counts just noticeable differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.style.descriptor import Descriptor, Floats

TONE_WEIGHT, DETAIL_WEIGHT = 0.7, 0.3
"""Tone decides: it is what vendors differ in most and what a curve can change. The two add up to 1."""
TONE_FLOOR = 0.04
"""Grey: ten 8-bit codes, about what separates two regions seen side by side on a clinical display."""
DETAIL_FLOOR = 0.2
"""Natural logarithm: a fifth more or less local contrast."""
MAD_TO_SIGMA = 1.4826
THRESHOLD_QUANTILE = 0.95
FEWEST_FOR_QUANTILE = 5
"""With fewer references a percentile of their distances says nothing."""
LEAST_THRESHOLD = 1.0
"""One just noticeable difference: a bank of near copies must not refuse an image that looks the same."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """Robust centre and spread of a set of descriptors; quantiles (33,) and energies (5,) float64."""

    quantile_centre: Floats
    quantile_spread: Floats
    energy_centre: Floats
    energy_spread: Floats


def distribution(descriptors: Sequence[Descriptor]) -> Distribution:
    """Centre and spread of one or more descriptors: median and 1.4826 MAD, the latter never under its floor."""
    quantiles = np.array([d.quantiles for d in descriptors])
    energies = np.array([d.energies for d in descriptors])
    quantile_centre, quantile_spread = _robust(quantiles, TONE_FLOOR)
    energy_centre, energy_spread = _robust(energies, DETAIL_FLOOR)
    return Distribution(quantile_centre, quantile_spread, energy_centre, energy_spread)


def deviations(quantiles: Floats, energies: Floats, centre: Distribution) -> Floats:
    """(..., 38) weighted deviations whose Euclidean norm is the distance; the fit minimises exactly these.

    quantiles: (..., 33); energies: (..., 5).
    """
    tone = (quantiles - centre.quantile_centre) / centre.quantile_spread
    detail = (energies - centre.energy_centre) / centre.energy_spread
    weighted = [
        tone * np.sqrt(TONE_WEIGHT / tone.shape[-1]),
        detail * np.sqrt(DETAIL_WEIGHT / detail.shape[-1]),
    ]
    return np.concatenate(weighted, axis=-1)


def distance(descriptor: Descriptor, centre: Distribution) -> float:
    """Style distance of one descriptor from a distribution; not negative, 0 at its centre."""
    return float(np.linalg.norm(deviations(np.array(descriptor.quantiles), np.array(descriptor.energies), centre)))


def leave_one_out(descriptors: Sequence[Descriptor]) -> tuple[float, ...]:
    """Distance of each descriptor from the distribution of all the others; needs at least two."""
    return tuple(
        distance(descriptor, distribution([*descriptors[:i], *descriptors[i + 1 :]]))
        for i, descriptor in enumerate(descriptors)
    )


def conforming_threshold(descriptors: Sequence[Descriptor]) -> float:
    """Distance up to which an image counts as one of these.

    The 95th percentile of the leave-one-out distances (the largest with fewer than 5 references), at least 1.
    A single reference has nothing to leave out: 1.
    """
    if len(descriptors) == 1:
        return LEAST_THRESHOLD
    left_out = leave_one_out(descriptors)
    share = THRESHOLD_QUANTILE if len(left_out) >= FEWEST_FOR_QUANTILE else 1.0
    return max(LEAST_THRESHOLD, float(np.quantile(left_out, share)))


def _robust(values: Floats, floor: float) -> tuple[Floats, Floats]:
    centre = np.median(values, axis=0)
    spread = MAD_TO_SIGMA * np.median(np.abs(values - centre), axis=0)
    return centre, np.maximum(spread, floor)
