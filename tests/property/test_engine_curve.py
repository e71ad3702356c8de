"""What holds for every curve of the family, whatever its coefficients."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.harmonize.codes import grid, to_lut
from engine.harmonize.curve import curve, inverse, on_codes, slope

COEFFICIENTS = st.lists(st.floats(-0.9, 0.9, allow_subnormal=False), min_size=8, max_size=8)
MILD = st.lists(st.floats(-0.5, 0.5, allow_subnormal=False), min_size=8, max_size=8)
GREYS = np.linspace(0, 1, 257)


@given(COEFFICIENTS)
def test_the_curve_rises_and_keeps_both_ends(coefficients: list[float]) -> None:
    y = curve(coefficients, GREYS)
    assert y[0] == 0
    assert abs(y[-1] - 1) < 1e-12
    assert (np.diff(y) >= 0).all()


@given(MILD)
def test_a_mild_curve_rises_strictly_and_can_be_undone(coefficients: list[float]) -> None:
    y = curve(coefficients, GREYS)
    assert (np.diff(y) > 0).all()
    assert np.abs(inverse(coefficients, y) - GREYS).max() < 1e-9


@given(COEFFICIENTS)
def test_the_slope_is_the_derivative_and_never_negative(coefficients: list[float]) -> None:
    middle = GREYS[1:-1]
    step = 1e-6
    by_hand = (curve(coefficients, middle + step) - curve(coefficients, middle - step)) / (2 * step)
    found = slope(coefficients, middle)
    assert (found >= 0).all()
    assert np.abs(found - by_hand).max() < 1e-3 * (1 + np.abs(found).max())


@given(COEFFICIENTS)
def test_the_end_slopes_multiply_to_less_than_one(coefficients: list[float]) -> None:
    ends = slope(coefficients, np.array([0.0, 1.0]))
    assert math.isclose(float(ends.prod()), math.prod(1 - a * a for a in coefficients), rel_tol=1e-9, abs_tol=1e-12)
    assert ends.prod() <= 1 + 1e-12


@given(COEFFICIENTS, st.integers(0, 255))
def test_the_curve_is_the_ieee_754_result_of_its_written_operations(coefficients: list[float], code: int) -> None:
    """Each operation, done exactly in fractions and rounded once to float64, gives the same bits."""
    y = float(Fraction(code, 255))
    for a in coefficients:
        rest = float(Fraction(1) - Fraction(y))
        product = float(Fraction(y) * Fraction(rest))
        change = float(Fraction(a) * Fraction(product))
        y = float(Fraction(y) + Fraction(change))
    assert float(on_codes(coefficients, 256)[code]) == y


@given(COEFFICIENTS, st.sampled_from([2, 256, 1024, 4096]))
@settings(max_examples=50)
def test_a_table_of_the_curve_never_falls_and_keeps_both_ends(coefficients: list[float], levels: int) -> None:
    lut = to_lut(on_codes(coefficients, levels), levels).numpy()
    assert (np.diff(lut) >= 0).all()
    assert (lut[0], lut[-1]) == (0, levels - 1)


@given(st.integers(2, 65536))
@settings(max_examples=30)
def test_no_coefficients_is_the_identity_on_every_depth(levels: int) -> None:
    assert (to_lut(on_codes([0.0] * 8, levels), levels).numpy() == np.arange(levels)).all()
    assert grid(levels)[-1] == 1
