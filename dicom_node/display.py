"""A radiograph as a viewer shows it, and its grey codes. Knows no file format and no DICOM."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class WordTable:
    """What every stored word shows.

    values: (words,) float32 in [0, 1], display sense; padding: (words,) bool. A word is the stored value itself, in
    two's complement where `signed`.
    """

    values: NDArray[np.float32]
    padding: NDArray[np.bool_]
    signed: bool


@dataclass(frozen=True, slots=True)
class DisplayImage:
    """One radiograph in display sense.

    values: (H, W) float32 in [0, 1], 0 is black, each on a grey code k / (levels - 1).
    padding: (H, W) bool, True where the source says that there is no image; `values` are 0 there.
    """

    values: NDArray[np.float32]
    padding: NDArray[np.bool_]
    bits: int
    """Bits that the values were stored in, 8 to 16; a result keeps them."""
    spacing_mm: float | None
    """Side of a pixel, None where it is not stated."""
    notes: tuple[str, ...]
    """How the values came to be: decoder, LUTs, window, inversion. Holds nothing of the patient."""
    words: WordTable | None = None
    """The table that `values` were looked up in, None where there was none."""

    @property
    def levels(self) -> int:
        return int(2**self.bits)


def encode_codes(values: NDArray[np.float32], bits: int) -> Codes:
    """Grey codes of values in [0, 1]: uint8 for 8 bits, else uint16. Exact inverse of k / (2**bits - 1).

    Raises ValueError on bits outside 8 to 16 and on values that are not finite or outside [0, 1].
    """
    if not 8 <= bits <= 16:
        raise ValueError(f"bits must be 8 to 16, not {bits}")
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"values must be finite and in [0, 1], found {low} to {high}")
    # float32 holds k / 65535 to 2**-25 at worst, far less than half a code, so rounding gives k back.
    codes: NDArray[np.float32] = np.rint(values * np.float32(2**bits - 1))
    return codes.astype(np.uint8) if bits == 8 else codes.astype(np.uint16)


def pixels_digest(codes: Codes) -> str:
    """SHA-256 (hex) of shape and words, little endian whatever the machine."""
    digest = hashlib.sha256(f"{codes.shape[0]}x{codes.shape[1]}x{8 * codes.dtype.itemsize}:".encode())
    digest.update(codes.astype(codes.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()
