"""Match mean and standard deviation of the field to the bank. Comparison method, never a default. Knows no file.

Source: the baseline "z-score" of GDCE (METHODS section 2.4). Differs: standardised grey values mean nothing on a
screen, so they are brought to the mean and deviation of the bank's centre. Clips where that leaves [0, 1]."""

from __future__ import annotations

import numpy as np
import torch

from engine.harmonize.codes import grid, to_lut
from engine.harmonize.protocol import Parameters, Proposal, Source, Target, numbers


class ZScore:
    """One straight line in grey: the image's mean and deviation become the bank's."""

    name = "z_score"
    version = 1

    def harmonize(self, source: Source, target: Target) -> Proposal:
        """The line as a table; the parameters are its gain and offset in grey."""
        own = np.array(source.descriptor.quantiles)
        wanted = target.centre.quantile_centre
        gain = float(wanted.std() / max(float(own.std()), 1 / (source.image.levels - 1)))
        offset = float(wanted.mean() - gain * own.mean())
        parameters = {"gain": gain, "offset": offset}
        return Proposal(self.table(parameters, source.image.levels), None, parameters)

    def table(self, parameters: Parameters, levels: int) -> torch.Tensor:
        """The line at every grey code. Raises ValueError on other parameters."""
        gain, offset = numbers(parameters, ("gain", "offset"))
        return to_lut(np.clip(gain * grid(levels) + offset, 0, 1), levels)
