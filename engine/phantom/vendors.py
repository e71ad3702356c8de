"""Own the invented vendors: each is one row of numbers. Knows no pixels; none of them is a real product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from engine.phantom.beam import Detector


@dataclass(frozen=True, slots=True)
class Display:
    """How a system turns its linear signal into grey. All steps work on [0, 1], 1 the densest tissue.

    response: "log" or "sqrt", what the grey is proportional to before the curve.
    contrast: factor on everything coarser than about 3 cm (under 1 compresses the range).
    detail: gains of the fine (under 1 mm), middle and coarse (to 2 cm) structures.
    power: below 1 lifts small differences more than large ones. Source: Vuylsteke & Schoeters 1994 (MUSICA).
    unsharp_mm, unsharp: width and amount of a plain unsharp mask.
    centre, width: of the sigmoid 1 / (1 + exp(-4 (x - centre) / width)). Source: PS3.3 C.11.2.1.3.1.
    black, white: the display values that the curve's ends are mapped to.
    shutter: whether the collimated border is blacked out.
    """

    response: Literal["log", "sqrt"]
    contrast: float
    detail: tuple[float, float, float]
    power: float
    unsharp_mm: float
    unsharp: float
    centre: float
    width: float
    black: float
    white: float
    shutter: bool


@dataclass(frozen=True, slots=True)
class Vendor:
    """One system. matrix: its own (H, W) at spacing_mm; inverted: stored codes run from white to black."""

    name: str
    matrix: tuple[int, int]
    spacing_mm: float
    bits: int
    inverted: bool
    detector: Detector
    display: Display


_ROWS = (
    Vendor(
        "Norlund",  # balanced; the one that resembles the public chest archive
        (2240, 1874),
        0.175,
        12,
        False,
        Detector(dose_ugy=3.0, blur_mm=0.16, scatter=1.0, electronic=4.0),
        Display("log", 0.95, (1.1, 1.2, 1.1), 1.0, 1.0, 0.15, 0.36, 1.10, 0.0, 1.0, True),
    ),
    Vendor(
        "Umbra",  # dark and contrasty: film habits
        (1960, 1640),
        0.2,
        10,
        True,
        Detector(dose_ugy=2.5, blur_mm=0.20, scatter=1.0, electronic=6.0),
        Display("log", 1.0, (1.0, 1.0, 1.0), 1.0, 1.0, 0.0, 0.62, 0.75, 0.0, 0.95, False),
    ),
    Vendor(
        "Pallas",  # bright, flat, soft: strong range compression
        (2450, 2050),
        0.16,
        14,
        False,
        Detector(dose_ugy=4.0, blur_mm=0.30, scatter=1.8, electronic=4.0),
        Display("sqrt", 0.7, (0.7, 0.9, 1.0), 1.0, 1.0, 0.0, 0.35, 1.45, 0.08, 0.94, True),
    ),
    Vendor(
        "Graven",  # harsh: strong multi-scale detail, halos, visible noise
        (1400, 1171),
        0.28,
        12,
        True,
        Detector(dose_ugy=1.2, blur_mm=0.12, scatter=1.2, electronic=10.0),
        Display("log", 0.6, (2.2, 2.6, 2.0), 0.85, 2.5, 0.8, 0.48, 0.85, 0.0, 1.0, True),
    ),
    Vendor(
        "Meridian",  # an old computed-radiography plate: coarse, noisy, grey blacks
        (1120, 937),
        0.35,
        10,
        False,
        Detector(dose_ugy=0.8, blur_mm=0.40, scatter=1.4, electronic=8.0),
        Display("log", 0.85, (1.0, 1.3, 1.0), 1.0, 5.0, 0.4, 0.52, 1.25, 0.06, 0.96, False),
    ),
)

VENDORS: Mapping[str, Vendor] = MappingProxyType({row.name: row for row in _ROWS})
"""Every invented vendor by name; the first resembles a well processed image of a public archive."""
