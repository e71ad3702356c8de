"""Check that a change kept the anatomy. Knows no method: it sees codes before and after."""

from __future__ import annotations

from engine.verify.figures import FIGURES
from engine.verify.tone import check_tone, tone_of_pixels, tone_of_table

__all__ = ["FIGURES", "check_tone", "tone_of_pixels", "tone_of_table"]
