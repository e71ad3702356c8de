"""Hold the engine's settings, checked once. Knows no file, no environment and no image."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Collection
from dataclasses import asdict, dataclass

from engine.errors import InvalidSettings

METHODS: tuple[str, ...] = ("fitted_curve", "window_clamp", "z_score", "histogram_matching")
"""Every method that can be named, in order of harm: a smooth monotone curve first, invented grey steps last.

All but the first are comparison methods: they exist to be beaten, so they run only where somebody names them."""

DEVICES: tuple[str, ...] = ("auto", "cpu", "cuda")


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Everything that a user may decide about the engine; the defaults are what a hospital gets.

    methods: tried in this order until one is verified and conforming; so the mildest comes first.
    device: auto | cpu | cuda; auto is CUDA where there is one. It is no part of `digest`.
    distance_threshold: style distance up to which an image counts as conforming; None is the bank's own.
    min_improvement: share of the distance that a result must take away where it does not reach the threshold.
    similar_references: number of references, the most similar in geometry, that the fit pulls towards.
    min_alignment_confidence: below it an alignment is not believed and the identity is used.
    min_anatomy_agreement: an image whose layout agrees less with the bank's exam is refused before any change; None is
    the bank's own, -1 refuses none.

    Limits of the anatomy check; what each figure is stands in `engine.verify.FIGURES`:
    min_kept_codes_share: 0.6. Below it more than two in five grey steps of the field merge with another one.
    max_clipped_share: 0.005. The display quantiles of the descriptor leave out 0.5 % at each end, so more is visible.
    min_slope: 0.2. Local contrast in the field falls to at most a fifth anywhere: 0.7 in logarithm of ten.
    max_slope: 5.0. Noise in the field grows at most fivefold anywhere.
    max_inverted_share: 0.0. No pixel may become darker than one that was darker before.
    max_tone_residual: 0.01. What no global curve explains stays under 2.6 codes of 256, at the edge of visibility.

    Raises InvalidSettings naming the field, the range expected and the remedy.
    """

    methods: tuple[str, ...] = ("fitted_curve",)
    device: str = "auto"
    distance_threshold: float | None = None
    min_improvement: float = 0.25
    similar_references: int = 16
    min_alignment_confidence: float = 0.8
    min_anatomy_agreement: float | None = None
    min_kept_codes_share: float = 0.6
    max_clipped_share: float = 0.005
    min_slope: float = 0.2
    max_slope: float = 5.0
    max_inverted_share: float = 0.0
    max_tone_residual: float = 0.01

    def __post_init__(self) -> None:
        check_methods(self.methods, "methods")
        _one_of("device", self.device, DEVICES)
        if self.distance_threshold is not None:
            _within("distance_threshold", self.distance_threshold, 0.0, 1e6)
        _within("similar_references", self.similar_references, 1, 10_000)
        _within("min_slope", self.min_slope, 0.0, 1.0)
        _within("max_slope", self.max_slope, 1.0, 1e6)
        if self.min_anatomy_agreement is not None:
            _within("min_anatomy_agreement", self.min_anatomy_agreement, -1.0, 1.0)
        for share in (
            "min_improvement",
            "min_alignment_confidence",
            "min_kept_codes_share",
            "max_clipped_share",
            "max_inverted_share",
            "max_tone_residual",
        ):
            _within(share, getattr(self, share), 0.0, 1.0)

    @property
    def digest(self) -> str:
        """sha256 over every setting that can change pixels or an outcome; the device can't, so it is left out."""
        affecting = {name: value for name, value in asdict(self).items() if name != "device"}
        canonical = json.dumps(affecting, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


def check_methods(methods: Collection[str], field: str) -> None:
    """Raise InvalidSettings unless `methods` names at least one method, each known and named once."""
    if isinstance(methods, str) or not methods:
        raise InvalidSettings(f"{field}: expected one or more of {', '.join(METHODS)}, not {methods!r}; name one")
    for method in methods:
        _one_of(field, method, METHODS)
    if len(set(methods)) != len(methods):
        raise InvalidSettings(f"{field}: each method may stand once, not {list(methods)}; remove the repeats")


def _one_of(field: str, value: str, allowed: Collection[str]) -> None:
    if value not in allowed:
        near = difflib.get_close_matches(str(value), list(allowed), n=1)
        remedy = f"did you mean {near[0]}?" if near else "choose one of these"
        raise InvalidSettings(f"{field}: expected one of {', '.join(allowed)}, not {value!r}; {remedy}")


def _within(field: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidSettings(f"{field}: expected a number from {low:g} to {high:g}, not {value!r}; set a number")
    if not low <= value <= high:
        raise InvalidSettings(f"{field}: expected {low:g} to {high:g}, not {value:g}; move it into that range")
