"""What holds for every set of descriptors."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.style import Descriptor, distance, distribution
from engine.style.distance import DETAIL_FLOOR, TONE_FLOOR, conforming_threshold


@st.composite
def descriptors(draw: st.DrawFn) -> Descriptor:
    low, high = sorted((draw(st.floats(0, 1)), draw(st.floats(0, 1))))
    gamma = draw(st.floats(0.3, 3))
    quantiles = low + (high - low) * np.linspace(0, 1, 33) ** gamma
    energies = draw(st.lists(st.floats(-9, 0), min_size=5, max_size=5))
    return Descriptor(tuple(quantiles.tolist()), tuple(energies))


SETS = st.lists(descriptors(), min_size=1, max_size=6)


@given(SETS, descriptors())
@settings(max_examples=60)
def test_a_distance_is_finite_and_not_negative_and_knows_no_order(many: list[Descriptor], one: Descriptor) -> None:
    found = distance(one, distribution(many))
    assert np.isfinite(found)
    assert found >= 0
    assert distance(one, distribution(many[::-1])) == found


@given(SETS)
@settings(max_examples=60)
def test_no_spread_is_under_its_floor(many: list[Descriptor]) -> None:
    centre = distribution(many)
    assert (centre.quantile_spread >= TONE_FLOOR).all()
    assert (centre.energy_spread >= DETAIL_FLOOR).all()


@given(SETS)
@settings(max_examples=60)
def test_a_threshold_is_at_least_one_and_a_lone_reference_conforms(many: list[Descriptor]) -> None:
    assert conforming_threshold(many) >= 1
    assert distance(many[0], distribution(many[:1])) == 0
