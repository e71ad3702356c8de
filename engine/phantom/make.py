"""Own the order of the steps from a seed and a vendor to a radiograph with its truth. Knows no DICOM and no file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from engine.phantom.anatomy import Anatomy, View
from engine.phantom.beam import counted, exposed, line_integral, primary, with_scatter
from engine.phantom.canvas import Floats, Grid
from engine.phantom.display import stored
from engine.phantom.tissue import draw_paths
from engine.phantom.vendors import VENDORS, Vendor

FIELD_MM = (392.0, 328.0)
"""Height and width that every picture shows at least, so that one seed gives one framing under all vendors."""
FINEST_CM = 0.035
"""The anatomy is drawn no finer than this and interpolated beyond: its smallest structures are wider."""
SMALLEST_SIDE = 64
LARGEST_SIDE = 4096

_NOISE_STREAM = 4


@dataclass(frozen=True, slots=True, eq=False)
class Phantom:
    """One radiograph of nobody.

    codes: (H, W) uint16 stored values below 2**bits; where `inverted`, the lowest code is the brightest.
    lungs, heart: (H, W) bool, the silhouettes, the same for every vendor at the same size.
    """

    codes: NDArray[np.uint16]
    bits: int
    inverted: bool
    spacing_mm: float
    view: View
    vendor: str
    seed: int
    lungs: NDArray[np.bool_]
    heart: NDArray[np.bool_]
    anatomy: Anatomy

    @property
    def shown(self) -> Floats:
        """(H, W) float32 in [0, 1], display sense: what a viewer would show, 0 black."""
        share = self.codes.astype(np.float32) / np.float32((1 << self.bits) - 1)
        return 1.0 - share if self.inverted else share


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """What does not depend on the vendor. Its arrays are shared by several pictures, so that nobody may write them."""

    anatomy: Anatomy
    grid: Grid
    integral: Floats
    lungs: NDArray[np.bool_]
    heart: NDArray[np.bool_]

    def __post_init__(self) -> None:
        for array in (self.integral, self.lungs, self.heart):
            array.flags.writeable = False


def make_phantom(
    seed: int, vendor: str, size: int | tuple[int, int] | None = None, *, dose_ugy: float | None = None
) -> Phantom:
    """The radiograph of the anatomy of `seed` as `vendor` would show it.

    size: (height, width), or one side of a square, or None for the vendor's own matrix; the field of view stays, so the
    spacing follows. dose_ugy: air kerma behind the lung in place of the vendor's own. Raises ValueError on an unknown
    vendor, a negative seed, a side outside 64 to 4096 or a dose that is not positive.
    """
    row = _vendor(vendor, seed, dose_ugy)
    height, width = _sides(size, row)
    scene = _scene(seed, height, width)
    grid, detector = scene.grid, row.detector
    spacing_mm = 10.0 * grid.step
    blades = exposed(grid, scene.anatomy)
    direct = primary(grid, scene.anatomy, scene.integral) * blades
    rng = np.random.default_rng([_NOISE_STREAM, seed, *vendor.encode()])
    signal = counted(with_scatter(grid, direct, scene.integral, detector), spacing_mm, detector, rng)
    codes = stored(signal, blades > 0.5, spacing_mm, row)
    view = scene.anatomy.view
    spacing = row.spacing_mm if size is None else spacing_mm
    return Phantom(codes, row.bits, row.inverted, spacing, view, vendor, seed, scene.lungs, scene.heart, scene.anatomy)


def _vendor(name: str, seed: int, dose_ugy: float | None) -> Vendor:
    if name not in VENDORS:
        raise ValueError(f"{name}: no such vendor, there are {', '.join(VENDORS)}")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, not {seed}")
    row = VENDORS[name]
    if dose_ugy is None:
        return row
    if not dose_ugy > 0:
        raise ValueError(f"dose_ugy must be positive, not {dose_ugy}")
    return replace(row, detector=replace(row.detector, dose_ugy=dose_ugy))


def _sides(size: int | tuple[int, int] | None, vendor: Vendor) -> tuple[int, int]:
    sides = vendor.matrix if size is None else (size, size) if isinstance(size, int) else size
    if not SMALLEST_SIDE <= min(sides) <= max(sides) <= LARGEST_SIDE:
        raise ValueError(f"size {sides}: each side must be {SMALLEST_SIDE} to {LARGEST_SIDE}")
    return sides


@lru_cache(maxsize=2)
def _scene(seed: int, height: int, width: int) -> _Scene:
    """Draw the anatomy once for all vendors at one size. The cache holds two, since a scene may take 50 MB."""
    anatomy = Anatomy.drawn(seed)
    tall, wide = FIELD_MM[0] / 10.0, FIELD_MM[1] / 10.0
    step = max(tall / height, wide / width)
    grid = Grid.over(height, width, step, tall / 2)
    drawn_step = max(step, FINEST_CM)
    if drawn_step == step:
        paths = draw_paths(grid, anatomy)
        return _Scene(anatomy, grid, line_integral(paths), paths.lungs, paths.heart)
    rows, columns = (int(np.ceil(n * step / drawn_step)) + 2 for n in (height, width))
    coarse = Grid.over(rows, columns, drawn_step, tall / 2)
    paths = draw_paths(coarse, anatomy)
    lungs, heart = (coarse.onto(grid, mask.astype(np.float32)) > 0.5 for mask in (paths.lungs, paths.heart))
    return _Scene(anatomy, grid, coarse.onto(grid, line_integral(paths)), lungs, heart)
