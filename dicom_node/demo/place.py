"""The demo's folder: what lies where, and that nothing but an earlier demo's files is ever replaced there."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from dicom_node.errors import BadInput

MARKER = ".evenray-demo"
"""Says that a demo made the folder; a running demo holds a lock on it."""


@dataclass(frozen=True, slots=True)
class Place:
    """One demo's folder."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "demo.yaml"

    @property
    def log(self) -> Path:
        return self.root / "node.log"

    @property
    def sent(self) -> Path:
        """What was made or rewritten to be sent."""
        return self.root / "sent"

    @property
    def archive(self) -> Path:
        return self.root / "archive"

    @property
    def pictures(self) -> Path:
        return self.root / "pictures"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def overview(self) -> Path:
        return self.root / "overview.png"

    @property
    def state(self) -> Path:
        """The node's state directory."""
        return self.root / "state"


@contextmanager
def cleared(root: Path) -> Iterator[Place]:
    """The folder without what an earlier demo left, locked while it is used.

    Raises BadInput where the folder holds anything and no demo made it, where another demo uses it, and where it
    can't be written.
    """
    place = Place(root)
    with _opened(root) as marker:
        _lock(marker.fileno(), root)
        _clear(place)
        yield place


def _opened(root: Path) -> TextIO:
    """The marker in a folder that is, or was until now, no one else's."""
    marker = root / MARKER
    try:
        if root.is_dir() and not marker.exists() and any(root.iterdir()):
            raise BadInput(f"{root}: this folder is not empty and no demo made it: name another with --out")
        root.mkdir(parents=True, exist_ok=True)
        return marker.open("w")
    except (FileExistsError, NotADirectoryError) as fault:
        raise BadInput(f"{root}: this is a file, not a folder: name another with --out") from fault
    except PermissionError as fault:
        raise BadInput(f"{root}: can't be written: name another folder with --out") from fault


def _lock(handle: int, root: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as fault:
        raise BadInput(f"{root}: another demo is running here: wait for it, or name another with --out") from fault


def _clear(place: Place) -> None:
    """Remove what a demo writes, by name: what a person has put beside it stays."""
    for old in (
        place.state,
        place.sent,
        place.archive,
        place.pictures,
        place.reports,
        place.config,
        place.log,
        place.overview,
    ):
        # A link is removed, never what it points to.
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    for new in (place.sent, place.pictures, place.reports):
        new.mkdir(exist_ok=True)
