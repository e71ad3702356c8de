"""Say what every method is given and gives back. Knows no method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from engine.field import Field
from engine.style import Descriptor, Detail, Distribution, Reference
from engine.types import Image


@dataclass(frozen=True, slots=True)
class Source:
    """One image with everything already measured on it. codes: (1, H, W) int32, its grey codes 0..levels-1.
    inside: (1, H, W) bool, the exposed field at full size."""

    image: Image
    codes: torch.Tensor
    inside: torch.Tensor
    field: Field
    descriptor: Descriptor
    detail: Detail


@dataclass(frozen=True, slots=True)
class Target:
    """What an image should look like. centre: the whole bank, which decides the distance.
    similar: the references most like the image, nearest first, which only guide."""

    centre: Distribution
    similar: tuple[Reference, ...]


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a method suggests: either `lut`, (levels,) int32 on the CPU, where every pixel's change depends on its grey
    code alone, or `codes`, (1, H, W) int32 in 0..levels-1. parameters: everything needed to make the same again."""

    lut: torch.Tensor | None
    codes: torch.Tensor | None
    parameters: Mapping[str, float | int | str | tuple[float, ...]]


class Harmonizer(Protocol):
    """One method. `version` rises whenever the same input could give other pixels."""

    name: str
    version: int

    def harmonize(self, source: Source, target: Target) -> Proposal: ...
