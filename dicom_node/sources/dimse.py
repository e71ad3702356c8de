"""An archive that is asked by C-FIND and gives by C-GET or C-MOVE; which of the two is settled once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dicom_node.errors import PeerBusy, PeerRefused, PeerUnreachable
from dicom_node.settings import QueryRetrieve
from dicom_node.sources import Fetching, finding
from dicom_node.sources.getting import NotOffered, get
from dicom_node.sources.moving import move
from dicom_node.sources.query import FoundImage, FoundSeries, FoundStudy, Keep, Wanted


class DimseSource:
    """A Query/Retrieve SCP in the Study Root. One association for each request."""

    def __init__(self, name: str, archive: QueryRetrieve, *, calling_ae: str) -> None:
        self.name = name
        self._archive = archive
        self._calling_ae = calling_ae
        self._move_to = archive.move_to or calling_ae
        self._gets = archive.method != "move"
        """False once it is known that there is no C-GET."""

    def studies(self, wanted: Wanted, *, beat: Callable[[], None]) -> list[FoundStudy]:
        return finding.studies(self._archive, self._calling_ae, wanted, beat)

    def series(self, study: str, modalities: Sequence[str], *, beat: Callable[[], None]) -> list[FoundSeries]:
        return finding.series(self._archive, self._calling_ae, study, modalities, beat)

    def images(self, series: FoundSeries, *, beat: Callable[[], None]) -> list[FoundImage]:
        return finding.images(self._archive, self._calling_ae, series, beat)

    def fetch(self, images: Sequence[FoundImage], keep: Keep, *, beat: Callable[[], None]) -> Fetching:
        """By C-GET, and where that is not offered (`method: auto`) by C-MOVE."""
        answered = set()
        try:
            for image, answer in self._fetch(images, keep, beat):
                answered.add(image.sop_instance_uid)
                yield image, answer
        except (PeerUnreachable, PeerBusy, PeerRefused) as fault:
            yield from ((image, fault) for image in images if image.sop_instance_uid not in answered)

    def _fetch(self, images: Sequence[FoundImage], keep: Keep, beat: Callable[[], None]) -> Fetching:
        if self._gets:
            try:
                yield from get(self._archive, self._calling_ae, images, keep, beat)
            except NotOffered:
                if self._archive.method == "get":
                    raise
                self._gets = False
            else:
                return
        yield from move(self._archive, self._calling_ae, images, self._move_to, beat)
