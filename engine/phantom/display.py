"""Own the display chain: linear signal to stored codes as one vendor would. Knows no anatomy and no exposure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engine.phantom.canvas import Floats, blurred
from engine.phantom.vendors import Display, Vendor

_DARKEST, _BRIGHTEST = 2.0, 97.0
"""Percentiles of the exposed body between which the grey scale is laid, as an exposure recognition does."""


def stored(signal: Floats, field: NDArray[np.bool_], spacing_mm: float, vendor: Vendor) -> NDArray[np.uint16]:
    """Codes of a linear signal. signal: (H, W), 1 is the open beam; field: (H, W) bool, inside the collimation."""
    d = vendor.display
    grey = _recognised(_response(signal, d), signal, field)
    grey = _unsharp(_multiscale(grey, spacing_mm, d), spacing_mm, d)
    shown = d.black + (d.white - d.black) / (1.0 + np.exp((-4.0 / d.width) * (grey - np.float32(d.centre))))
    if d.shutter:
        shown = np.where(field, shown, np.float32(0.0))
    top = (1 << vendor.bits) - 1
    codes = np.rint(np.clip(shown, 0.0, 1.0) * np.float32(top)).astype(np.uint16)
    return np.asarray(top - codes if vendor.inverted else codes, np.uint16)


def _response(signal: Floats, display: Display) -> Floats:
    """Grey that grows with attenuation."""
    if display.response == "log":
        return np.asarray(-np.log(np.maximum(signal, np.float32(1e-4))), np.float32)
    return np.asarray(-np.sqrt(signal), np.float32)


def _recognised(grey: Floats, signal: Floats, field: NDArray[np.bool_]) -> Floats:
    """Scale so that the body spans [0, 1]; a body is what attenuates to under a third of the open beam."""
    body = grey[::4, ::4][field[::4, ::4] & (signal[::4, ::4] < 0.33)]
    low, high = np.percentile(body, (_DARKEST, _BRIGHTEST)) if body.size else (0.0, 1.0)
    return np.asarray((grey - np.float32(low)) / np.float32(max(high - low, 1e-3)), np.float32)


def _halved(image: Floats) -> Floats:
    kernel = np.asarray([1.0, 4.0, 6.0, 4.0, 1.0], np.float32) / 16.0
    tall = ndimage.correlate1d(image, kernel, axis=0, mode="reflect")[::2]
    return np.ascontiguousarray(ndimage.correlate1d(tall, kernel, axis=1, mode="reflect")[:, ::2])


def _doubled(image: Floats, shape: tuple[int, ...]) -> Floats:
    """Twice the size by linear interpolation, the inverse sampling of `_halved`; cut to `shape`."""
    out = image
    for axis in (0, 1):
        last = np.take(out, [-1], axis=axis)
        after = np.concatenate([np.delete(out, 0, axis=axis), last], axis=axis)
        pair = np.stack([out, 0.5 * (out + after)], axis=axis + 1)
        out = pair.reshape(*out.shape[:axis], -1, *out.shape[axis + 1 :])
        out = out[: shape[0]] if axis == 0 else out[:, : shape[1]]
    return np.ascontiguousarray(out)


def _multiscale(grey: Floats, spacing_mm: float, display: Display) -> Floats:
    """Laplacian pyramid: each band gets the gain of its size in mm, what is left the contrast factor."""
    bands, rest, size = [], grey, spacing_mm
    while size < 12.0 and min(rest.shape) >= 16:
        smaller = _halved(rest)
        bands.append((rest - _doubled(smaller, rest.shape), size))
        rest, size = smaller, 2.0 * size
    middle = np.float32(0.5)
    rest = middle + (rest - middle) * np.float32(display.contrast)
    for band, mm in reversed(bands):
        gain = float(np.interp(np.log2(mm), (-1.5, 0.5, 2.5), display.detail))
        rest = _doubled(rest, band.shape) + _lifted(band, gain, display.power)
    return rest


def _lifted(band: Floats, gain: float, power: float) -> Floats:
    """Odd monotone map of a band: its slope falls with the size of a difference when power is under 1."""
    if power == 1.0:
        return band * np.float32(gain)
    reach = np.float32(0.25)
    eased = np.abs(band) / reach + np.float32(0.02)
    return np.asarray(np.sign(band) * (eased**power - 0.02**power) * (reach * gain), np.float32)


def _unsharp(grey: Floats, spacing_mm: float, display: Display) -> Floats:
    if display.unsharp == 0.0:
        return grey
    return grey + np.float32(display.unsharp) * (grey - blurred(grey, display.unsharp_mm / spacing_mm))
