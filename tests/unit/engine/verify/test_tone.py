"""Each figure of the anatomy check measures what its sentence says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine import FIGURES, EngineSettings, Figure
from engine.harmonize.codes import count_codes
from engine.verify import check_tone, tone_of_pixels, tone_of_table

LEVELS = 256


def ramp() -> tuple[torch.Tensor, torch.Tensor]:
    """Every code 16 times, all inside."""
    codes = torch.arange(LEVELS, dtype=torch.int32).repeat(16)[None].reshape(1, 16, LEVELS)
    return codes, torch.ones_like(codes, dtype=torch.bool)


def figures(lut: torch.Tensor) -> dict[str, Figure]:
    """Figures of a table, after making sure that the two ways to measure agree."""
    codes, inside = ramp()
    lut = lut.to(torch.int32)
    by_table = check_tone(tone_of_table(count_codes(codes, inside, LEVELS), lut), LEVELS, EngineSettings())
    by_pixel = check_tone(tone_of_pixels(codes, lut[codes.long()], inside, LEVELS), LEVELS, EngineSettings())
    assert [f.name for f in by_table] == [f.name for f in by_pixel]
    for a, b in zip(by_table, by_pixel, strict=True):
        assert a.value == pytest.approx(b.value), a.name
    return {f.name: f for f in by_table}


def test_doing_nothing_passes_with_perfect_figures() -> None:
    found = figures(torch.arange(LEVELS))
    assert all(f.passed for f in found.values())
    assert {n: f.value for n, f in found.items()} == {
        "curve_monotone": 1,
        "kept_codes_share": 1,
        "clipped_share": 0,
        "minimum_slope": 1,
        "maximum_slope": 1,
        "inverted_share": 0,
        "tone_residual": 0,
    }


def test_every_figure_is_in_the_table() -> None:
    assert set(figures(torch.arange(LEVELS))) <= set(FIGURES)


def failed(lut: torch.Tensor) -> set[str]:
    return {name for name, figure in figures(lut).items() if not figure.passed}


def test_clipping_is_the_share_newly_at_an_end() -> None:
    lut = torch.arange(LEVELS).clamp(26, 255) - 26
    assert figures(lut)["clipped_share"].value == pytest.approx(26 / 256)
    assert "clipped_share" in failed(lut)


def test_merging_codes_is_counted() -> None:
    lut = torch.arange(LEVELS) // 4 * 4
    assert figures(lut)["kept_codes_share"].value == 0.25
    assert "kept_codes_share" in failed(lut)


def test_a_swap_of_two_codes_is_an_inversion() -> None:
    lut = torch.arange(LEVELS)
    lut[100], lut[101] = 101, 100
    found = figures(lut)
    assert found["curve_monotone"].value == 0
    assert found["inverted_share"].value == pytest.approx(1 / 256)
    assert {"curve_monotone", "inverted_share"} >= failed(lut) >= {"inverted_share"}


def test_a_negative_is_nearly_all_inverted() -> None:
    assert figures(torch.arange(LEVELS).flip(0))["inverted_share"].value > 0.99


def test_flat_and_steep_places_are_found() -> None:
    flat = torch.cat([torch.arange(100), torch.full((40,), 100), torch.arange(101, 217)])
    assert figures(flat)["minimum_slope"].value < 0.05
    assert "minimum_slope" in failed(flat)
    steep = torch.cat([torch.arange(100), torch.arange(100, 250, 7), torch.full((134,), 255)])[:LEVELS]
    assert figures(steep)["maximum_slope"].value > 5
    assert "maximum_slope" in failed(steep)


def test_one_code_becoming_several_is_a_residual() -> None:
    codes, inside = ramp()
    after = codes.clone()
    after[:, ::2] = (after[:, ::2] + 20).clamp(max=255)
    found = {f.name: f for f in check_tone(tone_of_pixels(codes, after, inside, LEVELS), LEVELS, EngineSettings())}
    assert found["curve_monotone"].value == 0
    assert found["tone_residual"].value == pytest.approx(10 / 255, rel=0.1)
    assert not found["tone_residual"].passed


def test_only_the_field_counts() -> None:
    codes, inside = ramp()
    inside[:, :, 200:] = False
    lut = torch.arange(LEVELS, dtype=torch.int32)
    lut[200:] = 255
    found = check_tone(tone_of_table(count_codes(codes, inside, LEVELS), lut), LEVELS, EngineSettings())
    assert all(f.passed for f in found)


def test_a_field_of_one_code_has_figures() -> None:
    codes = torch.full((1, 16, 16), 7, dtype=torch.int32)
    every = torch.ones_like(codes, dtype=torch.bool)
    identity = torch.arange(LEVELS, dtype=torch.int32)
    found = check_tone(tone_of_table(count_codes(codes, every, LEVELS), identity), LEVELS, EngineSettings())
    assert all(f.passed and np.isfinite(f.value) for f in found)
