"""Clamp to a display window: the simplest thing that people do. Comparison method, never a default. Knows no bank.

Source: the baseline "display window clamping" of GDCE (METHODS section 2.4). Clips by design; the check measures it."""

from __future__ import annotations

import numpy as np
import torch

from engine.harmonize.codes import grid, to_lut
from engine.harmonize.protocol import Parameters, Proposal, Source, Target, numbers

LOW_INDEX, HIGH_INDEX = 0, -1
"""The window is the descriptor's outermost quantiles, 0.5 % and 99.5 % of the field."""


class WindowClamp:
    """Stretch the image's own 0.5 % to 99.5 % window to the whole range and clip the rest."""

    name = "window_clamp"
    version = 1

    def harmonize(self, source: Source, target: Target) -> Proposal:
        """The window as a table; the parameters are window_low and window_high in grey."""
        quantiles = source.descriptor.quantiles
        parameters = {"window_low": quantiles[LOW_INDEX], "window_high": quantiles[HIGH_INDEX]}
        return Proposal(self.table(parameters, source.image.levels), None, parameters)

    def table(self, parameters: Parameters, levels: int) -> torch.Tensor:
        """The window at every grey code. Raises ValueError on other parameters."""
        low, high = numbers(parameters, ("window_low", "window_high"))
        width = max(high - low, 1 / (levels - 1))
        return to_lut(np.clip((grid(levels) - low) / width, 0, 1), levels)
