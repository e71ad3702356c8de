"""The exposed field leaves out what is no anatomy, and is never empty."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from engine.field import FieldSource, find_field
from engine.working import working_image
from tests.unit.engine.pictures import DATA, chest, image_of, needs_data, real


def share_in(mask: np.ndarray, region: np.ndarray) -> float:
    return float(mask[region].mean())


def field_of(grey: np.ndarray, padding: torch.Tensor | None = None) -> np.ndarray:
    return find_field(working_image(image_of(grey, padding=padding))).working


@pytest.mark.parametrize("level", [0.0, 1.0])
@pytest.mark.parametrize("angle", [0.0, 3.0])
def test_a_collimated_border_is_outside_also_when_turned(level: float, angle: float) -> None:
    open_part = np.zeros((512, 460), bool)
    open_part[70:450, 60:400] = True
    open_part = ndimage.rotate(open_part.astype(np.uint8), angle, reshape=False, order=0).astype(bool)
    body = 0.35 + 0.3 * chest(512, 460)[::-1]
    mask = field_of(np.where(open_part, body, level))
    assert share_in(mask, ndimage.binary_erosion(open_part, iterations=8)) > 0.9
    if level == 0.0 or angle == 0.0:
        assert share_in(mask, ~ndimage.binary_dilation(open_part, iterations=8)) < 0.35


def test_air_is_outside_and_the_breast_is_the_field() -> None:
    y, x = np.mgrid[0:512, 0:400]
    breast = ((x / 230.0) ** 2 + ((y - 256) / 220.0) ** 2) < 1
    tissue = 0.4 + 0.15 * np.sin(x / 9.0) * np.cos(y / 7.0)
    mask = field_of(np.where(breast, tissue, 0.01))
    assert share_in(mask, breast) > 0.95
    assert share_in(mask, ~ndimage.binary_dilation(breast, iterations=6)) < 0.02


def test_a_label_in_the_air_is_outside() -> None:
    grey = chest(512, 460)
    label = np.zeros_like(grey, bool)
    label[10:30, 5:40] = True
    assert share_in(field_of(np.where(label, 1.0, grey)), label) < 0.05


def test_burned_in_text_over_the_body_is_outside() -> None:
    grey = chest(512, 460)
    strokes = np.zeros_like(grey, bool)
    strokes[190:220, 325:329] = True
    strokes[216:220, 325:345] = True
    mask = field_of(np.where(strokes, 1.0, grey))
    assert share_in(mask, strokes) < 0.05
    assert mask.mean() > 0.5


def test_padding_is_outside() -> None:
    padding = torch.zeros((1, 512, 460), dtype=torch.bool)
    padding[:, :100] = True
    mask = field_of(np.where(padding[0].numpy(), 0.7, chest(512, 460)), padding)
    assert not mask[:99].any()


def test_a_light_grey_shutter_below_a_bright_abdomen_is_outside() -> None:
    grey = chest(512, 460)
    grey[60:72, 100:300] = 1.0
    grey[450:] = 0.92
    mask = field_of(grey)
    assert mask[452:].mean() < 0.05
    assert mask[380:440, 60:400].mean() > 0.9


def test_a_smooth_bright_abdomen_is_no_shutter() -> None:
    y = np.mgrid[0:512, 0:460][0]
    bright = np.where(y > 300, 0.78 + 0.001 * (y - 300), chest(512, 460))
    assert field_of(bright)[440:500, 40:420].mean() > 0.9


@pytest.mark.parametrize("grey", [0.0, 0.5, 1.0])
def test_a_flat_image_falls_back_to_everything_that_is_no_padding(grey: float) -> None:
    field = find_field(working_image(image_of(np.full((64, 48), grey))))
    assert field.source is FieldSource.NON_PADDING
    assert field.share == 1.0


def test_padding_everywhere_falls_back_to_every_pixel() -> None:
    every = torch.ones((1, 64, 48), dtype=torch.bool)
    field = find_field(working_image(image_of(np.full((64, 48), 0.3), padding=every)))
    assert field.source is FieldSource.EVERYTHING
    assert field.working.all()


def test_a_field_too_small_to_be_true_falls_back() -> None:
    grey = np.zeros((512, 512))
    grey[230:280, 230:280] = 0.3 + 0.7 * np.random.default_rng(0).random((50, 50))
    assert find_field(working_image(image_of(grey))).source is FieldSource.NON_PADDING


def test_a_tone_curve_hardly_moves_the_field() -> None:
    grey = chest(512, 460)
    before, after = field_of(grey), field_of(grey**1.4)
    assert (before & after).sum() / (before | after).sum() > 0.9


def test_the_full_size_mask_has_the_image_size_and_share() -> None:
    image = image_of(chest(333, 250))
    field = find_field(working_image(image))
    full = field.full(image.height, image.width, torch.device("cpu"))
    assert full.shape == image.values.shape
    assert full.dtype == torch.bool
    assert float(full.double().mean()) == pytest.approx(field.share, abs=0.01)


@pytest.mark.data
@needs_data
def test_real_mammograms_lose_their_air_and_labels() -> None:
    for path in sorted((DATA / "mammo" / "mini_mias").rglob("*.png"))[:6]:
        field = find_field(working_image(real(str(path.relative_to(DATA)))))
        assert field.source is FieldSource.MEASURED
        assert 0.1 < field.share < 0.75, path.name


@pytest.mark.data
@needs_data
def test_real_chests_keep_most_of_the_body() -> None:
    for path in sorted((DATA / "chest" / "hannover").glob("*.png"))[:6]:
        field = find_field(working_image(real(str(path.relative_to(DATA)))))
        h, w = field.working.shape
        assert field.working[h // 4 : 3 * h // 4, w // 4 : 3 * w // 4].mean() > 0.93, path.name
