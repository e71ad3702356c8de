"""Make one digest of everything beside the settings that decides pixels: banks and method versions. Knows no file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping


def weights_digest(banks: Mapping[str, str], methods: Iterable[tuple[str, int]]) -> str:
    """sha256 over the digest of every bank in use, by name, and the version of every method."""
    content = {"banks": dict(banks), "methods": sorted(methods)}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
