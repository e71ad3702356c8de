"""Own the drawing of tubes, letters and textures on a grid in cm. Knows no anatomy and no beam."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Floats = NDArray[np.float32]
Box = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class Grid:
    """Pixel centres in cm. x: (1, W) float32, y: (H, 1) float32, evenly spaced by `step`."""

    x: Floats
    y: Floats
    step: float

    @classmethod
    def over(cls, height: int, width: int, step: float, middle: float) -> Grid:
        """A grid centred on x = 0 and y = `middle`."""
        x = (np.arange(width) - (width - 1) / 2) * step
        y = (np.arange(height) - (height - 1) / 2) * step + middle
        return cls(x[None].astype(np.float32), y[:, None].astype(np.float32), step)

    @property
    def shape(self) -> tuple[int, int]:
        return self.y.shape[0], self.x.shape[1]

    def box(self, x0: float, x1: float, y0: float, y1: float) -> Box | None:
        """The pixels of a rectangle in cm; None where it lies outside the grid."""
        left, right = (int((v - float(self.x[0, 0])) / self.step) for v in (x0, x1))
        top, bottom = (int((v - float(self.y[0, 0])) / self.step) for v in (y0, y1))
        rows, columns = slice(max(top, 0), bottom + 2), slice(max(left, 0), right + 2)
        height, width = self.shape
        if rows.start >= min(rows.stop, height) or columns.start >= min(columns.stop, width):
            return None
        return rows, columns

    def onto(self, finer: Grid, image: Floats) -> Floats:
        """An image on this grid, linearly interpolated at the pixels of another grid that lies inside it."""
        rows = between(image, (finer.y[:, 0] - self.y[0, 0]) / np.float32(self.step))
        across = (finer.x[0] - self.x[0, 0]) / np.float32(self.step)
        return np.ascontiguousarray(between(np.ascontiguousarray(rows.T), across).T)


def between(values: Floats, at: Floats) -> Floats:
    """Rows at fractional places, linearly; held at the ends. values: (M, K); at: (N,) -> (N, K)"""
    at = np.clip(at, 0.0, len(values) - 1)
    low = np.minimum(at.astype(np.int64), max(len(values) - 2, 0))
    high = np.minimum(low + 1, len(values) - 1)
    part = (at - low).astype(np.float32)[:, None]
    return np.asarray(values[low] * (1.0 - part) + values[high] * part, np.float32)


def half_circle(q: NDArray[np.floating]) -> Floats:
    """sqrt(1 - q) inside q < 1, else 0: the chord through a round body, q being the squared relative distance."""
    return np.asarray(np.sqrt(np.maximum(np.float32(1.0) - q, np.float32(0.0))), np.float32)


def ramp(t: NDArray[np.floating]) -> Floats:
    """Smooth step from 0 (t <= 0) to 1 (t >= 1)."""
    t = np.clip(t, 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), np.float32)


def union(*chords: Floats) -> Floats:
    """Smooth maximum (8-norm) of overlapping bodies, so that their joint shows no crease."""
    total = np.zeros(np.broadcast_shapes(*(c.shape for c in chords)), np.float32)
    for c in chords:
        square = c * c
        total += (square * square) ** 2
    return np.asarray(np.sqrt(np.sqrt(np.sqrt(total))), np.float32)


@dataclass(frozen=True, slots=True)
class Track:
    """What `follow` found around a line: for each pixel of `box` the distance to it and the place along it."""

    box: Box
    distance: Floats
    place: Floats

    def along(self, values: NDArray[np.floating]) -> Floats:
        """Values given at the line's points, read at each pixel's nearest place. values: (N,)"""
        return np.asarray(np.interp(self.place, np.arange(len(values)), values), np.float32)


def follow(grid: Grid, points: NDArray[np.floating], reach: float) -> Track | None:
    """Distance to a polyline within `reach` cm. points: (N, 2) x, y in cm. None where it misses the grid."""
    low, high = points.min(axis=0) - reach, points.max(axis=0) + reach
    box = grid.box(float(low[0]), float(high[0]), float(low[1]), float(high[1]))
    if box is None:
        return None
    part = Grid(grid.x[:, box[1]], grid.y[box[0]], grid.step)
    nearest = np.full(part.shape, np.float32(4.0 * reach * reach))
    place = np.zeros(part.shape, np.float32)
    corners = [(float(x), float(y)) for x, y in points]
    for k, (p, q) in enumerate(pairwise(corners)):
        found = _to_segment(part, p, q, reach)
        if found is None:
            continue
        inner, square, t = found
        closer = square < nearest[inner]
        np.copyto(nearest[inner], square, where=closer)
        np.copyto(place[inner], t + k, where=closer)
    return Track(box, np.sqrt(nearest), place)


def _to_segment(
    grid: Grid, p: tuple[float, float], q: tuple[float, float], reach: float
) -> tuple[Box, Floats, Floats] | None:
    """Squared distance to the segment pq and the place on it, 0 at p to 1 at q, in the box around it."""
    (px, py), (qx, qy) = p, q
    box = grid.box(min(px, qx) - reach, max(px, qx) + reach, min(py, qy) - reach, max(py, qy) + reach)
    if box is None:
        return None
    dx, dy = qx - px, qy - py
    x, y = grid.x[:, box[1]] - np.float32(px), grid.y[box[0]] - np.float32(py)
    length = max(dx * dx + dy * dy, 1e-12)
    t: Floats = np.asarray(x * np.float32(dx / length) + y * np.float32(dy / length), np.float32)
    np.minimum(np.maximum(t, np.float32(0.0), out=t), np.float32(1.0), out=t)
    square: Floats = np.asarray((x - t * np.float32(dx)) ** 2 + (y - t * np.float32(dy)) ** 2, np.float32)
    return box, square, t


def tube(grid: Grid, points: NDArray[np.floating], radius: NDArray[np.floating]) -> tuple[Box, Floats] | None:
    """Chord through a solid round tube. points: (N, 2); radius: (N,) -> box and (h, w) cm."""
    track = follow(grid, points, float(radius.max()))
    if track is None:
        return None
    r = track.along(radius)
    return track.box, 2.0 * r * half_circle((track.distance / r) ** 2)


def twig(grid: Grid, canvas: Floats, ends: tuple[float, float, float, float], radius: tuple[float, float]) -> None:
    """Draw one short tapering tube into `canvas` by maximum: (x, y) to (x, y), radii in cm at both ends.

    A tube thinner than a pixel is drawn a pixel wide and fainter, so that its area stays right.
    """
    floor = 0.6 * grid.step
    wide = tuple(max(r, floor) for r in radius)
    found = _to_segment(grid, ends[:2], ends[2:], max(wide))
    if found is None:
        return
    box, square, t = found
    r = wide[0] + (wide[1] - wide[0]) * t
    weight = 2.0 * ((radius[0] + radius[1]) / (wide[0] + wide[1])) ** 2
    np.maximum(canvas[box], weight * r * half_circle(square / (r * r)), out=canvas[box])


def octaves(rng: np.random.Generator, cells: int, slope: float, low: float) -> Floats:
    """Cloud of unit variance with amplitude ~ 1 / f**slope above `low` cycles a side. -> (cells, cells) float32"""
    white = rng.standard_normal((cells, cells), dtype=np.float32)
    fy, fx = np.fft.fftfreq(cells, 1 / cells)[:, None], np.fft.rfftfreq(cells, 1 / cells)[None]
    f = np.hypot(fy, fx)
    gain = np.where(f >= low, 1.0 / np.maximum(f, 1.0) ** slope, 0.0).astype(np.float32)
    cloud = np.asarray(fft.irfft2(fft.rfft2(white) * gain, s=white.shape), np.float32)
    return np.asarray(cloud / cloud.std(), np.float32)


def spread(cloud: Floats, grid: Grid, side: float) -> Floats:
    """Lay a periodic cloud whose side is `side` cm over the grid, linearly interpolated. -> (H, W) float32"""
    scale = cloud.shape[0] / side
    closed = np.pad(cloud, (0, 1), mode="wrap")
    rows = between(closed, (grid.y[:, 0] * scale) % cloud.shape[0])
    return np.ascontiguousarray(between(np.ascontiguousarray(rows.T), (grid.x[0] * scale) % cloud.shape[1]).T)


def blurred(image: Floats, sigma: float) -> Floats:
    """Gaussian blur of `sigma` pixels; unchanged where it is too small to matter."""
    if sigma < 0.25:
        return image
    return np.asarray(ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=3.0), np.float32)


LETTERS: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {
    "L": (((0.0, 0.0), (0.0, 1.0), (0.6, 1.0)),),
    "R": (((0.0, 1.0), (0.0, 0.0), (0.45, 0.05), (0.58, 0.25), (0.45, 0.47), (0.0, 0.5)), ((0.3, 0.5), (0.6, 1.0))),
}
"""Strokes of the side markers in a unit box, y downwards."""


def letter(
    grid: Grid, name: str, corner: tuple[float, float], height: float, tilt: float
) -> Iterator[tuple[Box, Floats]]:
    """The strokes of a letter as tubes of lead, `height` cm tall, turned by `tilt` radians."""
    c, s = np.cos(tilt), np.sin(tilt)
    for line in LETTERS[name]:
        p = np.asarray(line) * height
        turned = np.stack([corner[0] + c * p[:, 0] - s * p[:, 1], corner[1] + s * p[:, 0] + c * p[:, 1]], axis=1)
        drawn = tube(grid, turned, np.full(len(p), 0.085 * height))
        if drawn is not None:
            yield drawn
