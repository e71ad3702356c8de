"""Apply a change again from what was reported of it. Knows no bank, no settings and no device.

A curve is a table, worked out from its parameters by arithmetic that is the same everywhere (`harmonize.Curve`), and
looked up code by code; so original and parameters alone give the same pixels to the last bit, on any machine.
"""

from __future__ import annotations

import torch

from engine.errors import InvalidReplay
from engine.harmonize import HARMONIZERS, Curve, Parameters
from engine.harmonize.codes import change, grey_codes
from engine.types import Image

REPLAY_TOLERANCE = 0.002
"""Root mean square difference in grey, of 1, up to which pixels that another software or device made again count as the
same change: half a code of 256, which no screen shows. Methods that are curves need none."""


def is_curve(method: str) -> bool:
    """Whether the parameters of this method alone say what it does to every pixel."""
    return isinstance(HARMONIZERS.get(method), Curve)


def check_version(method: str, version: int) -> None:
    """Raise InvalidReplay unless the method is known here, in this version."""
    harmonizer = HARMONIZERS.get(method)
    if harmonizer is None:
        raise InvalidReplay(f"no method is called {method!r} here: use the version of Evenray that the report names")
    if harmonizer.version != version:
        here = f"{method} is at version {harmonizer.version} here and was at {version}"
        raise InvalidReplay(f"{here}: use the version of Evenray that the report names")


def replay_curve(image: Image, method: str, version: int, parameters: Parameters) -> torch.Tensor:
    """The pixels that a curve makes of an image: (1, H, W) float32 in [0, 1], on the image's device.

    Raises InvalidReplay where the method is unknown here in this version, is no curve, or has other parameters.
    """
    check_version(method, version)
    harmonizer = HARMONIZERS[method]
    if not isinstance(harmonizer, Curve):
        raise InvalidReplay(f"{method} is no curve: its parameters alone don't say what it does")
    try:
        table = harmonizer.table(parameters, image.levels)
    except ValueError as exc:
        raise InvalidReplay(f"{method}: {exc}") from exc
    return change(grey_codes(image), table, image.padding)
