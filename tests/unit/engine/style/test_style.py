"""Style numbers mean what they say: resolution, growing change, thresholds, similar references."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from engine import Reference
from engine.field import find_field
from engine.style import Descriptor, describe, distance, distribution, similar_references
from engine.style.bank import build_bank
from engine.style.descriptor import BANDS, QUANTILES
from engine.style.distance import LEAST_THRESHOLD, TONE_FLOOR, conforming_threshold, leave_one_out
from engine.types import Image
from engine.working import working_image
from tests.unit.engine.pictures import EXAM, chest, image_of, references


@pytest.fixture(scope="module")
def eight() -> list[Reference]:
    return references(8)


def described(image: Image) -> Descriptor:
    working = working_image(image)
    return describe(working.grey, find_field(working).working)[0]


def test_a_descriptor_has_33_rising_quantiles_and_5_energies() -> None:
    descriptor = described(image_of(chest()))
    assert len(descriptor.quantiles) == len(QUANTILES) == 33
    assert list(descriptor.quantiles) == sorted(descriptor.quantiles)
    assert len(descriptor.energies) == BANDS == 5


def test_a_finer_image_of_the_same_patient_has_the_same_style() -> None:
    coarse = torch.from_numpy(chest(700, 600)).float()[None]
    fine = F.interpolate(coarse[None], scale_factor=2.5, mode="bilinear", align_corners=False)[0]
    near, far = described(image_of(coarse.numpy())), described(image_of(fine.numpy()))
    assert np.abs(np.subtract(near.quantiles, far.quantiles)).max() < 0.015
    # The finest band holds the noise, which a finer detector averages away.
    assert np.abs(np.subtract(near.energies, far.energies)[1:]).max() < 0.1


def test_the_amplitudes_by_grey_add_up_to_the_energies() -> None:
    working = working_image(image_of(chest()))
    descriptor, detail = describe(working.grey, find_field(working).working)
    assert np.allclose(np.log(detail.amplitude.sum(axis=1) + 1e-4), descriptor.energies)


def test_the_edge_of_the_field_is_no_detail() -> None:
    mask = np.zeros((512, 400), bool)
    mask[100:300, 50:250] = True
    grey = np.where(mask, 0.6, 0.0).astype(np.float32)
    assert np.allclose(describe(grey, mask)[0].energies, np.log(1e-4), atol=0.01)


CHANGES = {
    "brighter": lambda g, t: g ** (1 - 0.5 * t),
    "darker": lambda g, t: g ** (1 + 1.5 * t),
    "flatter": lambda g, t: 0.5 + (g - 0.5) * (1 - 0.7 * t),
    "shifted": lambda g, t: g + 0.15 * t,
}


@pytest.mark.parametrize("name", ["brighter", "darker", "flatter", "shifted"])
def test_the_distance_grows_with_a_growing_change_of_tone(name: str, eight: list[Reference]) -> None:
    centre = distribution([r.descriptor for r in eight])
    grey = chest(seed=100)
    steps = [distance(described(image_of(CHANGES[name](grey, t))), centre) for t in np.linspace(0.2, 1, 7)]
    assert steps == sorted(steps)
    assert steps[-1] > steps[0] + 1


def test_the_distance_grows_with_growing_detail_contrast(eight: list[Reference]) -> None:
    centre = distribution([r.descriptor for r in eight])
    bones = [0.06, 0.1, 0.15, 0.2, 0.25]
    steps = [distance(described(image_of(chest(seed=100, bone=b))), centre) for b in bones]
    assert steps == sorted(steps)


def test_the_centre_is_at_distance_zero_and_one_floor_off_is_one() -> None:
    descriptor = references(1)[0].descriptor
    centre = distribution([descriptor])
    off = Descriptor(tuple(q + TONE_FLOOR for q in descriptor.quantiles), tuple(e + 0.2 for e in descriptor.energies))
    assert distance(descriptor, centre) == 0
    assert distance(off, centre) == pytest.approx(1)


def test_the_threshold_is_the_95th_percentile_of_leaving_each_one_out() -> None:
    descriptors = [r.descriptor for r in references(12)]
    wide = [replace(d, energies=tuple(e + 0.2 * i**2 for e in d.energies)) for i, d in enumerate(descriptors)]
    by_hand = [distance(d, distribution(wide[:i] + wide[i + 1 :])) for i, d in enumerate(wide)]
    assert leave_one_out(wide) == tuple(by_hand)
    assert conforming_threshold(wide) == pytest.approx(float(np.quantile(by_hand, 0.95)))
    assert conforming_threshold(wide) > LEAST_THRESHOLD


def test_near_copies_and_a_single_reference_have_the_least_threshold() -> None:
    one = references(1)[0].descriptor
    assert conforming_threshold([one]) == LEAST_THRESHOLD
    assert conforming_threshold([one] * 9) == LEAST_THRESHOLD


def test_the_most_similar_reference_is_the_image_itself_and_ties_go_by_id() -> None:
    drawn = references(6)
    bank = build_bank("drawn", EXAM, drawn)
    for reference in drawn:
        assert similar_references(bank, reference.geometry, 3)[0].id == reference.id
    same = build_bank("same", EXAM, [replace(drawn[0], id=i * 64) for i in "cab"])
    assert [r.id[0] for r in similar_references(same, drawn[1].geometry, 2)] == ["a", "b"]


def test_more_references_than_there_are_is_all_of_them() -> None:
    bank = build_bank("drawn", EXAM, references(2))
    assert len(similar_references(bank, bank.references[0].geometry, 16)) == 2
