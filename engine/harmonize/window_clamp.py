"""Clamp to a display window: the simplest thing that people do. Comparison method, never a default. Knows no bank.

Source: the baseline "display window clamping" of GDCE (METHODS section 2.4). Clips by design; the check measures it."""

from __future__ import annotations

import numpy as np

from engine.harmonize.codes import grid, to_lut
from engine.harmonize.protocol import Proposal, Source, Target

LOW_INDEX, HIGH_INDEX = 0, -1
"""The window is the descriptor's outermost quantiles, 0.5 % and 99.5 % of the field."""


class WindowClamp:
    """Stretch the image's own 0.5 % to 99.5 % window to the whole range and clip the rest."""

    name = "window_clamp"
    version = 1

    def harmonize(self, source: Source, target: Target) -> Proposal:
        """The window as a table; the parameters are window_low and window_high in grey."""
        low, high = source.descriptor.quantiles[LOW_INDEX], source.descriptor.quantiles[HIGH_INDEX]
        width = max(high - low, 1 / (source.image.levels - 1))
        greys = np.clip((grid(source.image.levels) - low) / width, 0, 1)
        lut = to_lut(greys, source.image.levels)
        return Proposal(lut, None, {"window_low": low, "window_high": high})
