"""Find the exposed field: the pixels whose grey values say something about style. Knows no bank and no method.

Outside are padding, collimated borders, air, and burned-in text and markers. Everything is judged on the working
image and relative to its own grey range, so a tone curve hardly moves the mask."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import theilslopes

from engine.working import Working

Mask = NDArray[np.bool_]
Greys = NDArray[np.float32]

SMALLEST_SHARE = 0.02
"""A field under this share of the image is a failed search, not a radiograph."""
FLAT_RANGE = 0.02
"""Share of the grey range that a 5x5 neighbourhood may span and still count as flat; lung and bone span more."""
DARK_SHARE = 0.30
"""Share of the grey range, from its dark end, in which a flat border region is air or a dark collimator."""
RIM = 8
"""Working pixels within which a region counts as touching the border; published images often carry a thin frame."""
EXTREME_SHARE = 0.03
"""Share of the grey range, from either end, in which a flat region may be a redaction box."""
BOX_STEP = 0.15
"""Share of the grey range by which a box's edge steps; a saturated abdomen fades instead."""
SHUTTER_LEVEL = 0.85
"""Share of the grey range above which a flat strip along a side may be a white shutter."""
SHUTTER_SPAN = 0.6
"""Share of a side that a white shutter covers at least."""
SHUTTER_DEPTH = 0.45
"""Share of the image that it covers at most."""
SHUTTER_STEP = 0.05
"""Share of the grey range that its edge steps down within 8 working pixels; a smooth abdomen has no such step."""
STRAIGHT = 2.0
"""Working pixels that a shutter's edge may leave its straight line by, in the median; a diaphragm leaves it by more."""
SMALLEST_REGION = 0.003
"""Share of the image that a flat region needs to be a border."""
MARKER_CONTRAST = 0.35
"""Share of the grey range by which text, markers and metal stand above their surroundings."""
MARKER_SIDE = 9
"""Working pixels: wider than a stroke of burned-in text, narrower than a clavicle."""
LARGEST_MARKER = 0.01
"""Share of the image above which a bright region is anatomy or an implant worth measuring."""
ISLAND_SHARE = 0.2
"""Share of the largest region that a second one needs to count (two hands do, a label in the air does not)."""


class FieldSource(StrEnum):
    """How the mask came about."""

    MEASURED = "measured"
    NON_PADDING = "non_padding"
    EVERYTHING = "everything"


@dataclass(frozen=True, slots=True)
class Field:
    """The exposed field of one image; never empty.

    working: (h, w) bool at working size. share: part of the image's area, in (0, 1]. `source` says whether it was
    measured, or fell back to all pixels that are no padding, or (padding everywhere) to every pixel.
    """

    working: Mask
    share: float
    source: FieldSource

    def full(self, height: int, width: int, device: torch.device) -> torch.Tensor:
        """(1, H, W) bool on `device`: the mask at the image's own size, the same on every device."""
        small = torch.from_numpy(self.working.astype(np.uint8))[None, None]
        return F.interpolate(small, size=(height, width), mode="nearest-exact")[0].bool().to(device)


def find_field(working: Working) -> Field:
    """Find the exposed field of a working image."""
    covered = working.covered
    if not covered.any():
        return _field(np.ones_like(covered), FieldSource.EVERYTHING)
    low, high = (float(x) for x in np.quantile(working.grey[covered], (0.005, 0.995)))
    if high <= low:
        return _field(covered, FieldSource.NON_PADDING)
    grey = np.where(covered, (working.grey - low) / (high - low), 0.0).astype(np.float32)
    body = _largest_regions(covered & ~_borders(grey, covered))
    measured = body & ~_markers(grey, covered)
    if measured.mean() < SMALLEST_SHARE:
        return _field(covered, FieldSource.NON_PADDING)
    return _field(measured, FieldSource.MEASURED)


def _field(mask: Mask, source: FieldSource) -> Field:
    return Field(mask, float(mask.mean()), source)


def _borders(grey: Greys, covered: Mask) -> Mask:
    """Flat regions that are air, collimator, shutter or redaction box; grey is scaled to the image's own range."""
    smooth = ndimage.gaussian_filter(grey, 1.0)
    flat = (ndimage.maximum_filter(smooth, 5) - ndimage.minimum_filter(smooth, 5) < FLAT_RANGE) & covered
    found = _shutters(grey, flat & (grey >= SHUTTER_LEVEL))
    labels, count = ndimage.label(flat)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    levels = np.bincount(labels.ravel(), grey.ravel(), minlength=count + 1) / np.maximum(areas, 1)
    rim = ndimage.binary_dilation(~covered, iterations=3)
    rim[:RIM], rim[-RIM:], rim[:, :RIM], rim[:, -RIM:] = True, True, True, True
    touching = set(np.unique(labels[rim]).tolist())
    for label in np.flatnonzero(areas >= SMALLEST_REGION * grey.size):
        level = float(levels[label])
        extreme = min(level, 1 - level) <= EXTREME_SHARE
        if label == 0 or not (extreme or level <= DARK_SHARE):
            continue
        region: Mask = labels == label
        air = level <= DARK_SHARE and int(label) in touching
        if air or (extreme and _edge_step(grey, covered, region, level) >= BOX_STEP):
            found |= region
    # The flatness test looks 2 pixels around and the smoothing 1 more, so each region ends 3 pixels too early.
    return ndimage.binary_dilation(found, structure=np.ones((3, 3), np.bool_), iterations=3) & covered


def _shutters(grey: Greys, bright: Mask) -> Mask:
    """White strips along a side with a straight inner edge, also a slightly turned one. bright: flat and bright."""
    found = np.zeros_like(bright)
    for turns in range(4):
        # Turned so that the side in question is on top; `there` writes through to `found`.
        here, there = np.rot90(bright, turns), np.rot90(found, turns)
        run = np.logical_and.accumulate(here[RIM:], axis=0).sum(axis=0)
        columns = np.flatnonzero(run)
        if columns.size < SHUTTER_SPAN * here.shape[1]:
            continue
        # Theil and Sen's line: a neck or a jacket of bright anatomy at the edge moves a least-squares line.
        gradient, offset, *_ = theilslopes(run[columns], columns)
        off = float(np.median(np.abs(run[columns] - gradient * columns - offset)))
        edge = gradient * np.arange(here.shape[1]) + offset + RIM
        shallow = run[columns].mean() <= SHUTTER_DEPTH * here.shape[0]
        if off <= STRAIGHT and shallow and _step_at(np.rot90(grey, turns), edge) >= SHUTTER_STEP:
            there |= np.arange(here.shape[0])[:, None] < edge[None, :]
    return found


def _step_at(grey: Greys, edge: NDArray[np.float64]) -> float:
    """Median fall of grey from 2 rows above an edge to 6 rows below it. edge: (w,) rows."""
    columns = np.arange(grey.shape[1])
    above = np.clip(edge - 2, 0, grey.shape[0] - 1).astype(np.int64)
    below = np.clip(edge + 6, 0, grey.shape[0] - 1).astype(np.int64)
    return float(np.median(grey[above, columns] - grey[below, columns]))


def _edge_step(grey: Greys, covered: Mask, region: Mask, level: float) -> float:
    """Median step of grey from a region across its edge, measured 4 to 7 pixels outside its flat part."""
    near = ndimage.binary_dilation(region, iterations=3)
    ring = ndimage.binary_dilation(near, iterations=4) & ~near & covered
    return abs(float(np.median(grey[ring])) - level) if ring.any() else 0.0


def _largest_regions(mask: Mask) -> Mask:
    """Drop islands: labels in the air, slivers along a border."""
    labels, count = ndimage.label(ndimage.binary_opening(mask, iterations=2))
    if count == 0:
        return mask
    areas = np.bincount(labels.ravel())[1:]
    kept = np.flatnonzero(areas >= ISLAND_SHARE * areas.max()) + 1
    return ndimage.binary_dilation(np.isin(labels, kept), iterations=2) & mask


def _markers(grey: Greys, covered: Mask) -> Mask:
    """Small, sharp, bright components: text, lead markers, electrodes. Calcifications too, which only leaves
    them out of the statistics."""
    peaks = grey - ndimage.grey_opening(grey, size=(MARKER_SIDE, MARKER_SIDE)) > MARKER_CONTRAST
    labels, count = ndimage.label(peaks & covered, structure=np.ones((3, 3), np.bool_))
    if count == 0:
        return np.zeros_like(covered)
    areas = np.bincount(labels.ravel())
    small = areas <= LARGEST_MARKER * grey.size
    small[0] = False
    return ndimage.binary_dilation(small[labels], iterations=2)
