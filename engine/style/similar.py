"""Choose the references whose layout is most like an image's. Knows no grey value and no method."""

from __future__ import annotations

import numpy as np

from engine.align import Geometry
from engine.align.geometry import Floats
from engine.style.bank import Bank, Reference

LEAST_SPREAD = 0.02
"""Two layouts closer than this in any measure are equally similar: 2 % of the long side is placement, not anatomy."""


def similar_references(bank: Bank, geometry: Geometry, count: int) -> tuple[Reference, ...]:
    """The `count` (or all, if fewer) references nearest in placement, extent and field, nearest first.

    Distance: root mean square of the five measures, each over its spread in the bank; ties go by id.
    """
    measured = np.array([_measures(r.geometry) for r in bank.references])
    spread = np.maximum(measured.std(axis=0), LEAST_SPREAD)
    away = np.sqrt((((measured - _measures(geometry)) / spread) ** 2).mean(axis=1))
    order = sorted(range(len(bank.references)), key=lambda i: (round(float(away[i]), 9), bank.references[i].id))
    return tuple(bank.references[i] for i in order[:count])


def _measures(geometry: Geometry) -> Floats:
    return np.array([*geometry.centre, *geometry.spread, geometry.field_share])
