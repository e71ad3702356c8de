"""Own the way from path lengths to a detector's linear signal: attenuation, scatter, blur, noise. Knows no display."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.phantom.anatomy import Anatomy
from engine.phantom.canvas import Floats, Grid, between, blurred, ramp
from engine.phantom.tissue import Paths

SOFT, FAT, LUNG, CORTEX, SPONGY = 0.212, 0.187, 0.056, 0.604, 0.270
"""Linear attenuation in 1/cm at an effective energy of 60 keV, as of 120 kV with 3 mm Al behind a body.

Source: rounded from the mass attenuation tables of NIST (XCOM): soft tissue 0.205 cm2/g, adipose 0.197, cortical bone
0.315; with densities 1.04, 0.95, 0.27 (inflated lung), 1.92 and, for spongiosa with marrow, about 1.2 g/cm3.
Differs: one energy stands for the spectrum, so there is no beam hardening.
"""
LEAD = 45.0
"""Lead letter and blades, 1/cm; only "opaque" matters."""
QUANTA = 30_000.0
"""Quanta per mm2 and microgray of air kerma, about that of the beam quality RQA5 (IEC 62220-1)."""
EFFICIENCY = 0.65
"""Share of the quanta that a CsI detector counts."""
BEHIND_LUNG = 0.10
"""Transmission at which `dose_ugy` is stated: behind the lung of a middle-sized adult."""
BLADE_LEAK = 0.0006


@dataclass(frozen=True, slots=True)
class Detector:
    """How a system exposes and reads. dose_ugy: air kerma behind the lung; blur_mm: sigma of focus and scintillator;
    scatter: share of scattered light let through the grid, 1 a good grid; electronic: read noise in quanta."""

    dose_ugy: float
    blur_mm: float
    scatter: float
    electronic: float


def line_integral(paths: Paths) -> Floats:
    """Attenuation along every ray, the exponent of Beer and Lambert. -> (H, W) float32, dimensionless"""
    total = paths.soft * np.float32(SOFT)
    parts = ((paths.fat, FAT), (paths.lung, LUNG), (paths.cortex, CORTEX), (paths.spongy, SPONGY), (paths.lead, LEAD))
    for path, mu in parts:
        total += path * np.float32(mu)
    return total


def exposed(grid: Grid, anatomy: Anatomy) -> Floats:
    """Share of the beam that the collimator lets through, 1 inside, a leak outside. -> (H, W) float32"""
    left, right, top, bottom = anatomy.collimation
    c, s = np.float32(np.cos(anatomy.collimation_angle)), np.float32(np.sin(anatomy.collimation_angle))
    height, width = grid.shape
    half_x, half_y = 0.5 * width * grid.step, 0.5 * height * grid.step
    y = grid.y - np.float32(grid.y.mean())
    across, down = c * grid.x + s * y, c * y - s * grid.x
    inside = np.minimum(
        np.minimum(across + (half_x - left), (half_x - right) - across),
        np.minimum(down + (half_y - top), (half_y - bottom) - down),
    )
    return np.asarray(BLADE_LEAK + (1.0 - BLADE_LEAK) * ramp(inside / 0.08 + 0.5), np.float32)


def primary(grid: Grid, anatomy: Anatomy, integral: Floats) -> Floats:
    """Unscattered beam at the detector, 1 being the open beam on the central ray. -> (H, W) float32"""
    distance = 110.0 if anatomy.view == "AP" else 180.0
    oblique = (1.0 + (grid.x**2 + (grid.y - 19.6) ** 2) / np.float32(distance**2)) ** np.float32(-1.5)
    heel = 1.0 + 0.10 * (grid.y - 19.6) / 19.6
    return np.asarray(np.exp(-integral) * oblique * heel, np.float32)


def with_scatter(grid: Grid, direct: Floats, integral: Floats, detector: Detector) -> Floats:
    """Add a wide glow that follows how much was absorbed where. Differs: one Gaussian in place of a transport code."""
    coarse = max(1, round(0.6 / grid.step))
    source = (direct * np.minimum(integral, 6.0))[::coarse, ::coarse]
    glow = blurred(np.ascontiguousarray(source), 4.5 / (coarse * grid.step))
    rows, columns = (np.arange(n, dtype=np.float32) / np.float32(coarse) for n in grid.shape)
    tall = between(glow, rows)
    share = np.float32(0.11 * detector.scatter)
    return np.asarray(direct + share * between(np.ascontiguousarray(tall.T), columns).T, np.float32)


def counted(signal: Floats, spacing_mm: float, detector: Detector, rng: np.random.Generator) -> Floats:
    """Blur, count quanta, add read noise. signal: (H, W), 1 is the open beam -> same scale, float32, >= 0

    Part of the blur follows the counting, as in a scintillator, so that the noise is slightly correlated.
    """
    quanta = detector.dose_ugy * QUANTA * EFFICIENCY * spacing_mm**2 / BEHIND_LUNG
    sharp = blurred(signal, 0.8 * detector.blur_mm / spacing_mm)
    counts = rng.poisson(sharp * np.float32(quanta)).astype(np.float32)
    counts = blurred(counts, 0.6 * detector.blur_mm / spacing_mm)
    counts += np.float32(detector.electronic) * rng.standard_normal(signal.shape, dtype=np.float32)
    return np.asarray(np.maximum(counts / np.float32(quanta), np.float32(0.0)), np.float32)
