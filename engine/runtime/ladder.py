"""Say where, and in what pieces, an image is worked on when memory runs out. Knows no image and no method.

Every rung gives the same bits: what runs in strips looks at no neighbour, counts integers or looks codes up, and
whatever adds up real numbers is done on the CPU, over the whole image, on every rung."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch

from engine.errors import DeviceFault
from engine.runtime.devices import device_faults

STRIP_ROWS = 256
"""Rows of a strip: of the widest radiograph under a twentieth of the image, and still large enough to be quick."""

CPU = torch.device("cpu")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image is worked on. rows: of a strip that is on the device at a time; None: the whole image is."""

    device: torch.device = CPU
    rows: int | None = None

    def __str__(self) -> str:
        return f"{self.device}" if self.rows is None else f"{self.device} in strips of {self.rows} rows"

    @property
    def home(self) -> torch.device:
        """Where the image itself lies meanwhile: an image worked on in strips never lies on the device as a whole."""
        return self.device if self.rows is None else CPU


def places(device: torch.device) -> Iterator[Place]:
    """The rungs in order: the device with all of the image, with strips of it, then the same on the CPU."""
    yield Place(device)
    yield Place(device, STRIP_ROWS)
    if device.type != CPU.type:
        yield Place(CPU)
        yield Place(CPU, STRIP_ROWS)


def first_that_holds(device: torch.device, work: Callable[[Place, tuple[str, ...]], _T]) -> _T:
    """The result of `work` on the first rung whose device does not fail; it is told what failed on those before.

    Raises DeviceFault, naming each rung's failure, where none holds.
    """
    failed: list[str] = []
    for place in places(device):
        try:
            with device_faults(place.device):
                return work(place, tuple(failed))
        except DeviceFault as fault:
            failed.append(str(fault) if place.rows is None else f"{place}: {fault}")
        if place.device.type == "cuda":
            _give_back()
    raise DeviceFault("; ".join(failed))


def _give_back() -> None:
    """Hand the driver what torch only keeps for later: another process may be what needs it."""
    # A device that failed for good fails here as well; the CPU does not need it.
    try:
        torch.cuda.empty_cache()
    except RuntimeError:
        return


def in_strips(place: Place, work: Callable[..., torch.Tensor], *images: torch.Tensor) -> torch.Tensor:
    """`work`, which looks at no neighbour, of (1, H, W) tensors; (1, H, W) where the first of them lies."""
    if place.rows is None:
        return work(*images)
    made: torch.Tensor | None = None
    for top in range(0, int(images[0].shape[1]), place.rows):
        strip = work(*(image[:, top : top + place.rows].to(place.device) for image in images))
        if made is None:
            made = torch.empty(images[0].shape, dtype=strip.dtype, device=images[0].device)
        made[:, top : top + place.rows] = strip
    assert made is not None
    return made


def count_in_strips(place: Place, work: Callable[..., torch.Tensor], *images: torch.Tensor) -> torch.Tensor:
    """The sum, on the CPU, of the integer counts that `work` gives for each strip of (1, H, W) tensors.

    Always in strips: to choose pixels by a mask, torch lists their places in 24 bytes each.
    """
    rows = place.rows or STRIP_ROWS
    tops = range(0, int(images[0].shape[1]), rows)
    parts = (work(*(image[:, top : top + rows].to(place.device) for image in images)).cpu() for top in tops)
    total = next(parts)
    for part in parts:
        total += part
    return total
