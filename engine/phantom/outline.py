"""Own the borders of the chest as curves: lungs, domes, mediastinum, skin, spine. Knows no pixels and no beam."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from engine.phantom.anatomy import Anatomy

Floats = NDArray[np.float32]

SIDES = (-1, 1)
"""Patient's right (left in the picture) and patient's left."""

_APEX_X = 0.33
"""Where the apices stand, as a share of the lung's half width."""
_WIDEST = 0.85
"""Share of the lung's height at which the rib cage is widest."""


def curve(at: NDArray[np.floating], xs: tuple[float, ...], ys: tuple[float, ...]) -> Floats:
    """Monotone cubic through (xs, ys), held constant outside. at: any shape -> same shape float32."""
    held = np.clip(np.asarray(at, np.float64), xs[0], xs[-1])
    return np.asarray(PchipInterpolator(xs, ys)(held), np.float32)


@dataclass(frozen=True, slots=True)
class Outline:
    """The borders of one anatomy; x is measured from the patient's middle, in cm."""

    a: Anatomy

    @property
    def base(self) -> float:
        """y of the top of the right hemidiaphragm."""
        return self.a.apex + self.a.lung_height

    @property
    def pitch(self) -> float:
        """Distance of two thoracic vertebrae: in full inspiration the dome stands at the tenth rib."""
        return (self.a.lung_height + 0.8) / 9.9

    def level(self, share: float) -> float:
        """y at a share of the lung's height: 0 the apex, 1 the right dome."""
        return self.a.apex + share * self.a.lung_height

    def share(self, y: NDArray[np.floating]) -> Floats:
        """Inverse of `level`, not clipped. y: any shape, cm."""
        return np.asarray((np.asarray(y) - self.a.apex) / self.a.lung_height, np.float32)

    def lateral(self, y: NDArray[np.floating]) -> Floats:
        """Half width of the inner rib cage at y; at the apex it closes like a dome."""
        up = np.clip(self.share(y) / _WIDEST, 0.0, 1.0)
        apex_x = _APEX_X * self.a.lung_half_width
        shape = (1.0 - (1.0 - up) ** self.a.shoulder_power) ** 0.62
        waist = 1.0 - 0.05 * np.clip(self.share(y) - _WIDEST, 0.0, 0.6)
        return np.asarray((apex_x + (self.a.lung_half_width - apex_x) * shape) * waist, np.float32)

    def depth(self, y: NDArray[np.floating]) -> Floats:
        """Half depth of the rib cage along the beam at y; 0 at the apex."""
        up = np.clip(self.share(y) / 0.65, 0.0, 1.0)
        return np.asarray(self.a.lung_half_depth * (1.0 - (1.0 - up) ** 2.2) ** 0.6, np.float32)

    def dome(self, x: NDArray[np.floating], side: int) -> Floats:
        """y of the hemidiaphragm's upper silhouette over x (from the middle, positive towards `side`)."""
        top = self.base + (self.a.dome_step if side > 0 else 0.0)
        crown = 0.42 * self.a.lung_half_width
        out = np.clip((np.asarray(x) - crown) / (self.a.lung_half_width - crown), -1.4, 1.3)
        return np.asarray(top + self.a.dome_fall * np.where(out > 0, np.abs(out) ** 2.3, 0.45 * out**2), np.float32)

    def silhouette(self, y: NDArray[np.floating], side: int) -> Floats:
        """x of the border of mediastinum and heart at y, from the middle towards `side`.

        Right: vena cava, azygos arch, atrium. Left: subclavian artery, aortic knob, pulmonary trunk, left ventricle.
        Both widest points together are the cardiothoracic ratio.
        """
        width = 2.0 * self.a.lung_half_width * self.a.cardiothoracic_ratio
        return self._left(width, y) if side > 0 else self._right(width, y)

    def _right(self, width: float, y: NDArray[np.floating]) -> Floats:
        r = 0.33 * width
        at = (0.0, 0.05, 0.14, 0.28, 0.36, 0.46, 0.54, 0.62, 0.72, 0.82, 0.92, 1.02, 1.15)
        out = (3.9, 2.9, 2.4, 2.15, 2.5, 2.2, 2.5, 0.83 * r, 0.95 * r, r, 0.96 * r, 0.85 * r, 0.7 * r)
        return curve(self.share(y), at, out)

    def _left(self, width: float, y: NDArray[np.floating]) -> Floats:
        r, knob, cone = 0.67 * width, 1.55 + self.a.knob_radius, 2.0 + 0.6 * self.a.heart_tilt
        at = (0.0, 0.05, 0.12, 0.18, 0.25, 0.31, 0.365, 0.40, 0.46, 0.53, 0.63, 0.74, 0.86, 0.97, 1.08, 1.18, 1.35)
        upper = (3.9, 2.7, 2.0, 0.5 * knob + 0.9, knob, 0.94 * knob, 2.5, cone + 0.45, cone + 0.8, 0.47 * r)
        lower = (0.62 * r, 0.82 * r, 0.965 * r, r, 0.94 * r, 0.8 * r, 0.45 * r)
        return curve(self.share(y), at, (*upper, *lower))

    def skin(self, y: NDArray[np.floating]) -> tuple[Floats, Floats]:
        """Half width and half depth of neck and trunk at y; the arms are not in it."""
        a, chest = self.a, self.a.lung_half_width + self.a.wall
        rise = a.apex - 7.3
        at = tuple(rise + v for v in (-3.0, 0.5, 2.2, 3.6, 5.2, 7.0, 9.5, 13.0, 18.0, 26.0, 33.0, 42.0))
        wide = (5.6, 5.9, 6.7, 8.6, 11.8, 14.6, 16.2, 0.985 * chest, chest, chest, 0.985 * chest, 0.98 * chest)
        thorax = a.lung_half_depth + 0.85 * a.wall
        deep = (5.6, 5.8, 6.1, 6.4, 7.0, 7.8, 8.6, 0.90 * thorax, 0.97 * thorax, thorax, thorax, 0.98 * thorax)
        return curve(y, at, wide), curve(y, at, deep)

    def spine(self, y: NDArray[np.floating]) -> Floats:
        """x of the vertebral column at y."""
        return np.asarray(self.a.spine_bend * np.sin(np.asarray(y) / 9.0 + self.a.spine_phase), np.float32)

    def vertebra(self, k: float) -> float:
        """y of the middle of thoracic vertebra k + 1 (0 is the first); negative k are cervical."""
        shrink = 0.82 if k < 0 else 1.0
        return self.a.apex - 0.4 + shrink * k * self.pitch
