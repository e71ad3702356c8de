"""Evenray's own reports in an archive: found by what an archive tells of a series, fetched into a folder.

Knows no ledger: it works on machines that have no node.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from dicom_node import marks
from dicom_node.durable import write_durably
from dicom_node.errors import BadInput, DiskFull, EvenrayError, PeerRefused
from dicom_node.marks import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from dicom_node.settings import DicomWeb, QueryRetrieve
from dicom_node.sources import SourcePort, open_source
from dicom_node.sources.getting import received_in, to_files
from dicom_node.sources.query import FoundImage, Keep, Received, Wanted
from dicom_node.status import StoreStatus
from dicom_node.syntaxes import STORABLE

MODALITY = "SR"
Fetched = tuple[FoundImage, Path | EvenrayError]


def find_reports(source: SourcePort, wanted: Wanted, *, beat: Callable[[], None] = lambda: None) -> list[FoundImage]:
    """The structured reports of the matching studies that are ours, or may be.

    A series of another manufacturer is left out; where an archive tells none, and it is no UID of ours, it is in: only
    its contents say more. `wanted.modalities` is taken as SR. Raises PeerUnreachable, PeerBusy, PeerRefused.
    """
    found: list[FoundImage] = []
    for study in source.studies(replace(wanted, modalities=(MODALITY,)), beat=beat):
        for series in source.series(study.study_instance_uid, (MODALITY,), beat=beat):
            maker = series.manufacturer.casefold()
            for image in source.images(series, beat=beat):
                if maker in ("", marks.MANUFACTURER.casefold()) or marks.is_our_uid(image.sop_instance_uid):
                    found.append(image)
    return found


def fetch_reports(
    name: str,
    setting: QueryRetrieve | DicomWeb,
    images: Sequence[FoundImage],
    folder: Path,
    *,
    calling_ae: str,
    port: int | None = None,
    beat: Callable[[], None] = lambda: None,
) -> list[Fetched]:
    """Fetch objects into a folder as `<SOP Instance UID>.dcm`, durably; for each its file, or why there is none.

    With a `port`, a storage SCP listens on it meanwhile under `move_to` (or `calling_ae`), so that an archive without
    C-GET may send there. Raises BadInput where the port is taken.
    """
    keep = _Folder(folder, {one.sop_instance_uid for one in images})
    if isinstance(setting, QueryRetrieve) and port is None and setting.method != "move":
        # Nobody would be there to receive.
        setting = setting.model_copy(update={"method": "get"})
    source = open_source(name, setting, calling_ae=calling_ae)
    title = (isinstance(setting, QueryRetrieve) and setting.move_to) or calling_ae
    answers: dict[str, EvenrayError] = {}
    with _receiving(title, port, keep):
        for _, series in groupby(images, attrgetter("series_instance_uid")):
            for image, answer in source.fetch(list(series), keep, beat=beat):
                if isinstance(answer, EvenrayError):
                    answers[image.sop_instance_uid] = answer
    return [(image, _file(keep, image, answers, port)) for image in images]


def _file(keep: _Folder, image: FoundImage, answers: dict[str, EvenrayError], port: int | None) -> Path | EvenrayError:
    uid = image.sop_instance_uid
    if uid in keep.kept:
        return keep.kept[uid]
    if uid in keep.faults:
        return keep.faults[uid]
    fault = answers.get(uid) or PeerRefused(f"{uid}: said to be sent, but it did not arrive: check `move_to` there")
    remedy = ": give the port under which the archive knows us, for C-MOVE" if port is None else ""
    return type(fault)(f"{fault}{remedy}")


class _Folder:
    """A `Keep` that writes files. What was not asked for is not taken."""

    def __init__(self, folder: Path, wanted: set[str]) -> None:
        self._folder = folder
        self._wanted = wanted
        self.kept: dict[str, Path] = {}
        self.faults: dict[str, EvenrayError] = {}

    def __call__(self, received: Received) -> int:
        uid = received.sop_instance_uid
        if uid not in self._wanted:
            return StoreStatus.NOT_AUTHORIZED
        target = self._folder / f"{uid}.dcm"
        try:
            write_durably(target, received.path.read_bytes())
        except (DiskFull, OSError) as fault:
            self.faults[uid] = fault if isinstance(fault, DiskFull) else DiskFull(f"{target}: {fault.strerror}")
            return StoreStatus.OUT_OF_RESOURCES
        self.kept[uid] = target
        return StoreStatus.SUCCESS


@contextmanager
def _receiving(title: str, port: int | None, keep: Keep) -> Iterator[None]:
    """A storage SCP for as long as something is fetched; none without a port. Raises BadInput where it is taken."""
    if port is None:
        yield
        return
    ae = AE(title)
    ae.require_called_aet = True
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION
    ae.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        ae.add_supported_context(str(context.abstract_syntax), list(STORABLE))

    def store(event: evt.Event) -> int:
        received = received_in(event)
        try:
            return keep(received)
        finally:
            received.path.unlink(missing_ok=True)

    with tempfile.TemporaryDirectory(prefix="evenray-") as folder, to_files(Path(folder)):
        try:
            ae.start_server(("", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
        except OSError as fault:
            raise BadInput(f"port {port}: can't listen there ({fault.strerror}): is the node running on it?") from fault
        try:
            yield
        finally:
            ae.shutdown()
