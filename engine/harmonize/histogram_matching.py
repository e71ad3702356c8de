"""Give the field exactly the bank's histogram. Comparison method, never a default. Knows no file.

Source: exact histogram specification, Coltuc, Bolon and Chassery 2006 (IEEE TIP 15-5): pixels of one grey value
are put in order by the mean of their surroundings. Differs: two averages (3x3, 5x5) and then the position in the
image, instead of six; what ties are left is noise either way. Splitting one code into several invents steps that
the detector never saw, and the check measures that (`tone_residual`)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from engine.harmonize.codes import Floats, to_lut
from engine.harmonize.protocol import Proposal, Source, Target
from engine.style.descriptor import QUANTILES


class HistogramMatching:
    """Exact histogram of the bank's centre inside the field; outside, the same mapping by grey value."""

    name = "histogram_matching"
    version = 1

    def harmonize(self, source: Source, target: Target) -> Proposal:
        """Sort the field and deal out the bank's grey values in order; there is no table and no parameter."""
        levels = source.image.levels
        order = _order(source.codes, source.inside)
        count = order.numel()
        ranks = (np.arange(count, dtype=np.float64) + 0.5) / count
        dealt = to_lut(np.interp(ranks, *_target_histogram(target)), levels).to(source.codes.device)
        outside = _outside_table(source.codes[source.inside][order], dealt, levels)
        codes = torch.index_select(outside, 0, source.codes.flatten()).view(source.codes.shape)
        inside = torch.empty_like(dealt)
        inside[order] = dealt
        codes[source.inside] = inside
        return Proposal(None, codes, {})


def _target_histogram(target: Target) -> tuple[Floats, Floats]:
    """(cumulative shares, grey values) of the bank's centre, carried on to both ends of the range."""
    return np.concatenate([[0.0], QUANTILES, [1.0]]), np.concatenate(
        [[target.centre.quantile_centre[0]], target.centre.quantile_centre, [target.centre.quantile_centre[-1]]]
    )


def _order(codes: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """(n,) order of the field's pixels: by code, then 3x3 mean, then 5x5 mean, then place. Integers, so exact."""
    padded = F.pad(codes[None].double(), (2, 2, 2, 2), mode="replicate")
    near = F.avg_pool2d(padded[..., 1:-1, 1:-1], 3, stride=1, divisor_override=1)[0][inside].long()
    wide = F.avg_pool2d(padded, 5, stride=1, divisor_override=1)[0][inside].long()
    # Sums of 9 and 25 codes under 2**16 need 20 and 21 bits, the code 16: one 57-bit key.
    key = (codes[inside].long() << 41) | (near << 21) | wide
    return torch.sort(key, stable=True).indices


def _outside_table(sorted_codes: torch.Tensor, dealt: torch.Tensor, levels: int) -> torch.Tensor:
    """(levels,) int32: for pixels outside the field, what the field's pixels up to that code reached at most."""
    every = torch.arange(levels, device=dealt.device, dtype=sorted_codes.dtype)
    place = torch.searchsorted(sorted_codes.contiguous(), every, right=True) - 1
    reached = dealt[place.clamp(min=0)]
    # Below the field's darkest code nothing was reached: those keep to the darkest wanted grey or stay darker.
    return torch.where(place >= 0, reached, torch.minimum(every.to(dealt.dtype), dealt[0]))
