"""Say what every method is given and gives back. Knows no method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from engine.field import Field
from engine.style import Descriptor, Detail, Distribution, Reference
from engine.types import Image

Parameters = Mapping[str, float | int | str | tuple[float, ...]]


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
    parameters: Parameters


class Harmonizer(Protocol):
    """One method. `version` rises whenever the same input could give other pixels."""

    name: str
    version: int

    def harmonize(self, source: Source, target: Target) -> Proposal: ...


@runtime_checkable
class Curve(Harmonizer, Protocol):
    """A method whose change is one table, which its parameters alone decide.

    `harmonize` makes its table by `table`, from the parameters that it reports: so what an audit makes again from
    them is what was applied. A table is worked out in float64 on the CPU by numpy's additions, subtractions,
    multiplications and divisions, one array operation at a time: IEEE 754 rounds each of them alike on every machine,
    and no compiler can join two of them into one. Sums, logarithms and powers have no place in it.
    """

    def table(self, parameters: Parameters, levels: int) -> torch.Tensor:
        """(levels,) int32 on the CPU. Raises ValueError where `parameters` are not those of the method."""


def numbers(parameters: Parameters, names: Sequence[str]) -> list[float]:
    """The parameters of these names, in this order. Raises ValueError unless they are all, and finite numbers."""
    if set(parameters) != set(names):
        raise ValueError(f"expected the parameters {', '.join(names)}, not {', '.join(parameters) or 'none'}")
    found = [parameters[name] for name in names]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in found):
        raise ValueError(f"the parameters {', '.join(names)} must be finite numbers")
    return [float(value) for value in found if isinstance(value, int | float)]
