"""Which files a command means when it is given files and folders. Opens none of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dicom_node.errors import BadInput

INDEX = "DICOMDIR"
"""The index of a DICOM medium, no image. Source: PS3.10 8.6 (its File ID is fixed)."""


def files_of(paths: Iterable[Path]) -> list[Path]:
    """Every file once, folders at any depth, in an order that does not depend on the disk.

    In folders, hidden files (.DS_Store, ._name) and the index of a medium are left out. Raises BadInput where a path
    does not exist.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            raise BadInput(f"{path}: no such file or folder: check the path")
        for file in _inside(path) if path.is_dir() else [path]:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def _inside(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and _wanted(file.relative_to(folder)))


def _wanted(relative: Path) -> bool:
    return relative.name != INDEX and not any(part.startswith(".") for part in relative.parts)
