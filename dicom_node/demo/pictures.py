"""Pictures of what was done, drawn from the objects that the archive received. Decides nothing and sends nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from dicom_node.demo import tables
from dicom_node.demo.findings import Finding
from dicom_node.demo.place import Place
from dicom_node.display import DisplayImage, encode_codes
from dicom_node.errors import Unreadable
from dicom_node.pictures import write_png
from dicom_node.pixels import read_display
from dicom_node.records import Outcome

PANEL_PX = 720
"""Longer side of an image in a picture; the full images lie beside it."""
THUMBNAIL_PX = 360
ACROSS = 8
"""Images side by side in the overview."""
PNG = {"compress_level": 3}
"""A third of the time of the default for a tenth more bytes."""
SIDE: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": 9, "color": "#666666"}
COLOURS = {Outcome.HARMONIZED.value: "#1c7a2e", Outcome.CONFORMING.value: "#1c7a2e", Outcome.REFUSED.value: "#a86400"}
BLUE, ORANGE, GREY = "#1f5fa8", "#c8641e", "#8a8a8a"

Greys = NDArray[np.uint8]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """One image of the overview; `before` None where its pixels can't be read, `after` where nothing was made."""

    finding: Finding
    before: Greys | None
    after: Greys | None


def draw(one: Finding, place: Place) -> tuple[Thumbnail, Path | None]:
    """The image's part of the overview, and its own picture where it was harmonized."""
    before = _pixels(one.original)
    after = _pixels(one.image)
    small = Thumbnail(one, _small(before, THUMBNAIL_PX), _small(after, THUMBNAIL_PX))
    if before is None or after is None:
        return small, None
    stem = place.pictures / one.given.slug
    write_png(stem.with_name(f"{stem.name}-before.png"), before.values, bits=8)
    write_png(stem.with_name(f"{stem.name}-after.png"), after.values, bits=8)
    path = stem.with_name(f"{stem.name}.png")
    _draw_change(one, before, after, path)
    return small, path


def draw_overview(thumbnails: Sequence[Thumbnail], path: Path) -> None:
    """All images: as they came above, as they went below, up to eight side by side."""
    across = min(ACROSS, len(thumbnails))
    blocks = -(-len(thumbnails) // across)
    wide, tall = 2.35 * across + 0.3, 2.95 * 2 * blocks
    # Every cell has one size, so the places are plain sums; letting the library lay out 50 panels takes seconds.
    figure = Figure(figsize=(wide, tall), facecolor="white")
    grid = figure.subplots(2 * blocks, across, squeeze=False)
    figure.subplots_adjust(0.3 / wide, 0.05 / tall, 1 - 0.05 / wide, 1 - 0.4 / tall, wspace=0.05, hspace=0.18)
    for axes in grid.flat:
        axes.set_axis_off()
        axes.set_anchor("N")
    for row in range(2 * blocks):
        side = ("as the modality sent it", "what became of it")[row % 2]
        grid[row, 0].text(-0.06, 0.5, side, rotation=90, transform=grid[row, 0].transAxes, **SIDE)
    for n, one in enumerate(thumbnails):
        row, column = 2 * (n // across), n % across
        _show_before(grid[row, column], one)
        _show_after(grid[row + 1, column], one)
    figure.savefig(path, dpi=110, pil_kwargs=PNG)


def _show_before(axes: Axes, one: Thumbnail) -> None:
    given = one.finding.given
    vendor = one.finding.vendor if one.finding.vendor != given.name else ""
    title = f"{_cut(f'{given.number} {given.title}')}\n{_cut(vendor or one.finding.exam)}"
    _panel(axes, one.before, title, "can't be shown")


def _show_after(axes: Axes, one: Thumbnail) -> None:
    found = one.finding
    numbers = "unchanged"
    if found.before is not None:
        numbers = f"{found.before:.2f}" + (f" -> {found.after:.2f}" if found.after is not None else ", unchanged")
    shown = one.after
    if shown is None and found.outcome == Outcome.CONFORMING:
        shown = one.before
    said = "\n".join(textwrap.wrap(found.reason, 24, max_lines=9, placeholder=" ..."))
    _panel(axes, shown, f"{found.outcome}\n{numbers}", said, COLOURS.get(found.outcome, "#444444"))


def _panel(axes: Axes, shown: Greys | None, title: str, instead: str, colour: str = "black") -> None:
    axes.set_title(title, fontsize=9, color=colour)
    if shown is not None:
        axes.imshow(shown, cmap="gray", vmin=0, vmax=255)
        return
    axes.imshow(np.full((120, 100), 236, np.uint8), cmap="gray", vmin=0, vmax=255)
    axes.text(0.5, 0.5, instead, transform=axes.transAxes, ha="center", va="center", fontsize=7.5, color="#444444")


def _draw_change(one: Finding, before: DisplayImage, after: DisplayImage, path: Path) -> None:
    figure = Figure(figsize=(14, 5.9), layout="constrained", facecolor="white")
    panels = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
    limit = "" if one.threshold is None else f" (conforming up to style distance {one.threshold:.2f})"
    vendor = f"{one.vendor}, " if one.vendor and one.vendor != one.given.name else ""
    figure.suptitle(f"{one.given.number} {one.given.title}: {vendor}{one.exam}{limit}", fontsize=13)
    sides = ((before, "before", one.before), (after, "after", one.after))
    for axes, (image, word, distance) in zip(panels, sides, strict=False):
        said = "" if distance is None else f": style distance {distance:.2f}"
        axes.imshow(_small(image, PANEL_PX), cmap="gray", vmin=0, vmax=255)
        axes.set_title(f"{word}{said}", fontsize=12)
        axes.set_axis_off()
        axes.set_anchor("N")
    _draw_curve(panels[2], one, before, after)
    figure.savefig(path, dpi=100, pil_kwargs=PNG)


def _draw_curve(axes: Axes, one: Finding, before: DisplayImage, after: DisplayImage) -> None:
    """The change of grey: as the report's parameters say, and as measured between the two images in the archive."""
    shown = ~before.padding & (before.values > 0)
    _draw_histograms(axes, before.values[shown], after.values[shown])
    axes.plot((0, 1), (0, 1), color=GREY, linewidth=1, linestyle="--", label="no change")
    reported = _reported_curve(one)
    if reported is not None:
        axes.plot(*reported, color=BLUE, linewidth=2.2, label=f"{one.method}, from the report")
    x, y = _measured_curve(before, after)
    axes.plot(x, y, "o", color=ORANGE, markersize=4, label="measured in the two images")
    axes.set_title(", ".join(tables.anatomy(one.figures)) or "the change of grey", fontsize=12)
    axes.set_anchor("N")
    axes.set_xlabel("grey before (0 black, 1 white)")
    axes.set_ylabel("grey after")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.legend(loc="upper left", fontsize=9, framealpha=0.9)


def _draw_histograms(axes: Axes, before: NDArray[np.float32], after: NDArray[np.float32]) -> None:
    """Faintly, how often each grey occurs: before along the lower edge, after along the right edge."""
    edges = np.linspace(0, 1, 65)
    middles = (edges[:-1] + edges[1:]) / 2
    for values, sideways in ((before, False), (after, True)):
        counts, _ = np.histogram(values, edges)
        height = 0.22 * counts / max(1, np.sort(counts)[-3])
        height = np.minimum(height, 0.24)
        if sideways:
            axes.fill_betweenx(middles, 1 - height, 1, step="mid", color=ORANGE, alpha=0.18, linewidth=0)
        else:
            axes.fill_between(middles, 0, height, step="mid", color=BLUE, alpha=0.18, linewidth=0)


def _reported_curve(one: Finding) -> tuple[Floats, Floats] | None:
    """The curve that the report's coefficients describe. Source: GDCE (arXiv 2504.10080): steps y + a*y*(1 - y)."""
    names = sorted((name for name in one.parameters if name.startswith("alpha_")), key=lambda n: int(n[6:]))
    if not names:
        return None
    x = np.linspace(0, 1, 257)
    y = x
    for name in names:
        y = y + float(one.parameters[name]) * y * (1 - y)
    return x, y


def _measured_curve(before: DisplayImage, after: DisplayImage) -> tuple[Floats, Floats]:
    """Mean grey after of every 32nd part of the greys before, where at least one pixel in ten thousand lies."""
    part = np.minimum((before.values * 32).astype(np.int64), 31).ravel()
    count = np.bincount(part, minlength=32)
    frequent = count > before.values.size / 10_000
    x = np.bincount(part, weights=before.values.ravel(), minlength=32)[frequent] / count[frequent]
    y = np.bincount(part, weights=after.values.ravel(), minlength=32)[frequent] / count[frequent]
    return x, y


def _pixels(path: Path | None) -> DisplayImage | None:
    try:
        return read_display(path) if path else None
    except Unreadable:
        return None


def _small(image: DisplayImage | None, side: int) -> Greys | None:
    if image is None:
        return None
    picture = Image.fromarray(encode_codes(image.values, 8))
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _cut(words: str, length: int = 26) -> str:
    return words if len(words) <= length else words[: length - 3] + "..."
