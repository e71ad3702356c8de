"""Fit GDCE's eight coefficients to a bank directly, without a network. Knows no pixels: only quantiles and energies.

Differs: GDCE trains an estimator with VGG features and a frozen classifier; here the very style distance that
decides afterwards is minimised for the one image at hand. Slower than a network, but nothing has to be trained,
so it is the baseline that a network must beat."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import least_squares

from engine.harmonize.codes import Floats, to_lut
from engine.harmonize.curve import STEPS, on_codes, step, step_slope
from engine.harmonize.protocol import Parameters, Proposal, Source, Target, numbers
from engine.style.descriptor import ENERGY_FLOOR
from engine.style.distance import deviations

BOUND = 0.9
"""|a| stays below: beyond, a step's slope at one end falls under 0.1 and eight of them bury what lies there."""
SIMILAR_WEIGHT = 0.25
"""Weight of the squared distance to the similar references beside that to the whole bank, which decides."""
STRENGTH_WEIGHT = 0.03
"""Weight of mean a**2: of two curves that serve alike, the one that changes less wins."""
SLOPE_FLOOR, SLOPE_CEILING = 0.5, 3.5
"""Slopes in the field outside this are penalised; well inside the anatomy check's limits, so a fit seldom fails it."""
SLOPE_WEIGHT = 1.0
DECIMALS = 6
"""Coefficients are rounded here before use: what the audit prints is what was applied, and the last bits in which
two machines' optimisers differ are gone. A grey value moves by less than a 16-bit code."""
DIFFERENCE = 1e-5
"""Step of the central differences: their error, its square, is far under the optimiser's tolerance."""

NAMES = tuple(f"alpha_{k}" for k in range(1, STEPS + 1))

_STARTS = (
    (0.0,) * 8,
    (0.3,) * 4 + (-0.3,) * 4,
    (-0.3,) * 4 + (0.3,) * 4,
    (0.2,) * 8,
    (-0.2,) * 8,
)
"""Identity, the two orders of the S-shape, brighter, darker: the family's coefficients don't commute."""


class FittedCurve:
    """One strictly monotone tone curve per image, fitted to the bank."""

    name = "fitted_curve"
    version = 1

    def harmonize(self, source: Source, target: Target) -> Proposal:
        """Fit, round, and make the table. The parameters are alpha_1 … alpha_8."""
        parameters = dict(zip(NAMES, fit(source, target), strict=True))
        return Proposal(self.table(parameters, source.image.levels), None, parameters)

    def table(self, parameters: Parameters, levels: int) -> torch.Tensor:
        """The curve at every grey code. Raises ValueError on other parameters, or coefficients that are no curve's."""
        return to_lut(on_codes(numbers(parameters, NAMES), levels), levels)


def fit(source: Source, target: Target) -> tuple[float, ...]:
    """The 8 coefficients that bring the predicted descriptor nearest to the target; deterministic."""
    problem = _Problem(source, target)
    found = [_search(problem, np.arctanh(np.array(start) / BOUND)) for start in _STARTS]
    best = min(found, key=problem.cost)
    return tuple(round(float(a), DECIMALS) + 0.0 for a in BOUND * np.tanh(best))


def _search(problem: _Problem, start: Floats) -> Floats:
    # Levenberg-Marquardt: the coefficients nearly commute, so the valley is long and flat and Gauss-Newton overshoots.
    found = least_squares(
        problem.residuals, start, jac=problem.jacobian, method="lm", ftol=1e-5, xtol=1e-4, max_nfev=60
    )
    return np.asarray(found.x)


class _Problem:
    """The fit as residuals for least squares, in 8 unbounded variables u with a = BOUND tanh(u)."""

    def __init__(self, source: Source, target: Target) -> None:
        self.greys = np.array(source.descriptor.quantiles)
        self.amplitude = source.detail.amplitude
        self.centre = target.centre
        self.similar = np.median([r.descriptor.quantiles for r in target.similar], axis=0)

    def cost(self, u: Floats) -> float:
        return float((self.residuals(u) ** 2).sum())

    def residuals(self, u: Floats) -> Floats:
        """(..., m) residuals for (..., 8) variables; a whole set of variables is one call."""
        a = BOUND * np.tanh(u)
        greys = np.broadcast_to(self.greys, (*u.shape[:-1], self.greys.size))
        rise = np.ones_like(greys)
        for k in range(STEPS):
            factor = a[..., k, None]
            greys, rise = step(greys, factor), rise * step_slope(greys, factor)
        # A band at grey value g grows by the curve's slope at g: bands are small beside the curve's bends.
        energies = np.log(rise @ self.amplitude.T + ENERGY_FLOOR)
        similar = (greys - self.similar) / self.centre.quantile_spread
        parts = [
            deviations(greys, energies, self.centre),
            similar * np.sqrt(SIMILAR_WEIGHT / similar.shape[-1]),
            a * np.sqrt(STRENGTH_WEIGHT / STEPS),
            SLOPE_WEIGHT * np.maximum(SLOPE_FLOOR - rise, 0) / SLOPE_FLOOR,
            SLOPE_WEIGHT * np.maximum(rise - SLOPE_CEILING, 0) / SLOPE_CEILING,
        ]
        return np.concatenate(parts, axis=-1)

    def jacobian(self, u: Floats) -> Floats:
        """(m, 8) central differences, all eight in one call."""
        moves = DIFFERENCE * np.eye(STEPS)
        return ((self.residuals(u + moves) - self.residuals(u - moves)) / (2 * DIFFERENCE)).T
