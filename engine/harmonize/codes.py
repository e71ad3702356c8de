"""Turn grey values into codes and back, and apply look-up tables. Knows no method."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from engine.runtime import Place, count_in_strips, in_strips
from engine.types import Image

Floats = NDArray[np.float64]
WHOLE = Place()


def grey_codes(image: Image, place: Place = WHOLE) -> torch.Tensor:
    """(1, H, W) int32 codes 0..levels-1 of an image's values."""
    return in_strips(place, lambda values: (values * (image.levels - 1)).add_(0.5).to(torch.int32), image.values)


def grey_values(codes: torch.Tensor, levels: int) -> torch.Tensor:
    """(1, H, W) float32 in [0, 1], exactly the nearest float32 to k / (levels - 1) for every code k."""
    table = torch.from_numpy(grid(levels).astype(np.float32))
    return apply_lut(codes, table)


def grid(levels: int) -> Floats:
    """(levels,) float64: the grey value of every code. Division is correctly rounded, so it is the same everywhere."""
    return np.arange(levels, dtype=np.float64) / (levels - 1)


def to_lut(greys: Floats, levels: int) -> torch.Tensor:
    """(levels,) int32: the nearest code of each grey value, half up, clipped to what exists."""
    codes = np.floor(greys * (levels - 1) + 0.5)
    return torch.from_numpy(np.clip(codes, 0, levels - 1).astype(np.int32))


def apply_lut(codes: torch.Tensor, lut: torch.Tensor) -> torch.Tensor:
    """(1, H, W) of the table's type: every code looked up. lut: (levels,)."""
    return torch.index_select(lut.to(codes.device), 0, codes.flatten()).view(codes.shape)


def change(codes: torch.Tensor, lut: torch.Tensor, padding: torch.Tensor, place: Place = WHOLE) -> torch.Tensor:
    """(1, H, W) float32 in [0, 1]: every code's new grey value, exactly the nearest float32 to k / (levels - 1).

    codes: (1, H, W) int32; lut: (levels,) int32; padding: (1, H, W) bool. A look-up is exact on every device.
    """
    levels = int(lut.numel())
    curve = grey_values(lut, levels)
    return keep_padding(in_strips(place, lambda part: apply_lut(part, curve), codes), codes, padding, levels)


def keep_padding(values: torch.Tensor, codes: torch.Tensor, padding: torch.Tensor, levels: int) -> torch.Tensor:
    """`values`, (1, H, W) float32 and written into, with the grey of `codes` where `padding` is set.

    Padding is no image: it keeps its code, or the file's Pixel Padding Value would no longer name it.
    """
    if bool(padding.any()):
        values[padding] = grey_values(codes[padding], levels)
    return values


def count_codes(codes: torch.Tensor, inside: torch.Tensor, levels: int, place: Place = WHOLE) -> NDArray[np.int64]:
    """(levels,) int64: how often each code occurs inside. codes: (1, H, W) int32; inside: (1, H, W) bool."""
    counted: NDArray[np.int64] = count_in_strips(
        place, lambda c, chosen: torch.bincount(c[chosen], minlength=levels), codes, inside
    ).numpy()
    return counted
