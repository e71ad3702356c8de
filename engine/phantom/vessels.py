"""Own the pulmonary vessels: a seeded tree in 3-D, drawn as path lengths. Knows no beam and no bone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from engine.phantom.canvas import Floats, Grid, twig
from engine.phantom.outline import SIDES, Outline

Vector = tuple[float, float, float]
"""Out from the middle towards the lung's side, down, along the beam; cm."""

_VESSEL_STREAM = 2
_THINNEST = 0.030
"""cm; thinner vessels are part of the lung's texture."""
_MOST = 900
"""Branches of one lung at most."""

_ROOTS: tuple[tuple[float, float, float, float], ...] = (
    # angle from the lateral horizontal (degrees, downwards positive), tilt along the beam, radius, start below hilum
    (-82.0, 0.3, 0.52, -0.8),
    (-60.0, -0.5, 0.48, -0.6),
    (-38.0, 0.5, 0.44, -0.3),
    (-14.0, -0.3, 0.40, 0.3),
    (8.0, 0.6, 0.40, 0.8),
    (30.0, -0.2, 0.50, 1.6),
    (48.0, 0.3, 0.56, 1.2),
    (68.0, -0.4, 0.80, 0.2),
    (84.0, 0.2, 0.58, 1.8),
    (104.0, -0.3, 0.46, 2.6),
    (20.0, 0.4, 0.50, 3.0),
    (-70.0, 0.0, 0.36, 0.0),
    (55.0, 0.1, 0.46, 2.4),
    (-25.0, 0.1, 0.34, -0.6),
)


@dataclass(frozen=True, slots=True)
class _Room:
    """The lung's border as tables, since a tree asks for it thousands of times. Places in units of 1/8 cm."""

    lateral: list[float]
    dome: list[float]
    apex: float

    @classmethod
    def of(cls, outline: Outline, side: int) -> _Room:
        at = np.arange(0.0, 48.0, 0.125)
        return cls(outline.lateral(at).tolist(), outline.dome(at, side).tolist(), outline.a.apex)

    def holds(self, out: float, y: float, margin: float) -> bool:
        """Whether a point is inside, `margin` cm from the border. out: cm from the middle towards the lung's side."""
        if y < self.apex + margin or y > 40.0 or not 0.8 < out < 20.0:
            return False
        return out < self.lateral[int(8.0 * y)] - margin and y < self.dome[int(8.0 * out)] - margin


@dataclass(frozen=True, slots=True)
class _Branch:
    at: Vector
    heading: Vector
    radius: float


def draw_vessels(grid: Grid, outline: Outline) -> Floats:
    """Path length of blood in the lungs' vessels. -> (H, W) float32 cm"""
    rng = np.random.default_rng([_VESSEL_STREAM, outline.a.seed])
    around = Grid(grid.x - np.float32(outline.a.midline), grid.y, grid.step)
    total = np.zeros(grid.shape, np.float32)
    for side in SIDES:
        room = _Room.of(outline, side)
        hilum = (3.5 if side < 0 else 4.0, outline.level(0.46 if side > 0 else 0.49))
        for family in (0, 1):
            # Arteries and veins cross in the projection, so that each family adds to the other.
            layer = np.zeros(grid.shape, np.float32)
            waiting = [_root(rng, row, hilum, outline.a.vessel_weight) for row in _ROOTS[family::2]]
            for _ in range(_MOST):
                if not waiting:
                    break
                waiting.extend(_advance(rng, around, layer, room, side, waiting.pop(0)))
            total += layer
        _hilum(rng, around, total, side, hilum)
    return total


def _hilum(rng: np.random.Generator, grid: Grid, total: Floats, side: int, hilum: tuple[float, float]) -> None:
    """Lumps where arteries, veins and nodes of the root overlap; their outline is irregular in every lung."""
    for _ in range(9):
        x, y = hilum[0] + 0.2 + float(rng.normal(0.0, 0.45)), hilum[1] + 0.6 + float(rng.normal(0.0, 1.5))
        turn, size = float(rng.uniform(-0.9, 0.9)), float(rng.uniform(0.35, 0.75))
        lump = np.zeros(grid.shape, np.float32)
        end = (side * (x + size * math.sin(turn)), y + 2.2 * size * math.cos(turn))
        twig(grid, lump, (side * x, y, *end), (size, 0.7 * size))
        total += 0.75 * lump


def _root(
    rng: np.random.Generator, row: tuple[float, float, float, float], hilum: tuple[float, float], weight: float
) -> _Branch:
    angle, tilt, radius, below = row
    turn = math.radians(angle + float(rng.uniform(-8.0, 8.0)))
    heading = _unit((math.cos(turn), math.sin(turn), tilt))
    return _Branch((hilum[0], hilum[1] + below, 0.0), heading, radius * weight * float(rng.uniform(0.85, 1.15)))


def _unit(v: Vector) -> Vector:
    size = math.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])
    return v[0] / size, v[1] / size, v[2] / size


def _moved(v: Vector, by: Vector, times: float) -> Vector:
    return v[0] + times * by[0], v[1] + times * by[1], v[2] + times * by[2]


def _advance(
    rng: np.random.Generator, grid: Grid, layer: Floats, room: _Room, side: int, branch: _Branch
) -> list[_Branch]:
    """Draw one branch with a gentle wander; give its children, none where it is thin or has left the lung."""
    at, heading, radius = branch.at, branch.heading, branch.radius
    drawn: list[float] = rng.standard_normal(15).tolist()
    share, stretch, other = (float(v) for v in rng.uniform((0.80, 0.7, 0.5), (0.92, 1.3, 0.74)))
    length = (0.95 + 2.0 * radius) * stretch
    for k in (0, 3, 6):
        heading = _unit(_moved(heading, (drawn[k], drawn[k + 1], drawn[k + 2]), 0.16))
        to = _moved(at, heading, length / 3.0)
        if not room.holds(to[0], to[1], 0.3):
            return []
        thinner = radius * 0.955
        twig(grid, layer, (side * at[0], at[1], side * to[0], to[1]), (radius, thinner))
        at, radius = to, thinner
    children = []
    for factor, bend, k in ((share, 0.22, 9), (other, 0.75, 12)):
        if radius * factor > _THINNEST:
            aside = _unit((drawn[k], drawn[k + 1], drawn[k + 2]))
            children.append(_Branch(at, _unit(_moved(heading, aside, bend)), radius * factor))
    return children
