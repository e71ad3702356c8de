"""Logarithm and exponential that have the same bits on every machine. Knows no image.

Those of numpy use the processor's vector instructions or its C library, whose last bits differ from one machine to the
next; a value that lies between two grey codes would follow them. Here are only additions, subtractions,
multiplications and divisions of float64, one array operation at a time, which IEEE 754 rounds alike everywhere, and
splitting into mantissa and exponent, which is exact. The results are within two units in the last place.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]

# ln 2 in two parts: products of the first with an exponent are exact. Source: Cody and Waite 1980, chapter 6.
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
SQRT_HALF = 0.7071067811865476
LOG_TERMS = 12
"""Of the series in s**2 < 0.03: what is left out is under 2**-60."""
EXP_TERMS = 15
"""Of the series in |r| < 0.35: what is left out is under 2**-60."""


def log(x: Real) -> Real:
    """Natural logarithm. x: any shape, positive and finite."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < SQRT_HALF
    mantissa = np.where(small, 2.0 * mantissa, mantissa)
    power = (exponent - small).astype(np.float64)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    square = s * s
    total = np.full_like(s, 1.0 / (2 * LOG_TERMS + 1))
    for term in range(LOG_TERMS - 1, -1, -1):
        total = total * square + 1.0 / (2 * term + 1)
    found: Real = power * LN2_HIGH + (power * LN2_LOW + 2.0 * s * total)
    return found


def exp(x: Real) -> Real:
    """e to the power of x. x: any shape, within -700 and 700."""
    power = np.rint(x / (LN2_HIGH + LN2_LOW))
    rest = (x - power * LN2_HIGH) - power * LN2_LOW
    total = np.ones_like(rest)
    for term in range(EXP_TERMS, 0, -1):
        total = 1.0 + total * rest / term
    found: Real = np.ldexp(total, power.astype(np.int64))
    return found
