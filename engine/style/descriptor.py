"""Describe the style of one image in 38 numbers: grey-value quantiles and Laplacian-band energies. Knows no bank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
Greys = NDArray[np.float32]
Mask = NDArray[np.bool_]

QUANTILES: Floats = np.linspace(0.005, 0.995, 33)
"""Shares of the field below each quantile. The outer 0.5 % are left out: markers and dead pixels live there."""
BANDS = 5
"""Octaves of detail below working size; the coarsest is about a rib's width, below that quantiles say it all."""
ENERGY_FLOOR = 1e-4
"""Mean amplitude under which a band counts as empty: a tenth of an 8-bit code after averaging."""
TRIM_QUANTILE = 0.99
"""Amplitudes are cut here, so that a wire or an edge of metal does not speak for the image."""

_BINOMIAL = np.array([1, 4, 6, 4, 1], dtype=np.float32) / 16


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Style of one image. quantiles: grey values in [0, 1] at QUANTILES, rising. energies: BANDS natural logarithms
    of the mean absolute band amplitude in the field, finest first."""

    quantiles: tuple[float, ...]
    energies: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Detail:
    """Amplitude of each band as a function of grey value: what predicts how a tone curve changes the energies.

    amplitude: (BANDS, len(QUANTILES)) float64, the part of a band's mean amplitude that lies at each quantile bin;
    a row adds up to that band's mean amplitude.
    """

    amplitude: Floats


def describe(grey: Greys, mask: Mask) -> tuple[Descriptor, Detail]:
    """Describe a working image inside its field. grey: (h, w) in [0, 1]; mask: (h, w), not empty."""
    quantiles = np.quantile(grey[mask].astype(np.float64), QUANTILES)
    edges = (quantiles[1:] + quantiles[:-1]) / 2
    amplitude = np.zeros((BANDS, len(QUANTILES)))
    for number, (level, band, inside) in enumerate(_bands(grey, mask)):
        size = np.abs(band[inside]).astype(np.float64)
        size = np.minimum(size, np.quantile(size, TRIM_QUANTILE))
        place = np.searchsorted(edges, level[inside])
        amplitude[number] = np.bincount(place, size, len(QUANTILES)) / size.size
    energies = np.log(amplitude.sum(axis=1) + ENERGY_FLOOR)
    return Descriptor(tuple(quantiles.tolist()), tuple(energies.tolist())), Detail(amplitude)


def _bands(grey: Greys, mask: Mask) -> list[tuple[Greys, Greys, Mask]]:
    """(grey, band, mask) per octave, by filter-subtract-decimate.

    Source: Anderson 1984 in Adelson et al., "Pyramid methods in image processing", RCA Engineer 29-6.
    Differs: every blur is normalised by the blurred mask, because the field's border is no anatomy.
    """
    bands: list[tuple[Greys, Greys, Mask]] = []
    level, inside = grey, mask
    for _ in range(BANDS):
        weight = _blur(inside.astype(np.float32))
        low = np.where(weight > 0, _blur(np.where(inside, level, 0)) / np.maximum(weight, 1e-6), 0).astype(np.float32)
        bands.append((level, (level - low).astype(np.float32), inside))
        halved = inside[::2, ::2]
        # A tiny or thin field may vanish between the samples; then the coarser bands repeat this one's size.
        if halved.any() and min(halved.shape) >= 5:
            level, inside = low[::2, ::2], halved
    return bands


def _blur(values: Greys) -> Greys:
    along: Greys = ndimage.correlate1d(values, _BINOMIAL, axis=0, mode="constant")
    both: Greys = ndimage.correlate1d(along, _BINOMIAL, axis=1, mode="constant")
    return both
