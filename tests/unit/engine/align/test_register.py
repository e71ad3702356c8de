"""Alignment finds known displacements, and gives up rather than guess."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.align import Frame, Layout, agreement, estimate, least_agreement, matrix, mean_frame, measure_layout, warp
from engine.field import find_field
from engine.types import Alignment, Image
from engine.working import working_image
from tests.unit.engine.pictures import chest, image_of


def layout_of(image: Image) -> Layout:
    working = working_image(image)
    return measure_layout(working.grey, find_field(working).working)


def in_a_margin(seed: int = 0) -> Image:
    """A chest with air all round, so that a displacement loses nothing."""
    return image_of(np.pad(chest(260, 240, seed=seed), ((60, 60), (70, 70)), constant_values=0.02))


@pytest.mark.parametrize(
    "moved",
    [
        Alignment("known", tx=0.06, ty=-0.04),
        Alignment("known", sx=0.9, sy=1.1),
        Alignment("known", tx=-0.05, ty=0.03, sx=1.08, sy=0.93, theta_rad=math.radians(4)),
        Alignment("known", theta_rad=math.radians(-7)),
    ],
)
def test_a_known_displacement_is_recovered(moved: Alignment) -> None:
    image = in_a_margin()
    frame = mean_frame([layout_of(image).geometry])
    found = estimate(layout_of(image_of(warp(image.values, moved, 0.02))), frame, 0.8)
    corners = np.array([[x, y, 1.0] for x in (-0.25, 0.25) for y in (-0.25, 0.25)]).T
    there = np.vstack([matrix(moved) @ corners, np.ones(4)])
    before = np.linalg.norm(there[:2] - corners[:2], axis=0).mean()
    after = np.linalg.norm(matrix(found) @ there - corners[:2], axis=0).mean()
    assert found.method == "projections"
    assert after < 0.02, f"{before:.3f} left {after:.3f} of the long side"
    assert after < before / 2


def test_the_matrix_scales_along_the_image_axes_and_then_turns() -> None:
    found = matrix(Alignment("known", tx=0.1, ty=-0.2, sx=1.2, sy=0.9, theta_rad=math.pi / 6))
    half, long = 0.5, math.sqrt(3) / 2
    assert np.allclose(found, [[1.2 * long, -0.9 * half, 0.1], [1.2 * half, 0.9 * long, -0.2]])


def test_an_image_on_the_frame_hardly_moves() -> None:
    layout = layout_of(in_a_margin())
    found = estimate(layout, mean_frame([layout.geometry]), 0.8)
    assert np.abs(matrix(found) - np.eye(2, 3)).max() < 0.01
    assert found.confidence > 0.98


def test_low_confidence_gives_the_identity_and_says_so() -> None:
    layout = layout_of(in_a_margin())
    noise = layout_of(image_of(np.random.default_rng(0).random((300, 300))))
    found = estimate(noise, mean_frame([layout.geometry]), 0.99)
    assert found == Alignment("identity", confidence=found.confidence)
    assert found.confidence < 0.99


def test_no_parameter_leaves_its_guard() -> None:
    frame = mean_frame([layout_of(in_a_margin()).geometry])
    far = warp(in_a_margin().values, Alignment("known", tx=0.3, sx=0.6, sy=0.6), 0.02)
    found = estimate(layout_of(image_of(far)), frame, 0.0)
    assert abs(found.tx) <= 0.25
    assert abs(found.ty) <= 0.25
    assert 0.75 <= found.sx <= 1.3
    assert 0.75 <= found.sy <= 1.3
    assert abs(found.theta_rad) <= math.radians(15)


def test_warp_by_the_identity_changes_nothing_and_shifts_show_the_background() -> None:
    values = in_a_margin().values
    assert torch.allclose(warp(values, Alignment("identity")), values, atol=1e-3)
    shifted = warp(values, Alignment("known", tx=0.25), background=0.5)
    assert torch.equal(shifted[:, :, :20], torch.full_like(shifted[:, :, :20], 0.5))
    side = max(values.shape)
    assert torch.allclose(shifted[:, :, side // 4 :], values[:, :, : values.shape[2] - side // 4], atol=1e-3)


def test_a_negative_agrees_less_than_any_chest() -> None:
    geometries = [layout_of(image_of(chest(seed=i))).geometry for i in range(6)]
    least = least_agreement(geometries)
    negative = layout_of(image_of(1 - chest(seed=9))).geometry
    assert agreement(layout_of(image_of(chest(seed=9))).geometry, mean_frame(geometries)) >= least
    assert agreement(negative, mean_frame(geometries)) < least


def test_few_references_refuse_nobody() -> None:
    assert least_agreement([layout_of(image_of(chest())).geometry] * 4) == -1.0


def test_agreement_with_an_empty_frame_is_zero() -> None:
    geometry = layout_of(image_of(chest())).geometry
    empty = Frame(geometry.centre, geometry.spread, (0.0,) * 48, (0.0,) * 48)
    assert agreement(geometry, empty) == 0.0
    assert agreement(replace(geometry, profile_x=empty.profile_x, profile_y=empty.profile_y), empty) == 0.0
