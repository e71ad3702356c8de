"""Say where the engine computes and with what. Knows no image."""

from __future__ import annotations

from engine.runtime.devices import device_faults, resolve_device
from engine.runtime.ladder import Place, count_in_strips, first_that_holds, in_strips, places
from engine.runtime.manifest import weights_digest

__all__ = [
    "Place",
    "count_in_strips",
    "device_faults",
    "first_that_holds",
    "in_strips",
    "places",
    "resolve_device",
    "weights_digest",
]
