"""Find the shipped banks. Knows their file names and nothing of what is in them."""

from __future__ import annotations

from pathlib import Path

_SUFFIX = ".bank.json"


def bank_files() -> tuple[Path, ...]:
    """The shipped bank files, by name."""
    return tuple(sorted(Path(__file__).parent.glob(f"*{_SUFFIX}")))
