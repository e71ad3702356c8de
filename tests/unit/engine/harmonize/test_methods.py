"""Every method does what it is named for, on the source's grey codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine import METHODS, Image
from engine.field import find_field
from engine.harmonize import HARMONIZERS, Proposal, Source, Target
from engine.harmonize.codes import apply_lut, grey_codes, grey_values, to_lut
from engine.harmonize.curve import on_codes
from engine.harmonize.fitted_curve import BOUND, fit
from engine.style import describe, distance, distribution
from engine.working import to_working, working_image
from tests.unit.engine.pictures import chest, image_of, references


def source_of(image: Image) -> Source:
    working = working_image(image)
    field = find_field(working)
    descriptor, detail = describe(working.grey, field.working)
    inside = field.full(image.height, image.width, torch.device("cpu"))
    return Source(image, grey_codes(image), inside, field, descriptor, detail)


@pytest.fixture(scope="module")
def target() -> Target:
    drawn = references(6)
    return Target(distribution([r.descriptor for r in drawn]), tuple(drawn[:3]))


@pytest.fixture(scope="module")
def dark() -> Source:
    return source_of(image_of(chest(seed=50) ** 1.9))


def changed(proposal: Proposal, source: Source) -> torch.Tensor:
    """The codes that a proposal stands for."""
    if proposal.codes is not None:
        return proposal.codes
    assert proposal.lut is not None
    return apply_lut(source.codes, proposal.lut)


def distance_after(proposal: Proposal, source: Source, target: Target) -> float:
    values = grey_values(changed(proposal, source), source.image.levels)
    descriptor, _ = describe(to_working(values, source.image.padding).grey, source.field.working)
    return distance(descriptor, target.centre)


def test_every_named_method_exists_and_bears_its_name() -> None:
    assert tuple(HARMONIZERS) == METHODS
    assert all(HARMONIZERS[name].name == name for name in METHODS)


@pytest.mark.parametrize("levels", [2, 256, 4096, 65536])
def test_codes_and_values_are_each_others_inverse(levels: int) -> None:
    codes = torch.arange(levels, dtype=torch.int32).repeat(16)[: 16 * max(16, levels)].reshape(1, 16, -1)
    values = grey_values(codes, levels)
    padding = torch.zeros((1, 16, max(16, values.shape[2])), dtype=torch.bool)
    wide = torch.zeros(padding.shape)
    wide[:, :, : values.shape[2]] = values
    assert torch.equal(grey_codes(Image(wide, padding, levels))[:, :, : values.shape[2]], codes)


def test_a_table_takes_the_nearest_code_half_up_and_never_leaves_the_range() -> None:
    greys = np.array([-0.1, 0.49 / 255, 0.5 / 255, 0.51 / 255, 1.45 / 255, 1.2])
    assert to_lut(greys, 256).tolist() == [0, 0, 1, 1, 1, 255]


@pytest.mark.parametrize("method", METHODS)
def test_a_proposal_is_either_a_table_or_codes_and_lies_on_the_codes(method: str, dark: Source, target: Target) -> None:
    proposal = HARMONIZERS[method].harmonize(dark, target)
    assert (proposal.lut is None) != (proposal.codes is None)
    codes = changed(proposal, dark)
    assert codes.dtype == torch.int32
    assert codes.shape == dark.codes.shape
    assert 0 <= int(codes.min()) <= int(codes.max()) < dark.image.levels


@pytest.mark.parametrize("method", METHODS)
def test_the_same_input_gives_the_same_bits(method: str, dark: Source, target: Target) -> None:
    first, second = (HARMONIZERS[method].harmonize(dark, target) for _ in range(2))
    assert torch.equal(changed(first, dark), changed(second, dark))
    assert first.parameters == second.parameters


@pytest.mark.parametrize("method", ["fitted_curve", "z_score", "histogram_matching"])
def test_a_darkened_image_comes_closer(method: str, dark: Source, target: Target) -> None:
    before = distance(dark.descriptor, target.centre)
    assert distance_after(HARMONIZERS[method].harmonize(dark, target), dark, target) < 0.6 * before


def test_the_fitted_curve_undoes_a_known_tone(dark: Source, target: Target) -> None:
    assert distance_after(HARMONIZERS["fitted_curve"].harmonize(dark, target), dark, target) < 1.0


def test_the_fitted_curve_leaves_an_image_at_the_centre_nearly_alone(target: Target) -> None:
    source = source_of(image_of(chest(seed=100)))
    lut = HARMONIZERS["fitted_curve"].harmonize(source, target).lut
    assert lut is not None
    moved = (lut - torch.arange(4096)).abs().double() / 4095
    assert float(moved.max()) < 0.05


def test_the_coefficients_are_bounded_short_and_make_the_table(dark: Source, target: Target) -> None:
    proposal = HARMONIZERS["fitted_curve"].harmonize(dark, target)
    alphas = [proposal.parameters[f"alpha_{k}"] for k in range(1, 9)]
    assert all(isinstance(a, float) and abs(a) <= BOUND and a == round(a, 6) for a in alphas)
    assert proposal.lut is not None
    assert torch.equal(to_lut(on_codes(alphas, 4096), 4096), proposal.lut)  # type: ignore[arg-type]


def test_a_flat_image_can_be_fitted(target: Target) -> None:
    coefficients = fit(source_of(image_of(np.full((64, 64), 0.5))), target)
    assert len(coefficients) == 8
    assert all(abs(a) <= BOUND for a in coefficients)


def test_window_clamp_spreads_the_window_over_the_whole_range(dark: Source, target: Target) -> None:
    proposal = HARMONIZERS["window_clamp"].harmonize(dark, target)
    inside = changed(proposal, dark)[dark.inside]
    assert int(inside.min()) == 0
    assert int(inside.max()) == 4095


def test_z_score_reaches_the_banks_mean_and_deviation(target: Target) -> None:
    source = source_of(image_of(0.4 + 0.2 * chest(seed=50)))
    proposal = HARMONIZERS["z_score"].harmonize(source, target)
    after = grey_values(changed(proposal, source), 4096)[source.inside]
    assert float(after.mean()) == pytest.approx(float(target.centre.quantile_centre.mean()), abs=0.02)
    assert float(after.std()) == pytest.approx(float(target.centre.quantile_centre.std()), rel=0.1)


def test_histogram_matching_is_exact_and_never_swaps(dark: Source, target: Target) -> None:
    proposal = HARMONIZERS["histogram_matching"].harmonize(dark, target)
    old, new = dark.codes[dark.inside].long(), changed(proposal, dark)[dark.inside].long()
    wanted = np.interp(0.5, np.linspace(0.005, 0.995, 33), target.centre.quantile_centre)
    assert float(new.double().median()) / 4095 == pytest.approx(wanted, abs=2e-3)
    order = torch.argsort(old * 8192 + new)
    assert bool((new[order].diff() >= 0).all())
