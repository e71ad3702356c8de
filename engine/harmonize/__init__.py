"""Name the methods. Knows no order of trying: that is the settings' and the pipeline's."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from engine.harmonize.fitted_curve import FittedCurve
from engine.harmonize.histogram_matching import HistogramMatching
from engine.harmonize.protocol import Curve, Harmonizer, Parameters, Proposal, Source, Target
from engine.harmonize.window_clamp import WindowClamp
from engine.harmonize.z_score import ZScore

HARMONIZERS: Mapping[str, Harmonizer] = MappingProxyType(
    {h.name: h for h in (FittedCurve(), WindowClamp(), ZScore(), HistogramMatching())}
)

__all__ = ["HARMONIZERS", "Curve", "Harmonizer", "Parameters", "Proposal", "Source", "Target"]
