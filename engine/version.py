"""Hold the engine's version, which every trace carries. Knows nothing else."""

from __future__ import annotations

ENGINE_VERSION = "0.1.0"
"""Changes whenever the same pixels, settings and bank could give other pixels or other numbers."""
