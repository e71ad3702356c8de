"""Estimate the bounded similarity that brings an image onto the canonical frame. Knows no style.

Differs: from the trained spatial transformer (METHODS section 5), because a projection match needs no weights;
same five parameters, same matrix, same guards, so a network can take its place."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import minimize

from engine.align.frame import Frame, correlation, smooth
from engine.align.geometry import Floats, Layout, profile
from engine.types import Alignment

MAX_SHIFT = 0.25
MIN_SCALE, MAX_SCALE = 0.75, 1.3
MAX_ROTATION_RAD = math.radians(15)
"""Guards of METHODS section 5: beyond them it is another view or a wrong match, not a badly placed patient."""

START_ROTATIONS_RAD = tuple(math.radians(d) for d in (-10, -5, 0, 5, 10))
"""The projection match has one hollow per ten degrees or so; a search from each finds the deepest."""
STEP_COST = np.array([0.02, 0.02, 0.02, 0.02, 0.03])
"""Agreement that each parameter at its guard must earn, so that noise alone moves nothing. Rotation must earn more:
patients stand upright, and two projections see a turn least."""


def matrix(alignment: Alignment) -> Floats:
    """(2, 3) float64 [A | t] with x_canonical = A x_image + t. Source: METHODS section 5, row "Matrix"."""
    return _matrix(_parameters(alignment))


def estimate(layout: Layout, frame: Frame, min_confidence: float) -> Alignment:
    """Find the alignment of a layout.

    Confidence is the mean correlation of the two projections at the best placement. Where it stays under
    `min_confidence`, or a parameter sits at its guard, the alignment is the identity (and says so), because a
    wrong placement does more harm than none.
    """
    target = np.array([smooth(np.array(frame.profile_x)), smooth(np.array(frame.profile_y))])
    starts = [np.array([0.0, 0.0, 1.0, 1.0, 0.0])]
    starts += [_from_moments(layout, frame, rotation) for rotation in START_ROTATIONS_RAD]
    start = max(starts, key=lambda p: _value(p, layout, target))

    def missing(steps: Floats) -> float:
        return -_value(_clip(start + steps * _RANGE), layout, target)

    found = minimize(
        missing,
        np.zeros(5),
        method="Nelder-Mead",
        options={"maxfev": 300, "xatol": 2e-3, "fatol": 1e-5, "initial_simplex": _simplex()},
    )
    best = _clip(start + np.asarray(found.x) * _RANGE)
    confidence = min(max(_match(best, layout, target), 0.0), 1.0)
    at_guard = bool((np.abs(best - _LOW) < 1e-6).any() or (np.abs(best - _HIGH) < 1e-6).any())
    if confidence < min_confidence or at_guard:
        return Alignment("identity", confidence=confidence)
    tx, ty, sx, sy, theta = (float(v) for v in best)
    return Alignment("projections", tx, ty, sx, sy, theta, confidence)


_LOW = np.array([-MAX_SHIFT, -MAX_SHIFT, MIN_SCALE, MIN_SCALE, -MAX_ROTATION_RAD])
_HIGH = np.array([MAX_SHIFT, MAX_SHIFT, MAX_SCALE, MAX_SCALE, MAX_ROTATION_RAD])
_RANGE = (_HIGH - _LOW) / 2


def _parameters(alignment: Alignment) -> Floats:
    return np.array([alignment.tx, alignment.ty, alignment.sx, alignment.sy, alignment.theta_rad])


def _matrix(parameters: Floats) -> Floats:
    tx, ty, sx, sy, theta = parameters
    cos, sin = math.cos(theta), math.sin(theta)
    return np.array([[sx * cos, -sy * sin, tx], [sx * sin, sy * cos, ty]])


def _clip(parameters: Floats) -> Floats:
    return np.clip(parameters, _LOW, _HIGH)


def _simplex() -> Floats:
    """First steps of a fifth of half a range: larger than the noise of a projection, smaller than its hollows."""
    return np.vstack([np.zeros(5), 0.2 * np.eye(5)])


def _from_moments(layout: Layout, frame: Frame, rotation: float) -> Floats:
    """The parameters that match mean and spread for a given rotation."""
    geometry = layout.geometry
    scale = [f / max(g, 1e-6) for f, g in zip(frame.spread, geometry.spread, strict=True)]
    turned = _matrix(_clip(np.array([0.0, 0.0, scale[0], scale[1], rotation])))
    shift = np.array(frame.centre) - turned[:, :2] @ np.array(geometry.centre)
    return _clip(np.array([shift[0], shift[1], scale[0], scale[1], rotation]))


def _match(parameters: Floats, layout: Layout, target: Floats) -> float:
    turned = _matrix(parameters)
    x = turned[0, 0] * layout.x + turned[0, 1] * layout.y + turned[0, 2]
    y = turned[1, 0] * layout.x + turned[1, 1] * layout.y + turned[1, 2]
    inside = (np.abs(x) < 0.5) & (np.abs(y) < 0.5)
    weight = np.where(inside, layout.weight, 0.0)
    along_x = correlation(smooth(profile(x, weight)), target[0])
    along_y = correlation(smooth(profile(y, weight)), target[1])
    return (along_x + along_y) / 2


def _value(parameters: Floats, layout: Layout, target: Floats) -> float:
    moved = (parameters - np.array([0.0, 0.0, 1.0, 1.0, 0.0])) / _RANGE
    return _match(parameters, layout, target) - float(STEP_COST @ moved**2)
