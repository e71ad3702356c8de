"""The destinations behind one protocol: what is sent, what comes back, and which kind a setting asks for.

Knows no ledger, no spool and no state: a caller names files and commits each answer as it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from dicom_node.destinations.dimse import DimseDestination, echo
from dicom_node.destinations.folder import FolderDestination
from dicom_node.destinations.parcel import Answer, Parcel
from dicom_node.settings import Dimse, Folder

__all__ = ["Answer", "DestinationPort", "Parcel", "echo", "open_destination"]


class DestinationPort(Protocol):
    """Where parcels go."""

    def send(self, parcels: Sequence[Parcel], *, beat: Callable[[], None]) -> Iterator[tuple[Parcel, Answer]]:
        """Send all parcels; each one's answer is yielded as soon as it is known, so that it can be committed first.

        Every parcel gets exactly one answer: a Receipt, or an error whose kind says what to do. `beat` is called
        in the caller's thread at least every few seconds while something is waited for; what it raises ends the
        sending and is passed on. Leaving the iterator early ends the association in order.
        """
        ...


def open_destination(name: str, destination: Dimse | Folder, *, calling_ae: str) -> DestinationPort:
    """The destination that a setting describes. Opens no connection yet.

    `calling_ae` is our title where the destination does not set its own.
    """
    if isinstance(destination, Folder):
        return FolderDestination(name, destination)
    return DimseDestination(name, destination, calling_ae=calling_ae)
