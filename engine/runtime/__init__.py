"""Say where the engine computes and with what. Knows no image."""

from __future__ import annotations

from engine.runtime.devices import device_faults, resolve_device
from engine.runtime.manifest import weights_digest

__all__ = ["device_faults", "resolve_device", "weights_digest"]
