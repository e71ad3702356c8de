"""What is handed to a destination. Knows no file content and no network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dicom_node.errors import EvenrayError
from dicom_node.records import Receipt

Answer = Receipt | EvenrayError
"""A receipt, or an error: a RetryLater is worth another try, a Park is not."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One Part 10 file to send, with the identity that the sender believes it has."""

    sop_class_uid: str
    sop_instance_uid: str
    path: Path
