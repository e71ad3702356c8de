"""What the demo sends: the object, its file and the name that a person knows it by. Knows no network."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Given:
    """One DICOM object that is sent to the node."""

    number: int
    """From 1, in the order of sending."""
    name: str
    """The file's name, or the phantom's vendor."""
    path: Path
    uid: str
    """SOP Instance UID."""

    @property
    def title(self) -> str:
        """The name without what every file's name ends in."""
        return self.name.removesuffix(".dcm")

    @property
    def slug(self) -> str:
        """The start of the names of its pictures: `2-umbra`."""
        return f"{self.number}-{re.sub(r'[^a-z0-9]+', '-', self.title.lower()).strip('-')[:40] or 'image'}"


def made_uid(*words: str) -> str:
    """A UID of the demo's own, the same for the same words. Source: PS3.5 B.2 (2.25 and a UUID), RFC 9562 5.5.

    Version 5, which the node never makes, so that it doesn't take the object for a result of its own.
    """
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '/'.join(('evenray demo', *words))).int}"
