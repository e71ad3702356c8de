"""Own GDCE's curve family: eight steps y + a*y*(1-y), each a strictly monotone map of [0, 1] onto itself. Knows no
image and no bank.

Source: GDCE (arXiv 2504.10080), code of record, METHODS section 2.1. A step's slope is 1 + a(1 - 2y), positive for
|a| < 1, and 0 and 1 stay where they are; so no two grey values swap, and the curve is a table that a viewer can show.
One consequence that the papers leave out: the slopes at both ends multiply to prod(1 - a**2) < 1, so the family can
raise contrast in the middle but not lower it there by raising both ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.harmonize.codes import Floats, grid

STEPS = 8


def curve(coefficients: Sequence[float], greys: Floats) -> Floats:
    """The curve at `greys` (any shape, float64 in [0, 1]).

    Only additions, subtractions and multiplications of float64, one operation at a time, which IEEE 754 rounds
    alike on every machine: the same eight numbers are the same curve to the last bit.
    Raises ValueError unless there are 8 coefficients, each strictly between -1 and 1.
    """
    y = greys
    for a in _checked(coefficients):
        y = step(y, a)
    return y


def step(y: Floats, a: Floats | float) -> Floats:
    """One step of the curve. y, a: float64 that broadcast."""
    return y + a * (y * (1.0 - y))


def step_slope(y: Floats, a: Floats | float) -> Floats:
    """Derivative of one step at y. y, a: float64 that broadcast."""
    return 1.0 + a * (1.0 - 2.0 * y)


def slope(coefficients: Sequence[float], greys: Floats) -> Floats:
    """Derivative of the curve at `greys`; positive on [0, 1]."""
    y, rise = greys, np.ones_like(greys)
    for a in _checked(coefficients):
        rise = rise * step_slope(y, a)
        y = step(y, a)
    return rise


def inverse(coefficients: Sequence[float], greys: Floats) -> Floats:
    """The grey values that the curve sends to `greys`.

    Each step is a quadratic: y = (1+a)x - a x**2. Its root in [0, 1] is taken in the form that does not cancel.
    """
    x = greys
    for a in reversed(_checked(coefficients)):
        x = 2.0 * x / ((1.0 + a) + np.sqrt(np.maximum((1.0 + a) ** 2 - 4.0 * a * x, 0.0)))
    return x


def on_codes(coefficients: Sequence[float], levels: int) -> Floats:
    """(levels,) float64: the curve at every grey code."""
    return curve(coefficients, grid(levels))


def _checked(coefficients: Sequence[float]) -> list[float]:
    values = [float(a) for a in coefficients]
    if len(values) != STEPS or not all(-1 < a < 1 for a in values):
        raise ValueError(f"a curve has {STEPS} coefficients strictly between -1 and 1, not {values}")
    return values
