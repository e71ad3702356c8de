"""A change made again from what was reported of it: the same bits, by whoever does the sums."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine import (
    METHODS,
    Bank,
    Engine,
    EngineSettings,
    Harmonized,
    Image,
    InvalidBank,
    InvalidReplay,
    build_bank,
    is_curve,
    replay_curve,
)
from engine.harmonize import HARMONIZERS, Curve
from tests.unit.engine.pictures import EXAM, chest, image_of, references

CURVES = [name for name in METHODS if is_curve(name)]
coefficient = st.floats(-0.9, 0.9, allow_nan=False).map(lambda a: round(a, 6))


@pytest.fixture(scope="module")
def bank() -> Bank:
    return build_bank("drawn", EXAM, references(6))


@pytest.fixture(scope="module")
def dark() -> Image:
    return image_of(chest(seed=50) ** 1.9)


def plain(method: str, parameters: Mapping[str, float], code: int, levels: int) -> int:
    """What a method makes of one code, in Python's floats: the text of `METHODS`, written a second time."""
    y = code / (levels - 1)
    if method == "fitted_curve":
        for k in range(1, 9):
            y = y + parameters[f"alpha_{k}"] * (y * (1.0 - y))
    elif method == "window_clamp":
        low, high = parameters["window_low"], parameters["window_high"]
        y = (y - low) / max(high - low, 1 / (levels - 1))
    else:
        y = parameters["gain"] * y + parameters["offset"]
    if method != "fitted_curve":
        y = min(max(y, 0.0), 1.0)
    return min(max(math.floor(y * (levels - 1) + 0.5), 0), levels - 1)


def ramp(levels: int) -> Image:
    """Every code of `levels` once."""
    codes = torch.arange(levels).reshape(1, 16, -1)
    values = (codes.double() / (levels - 1)).float()
    return Image(values, torch.zeros_like(values, dtype=torch.bool), levels)


def codes_of(values: torch.Tensor, levels: int) -> list[int]:
    return [int(v) for v in (values.double() * (levels - 1)).round().flatten()]


@given(alphas=st.lists(coefficient, min_size=8, max_size=8), bits=st.sampled_from((8, 10, 12)))
def test_a_curve_is_that_of_a_second_implementation_for_every_code(alphas: list[float], bits: int) -> None:
    levels = 2**bits
    parameters = {f"alpha_{k}": a for k, a in enumerate(alphas, start=1)}
    made = codes_of(replay_curve(ramp(levels), "fitted_curve", 1, parameters), levels)
    assert made == [plain("fitted_curve", parameters, code, levels) for code in range(levels)]


@given(
    method=st.sampled_from(("window_clamp", "z_score")),
    one=st.floats(-2, 2, allow_nan=False),
    other=st.floats(-2, 2, allow_nan=False),
)
def test_so_is_a_window_and_a_line(method: str, one: float, other: float) -> None:
    names = ("window_low", "window_high") if method == "window_clamp" else ("gain", "offset")
    parameters = dict(zip(names, (one, other), strict=True))
    made = codes_of(replay_curve(ramp(4096), method, 1, parameters), 4096)
    assert made == [plain(method, parameters, code, 4096) for code in range(4096)]


def test_sixteen_bits_are_exact_too() -> None:
    parameters = {f"alpha_{k}": (-1) ** k * 0.1 * k for k in range(1, 9)}
    made = codes_of(replay_curve(ramp(65536), "fitted_curve", 1, parameters), 65536)
    assert made == [plain("fitted_curve", parameters, code, 65536) for code in range(65536)]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_the_same_pixels_again(bank: Bank, dark: Image, method: str) -> None:
    settings = EngineSettings(
        device="cpu", methods=(method,), distance_threshold=0.0, min_slope=0.0, max_slope=1e6, max_clipped_share=1.0,
        min_kept_codes_share=0.0, max_tone_residual=1.0, max_inverted_share=1.0, min_improvement=0.0,
    )  # fmt: skip
    engine = Engine(settings, {bank.name: bank})
    (decided,) = engine.run([dark], "drawn")
    assert isinstance(decided, Harmonized)
    assert decided.chosen.version == HARMONIZERS[method].version
    assert torch.equal(engine.replay(dark, "drawn", bank.digest, method, 1), decided.values)
    if is_curve(method):
        again = replay_curve(dark, method, decided.chosen.version, decided.chosen.parameters)
        assert torch.equal(again, decided.values)


def test_padding_keeps_its_code_in_a_replay_too() -> None:
    image = ramp(256)
    padding = torch.zeros_like(image.padding)
    padding[:, 3:5] = True
    made = replay_curve(Image(image.values, padding, 256), "z_score", 1, {"gain": 0.5, "offset": 0.25})
    assert torch.equal(made[padding], image.values[padding])
    assert not torch.equal(made[~padding], image.values[~padding])


def test_histogram_matching_is_no_curve_and_all_others_are() -> None:
    assert CURVES == ["fitted_curve", "window_clamp", "z_score"]
    assert all(isinstance(HARMONIZERS[name], Curve) for name in CURVES)
    with pytest.raises(InvalidReplay, match="no curve"):
        replay_curve(ramp(256), "histogram_matching", 1, {})


@pytest.mark.parametrize(
    ("method", "version", "parameters", "said"),
    [
        ("gdce", 1, {}, "no method is called 'gdce'"),
        ("fitted_curve", 2, {}, "at version 1 here and was at 2"),
        ("fitted_curve", 1, {"alpha_1": 0.5}, "expected the parameters alpha_1"),
        ("fitted_curve", 1, {f"alpha_{k}": 1.5 for k in range(1, 9)}, "strictly between -1 and 1"),
        ("z_score", 1, {"gain": math.nan, "offset": 0.0}, "finite numbers"),
        ("z_score", 1, {"gain": "1", "offset": 0.0}, "finite numbers"),
        ("window_clamp", 1, {"gain": 1.0, "offset": 0.0}, "expected the parameters window_low"),
    ],
)
def test_what_can_not_be_applied_is_said(method: str, version: int, parameters: dict[str, float], said: str) -> None:
    with pytest.raises(InvalidReplay, match=said):
        replay_curve(ramp(256), method, version, parameters)


def test_a_bank_of_another_content_is_no_replay(bank: Bank, dark: Image) -> None:
    engine = Engine(EngineSettings(device="cpu"), {bank.name: bank})
    with pytest.raises(InvalidBank, match="another content here"):
        engine.replay(dark, "drawn", "0" * 64, "histogram_matching", 1)
    with pytest.raises(InvalidBank, match="it is not here"):
        engine.replay(dark, "other", bank.digest, "histogram_matching", 1)
    with pytest.raises(InvalidReplay, match="at version 1 here"):
        engine.replay(dark, "drawn", bank.digest, "histogram_matching", 9)
