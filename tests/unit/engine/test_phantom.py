"""Hold the phantom to what the demo and other tests rely on. Knows no DICOM, file or clock."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from engine.phantom import VENDORS, Anatomy, make_phantom
from engine.phantom.make import _scene

SIDE = 192
NAMES = tuple(VENDORS)


@pytest.mark.parametrize("vendor", [NAMES[0], "Graven"])
def test_the_same_seed_gives_the_same_bytes_even_when_nothing_is_cached(vendor: str) -> None:
    first = make_phantom(5, vendor, SIDE)
    _scene.cache_clear()
    again = make_phantom(5, vendor, SIDE)
    assert first.codes.tobytes() == again.codes.tobytes()
    assert first.lungs.tobytes() == again.lungs.tobytes()


def test_all_vendors_show_the_same_anatomy() -> None:
    pictures = [make_phantom(5, name, SIDE) for name in NAMES]
    for other in pictures[1:]:
        assert np.array_equal(other.lungs, pictures[0].lungs)
        assert np.array_equal(other.heart, pictures[0].heart)
        assert other.anatomy == pictures[0].anatomy
        assert (other.view, other.spacing_mm) == (pictures[0].view, pictures[0].spacing_mm)


@pytest.mark.parametrize("vendor", NAMES[1:])
def test_grey_values_of_two_vendors_keep_nearly_the_same_order(vendor: str) -> None:
    one, two = make_phantom(5, NAMES[0], SIDE), make_phantom(5, vendor, SIDE)
    inside = (slice(15, -22), slice(15, -15))
    # The border is collimated, and vendors differ in whether they black it out.
    assert stats.spearmanr(one.shown[inside].ravel(), two.shown[inside].ravel()).statistic > 0.85


def test_vendors_look_different() -> None:
    medians = sorted(float(np.median(p.shown[p.lungs])) for p in (make_phantom(5, name, SIDE) for name in NAMES))
    assert medians[-1] - medians[0] > 0.25


@pytest.mark.parametrize("seed", [3, 5])
@pytest.mark.parametrize("vendor", NAMES)
def test_lungs_are_darker_than_the_heart_and_air_darker_than_lungs(seed: int, vendor: str) -> None:
    p = make_phantom(seed, vendor, SIDE)
    lungs, heart = np.median(p.shown[p.lungs]), np.median(p.shown[p.heart])
    air = np.median(p.shown[11:20, 25:45])
    assert air < lungs < heart - 0.05


@pytest.mark.parametrize("vendor", NAMES)
def test_an_inverted_vendor_stores_the_lungs_brighter_than_the_heart(vendor: str) -> None:
    p = make_phantom(5, vendor, SIDE)
    assert p.inverted == VENDORS[vendor].inverted
    assert (np.median(p.codes[p.lungs]) > np.median(p.codes[p.heart])) == p.inverted


@pytest.mark.parametrize("vendor", NAMES)
def test_codes_stay_under_the_stated_bits_and_use_them(vendor: str) -> None:
    p = make_phantom(5, vendor, SIDE)
    assert p.codes.dtype == np.uint16
    assert int(p.codes.max()) < 1 << p.bits
    assert int(p.codes.max()) - int(p.codes.min()) > (1 << p.bits) // 2
    assert 0.0 <= float(p.shown.min()) <= float(p.shown.max()) <= 1.0


def test_both_codings_and_several_bit_depths_exist() -> None:
    assert {row.inverted for row in VENDORS.values()} == {False, True}
    assert {row.bits for row in VENDORS.values()} >= {10, 12, 14}


def test_another_seed_is_another_person() -> None:
    one, two = make_phantom(3, NAMES[0], SIDE), make_phantom(5, NAMES[0], SIDE)
    assert one.anatomy != two.anatomy
    assert not np.array_equal(one.lungs, two.lungs)


def test_noise_falls_with_dose_and_nothing_else_changes() -> None:
    quiet = make_phantom(5, "Pallas", SIDE, dose_ugy=1e4)
    errors = []
    for dose in (0.05, 0.5, 5.0):
        noisy = make_phantom(5, "Pallas", SIDE, dose_ugy=dose)
        assert np.array_equal(noisy.lungs, quiet.lungs)
        errors.append(float(np.std((noisy.shown - quiet.shown)[noisy.heart])))
    assert errors[0] > 2.0 * errors[1] > 4.0 * errors[2]


@pytest.mark.parametrize("seed", [5, 1, 6])
def test_the_heart_is_as_wide_as_drawn(seed: int) -> None:
    p = make_phantom(seed, NAMES[0], SIDE)
    columns = np.flatnonzero(p.heart.any(axis=0))
    thorax_mm = 20.0 * p.anatomy.lung_half_width
    ratio = (columns[-1] - columns[0] + 1) * p.spacing_mm / thorax_mm
    assert ratio == pytest.approx(p.anatomy.cardiothoracic_ratio, abs=0.03)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**40))
def test_every_drawn_person_is_plausible(seed: int) -> None:
    a = Anatomy.drawn(seed)
    assert asdict(a) == asdict(Anatomy.drawn(seed))
    assert 0.36 <= a.cardiothoracic_ratio <= 0.60
    assert 24.0 <= 2.0 * a.lung_half_width <= 30.0
    assert 17.0 <= a.lung_height <= 25.0
    assert a.fat < a.wall
    assert a.rib_pairs in (11, 12)


def test_both_views_occur() -> None:
    assert {Anatomy.drawn(seed).view for seed in range(12)} == {"PA", "AP"}


@pytest.mark.parametrize("size", [(255, 213), (65, 301)])
def test_any_size_is_honoured_with_a_field_that_fits(size: tuple[int, int]) -> None:
    p = make_phantom(7, NAMES[0], size)
    assert p.codes.shape == p.lungs.shape == p.heart.shape == size
    assert p.spacing_mm == pytest.approx(max(392.0 / size[0], 328.0 / size[1]))
    assert p.lungs.any()
    assert not p.lungs[0].any()


def test_without_a_size_the_vendor_uses_its_own_matrix() -> None:
    row = VENDORS["Meridian"]
    p = make_phantom(7, "Meridian")
    assert p.codes.shape == row.matrix
    assert p.spacing_mm == row.spacing_mm


@pytest.mark.parametrize("vendor", NAMES)
def test_the_stated_matrix_and_spacing_cover_the_common_field(vendor: str) -> None:
    row = VENDORS[vendor]
    fitted = max(392.0 / row.matrix[0], 328.0 / row.matrix[1])
    assert fitted == pytest.approx(row.spacing_mm, rel=1e-3)


def test_a_finer_matrix_shows_the_same_lungs() -> None:
    coarse, fine = make_phantom(8, NAMES[0], (294, 246)), make_phantom(8, NAMES[0], (882, 738))
    agree = coarse.lungs == fine.lungs[1::3, 1::3]
    assert agree.mean() > 0.99


def test_a_caller_cannot_change_the_truth_of_the_next_picture() -> None:
    p = make_phantom(5, NAMES[0], SIDE)
    with pytest.raises(ValueError, match="read-only"):
        p.lungs[0, 0] = True


@pytest.mark.parametrize(
    ("seed", "vendor", "size", "dose", "told"),
    [
        (1, "Nobody", 256, None, "no such vendor"),
        (-1, "Umbra", 256, None, "seed"),
        (1, "Umbra", 63, None, "each side"),
        (1, "Umbra", (256, 5000), None, "each side"),
        (1, "Umbra", 256, 0.0, "dose_ugy"),
    ],
)
def test_nonsense_is_refused_by_name(
    seed: int, vendor: str, size: int | tuple[int, int], dose: float | None, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        make_phantom(seed, vendor, size, dose_ugy=dose)
