"""Settings refuse what can't work, and their digest follows what affects pixels."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine import METHODS, EngineSettings, InvalidSettings


def test_the_default_is_the_fitted_curve_alone() -> None:
    assert EngineSettings().methods == ("fitted_curve",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ()}, "methods: expected one or more"),
        ({"methods": "fitted_curve"}, "methods: expected one or more"),
        ({"methods": ("fited_curve",)}, "did you mean fitted_curve"),
        ({"methods": ("z_score", "z_score")}, "methods: each method may stand once"),
        ({"device": "gpu"}, "device: expected one of auto, cpu, cuda"),
        ({"min_improvement": 1.5}, "min_improvement: expected 0 to 1"),
        ({"max_slope": 0.5}, "max_slope: expected 1 to"),
        ({"min_slope": float("nan")}, "min_slope: expected a number"),
        ({"distance_threshold": -1.0}, "distance_threshold"),
        ({"similar_references": 0}, "similar_references"),
        ({"max_clipped_share": True}, "max_clipped_share"),
        ({"min_anatomy_agreement": 2.0}, "min_anatomy_agreement"),
    ],
)
def test_a_wrong_setting_is_named_with_its_range(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidSettings, match=message):
        EngineSettings(**change)  # type: ignore[arg-type]


def test_the_digest_changes_with_every_setting_but_the_device() -> None:
    plain = EngineSettings()
    changes = {
        "methods": METHODS,
        "distance_threshold": 2.0,
        "min_improvement": 0.1,
        "similar_references": 3,
        "min_alignment_confidence": 0.5,
        "min_anatomy_agreement": 0.0,
        "min_kept_codes_share": 0.5,
        "max_clipped_share": 0.1,
        "min_slope": 0.1,
        "max_slope": 9.0,
        "max_inverted_share": 0.1,
        "max_tone_residual": 0.1,
    }
    assert set(changes) == set(EngineSettings.__dataclass_fields__) - {"device"}
    for name, value in changes.items():
        assert replace(plain, **{name: value}).digest != plain.digest, name
    assert replace(plain, device="cpu").digest == plain.digest
