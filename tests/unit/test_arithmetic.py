"""The node's own logarithm and exponential, against the library of C that is not used, and against its own bits."""

from __future__ import annotations

import hashlib
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dicom_node import arithmetic

ULPS = 4 * 2**-52


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_the_logarithm_is_that_of_c_but_for_its_last_bits(x: float) -> None:
    (found,) = arithmetic.log(np.array([x])).tolist()
    assert math.isclose(found, math.log(x), rel_tol=ULPS, abs_tol=1e-18)


@given(st.floats(min_value=-700, max_value=700))
def test_the_exponential_is_that_of_c_but_for_its_last_bits(x: float) -> None:
    (found,) = arithmetic.exp(np.array([x])).tolist()
    assert math.isclose(found, math.exp(x), rel_tol=ULPS)


def plain_log(x: float) -> float:
    """The same steps in Python's floats, whose operations no compiler joins."""
    mantissa, exponent = math.frexp(x)
    if mantissa < arithmetic.SQRT_HALF:
        mantissa, exponent = 2.0 * mantissa, exponent - 1
    s = (mantissa - 1.0) / (mantissa + 1.0)
    total = 1.0 / (2 * arithmetic.LOG_TERMS + 1)
    for term in range(arithmetic.LOG_TERMS - 1, -1, -1):
        total = total * (s * s) + 1.0 / (2 * term + 1)
    return exponent * arithmetic.LN2_HIGH + (exponent * arithmetic.LN2_LOW + 2.0 * s * total)


def test_every_word_of_16_bits_has_the_logarithm_of_a_second_implementation_to_the_last_bit() -> None:
    words = np.arange(1, 65537, dtype=np.float64)
    assert arithmetic.log(words).tolist() == [plain_log(x) for x in words.tolist()]


def test_the_bits_are_those_that_every_machine_has() -> None:
    """Written down on one machine; another that had other bits would make other pixels."""
    words = np.arange(1, 65537, dtype=np.float64)
    digest = hashlib.sha256(arithmetic.log(words).astype("<f8").tobytes())
    digest.update(arithmetic.exp(np.linspace(-700, 700, 65537)).astype("<f8").tobytes())
    assert digest.hexdigest() == "e82711f25efb8cf2a336967ef4e78b706948a4793fec220134be4e9981079564"
