"""Hold the table of all figures of the anatomy check: stable names, one sentence each. Knows no pixels."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

FIGURES: Mapping[str, str] = MappingProxyType(
    {
        "curve_monotone": "1 where the change is one curve that never falls over the source's grey codes, else 0.",
        "kept_codes_share": "Distinct grey codes in the field after the change, per distinct code before.",
        "clipped_share": "Share of the field that the change moved onto the darkest or the brightest grey code.",
        "minimum_slope": "Least slope of the tone curve between the darkest and brightest quantile of the field.",
        "maximum_slope": "Greatest slope of the tone curve between the darkest and brightest quantile of the field.",
        "inverted_share": "Share of the field that became darker than a pixel that was darker before.",
        "tone_residual": "Root mean square grey difference in the field that no global curve explains.",
        "style_distance": "Style distance from the bank; decides where nothing could be tried.",
        "distance_after": "Style distance from the bank after the change, against what it had to reach.",
        "anatomy_agreement": "Agreement of the image's layout with the canonical frame of the exam type, -1 to 1.",
    }
)
"""Every name that a `Figure` of the engine can have. A name never changes its meaning: reports code them."""
