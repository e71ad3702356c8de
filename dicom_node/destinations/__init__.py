"""The destinations behind one protocol: what is sent, what comes back, and which kind a setting asks for.

Knows no ledger, no spool and no state: a caller names files and commits each answer as it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from dicom_node.destinations.parcel import Answer, Parcel, Sending
from dicom_node.records import Receipt
from dicom_node.settings import DicomWeb, Dimse, Folder

__all__ = ["Answer", "DestinationPort", "Parcel", "Sending", "echo", "open_destination"]


class DestinationPort(Protocol):
    """Where parcels go."""

    def send(self, parcels: Sequence[Parcel], *, beat: Callable[[], None]) -> Sending:
        """Send all parcels; each one's answer is yielded as soon as it is known, so that it can be committed first.

        Every parcel gets exactly one answer: a Receipt, or an error whose kind says what to do. `beat` is called
        in the caller's thread at least every few seconds while something is waited for; what it raises ends the
        sending and is passed on. Leaving the iterator early ends the association in order.
        """
        ...


def open_destination(name: str, destination: Dimse | Folder | DicomWeb, *, calling_ae: str) -> DestinationPort:
    """The destination that a setting describes. Opens no connection yet.

    `calling_ae` is our title where the destination does not set its own.
    """
    # Imported where it is needed: a receiver takes commitment reports only, and stays small without the decoders.
    if isinstance(destination, Folder):
        from dicom_node.destinations.folder import FolderDestination

        return FolderDestination(name, destination)
    if isinstance(destination, DicomWeb):
        from dicom_node.destinations.dicomweb import DicomWebDestination

        return DicomWebDestination(name, destination)
    from dicom_node.destinations.dimse import DimseDestination

    return DimseDestination(name, destination, calling_ae=calling_ae)


def echo(destination: Dimse, *, calling_ae: str) -> Receipt:
    """Ask a peer whether it is there (C-ECHO). Raises PeerUnreachable, PeerBusy or PeerRefused."""
    from dicom_node.destinations import dimse

    return dimse.echo(destination, calling_ae=calling_ae)
