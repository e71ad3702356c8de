"""The sources behind one protocol: what an archive is asked, what it has, how it is fetched, and which kind a setting
asks for.

Knows no ledger and no node: a caller says where fetched objects go and judges what has arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from dicom_node.errors import EvenrayError
from dicom_node.records import Receipt
from dicom_node.settings import DicomWeb, QueryRetrieve
from dicom_node.sources.query import FoundImage, FoundSeries, FoundStudy, Keep, Received, Wanted

__all__ = [
    "Answer",
    "Fetching",
    "FoundImage",
    "FoundSeries",
    "FoundStudy",
    "Keep",
    "Received",
    "SourcePort",
    "Wanted",
    "open_source",
]

Answer = Receipt | EvenrayError
Fetching = Iterator[tuple[FoundImage, Answer]]


class SourcePort(Protocol):
    """Where images come from.

    Every method raises PeerUnreachable (not there, silent for too long, broke off, answered what can't be read),
    PeerBusy (asks to come back later) or PeerRefused (will not change by itself). `beat` is called at least every few
    seconds while something is waited for; what it raises ends the request in order (C-CANCEL where there is one) and is
    passed on.
    """

    def studies(self, wanted: Wanted, *, beat: Callable[[], None]) -> list[FoundStudy]:
        """The studies that match, each once, sorted by date and UID.

        What an archive answers beside the question (another date, another patient) is left out: see `Wanted.admits`.
        """
        ...

    def series(self, study: str, modalities: Sequence[str], *, beat: Callable[[], None]) -> list[FoundSeries]:
        """The series of a study (its UID) that have one of the modalities; no modalities: all."""
        ...

    def images(self, series: FoundSeries, *, beat: Callable[[], None]) -> list[FoundImage]:
        """Every instance of a series, images or not, each once."""
        ...

    def fetch(self, images: Sequence[FoundImage], keep: Keep, *, beat: Callable[[], None]) -> Fetching:
        """Fetch these images of one series; every one gets exactly one answer, as soon as it is known.

        Each object is handed to `keep` in the transfer syntax in which it came, and its status is told to the archive
        where the protocol has a way; an archive that sends by C-MOVE sends elsewhere, and `keep` is never called. A
        Receipt so says what the source claims: what has arrived, the caller knows. A fault answers the image that it
        is about; one that ends everything answers all that are left. Leaving the iterator early ends the request.
        """
        ...


def open_source(name: str, source: QueryRetrieve | DicomWeb, *, calling_ae: str) -> SourcePort:
    """The source that a setting describes. Opens no connection yet.

    `calling_ae` is our title where the source does not set its own; C-MOVE goes to `move_to`, or else to it.
    """
    # Imported where it is needed: who asks one kind does not load the other's library.
    if isinstance(source, DicomWeb):
        from dicom_node.sources.dicomweb import DicomWebSource

        return DicomWebSource(name, source)
    from dicom_node.sources.dimse import DimseSource

    return DimseSource(name, source, calling_ae=calling_ae)
