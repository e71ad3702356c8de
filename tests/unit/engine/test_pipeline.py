"""Each outcome is reached through the real pipeline, with the number that decided."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine import (
    ENGINE_VERSION,
    FIGURES,
    METHODS,
    Bank,
    Conforming,
    DeviceFault,
    Engine,
    EngineSettings,
    Harmonized,
    Image,
    InvalidBank,
    InvalidSettings,
    Refused,
    build_bank,
    default_banks,
)
from engine.harmonize.codes import to_lut
from engine.harmonize.curve import on_codes
from tests.unit.engine.pictures import EXAM, chest, image_of, needs_data, real, references


@pytest.fixture(scope="module")
def bank() -> Bank:
    return build_bank("drawn", EXAM, references(6))


@pytest.fixture(scope="module")
def dark() -> Image:
    return image_of(chest(seed=50) ** 1.9)


def engine(bank: Bank, **settings: object) -> Engine:
    return Engine(EngineSettings(device="cpu", **settings), {bank.name: bank})  # type: ignore[arg-type]


def test_an_image_like_the_bank_conforms_and_nothing_is_tried(bank: Bank) -> None:
    (decided,) = engine(bank).run([image_of(chest(seed=51))], "drawn")
    assert isinstance(decided, Conforming)
    assert decided.trace.distance_before <= decided.trace.threshold == bank.threshold
    assert decided.trace.candidates == ()


def test_a_darkened_image_is_harmonized_by_a_verified_curve(bank: Bank, dark: Image) -> None:
    (decided,) = engine(bank).run([dark], "drawn")
    assert isinstance(decided, Harmonized)
    assert decided.chosen in decided.trace.candidates
    assert decided.chosen.verified
    assert decided.chosen.distance <= decided.trace.threshold < decided.trace.distance_before
    assert decided.values.shape == dark.values.shape
    assert decided.values.dtype == torch.float32


def test_a_harmonized_image_can_be_made_again_from_its_eight_numbers(bank: Bank, dark: Image) -> None:
    (decided,) = engine(bank).run([dark], "drawn")
    assert isinstance(decided, Harmonized)
    alphas = [float(decided.chosen.parameters[f"alpha_{k}"]) for k in range(1, 9)]  # type: ignore[arg-type]
    curve = (to_lut(on_codes(alphas, 4096), 4096).double() / 4095).float()
    assert decided.curve is not None
    assert torch.equal(decided.curve, curve)
    assert torch.equal(curve[(dark.values * 4095).round().long()], decided.values)


def test_a_harmonized_image_would_conform_if_it_came_again(bank: Bank, dark: Image) -> None:
    (decided,) = engine(bank).run([dark], "drawn")
    assert isinstance(decided, Harmonized)
    (again,) = engine(bank).run([Image(decided.values, dark.padding, dark.levels)], "drawn")
    assert isinstance(again, Conforming)


def test_a_negative_is_refused_by_its_layout_before_anything_is_tried(bank: Bank) -> None:
    (decided,) = engine(bank).run([image_of(1 - chest(seed=51))], "drawn")
    assert isinstance(decided, Refused)
    assert decided.deciding is not None
    assert decided.deciding.name == "anatomy_agreement"
    assert not decided.deciding.passed
    assert decided.trace.candidates == ()


def test_a_method_that_clips_is_refused_by_the_clipped_share(bank: Bank, dark: Image) -> None:
    (decided,) = engine(bank).run([dark], "drawn", ["window_clamp"])
    assert isinstance(decided, Refused)
    assert decided.deciding is not None
    assert decided.deciding.name == "clipped_share"


def test_too_small_a_gain_is_refused_by_the_distance_after(bank: Bank, dark: Image) -> None:
    (decided,) = engine(bank, distance_threshold=0.0, min_improvement=1.0).run([dark], "drawn")
    assert isinstance(decided, Refused)
    assert decided.deciding is not None
    assert decided.deciding.name == "distance_after"
    assert decided.deciding.value == decided.trace.candidates[0].distance > decided.deciding.limit == 0.0


def test_closer_by_the_margin_is_harmonized_though_not_within_the_threshold(bank: Bank, dark: Image) -> None:
    (decided,) = engine(bank, distance_threshold=0.0).run([dark], "drawn")
    assert isinstance(decided, Harmonized)
    assert "not within" in decided.reason


def test_methods_are_tried_in_the_order_given_until_one_is_good_enough(bank: Bank, dark: Image) -> None:
    (first,) = engine(bank).run([dark], "drawn", ["fitted_curve", "z_score"])
    assert [c.method for c in first.trace.candidates] == ["fitted_curve"]
    (later,) = engine(bank).run([dark], "drawn", ["window_clamp", "fitted_curve", "z_score"])
    assert [c.method for c in later.trace.candidates] == ["window_clamp", "fitted_curve"]
    assert isinstance(later, Harmonized)
    assert later.chosen.method == "fitted_curve"


def test_of_several_that_miss_the_threshold_the_closest_verified_wins(bank: Bank, dark: Image) -> None:
    (decided,) = engine(bank, distance_threshold=0.0).run([dark], "drawn", METHODS)
    assert isinstance(decided, Harmonized)
    assert [c.method for c in decided.trace.candidates] == list(METHODS)
    assert decided.chosen.distance == min(c.distance for c in decided.trace.candidates if c.verified)


def test_comparison_methods_run_only_when_named(bank: Bank, dark: Image) -> None:
    (decided,) = engine(bank, distance_threshold=0.0, min_improvement=1.0).run([dark], "drawn")
    assert [c.method for c in decided.trace.candidates] == ["fitted_curve"]


def test_every_figure_of_every_method_has_its_sentence(bank: Bank, dark: Image) -> None:
    (decided,) = engine(bank, distance_threshold=0.0).run([dark], "drawn", METHODS)
    for candidate in decided.trace.candidates:
        assert {f.name for f in candidate.figures} <= set(FIGURES)


def test_padding_keeps_its_code(bank: Bank) -> None:
    grey = chest(seed=50) ** 1.9
    padding = torch.zeros((1, *grey.shape), dtype=torch.bool)
    padding[:, :30] = True
    grey[:30] = 0.4
    image = image_of(grey, padding=padding)
    (decided,) = engine(bank, distance_threshold=0.0, min_anatomy_agreement=-1).run([image], "drawn")
    assert isinstance(decided, Harmonized)
    assert torch.equal(decided.values[padding], image.values[padding])
    assert not torch.equal(decided.values[~padding], image.values[~padding])


def test_images_do_not_influence_each_other_and_keep_their_order(bank: Bank, dark: Image) -> None:
    light = image_of(chest(seed=51))
    one, two, three = engine(bank).run([dark, light, dark], "drawn")
    (alone,) = engine(bank).run([dark], "drawn")
    assert isinstance(one, Harmonized)
    assert isinstance(two, Conforming)
    assert isinstance(three, Harmonized)
    assert isinstance(alone, Harmonized)
    assert one.trace == three.trace == alone.trace
    assert torch.equal(one.values, alone.values)
    assert torch.equal(one.values, three.values)


def test_a_bank_of_one_reference_works(dark: Image) -> None:
    single = build_bank("single", EXAM, references(1))
    (decided,) = engine(single).run([dark], "single")
    assert isinstance(decided, Harmonized)
    assert decided.trace.threshold == 1.0
    assert len(decided.trace.references) == 1


RNG = np.random.default_rng(0)
DEGENERATE = {
    "black": image_of(np.zeros((64, 48))),
    "grey": image_of(np.full((64, 48), 0.5)),
    "white": image_of(np.ones((64, 48)), 65536),
    "16x16": image_of(RNG.random((16, 16))),
    "a strip": image_of(RNG.random((16, 900))),
    "2 levels": image_of(RNG.random((60, 60)), 2),
    "65536 levels": image_of(RNG.random((60, 60)), 65536),
    "all padding": image_of(RNG.random((60, 60)), padding=torch.ones((1, 60, 60), dtype=torch.bool)),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_a_degenerate_image_ends_in_an_outcome_on_its_codes(name: str, bank: Bank) -> None:
    image = DEGENERATE[name]
    (decided,) = engine(bank, min_anatomy_agreement=-1).run([image], "drawn", METHODS)
    assert np.isfinite(decided.trace.distance_before)
    assert 0 < decided.trace.exposed_share <= 1
    if isinstance(decided, Harmonized):
        codes = decided.values.double() * (image.levels - 1)
        assert torch.allclose(codes, codes.round(), atol=0.01)


def test_a_trace_names_everything_that_decided(bank: Bank, dark: Image) -> None:
    (decided,) = engine(bank).run([dark], "drawn")
    (other,) = engine(bank).run([dark], "drawn", ["z_score"])
    trace = decided.trace
    assert (trace.bank, trace.bank_digest, trace.engine_version) == ("drawn", bank.digest, ENGINE_VERSION)
    assert trace.settings_digest == EngineSettings().digest
    assert set(trace.references) <= {r.id for r in bank.references}
    assert trace.weights_digest != other.trace.weights_digest


def test_an_unknown_bank_or_method_is_named(bank: Bank, dark: Image) -> None:
    with pytest.raises(InvalidBank, match="no bank is called 'breast'; there are drawn"):
        engine(bank).run([dark], "breast")
    with pytest.raises(InvalidSettings, match="did you mean z_score"):
        engine(bank).run([dark], "drawn", ["zscore"])


def test_cuda_that_is_not_there_is_refused_at_once(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidSettings, match="device"):
        Engine(EngineSettings(device="cuda"), {bank.name: bank})


def test_running_out_of_memory_is_a_device_fault(bank: Bank, dark: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr("engine.pipeline.to_working", full)
    with pytest.raises(DeviceFault, match="out of memory"):
        engine(bank).run([dark], "drawn")


@pytest.mark.data
@needs_data
@pytest.mark.parametrize("name", ["48c4542c", "7afaaccc"])
def test_a_real_low_contrast_chest_of_another_hospital_reaches_the_shipped_bank(name: str) -> None:
    banks = default_banks()
    (decided,) = Engine(EngineSettings(), banks).run([real(f"chest/hannover/{name}.png")], "chest_frontal")
    assert isinstance(decided, Harmonized)
    assert decided.chosen.distance <= banks["chest_frontal"].threshold < decided.trace.distance_before


@pytest.mark.data
@needs_data
def test_a_real_mammogram_or_negative_is_not_made_a_chest() -> None:
    engine_ = Engine(EngineSettings(), default_banks())
    chest_image = real("chest/nih/00008006_000.png")
    negative = Image(1 - chest_image.values, chest_image.padding, 256)
    assert all(
        isinstance(d, Refused) for d in engine_.run([negative, real("mammo/mini_mias/mdb154.png")], "chest_frontal")
    )
