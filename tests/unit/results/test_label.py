"""The words that a site has drawn into changed images."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from dicom_node.results.label import drawn

WORDS = "HARMONIZED - NOT ORIGINAL"


def noise(rows: int, columns: int, bits: int = 12) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    return np.random.default_rng(1).integers(100, 2**bits - 100, (rows, columns)).astype(np.uint16)


def test_the_words_are_white_on_black_and_the_rest_is_as_it_was() -> None:
    codes = noise(512, 600)
    before = codes.copy()
    out = drawn(codes, 12, WORDS)
    assert out is not None
    changed = out != before
    assert np.array_equal(codes, before)
    assert set(np.unique(out[changed])) <= {0, 4095}
    assert 0.2 < (out[changed] == 4095).mean() < 0.6
    rows, columns = np.nonzero(changed)
    assert rows.max() - rows.min() < 0.1 * 512
    assert columns.max() - columns.min() < 0.7 * 600
    assert min(rows.min(), columns.min(), 511 - rows.max(), 599 - columns.max()) > 0


@pytest.mark.parametrize("side", [512, 4000])
def test_a_line_is_as_high_for_a_reader_whatever_the_size(side: int) -> None:
    out = drawn(np.zeros((side, side), np.uint16), 12, WORDS)
    assert out is not None
    rows, columns = np.nonzero(out)
    assert 0.02 < (rows.max() - rows.min()) / side < 0.06
    assert 0.4 < (columns.max() - columns.min()) / side < 0.7


@pytest.mark.parametrize("empty", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_the_corner_is_the_one_that_hides_least(empty: tuple[int, int]) -> None:
    codes = noise(400, 800)
    top, left = empty
    codes[top * 200 : top * 200 + 200, left * 400 : left * 400 + 400] = 3000
    out = drawn(codes, 12, WORDS)
    assert out is not None
    rows, columns = np.nonzero(out != codes)
    assert (rows.min() // 200, columns.min() // 400, rows.max() // 200, columns.max() // 400) == (top, left, top, left)


def test_a_marker_in_a_dark_corner_keeps_its_place() -> None:
    codes = np.zeros((500, 500), np.uint16)
    codes[10:60, 10:40] = 4000
    out = drawn(codes, 12, WORDS)
    assert out is not None
    assert np.array_equal(out[10:60, 10:40], codes[10:60, 10:40])


@pytest.mark.parametrize("shape", [(80, 64), (64, 80), (40, 400), (16, 2000), (2000, 70)])
def test_the_words_never_leave_a_small_image(shape: tuple[int, int]) -> None:
    out = drawn(np.full(shape, 9, np.uint16), 12, WORDS)
    assert out is not None
    assert out.shape == shape
    assert (out == 4095).any()


@pytest.mark.parametrize(("shape", "words"), [((16, 16), WORDS), ((1, 1), "A"), ((200, 200), " ")])
def test_words_that_do_not_fit_are_not_drawn(shape: tuple[int, int], words: str) -> None:
    assert drawn(np.zeros(shape, np.uint16), 12, words) is None


def test_eight_bits_stay_eight_bits() -> None:
    out = drawn(np.zeros((200, 400), np.uint8), 8, WORDS)
    assert out is not None
    assert (out.dtype, out.max()) == (np.uint8, 255)


def test_dashes_and_quotation_marks_of_a_word_processor_are_plain_ones() -> None:
    codes = np.zeros((200, 400), np.uint8)
    fine, plain = drawn(codes, 8, "A \u2013 \u201cB\u201d"), drawn(codes, 8, 'A - "B"')
    assert fine is not None
    assert plain is not None
    assert np.array_equal(fine, plain)


def test_another_machine_draws_the_same_dots() -> None:
    out = drawn(np.zeros((300, 700), np.uint8), 8, WORDS)
    assert out is not None
    # Of Pillow's bitmaps; another font would make every replay of an older report fail.
    assert hashlib.sha256(out.tobytes()).hexdigest()[:16] == "df97f5c4f85685e7"
