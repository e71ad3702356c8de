"""The engine's words: what goes in, what comes out. Knows no file, device choice, DICOM or clock."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from engine.errors import InvalidImage

SMALLEST_SIDE = 16
"""Below this no stage has anything to measure; such an image is refused as input, not guessed at."""


@dataclass(frozen=True, slots=True)
class Image:
    """One radiograph in the only meaning that pixels have inside the engine.

    values: (1, H, W) float32 in [0, 1], display sense (0 is black), square pixels.
    padding: (1, H, W) bool, True where the source says that there is no image (Pixel Padding Value).
    levels: number of grey codes of the source, 2**bits; `values` lie on k / (levels - 1).
    spacing_mm: size of a pixel's side in mm, None where the source does not say.

    Raises InvalidImage on another shape, type, range, a side under 16 pixels, or values that are not finite.
    """

    values: torch.Tensor
    padding: torch.Tensor
    levels: int
    spacing_mm: float | None = None

    def __post_init__(self) -> None:
        v, p = self.values, self.padding
        if v.dtype != torch.float32 or v.ndim != 3 or v.shape[0] != 1:
            raise InvalidImage(f"values must be (1, H, W) float32, not {tuple(v.shape)} {v.dtype}")
        if p.dtype != torch.bool or p.shape != v.shape:
            raise InvalidImage(f"padding must be bool of shape {tuple(v.shape)}, not {tuple(p.shape)} {p.dtype}")
        if min(v.shape[1:]) < SMALLEST_SIDE:
            raise InvalidImage(f"{v.shape[2]}x{v.shape[1]} pixels: no side may be under {SMALLEST_SIDE}")
        low, high = (float(x) for x in torch.aminmax(v))
        if not (math.isfinite(low) and math.isfinite(high) and low >= 0 and high <= 1):
            raise InvalidImage(f"values must be finite and in [0, 1], found {low} to {high}")
        if not 2 <= self.levels <= 65536:
            raise InvalidImage(f"levels must be 2 to 65536, not {self.levels}")
        if self.spacing_mm is not None and not (math.isfinite(self.spacing_mm) and self.spacing_mm > 0):
            raise InvalidImage(f"spacing_mm must be positive, not {self.spacing_mm}")

    @property
    def height(self) -> int:
        return int(self.values.shape[1])

    @property
    def width(self) -> int:
        return int(self.values.shape[2])


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number of the anatomy check with the limit it was held against.

    `at_least` says on which side of `limit` is good; `limit` None means reported only, it never refuses.
    """

    name: str
    value: float
    limit: float | None = None
    at_least: bool = True

    @property
    def passed(self) -> bool:
        if self.limit is None:
            return True
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass(frozen=True, slots=True)
class Alignment:
    """Where the image lies in the canonical frame of its exam type: x_canonical = A x_image + t.

    tx, ty: shift as a share of the frame's side; sx, sy: scale; theta_rad: rotation. `confidence` in [0, 1];
    `method` is "identity" where the confidence was too low to move anything.
    """

    method: str
    tx: float = 0.0
    ty: float = 0.0
    sx: float = 1.0
    sy: float = 1.0
    theta_rad: float = 0.0
    confidence: float = 0.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """One method that was tried: what it did, how far the style is afterwards, what the anatomy check measured.

    version: the method's own; parameters of another version may mean another change.
    """

    method: str
    version: int
    distance: float
    figures: tuple[Figure, ...]
    parameters: Mapping[str, float | int | str | tuple[float, ...]] = field(default_factory=dict)

    @property
    def verified(self) -> bool:
        return all(figure.passed for figure in self.figures)


@dataclass(frozen=True, slots=True)
class Trace:
    """Everything that an audit needs about one image, whatever the outcome."""

    bank: str
    bank_digest: str
    references: tuple[str, ...]
    alignment: Alignment
    exposed_share: float
    distance_before: float
    threshold: float
    candidates: tuple[Candidate, ...]
    engine_version: str
    settings_digest: str
    weights_digest: str
    place: str = field(default="", compare=False)
    """Where it was computed, and in what pieces; it changes nothing else of what is here."""
    setbacks: tuple[str, ...] = field(default=(), compare=False)
    """What failed before it was computed there."""


@dataclass(frozen=True, slots=True)
class Conforming:
    """The image is already close to the bank: nothing was changed."""

    trace: Trace
    reason: str


@dataclass(frozen=True, slots=True)
class Harmonized:
    """A verified result that is closer to the bank than the original.

    values: (1, H, W) float32 in [0, 1] on the source's grey codes, same geometry as the input.
    distance: style distance after. `chosen` is the candidate that won. curve: (levels,) float32, the output of
    every grey code where the method is a global curve, else None.
    """

    trace: Trace
    chosen: Candidate
    values: torch.Tensor
    curve: torch.Tensor | None
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """No method gave a result that is both verified and closer. `deciding` is the number that decided, if one did."""

    trace: Trace
    reason: str
    deciding: Figure | None = None


Decided = Conforming | Harmonized | Refused
