"""A DICOMweb server as a source: searched by QIDO-RS, fetched by WADO-RS. Source: PS3.18 10.4, 10.6.

Knows no node and no file but those that it hands on. Searches are made by the DICOMweb client library.
"""

from __future__ import annotations

import re
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import requests
from dicomweb_client.web import DICOMwebClient
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from dicom_node.dicomweb import AnswerTooLarge, Web, retrieve
from dicom_node.errors import Blame, EvenrayError, PeerBusy, PeerRefused, PeerUnreachable
from dicom_node.records import Receipt
from dicom_node.settings import DicomWeb
from dicom_node.sources.query import FoundImage, FoundSeries, FoundStudy, Keep, Received, Wanted
from dicom_node.status import Next, after_store

PAGE = 200
"""Results asked for at once."""
MOST_PAGES = 10000
"""A server that gives ever new results, without end, is none."""
UID_CHARACTERS = re.compile(r"[0-9.]{1,64}")
"""What may stand in an address: a value from outside must not lead to another one."""

STUDY, SERIES, INSTANCE, SOP_CLASS = "0020000D", "0020000E", "00080018", "00080016"
DATE, ACCESSION, PATIENT = "00080020", "00080050", "00100020"
MODALITIES, STUDY_COUNT, SERIES_COUNT = "00080061", "00201208", "00201209"
MODALITY, MANUFACTURER, DESCRIPTION = "00080060", "00080070", "0008103E"
STUDY_FIELDS = (DATE, ACCESSION, PATIENT, MODALITIES, STUDY_COUNT)
SERIES_FIELDS = (MODALITY, MANUFACTURER, DESCRIPTION, SERIES_COUNT)
"""Asked for by name: servers need not tell all of them of themselves. Source: PS3.18 tables 10.6.3-3, 10.6.3-4."""

Found = Mapping[str, Any]
Search = Callable[..., list[dict[str, Any]]]
Answer = Receipt | EvenrayError


class DicomWebSource:
    """A DICOMweb origin server that is searched and fetched from."""

    def __init__(self, name: str, source: DicomWeb) -> None:
        self.name = name
        self._source = source

    def studies(self, wanted: Wanted, *, beat: Callable[[], None]) -> list[FoundStudy]:
        """The studies that match, each once, sorted by date and UID.

        Raises PeerUnreachable, PeerBusy or PeerRefused.
        """
        found: dict[str, FoundStudy] = {}
        with Web(self._source, beat=beat) as web:
            search = _client(web).search_for_studies
            for question in _questions(wanted):
                for result in _pages(web, search, question, STUDY_FIELDS, STUDY):
                    study = _study(result)
                    if study and wanted.admits(study):
                        found.setdefault(study.study_instance_uid, study)
        return sorted(found.values(), key=lambda study: (study.date, study.study_instance_uid))

    def series(self, study: str, modalities: Sequence[str], *, beat: Callable[[], None]) -> list[FoundSeries]:
        """The series of a study that have one of the modalities; no modalities: all."""
        with Web(self._source, beat=beat) as web:
            search = partial(_client(web).search_for_series, _safe(study, web))
            found = [_series(study, result) for result in _pages(web, search, {}, SERIES_FIELDS, SERIES)]
        return [one for one in found if one and (not modalities or one.modality in modalities)]

    def images(self, series: FoundSeries, *, beat: Callable[[], None]) -> list[FoundImage]:
        """Every instance of a series, each once."""
        study, uid = series.study_instance_uid, series.series_instance_uid
        with Web(self._source, beat=beat) as web:
            search = partial(_client(web).search_for_instances, _safe(study, web), _safe(uid, web))
            found = [_image(series, result) for result in _pages(web, search, {}, (SOP_CLASS,), INSTANCE)]
        return [one for one in found if one]

    def fetch(
        self, images: Sequence[FoundImage], keep: Keep, *, beat: Callable[[], None]
    ) -> Iterator[tuple[FoundImage, Answer]]:
        """Fetch one after the other; every image gets exactly one answer.

        A fault of the server, and a connection that breaks twice in a row, answers all that are left.
        """
        left = list(images)
        broken = False
        try:
            with Web(self._source, beat=beat) as web, tempfile.TemporaryDirectory(prefix="evenray-") as room:
                while left:
                    answer = _fetch(web, left[0], Path(room) / "object.dcm", keep)
                    again = isinstance(answer, PeerUnreachable)
                    if again and broken and isinstance(answer, EvenrayError):
                        raise answer
                    broken = again
                    yield left.pop(0), answer
        except (PeerUnreachable, PeerBusy, PeerRefused) as fault:
            yield from ((image, fault) for image in left)


def _client(web: Web) -> DICOMwebClient:
    client = DICOMwebClient(web.url, session=web.session)
    # When to come back is for the caller, who knows of pauses and of stopping.
    client.set_http_retry_params(retry=False)
    return client


def _questions(wanted: Wanted) -> Iterator[dict[str, str]]:
    """One for each study and modality: what a list means differs between servers."""
    common: dict[str, str] = {}
    if wanted.accession:
        common["AccessionNumber"] = wanted.accession
    if wanted.patient:
        common["PatientID"] = wanted.patient
    if wanted.first or wanted.last:
        ends = (f"{day:%Y%m%d}" if day else "" for day in (wanted.first, wanted.last))
        common["StudyDate"] = "-".join(ends)
    for study in wanted.studies or ("",):
        for modality in wanted.modalities or ("",):
            more = {"StudyInstanceUID": study, "ModalitiesInStudy": modality}
            yield {**common, **{key: value for key, value in more.items() if value}}


def _pages(web: Web, search: Search, question: dict[str, str], fields: Sequence[str], identity: str) -> Iterator[Found]:
    """The results, each once, page by page. A server may give fewer at once than are asked for."""
    seen: set[str] = set()
    offset = 0
    for _ in range(MOST_PAGES):
        options: dict[str, Any] = {"limit": PAGE, "offset": offset, "fields": fields, "search_filters": question}
        page = web.call(partial(_ask, web, partial(search, **options)))
        new = {uid: one for one in page if (uid := _text(one, identity)) and uid not in seen}
        # One that knows no offset gives the same page for ever.
        if not new:
            return
        yield from new.values()
        seen.update(new)
        offset += len(page)
    raise PeerRefused(f"{web.peer}: gives results without end: narrow the search")


def _ask(web: Web, search: Callable[[], list[dict[str, Any]]]) -> list[Found]:
    """Blocks. The library's faults are translated: their texts quote the question, which may name a patient."""
    try:
        found = search()
    except AnswerTooLarge as fault:
        raise PeerRefused(f"{web.peer}: the answer to a search is too large: narrow the search") from fault
    except requests.JSONDecodeError as fault:
        raise _unreadable(web) from fault
    except OSError:
        raise
    except (ValueError, TypeError, RecursionError) as fault:
        raise _unreadable(web) from fault
    if not isinstance(found, list):
        raise _unreadable(web)
    return [one for one in found if isinstance(one, dict)]


def _unreadable(web: Web) -> PeerUnreachable:
    return PeerUnreachable(f"{web.peer}: gave an answer to a search that can't be read: check url").about(Blame.PEER)


def _study(result: Found) -> FoundStudy | None:
    uid = _text(result, STUDY)
    if not UID_CHARACTERS.fullmatch(uid):
        return None
    return FoundStudy(
        study_instance_uid=uid,
        date=_text(result, DATE),
        modalities=tuple(_texts(result, MODALITIES)),
        instances=_count(result, STUDY_COUNT),
        accession=_text(result, ACCESSION),
        patient=_text(result, PATIENT),
    )


def _series(study: str, result: Found) -> FoundSeries | None:
    uid = _text(result, SERIES)
    if not UID_CHARACTERS.fullmatch(uid):
        return None
    return FoundSeries(
        study_instance_uid=study,
        series_instance_uid=uid,
        modality=_text(result, MODALITY),
        manufacturer=_text(result, MANUFACTURER),
        description=_text(result, DESCRIPTION),
        instances=_count(result, SERIES_COUNT),
    )


def _image(series: FoundSeries, result: Found) -> FoundImage | None:
    uid = _text(result, INSTANCE)
    if not UID_CHARACTERS.fullmatch(uid):
        return None
    return FoundImage(
        study_instance_uid=series.study_instance_uid,
        series_instance_uid=series.series_instance_uid,
        sop_instance_uid=uid,
        sop_class_uid=_text(result, SOP_CLASS),
        modality=series.modality,
    )


def _texts(result: Found, tag: str) -> list[str]:
    """The values of an element of the DICOM JSON model, whatever a server makes of it. Source: PS3.18 F.2.2."""
    element = result.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    found = values if isinstance(values, list) else []
    return [str(value).strip(" \0") for value in found if isinstance(value, str | int | float)]


def _text(result: Found, tag: str) -> str:
    return next(iter(_texts(result, tag)), "")


def _count(result: Found, tag: str) -> int | None:
    text = _text(result, tag)
    # Longer ones are no counts, and Python takes them for no numbers.
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _safe(uid: str, web: Web) -> str:
    if not UID_CHARACTERS.fullmatch(uid):
        raise PeerRefused(f"{web.peer}: {uid[:64]!r} is no UID and can't be asked for")
    return uid


def _fetch(web: Web, image: FoundImage, target: Path, keep: Keep) -> Answer:
    """Raises what is about the server and so about all that are left."""
    uids = (image.study_instance_uid, image.series_instance_uid, image.sop_instance_uid)
    try:
        study, series, instance = (_safe(uid, web) for uid in uids)
        web.call(lambda: retrieve(web, study, series, instance, target))
        received = web.call(partial(_received, web, image, target))
        status = web.call(lambda: keep(received))
    except EvenrayError as fault:
        if fault.blame is Blame.PEER or not isinstance(fault, PeerUnreachable | PeerBusy | PeerRefused):
            raise
        return fault
    finally:
        target.unlink(missing_ok=True)
    step, words = after_store(status)
    if step is Next.DONE:
        return Receipt(accepted=True, status=status, detail=words)
    sentence = f"{instance}: fetched, but not kept here: 0x{status:04X}, {words}"
    return PeerBusy(sentence) if step is Next.RETRY else PeerRefused(sentence)


def _received(web: Web, image: FoundImage, path: Path) -> Received:
    """What was fetched, once it is sure that it is the object that was asked for. Raises PeerUnreachable."""
    try:
        meta = read_file_meta_info(path)
    except (InvalidDicomError, ValueError, AttributeError, LookupError, NotImplementedError, EOFError, struct.error):
        meta = None
    sop_class, uid, syntax = (
        str(meta.get(keyword, "")) if meta else ""
        for keyword in ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")
    )
    if uid != image.sop_instance_uid or not sop_class or not syntax:
        raise PeerUnreachable(f"{web.peer}: gave something else in the place of {image.sop_instance_uid}")
    return Received(path=path, sop_class_uid=sop_class, sop_instance_uid=uid, transfer_syntax_uid=syntax)
