"""What is handed to a destination, and whether it still has the bytes it should have. Knows no network."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from dicom_node.errors import EvenrayError, SpoolDamaged
from dicom_node.records import Receipt

PIECE = 1 << 20

Answer = Receipt | EvenrayError
"""A receipt, or an error: a RetryLater is worth another try, a Park is not."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One Part 10 file to send, with the identity that the sender believes it has."""

    sop_class_uid: str
    sop_instance_uid: str
    path: Path
    digest: str | None = None
    """SHA-256 of the data set that it must have; None: not known."""


Sending = Generator[tuple[Parcel, Answer], None, None]
"""What was sent, each with its answer. To be closed by whoever leaves it early: that ends the association in order."""


def damage(parcel: Parcel, offset: int) -> SpoolDamaged | None:
    """What is wrong with the bytes behind the File Meta Information, which end at `offset`. Raises OSError."""
    if parcel.digest is None:
        return None
    digest = hashlib.sha256()
    with parcel.path.open("rb") as file:
        file.seek(offset)
        while piece := file.read(PIECE):
            digest.update(piece)
    if digest.hexdigest() == parcel.digest:
        return None
    return SpoolDamaged(
        f"{parcel.sop_instance_uid}: its file has other bytes than were received or made, so it was not sent: "
        f"{parcel.path}"
    )
