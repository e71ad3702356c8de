"""Turn an image into a reference of a bank. Knows no bank and no file."""

from __future__ import annotations

import hashlib

import numpy as np

from engine.align import measure_layout
from engine.field import find_field
from engine.style.bank import Reference, rounded_descriptor, rounded_geometry
from engine.style.descriptor import describe
from engine.types import Image
from engine.working import working_image


def describe_reference(
    image: Image, *, view: str = "", vendor: str = "", source: str = "", uids: tuple[str, ...] = ()
) -> Reference:
    """Measure one preferred image; its pixels are not kept."""
    working = working_image(image)
    field = find_field(working)
    descriptor, _ = describe(working.grey, field.working)
    layout = measure_layout(working.grey, field.working)
    return Reference(
        id=pixel_digest(image),
        descriptor=rounded_descriptor(descriptor),
        geometry=rounded_geometry(layout.geometry),
        view=view,
        vendor=vendor,
        source=source,
        uids=uids,
    )


def pixel_digest(image: Image) -> str:
    """sha256 over size, number of levels, grey codes (little-endian, 16 bit) and padding of an image."""
    values = image.values.cpu().numpy()
    codes = np.rint(values.astype(np.float64) * (image.levels - 1)).astype("<u2")
    digest = hashlib.sha256(f"{image.height}x{image.width}/{image.levels}/".encode())
    digest.update(codes.tobytes())
    digest.update(np.packbits(image.padding.cpu().numpy()).tobytes())
    return digest.hexdigest()
