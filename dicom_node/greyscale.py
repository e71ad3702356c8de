"""DICOM's grey scale chain as a table from every stored value to its display value. Touches no image.

Source: PS3.4 N.2 (order of the steps), PS3.3 C.11.1 (modality LUT), C.11.2 (VOI LUT), C.7.5.1.1.2 (padding).

The table has the same bits on every machine, so that an audit can make it again: float64, the operations in the order
that stands here, one array operation at a time, none but those that IEEE 754 rounds alike everywhere (`arithmetic` has
what else is needed), and no sum over pixels other than of integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node import arithmetic
from dicom_node.tolerant import element, integer, items, number, numbers, text

Real = NDArray[np.float64]
FOR_PROCESSING_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.1.3.1",
}
ROBUST_SHARES = (0.005, 0.995)
"""Darkest and brightest share of a for-processing image that its default window gives up: direct beam, markers."""


def table(
    dataset: Dataset, counts: NDArray[np.intp], *, signed: bool, levels: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_], tuple[str, ...]]:
    """Display value and padding flag of every stored word, and notes on the steps taken.

    counts: how often each word occurs in the image. Values are on k / (levels - 1), padding is 0 (black).
    """
    words = np.arange(len(counts))
    stored = np.where(words >= len(counts) // 2, words - len(counts), words) if signed else words
    padding, notes = _padding(dataset, words, stored)
    valid = (counts > 0) & ~padding
    if not valid.any():
        padding, valid = np.zeros_like(padding), counts > 0
        notes = ["pixel padding ignored: it would cover the whole image"]
    if is_for_processing(dataset):
        display, more = _for_processing(dataset, stored.astype(np.float64), np.where(valid, counts, 0))
    else:
        display, more = _for_presentation(dataset, stored, valid)
    codes = np.rint(np.clip(display, 0.0, 1.0) * (levels - 1))
    codes[padding] = 0
    return (codes / (levels - 1)).astype(np.float32), padding, (*notes, *more)


def is_for_processing(dataset: Dataset) -> bool:
    """Source: PS3.3 C.8.11.1.1.1 (Presentation Intent Type), PS3.4 B.5 (the classes that are for processing)."""
    stated = text(dataset, "PresentationIntentType").upper()
    return stated == "FOR PROCESSING" or (not stated and text(dataset, "SOPClassUID") in FOR_PROCESSING_CLASSES)


def _padding(
    dataset: Dataset, words: NDArray[np.intp], stored: NDArray[np.intp]
) -> tuple[NDArray[np.bool_], list[str]]:
    """Words that stand for no image. Source: PS3.3 C.7.5.1.1.2 (value, or range between value and limit)."""
    value = number(dataset, "PixelPaddingValue")
    if value is None:
        return np.zeros(len(words), np.bool_), []
    limit = number(dataset, "PixelPaddingRangeLimit")
    # Either may be written in the other sign's VR: both are taken as the word that they are.
    ends = [int(stored[int(v) % len(words)]) for v in (value, value if limit is None else limit)]
    low, high = min(ends), max(ends)
    masked = (stored >= low) & (stored <= high)
    return masked, [f"pixel padding {low} to {high} masked" if high > low else f"pixel padding {low} masked"]


def _for_presentation(dataset: Dataset, stored: NDArray[np.intp], valid: NDArray[np.bool_]) -> tuple[Real, list[str]]:
    modality, notes = _modality(dataset, stored)
    display, step = _voi(dataset, modality, valid)
    notes.append(step)
    photometric = text(dataset, "PhotometricInterpretation").upper()
    shape = text(dataset, "PresentationLUTShape").upper()
    if photometric == "MONOCHROME1":
        display = 1.0 - display
        notes.append("MONOCHROME1 inverted")
    # Source: PS3.3 C.8.11.3.1.2: INVERSE is how MONOCHROME1 is said a second time, never a second inversion.
    if shape and (shape == "INVERSE") != (photometric == "MONOCHROME1"):
        notes.append(f"Presentation LUT Shape {shape} contradicts {photometric} and is ignored")
    return display, notes


def _modality(dataset: Dataset, stored: NDArray[np.intp]) -> tuple[Real, list[str]]:
    """Source: PS3.3 C.11.1: the sequence excludes the rescale, and nothing stated means identity."""
    for item in items(dataset, "ModalityLUTSequence")[:1]:
        lut = _lut(item, signed=bool((stored < 0).any()))
        if lut is not None:
            return lut.of(stored.astype(np.float64)), ["modality LUT sequence"]
        return stored.astype(np.float64), ["modality LUT sequence unusable, ignored"]
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    if slope == 0:
        return stored.astype(np.float64), ["rescale slope 0 ignored"]
    if (slope, intercept) == (1.0, 0.0):
        return stored.astype(np.float64), []
    return np.asarray(stored * slope + intercept, np.float64), [f"rescale slope {slope:g} intercept {intercept:g}"]


def _voi(dataset: Dataset, values: Real, valid: NDArray[np.bool_]) -> tuple[Real, str]:
    """The first VOI LUT, else the first window, else the range that the image itself uses."""
    luts = items(dataset, "VOILUTSequence")
    if luts:
        lut = _lut(luts[0], signed=bool((values < 0).any()))
        if lut is not None:
            return lut.of(values) / lut.top, f"VOI LUT 1 of {len(luts)}"
    centers, widths = numbers(dataset, "WindowCenter"), numbers(dataset, "WindowWidth")
    if centers and widths:
        function = text(dataset, "VOILUTFunction").upper() or "LINEAR"
        display = _window(values, centers[0], widths[0], function)
        if display is not None:
            return display, f"window {centers[0]:g}/{widths[0]:g} {function} (1 of {len(centers)})"
    low, high = float(values[valid].min()), float(values[valid].max())
    unusable = " as the stated VOI is unusable" if luts or centers else ""
    return _between(values, low, high), f"no window: full range {low:g} to {high:g} of the image{unusable}"


def _window(values: Real, center: float, width: float, function: str) -> Real | None:
    """Source: PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID), C.11.2.1.3.2 (LINEAR_EXACT). None: invalid."""
    if function == "SIGMOID" and width > 0:
        return np.asarray(1.0 / (1.0 + arithmetic.exp(np.clip(-4.0 * (values - center) / width, -700, 700))))
    if function == "LINEAR_EXACT" and width > 0:
        return np.clip((values - center) / width + 0.5, 0.0, 1.0)
    if function == "LINEAR" and width >= 1:
        if width == 1:
            return np.where(values > center - 0.5, 1.0, 0.0)
        return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0.0, 1.0)
    return None


def _between(values: Real, low: float, high: float) -> Real:
    if high <= low:
        return np.zeros_like(values)
    return np.clip((values - low) / (high - low), 0.0, 1.0)


def _for_processing(dataset: Dataset, stored: Real, counts: NDArray[np.intp]) -> tuple[Real, list[str]]:
    """The documented default for detector values, which no standard says how to show.

    Logarithm unless Pixel Intensity Relationship says that it was taken; inversion where more exposure means a
    higher value (Sign 1), else where MONOCHROME1 says so; then a window over all but the darkest and brightest 0.5%
    of the image. A window in the header is ignored: it belongs to linear values.
    Source: PS3.3 C.8.11.3.1.1 (relationship and sign). Differs: none, there is nothing normative to differ from.
    """
    relation = text(dataset, "PixelIntensityRelationship").upper()
    steps = []
    values = stored
    if relation != "LOG":
        values = arithmetic.log(np.maximum(stored, 1.0))
        steps.append("logarithm")
    sign = integer(dataset, "PixelIntensityRelationshipSign", 0)
    inverse = sign == 1 or (sign == 0 and text(dataset, "PhotometricInterpretation").upper() == "MONOCHROME1")
    low, high = (_quantile(values, counts, share) for share in ROBUST_SHARES)
    display = _between(values, low, high)
    if inverse:
        display = 1.0 - display
        steps.append("inversion")
    steps.append(f"window over {ROBUST_SHARES[0]:.1%} to {ROBUST_SHARES[1]:.1%} of the pixels")
    return display, ["for-processing default: " + ", ".join(steps)]


def _quantile(values: Real, counts: NDArray[np.intp], share: float) -> float:
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(counts[order])
    return float(values[order][np.searchsorted(cumulated, share * cumulated[-1])])


@dataclass(frozen=True, slots=True)
class _Lut:
    """One LUT of C.11.1 or C.11.2: values below and above its domain take its first and last entry."""

    first: int
    top: float
    entries: Real

    def of(self, values: Real) -> Real:
        index = np.clip(np.rint(values - self.first), 0, len(self.entries) - 1).astype(np.intp)
        return self.entries[index]


def _lut(item: Dataset, *, signed: bool) -> _Lut | None:
    """Source: PS3.3 C.11.1.1, C.11.2.1.1. None where descriptor and data don't agree."""
    descriptor = numbers(item, "LUTDescriptor")
    found = element(item, "LUTData")
    if len(descriptor) != 3 or found is None or found.value is None:
        return None
    # The number of entries 65536 doesn't fit in 16 bits and is written as 0; -n is n read in the other sign's VR.
    count, first, bits = (int(v) for v in descriptor)
    count = count % 65536 or 65536
    first = first - 65536 if signed and first > 32767 else first
    data = found.value
    if isinstance(data, bytes):
        # Words of Big Endian come as they are written, where those of other VRs are numbers already.
        if found.VR == "OW" and item.original_encoding[1] is False:
            data = np.frombuffer(data[: len(data) // 2 * 2], ">u2").astype("<u2").tobytes()
        wide = len(data) >= 2 * count
        entries = np.frombuffer(data, "<u2" if wide else np.uint8).astype(np.float64)
    else:
        entries = np.atleast_1d(np.asarray(data, np.float64)) % 65536
    if len(entries) < count or not 1 <= bits <= 16:
        return None
    entries = entries[:count]
    # Some vendors state fewer bits than they use: the entries can't lie.
    return _Lut(first=first, top=max(2.0**bits - 1, float(entries.max())), entries=entries)
