"""Own how the parts of an anatomy fill one body: path lengths that add up, and textures. Knows no beam, no vendor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.phantom.anatomy import Anatomy
from engine.phantom.canvas import Floats, Grid, letter, octaves, spread
from engine.phantom.outline import Outline
from engine.phantom.skeleton import Skeleton, draw_skeleton
from engine.phantom.trunk import Trunk, draw_trunk
from engine.phantom.vessels import draw_vessels

_TEXTURE_STREAM = 3
_TEXTURE_SIDE = 36.0
"""cm; a texture repeats after this, far enough apart that no eye sees it."""


@dataclass(frozen=True, slots=True)
class Paths:
    """How many cm of each tissue the beam crosses, each (H, W) float32; the rest of the way is air.

    lungs, heart: (H, W) bool, the silhouettes that a reader would draw (the heart's includes nothing above the hila).
    """

    soft: Floats
    fat: Floats
    lung: Floats
    cortex: Floats
    spongy: Floats
    lead: Floats
    lungs: NDArray[np.bool_]
    heart: NDArray[np.bool_]


def draw_paths(grid: Grid, anatomy: Anatomy) -> Paths:
    """Every tissue of an anatomy on a grid. About 1 s for a megapixel."""
    outline = Outline(anatomy)
    trunk, bones, blood = draw_trunk(grid, outline), draw_skeleton(grid, outline), draw_vessels(grid, outline)
    lung, spongy, lumps = _textured(grid, outline, trunk, bones)
    np.minimum(blood, lung, out=blood)
    lung -= blood
    soft = trunk.body - trunk.fat - trunk.gas - lung - bones.cortex - spongy
    np.maximum(soft, 0.0, out=soft)
    soft *= lumps
    return Paths(soft, trunk.fat, lung, bones.cortex, spongy, _marker(grid, anatomy), trunk.lungs, trunk.heart)


def _textured(grid: Grid, outline: Outline, trunk: Trunk, bones: Skeleton) -> tuple[Floats, Floats, Floats]:
    """Lung with its finest vessels, spongiosa with its trabeculae, and a factor for uneven soft tissue."""
    rng = np.random.default_rng([_TEXTURE_STREAM, outline.a.seed])
    fine = spread(octaves(rng, 512, 0.9, 24.0), grid, _TEXTURE_SIDE)
    coarse = spread(octaves(rng, 128, 1.6, 2.0), grid, 1.7 * _TEXTURE_SIDE)
    lung = trunk.lung * (1.0 - 0.020 * fine - 0.020 * coarse - _fullness(grid, outline))
    spongy = bones.spongy * (1.0 + 0.10 * fine)
    return (
        np.asarray(lung, np.float32),
        np.asarray(spongy, np.float32),
        np.asarray(1.0 + 0.0035 * fine + 0.010 * coarse, np.float32),
    )


def _fullness(grid: Grid, outline: Outline) -> Floats:
    """Share of the lung that blood and bronchi too small to draw take up: more around the hila and at the base."""
    x = np.abs(grid.x - np.float32(outline.a.midline))
    hilum = np.exp(-(((x - 4.2) / 2.0) ** 2) - ((grid.y - outline.level(0.52)) / 3.4) ** 2)
    return np.asarray(0.09 * hilum + 0.05 * np.clip(outline.share(grid.y), 0.0, 1.2), np.float32)


def _marker(grid: Grid, anatomy: Anatomy) -> Floats:
    """The lead letter beside the neck, on the patient's side that it names."""
    lead = np.zeros(grid.shape, np.float32)
    if anatomy.marker:
        corner = (13.4, 1.6) if anatomy.marker == "L" else (-14.6, 1.6)
        for box, chord in letter(grid, anatomy.marker, corner, 1.5, anatomy.marker_tilt):
            lead[box] = np.maximum(lead[box], np.where(chord > 0.0, 0.1, 0.0).astype(np.float32))
    return lead
