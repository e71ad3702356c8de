"""Grey PNG files in and out, for images that are not DICOM. Knows no DICOM and no demo."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dicom_node.display import Codes, DisplayImage, encode_codes
from dicom_node.errors import BadInput

# Source: Pillow's modes of a grey PNG; 16 bits open as I;16 (older Pillow: I).
BITS = {"L": 8, "I;16": 16, "I;16B": 16, "I": 16}
SIGNATURE = b"\x89PNG\r\n\x1a\n"
"""Source: PNG (ISO/IEC 15948) 5.2."""


def is_png(path: Path) -> bool:
    """Whether the file begins as a PNG does, whatever its name. OSError is the disk's."""
    with path.open("rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE


def read_png(path: Path) -> DisplayImage:
    """A grey PNG of 8 or 16 bits as it looks: 0 is black, nothing is padding.

    Raises BadInput on a colour picture and on what is no PNG, OSError where the disk fails.
    """
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            mode = picture.mode
            if mode not in BITS:
                raise BadInput(f"{path.name}: a {mode} picture, needed is grey of 8 or 16 bits: save it as greyscale")
            codes = np.asarray(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as exc:
        # Pillow says OSError, without a number, for a damaged picture as well.
        if isinstance(exc, OSError) and exc.errno is not None:
            raise
        raise BadInput(f"{path.name}: no PNG picture, or a damaged one") from exc
    bits = BITS[mode]
    values = (codes.astype(np.float64) / (2**bits - 1)).astype(np.float32)
    return DisplayImage(
        values=values,
        padding=np.zeros(values.shape, np.bool_),
        bits=bits,
        spacing_mm=None,
        notes=(f"grey PNG of {bits} bits",),
    )


def write_png(path: Path, values: NDArray[np.float32], *, bits: int = 16) -> None:
    """Write values in [0, 1] as a grey PNG of 8 or 16 bits. Raises ValueError on other bits or values."""
    if bits not in (8, 16):
        raise ValueError(f"a grey PNG has 8 or 16 bits, not {bits}")
    Image.fromarray(encode_codes(values, bits)).save(path, format="PNG")


def encode_png(codes: Codes) -> bytes:
    """Grey codes as a PNG of 8 or 16 bits, as they are; the same bytes for the same codes."""
    buffer = BytesIO()
    Image.fromarray(codes).save(buffer, format="PNG")
    return buffer.getvalue()
