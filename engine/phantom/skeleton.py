"""Own the bones as path lengths of cortex and spongiosa. Knows no soft tissue and no beam."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.phantom.canvas import Box, Floats, Grid, follow, half_circle, ramp
from engine.phantom.outline import SIDES, Outline

_BONE_STREAM = 5


@dataclass(frozen=True, slots=True)
class Skeleton:
    """Path lengths in cm along the beam, each (H, W) float32: compact bone and spongy bone with its marrow."""

    cortex: Floats
    spongy: Floats


def draw_skeleton(grid: Grid, outline: Outline) -> Skeleton:
    around = Grid(grid.x - np.float32(outline.a.midline), grid.y, grid.step)
    bones = Skeleton(np.zeros(grid.shape, np.float32), np.zeros(grid.shape, np.float32))
    rng = np.random.default_rng([_BONE_STREAM, outline.a.seed])
    _spine(around, outline, bones)
    for side in SIDES:
        for k in range(outline.a.rib_pairs):
            _rib(around, outline, bones, k, side, rng.standard_normal(5))
        _clavicle(around, outline, bones, side, rng.standard_normal(2))
        _scapula(around, outline, bones, side)
        _humerus(around, outline, bones, side)
    return bones


def _hollow(
    grid: Grid,
    bones: Skeleton,
    points: NDArray[np.floating],
    half: NDArray[np.floating],
    chord: NDArray[np.floating],
    shell: float,
) -> None:
    """A bent bone with a shell of cortex. points: (N, 2); half: (N,) half width seen; chord: (N,) along the beam."""
    track = follow(grid, points, float(half.max()))
    if track is None:
        return
    h, c = track.along(half), track.along(chord)
    outer = c * half_circle((track.distance / h) ** 2)
    inside = np.maximum(h - 1.35 * shell, 0.02)
    inner = np.maximum(c - 2.0 * shell, 0.0) * half_circle((track.distance / inside) ** 2)
    bones.cortex[track.box] += outer - inner
    bones.spongy[track.box] += inner


def _rib(grid: Grid, outline: Outline, bones: Skeleton, k: int, side: int, own: NDArray[np.float64]) -> None:
    """Rib k + 1: half an ellipse in a tilted plane, so that it is drawn as back arc and front arc.

    own: (5,) standard normal, what makes this rib differ from its neighbours. The chord through it is that of a ring
    between two ellipses, which makes the lateral bend bright by itself.
    """
    a = outline.a
    fall = (5.2, 7.6, 8.8, 9.8, 10.4, 10.8, 11.2, 11.6, 11.4, 11.0, 9.0, 8.0)[k] * a.rib_drop * (1.0 + 0.03 * own[0])
    start = outline.vertebra(k) - 0.35 + 0.10 * own[1]
    bend = np.asarray([start + 0.5 * fall])
    wide = float(outline.lateral(np.minimum(bend, outline.base + 2.0))[0]) + (0.15 if k else -0.3)
    deep = max(float(outline.depth(bend)[0]), 0.45 * wide) + 0.4
    last = (2.5, 2.62, 2.6, 2.55, 2.5, 2.45, 2.38, 2.25, 2.1, 1.9, 1.2, 0.8)[k]
    angle = np.linspace(np.arcsin(1.7 / wide), last, 44)
    x, y = wide * np.sin(angle), start + fall * (0.35 * (1.0 - np.cos(angle)) + 0.30 * angle / np.pi)
    spine = float(outline.spine(np.asarray([start]))[0])
    x = x + side * spine * np.exp(-((x / 6.0) ** 2))
    thick = 0.62 if k else 0.8
    chord = _ring(wide * np.sin(angle), wide, deep, thick)
    run = np.stack([np.gradient(x), np.gradient(y)])
    run /= np.hypot(run[0], run[1])
    tall = a.rib_half_height * (0.85 + 0.35 * angle / last) * (0.8 if k > 9 else 1.0)
    tall = tall * (1.0 + 0.05 * np.sin(3.0 * angle + own[2]) + 0.03 * own[3])
    y = y + 0.10 * np.sin(2.2 * angle + own[4])
    half = np.hypot(tall * run[0], 0.5 * thick * run[1])
    chord = (
        np.minimum(chord, 1.25)
        * np.interp(last - angle, (0.0, 0.35), (0.3, 1.0))
        * np.interp(angle, (1.5, 2.2), (1.0, 0.72))
    )
    # The bend stays under 1.3 cm, since a rib is flat; in front the bone turns into cartilage, which hardly shows.
    _hollow(grid, bones, np.stack([side * x, y], axis=1), half, chord, 0.070)


def _ring(x: NDArray[np.floating], wide: float, deep: float, thick: float) -> NDArray[np.floating]:
    """Chord along the beam through one wall of an elliptic ring of wall `thick` at distance x from its middle."""
    t = 0.5 * thick
    outer = (deep + t) * np.sqrt(np.maximum(1.0 - (x / (wide + t)) ** 2, 0.0))
    inner = (deep - t) * np.sqrt(np.maximum(1.0 - (x / (wide - t)) ** 2, 0.0))
    return np.asarray(outer - inner)


def _block(grid: Grid, at: tuple[float, float], half: tuple[float, float]) -> tuple[Box, Floats, Floats] | None:
    """A box of the grid around `at` and the relative coordinates in it."""
    box = grid.box(at[0] - half[0], at[0] + half[0], at[1] - half[1], at[1] + half[1])
    if box is None:
        return None
    return box, (grid.x[:, box[1]] - np.float32(at[0])) / half[0], (grid.y[box[0]] - np.float32(at[1])) / half[1]


def _oval(grid: Grid, bones: Skeleton, at: tuple[float, float], half: tuple[float, float], chord: float) -> None:
    """A small ring of cortex, as pedicles and spinous processes show."""
    found = _block(grid, at, half)
    if found is not None:
        box, u, v = found
        q = u * u + v * v
        bones.cortex[box] += chord * (half_circle(q) - 0.6 * half_circle(q / 0.45))


def _spine(grid: Grid, outline: Outline, bones: Skeleton) -> None:
    """Vertebral bodies with end plates and disc spaces, pedicles, spinous and transverse processes."""
    for k in range(-5, 16):
        y = outline.vertebra(k)
        x = float(outline.spine(np.asarray([y]))[0])
        grow = np.clip((k + 4) / 16, 0.0, 1.0)
        half = (1.35 + 0.65 * grow, outline.pitch * (0.36 if k < 0 else 0.44))
        found = _block(grid, (x, y), half)
        if found is None:
            continue
        box, u, v = found
        waist = 1.0 + 0.10 * (1.0 - v * v)
        q = np.abs(u * waist) ** 5 + np.abs(v) ** 8
        deep = np.float32(1.5 + 1.5 * grow)
        solid, inner = half_circle(q), half_circle(np.abs(u * waist / 0.93) ** 5 + np.abs(v / 0.90) ** 8)
        bones.spongy[box] += deep * inner
        bones.cortex[box] += (0.22 * deep) * (solid - inner) + 0.10 * solid
        for side in SIDES:
            _oval(grid, bones, (x + side * 0.62 * half[0], y - 0.15 * half[1]), (0.36, 0.55), 0.35)
            tip = np.asarray([(x + side * 0.8 * half[0], y - 0.2), (x + side * (half[0] + 1.1), y - 0.55)])
            if k >= 0:
                _hollow(grid, bones, tip, np.asarray([0.45, 0.36]), np.asarray([0.5, 0.4]), 0.08)
        _oval(grid, bones, (x, y + 0.55 * outline.pitch), (0.34, 0.75), 0.5)


def _clavicle(grid: Grid, outline: Outline, bones: Skeleton, side: int, own: NDArray[np.float64]) -> None:
    """An S from the sternum to the shoulder, across the apex. own: (2,) standard normal, what differs by side."""
    a = outline.a
    medial, width = a.apex + 3.4 + 0.12 * own[0], a.lung_half_width
    along = np.linspace(0.0, 1.0, 24)
    x = 1.7 + (1.14 * width - 1.7) * along
    y = (
        medial
        - a.clavicle_lift * np.sin(0.5 * np.pi * along)
        - 0.75 * np.sin(2.0 * np.pi * along) * (1.0 - 0.4 * along)
    )
    half = np.interp(along, (0.0, 0.12, 0.4, 0.8, 1.0), (0.95, 0.68, 0.55, 0.62, 0.75))
    _hollow(grid, bones, np.stack([side * x, y], axis=1), half, 1.7 * half, 0.14)


def _scapula(grid: Grid, outline: Outline, bones: Skeleton, side: int) -> None:
    """A thin blade with thick borders, its spine, the socket and the acromion."""
    a = outline.a
    out, top = 0.70 * a.lung_half_width + a.scapula_shift, a.apex + 1.7
    corners = np.asarray([(0.0, 0.0), (1.4, 11.8), (2.6, 11.9), (6.0, 3.0), (4.2, 0.2)]) + np.asarray([out, top])
    near, far = sorted((side * (out - 0.3), side * (out + 6.4)))
    found = grid.box(near, far, top - 0.3, top + 12.4)
    if found is not None:
        x, y = side * grid.x[:, found[1]], grid.y[found[0]]
        inside = np.full((y.shape[0], x.shape[1]), np.float32(9.0))
        for p, q in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            run = (q - p) / np.hypot(*(q - p))
            inside = np.minimum(inside, (x - p[0]) * np.float32(run[1]) - (y - p[1]) * np.float32(run[0]))
        bones.cortex[found] += 0.13 * ramp(inside / 0.25) + 0.07 * ramp(1.0 - np.abs(inside - 0.3) / 0.5)
    parts = (
        ((corners[2], (3.7 + out, 8.2 + top), (5.6 + out, 3.6 + top)), (0.30, 0.42, 0.7), (0.35, 0.55, 1.0)),
        (
            ((0.5 + out, 2.9 + top), (3.6 + out, 1.2 + top), (7.4 + out, -1.6 + top)),
            (0.30, 0.42, 0.85),
            (0.3, 0.5, 0.8),
        ),
        (((4.4 + out, 0.6 + top), (5.2 + out, 0.1 + top), (5.8 + out, 1.1 + top)), (0.42, 0.5, 0.4), (0.8, 0.9, 0.6)),
    )
    for line, half, chord in parts:
        points = np.asarray(line, np.float64) * (side, 1.0)
        _hollow(grid, bones, points, np.asarray(half), np.asarray(chord), 0.11)


def _humerus(grid: Grid, outline: Outline, bones: Skeleton, side: int) -> None:
    """Head and shaft; mostly outside an upright field."""
    x, y = 0.70 * outline.a.lung_half_width + outline.a.scapula_shift + 7.9, outline.a.apex + 3.9
    line = np.asarray([(x, y), (x + 0.5, y + 1.2), (x + 1.0, y + 4.0), (x + 2.4, y + 16.0), (x + 4.0, y + 40.0)])
    half = np.asarray([2.2, 2.25, 1.35, 1.15, 1.2])
    _hollow(grid, bones, line * (side, 1.0), half, np.asarray([3.4, 3.4, 2.5, 2.3, 2.3]), 0.22)
