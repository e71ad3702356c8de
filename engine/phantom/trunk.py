"""Own the soft bodies of the chest as path lengths: skin, fat, lungs, heart, gas. Knows no bone and no beam."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.phantom.canvas import Floats, Grid, half_circle, ramp, tube, union
from engine.phantom.outline import SIDES, Outline


@dataclass(frozen=True, slots=True)
class Trunk:
    """Path lengths in cm along the beam, each (H, W) float32.

    body: everything inside the skin. fat: its subcutaneous part. lung: inflated lung. gas: air in trachea, stomach.
    lungs, heart: (H, W) bool, the silhouettes: lung that neither heart nor dome covers; heart below the great vessels.
    """

    body: Floats
    fat: Floats
    lung: Floats
    gas: Floats
    lungs: NDArray[np.bool_]
    heart: NDArray[np.bool_]


def draw_trunk(grid: Grid, outline: Outline) -> Trunk:
    x = grid.x - np.float32(outline.a.midline)
    around = Grid(x, grid.y, grid.step)
    whole = _body(around, outline, 0.0)
    lean = _body(around, outline, outline.a.fat)
    whole += _breasts(around, outline)
    core = _core(around, outline)
    lung, below = _lungs(around, outline, core)
    silhouette = (core > 0) & (around.y > outline.level(0.55)) & (below <= 0)
    open_lung = (lung > 1.0) & (core < 0.5 * lung) & (below <= 0)
    return Trunk(whole, np.maximum(whole - lean, 0.0), lung, _gas(around, outline), open_lung, silhouette)


def _body(grid: Grid, outline: Outline, peeled: float) -> Floats:
    """Neck, trunk and arms less a layer of `peeled` cm."""
    wide, deep = outline.skin(grid.y)
    q = (np.abs(grid.x) / (wide - peeled)) ** 3.2
    trunk = 2.0 * (deep - 0.6 * peeled) * np.maximum(1.0 - q, 0.0) ** np.float32(0.5)
    arms = np.zeros(grid.shape, np.float32)
    top = outline.a.apex + 1.9
    line = np.asarray([(9.0, -0.2), (14.6, -0.2), (18.6, 2.4), (20.4, 8.0), (21.8, 18.0), (23.5, 45.0)])
    radius = np.asarray([3.4, 4.2, 4.9, 4.8, 4.3, 4.0]) - peeled
    for side in SIDES:
        drawn = tube(grid, np.stack([side * line[:, 0], line[:, 1] + top], axis=1), radius)
        if drawn is not None:
            arms[drawn[0]] = np.maximum(arms[drawn[0]], 1.15 * drawn[1])
    return union(trunk.astype(np.float32), arms)


def _breasts(grid: Grid, outline: Outline) -> Floats:
    """Soft tissue in front of the chest: its lower border is sharp, above it fades. Pectoral folds for everyone."""
    a = outline.a
    extra = np.zeros(grid.shape, np.float32)
    for side in SIDES:
        x = side * grid.x
        fold = ((x - 10.6) / 5.6) ** 2 + ((grid.y - outline.level(0.22)) / 4.6) ** 2
        extra += 1.5 * half_circle(fold) * ramp((outline.level(0.36) - grid.y) / 6.0)
        if a.breast:
            low = outline.level(a.breast_y)
            bulge = ((x - 8.8) / 6.9) ** 2 + ((grid.y - low) / 6.6) ** 2
            extra += a.breast * half_circle(bulge) * ramp((grid.y - low + 6.6) / 9.0)
    return extra


def _core(grid: Grid, outline: Outline) -> Floats:
    """Mediastinum and heart between their two borders: a slab above, rounder where the heart is."""
    right, left = outline.silhouette(grid.y, -1), outline.silhouette(grid.y, 1)
    middle, half = 0.5 * (left - right), 0.5 * (left + right)
    heart = ramp((outline.share(grid.y) - 0.34) / 0.34)
    filled = (2.05 - 0.45 * heart) * outline.depth(grid.y)
    # Around the heart the lungs meet in front and behind; above, nothing lies before the spine but vessels.
    q = (np.abs(grid.x - middle) / half) ** (3.4 - 1.0 * heart)
    aorta = 2.6 * half_circle(((grid.x - 1.2) / 1.35) ** 2) * ramp((outline.share(grid.y) - 0.25) / 0.1)
    return np.asarray(filled * half_circle(q) + aorta * half_circle(q), np.float32)


def _ellipsoid(grid: Grid, at: tuple[float, float], half: tuple[float, float, float], tilt: float) -> Floats:
    """Chord through an ellipsoid; `half` is along its axis, across it and along the beam."""
    x, y = grid.x - np.float32(at[0]), grid.y - np.float32(at[1])
    c, s = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    q = ((c * x + s * y) / np.float32(half[0])) ** 2 + ((c * y - s * x) / np.float32(half[1])) ** 2
    return np.float32(2.0 * half[2]) * half_circle(q)


def _lungs(grid: Grid, outline: Outline, core: Floats) -> tuple[Floats, Floats]:
    """What the cavity holds beside heart and mediastinum, above the curved diaphragm; and the depth under its dome."""
    wide, deep = outline.lateral(grid.y), outline.depth(grid.y)
    q = (np.abs(grid.x) / wide) ** 2.3
    cavity = 2.0 * deep * np.maximum(1.0 - q, 0.0) ** np.float32(0.55)
    free = np.maximum(cavity - core, 0.0)
    left = ramp(0.5 + grid.x / 5.0)
    dome = left * outline.dome(grid.x, 1) + (1.0 - left) * outline.dome(-grid.x, -1)
    below = np.maximum(grid.y - dome, 0.0)
    # cm under the silhouette: there only the recesses in front of and behind the dome still hold lung.
    kept = 1.0 - 0.62 * np.minimum(np.sqrt(below / 2.4), 1.0) - 0.38 * np.minimum(np.sqrt(below / 6.5), 1.0)
    return np.asarray(free * np.maximum(kept, 0.0), np.float32), np.asarray(below, np.float32)


def _gas(grid: Grid, outline: Outline) -> Floats:
    """Trachea, main bronchi, stomach bubble with its level, and a little gas in the bowel."""
    a = outline.a
    gas = np.zeros(grid.shape, np.float32)
    carina = outline.level(0.36)
    ways = (
        (((0.0, -6.0), (0.05, a.apex), (-0.45, carina - 3.0), (-0.25, carina)), (0.85, 0.85, 0.88, 0.95)),
        (((-0.25, carina), (-1.5, carina + 1.5), (-3.2, carina + 3.8)), (0.75, 0.66, 0.5)),
        (((-0.25, carina), (1.7, carina + 1.5), (3.9, carina + 2.7)), (0.68, 0.58, 0.4)),
    )
    for line, radius in ways:
        drawn = tube(grid, np.asarray(line), np.asarray(radius))
        if drawn is not None:
            gas[drawn[0]] = np.maximum(gas[drawn[0]], drawn[1])
    top = outline.base + a.dome_step
    half = a.gas_bubble
    bubble = _ellipsoid(grid, (5.4, top + 0.7 + 0.55 * half), (half, 0.62 * half, 1.5 * half), -0.12)
    gas += bubble * ramp((np.float32(top + 0.7 + 0.85 * half) - grid.y) / np.float32(0.35))
    rng = np.random.default_rng([7, a.seed])
    for _ in range(int(rng.integers(3, 9))):
        at = (float(rng.uniform(3.5, 11.0)), top + float(rng.uniform(4.0, 8.0)))
        size = float(rng.uniform(0.4, 1.1))
        gas += 0.6 * _ellipsoid(grid, at, (size, 0.7 * size, size), float(rng.uniform(-1.0, 1.0)))
    return gas
