"""A display image in the engine's words; shared by the steps that give images to the engine. Knows no file."""

from __future__ import annotations

import torch

import engine
from dicom_node.display import DisplayImage
from dicom_node.errors import Unreadable


def engine_image(image: DisplayImage) -> engine.Image:
    """The same pixels as the engine takes them. Raises Unreadable where it can't (too small)."""
    try:
        return engine.Image(
            values=torch.from_numpy(image.values[None]),
            padding=torch.from_numpy(image.padding[None]),
            levels=image.levels,
            spacing_mm=image.spacing_mm,
        )
    except engine.InvalidImage as fault:
        raise Unreadable(str(fault)) from fault
