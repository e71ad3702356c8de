"""C-FIND in the Study Root: questions at three levels, and the answers as records. Source: PS3.4 C.4.1, C.6.2.1.

Knows no way of fetching. A patient's name is never asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from dicom_node.errors import PeerRefused
from dicom_node.settings import QueryRetrieve
from dicom_node.sources.query import FoundImage, FoundSeries, FoundStudy, Wanted
from dicom_node.sources.statuses import FINDING, Meaning, fault, meaning
from dicom_node.sources.talk import MESSAGE_ID, Talk
from dicom_node.tolerant import integer, text, values

MODEL = str(StudyRootQueryRetrieveInformationModelFind)
SYNTAXES = [str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)]
MOST = 100_000
"""Matches of one question: an archive that answers more has not understood it, or never ends."""
UIDS_AT_ONCE = 50
"""Study Instance UIDs in one question: a list of UIDs matches any of them. Source: PS3.4 C.2.2.2.2."""
_UID = re.compile(r"[0-9.]{1,64}")


def study_questions(wanted: Wanted) -> Iterator[Dataset]:
    """The questions whose answers, taken together, hold every study that is wanted."""
    uids = wanted.studies
    lists: list[Sequence[str]] = [uids[n : n + UIDS_AT_ONCE] for n in range(0, len(uids), UIDS_AT_ONCE)] or [()]
    for some in lists:
        # Modalities in Study takes one value only: a question for each, where nothing else narrows them.
        narrow = wanted.studies or wanted.accession or wanted.patient
        for modality in ("",) if narrow else wanted.modalities or ("",):
            question = Dataset()
            question.QueryRetrieveLevel = "STUDY"
            if not (wanted.accession + wanted.patient).isascii():
                question.SpecificCharacterSet = "ISO_IR 192"
            question.StudyInstanceUID = list(some) or ""
            question.StudyDate = _range(wanted)
            question.AccessionNumber = wanted.accession
            question.PatientID = wanted.patient
            question.ModalitiesInStudy = modality
            question.NumberOfStudyRelatedInstances = ""
            yield question


def studies(archive: QueryRetrieve, calling_ae: str, wanted: Wanted, beat: Callable[[], None]) -> list[FoundStudy]:
    """As `SourcePort.studies`."""
    found: dict[str, FoundStudy] = {}
    for question in study_questions(wanted):
        for match in ask(archive, calling_ae, question, beat):
            study = _study(archive, match)
            if wanted.admits(study):
                found[study.study_instance_uid] = study
    return sorted(found.values(), key=lambda one: (one.date, one.study_instance_uid))


def series(
    archive: QueryRetrieve, calling_ae: str, study: str, modalities: Sequence[str], beat: Callable[[], None]
) -> list[FoundSeries]:
    """As `SourcePort.series`."""
    question = Dataset()
    question.QueryRetrieveLevel = "SERIES"
    question.StudyInstanceUID = study
    for key in ("SeriesInstanceUID", "Modality", "Manufacturer", "SeriesDescription", "NumberOfSeriesRelatedInstances"):
        setattr(question, key, "")
    found: dict[str, FoundSeries] = {}
    for match in ask(archive, calling_ae, question, beat):
        uid = _uid(archive, match, "SeriesInstanceUID")
        one = FoundSeries(
            study_instance_uid=study,
            series_instance_uid=uid,
            modality=text(match, "Modality").upper(),
            manufacturer=text(match, "Manufacturer"),
            description=text(match, "SeriesDescription"),
            instances=_count(match, "NumberOfSeriesRelatedInstances"),
        )
        if _of(match, "StudyInstanceUID", study) and (not modalities or one.modality in modalities):
            found[uid] = one
    return list(found.values())


def images(archive: QueryRetrieve, calling_ae: str, of: FoundSeries, beat: Callable[[], None]) -> list[FoundImage]:
    """As `SourcePort.images`."""
    question = Dataset()
    question.QueryRetrieveLevel = "IMAGE"
    question.StudyInstanceUID = of.study_instance_uid
    question.SeriesInstanceUID = of.series_instance_uid
    for key in ("SOPInstanceUID", "SOPClassUID", "InstanceNumber"):
        setattr(question, key, "" if key != "InstanceNumber" else None)
    found: dict[str, FoundImage] = {}
    for match in ask(archive, calling_ae, question, beat):
        uid = _uid(archive, match, "SOPInstanceUID")
        sop_class = text(match, "SOPClassUID")
        if _of(match, "SeriesInstanceUID", of.series_instance_uid):
            found[uid] = FoundImage(
                study_instance_uid=of.study_instance_uid,
                series_instance_uid=of.series_instance_uid,
                sop_instance_uid=uid,
                sop_class_uid=sop_class if _UID.fullmatch(sop_class) else "",
                modality=of.modality,
            )
    return list(found.values())


def ask(archive: QueryRetrieve, calling_ae: str, question: Dataset, beat: Callable[[], None]) -> list[Dataset]:
    """Every match of one question. Raises PeerUnreachable, PeerBusy, PeerRefused."""
    found: list[Dataset] = []
    contexts = [build_context(MODEL, SYNTAXES)]
    with Talk(archive, calling_ae=calling_ae, contexts=contexts, beat=beat) as talk:
        association = talk.link.association
        send = lambda: association.send_c_find(question, MODEL, MESSAGE_ID)  # noqa: E731
        with closing(talk.responses("C-FIND", MODEL, FINDING, send)) as responses:
            for status, _, match in responses:
                what = meaning(status, FINDING)[0]
                if what is Meaning.DONE:
                    break
                if what is not Meaning.PENDING:
                    raise fault(talk.peer, "C-FIND", status, FINDING)
                if match is None:
                    raise PeerRefused(f"{talk.peer}: answered C-FIND with a match that can't be read")
                if len(found) == MOST:
                    raise PeerRefused(f"{talk.peer}: more than {MOST} matches: narrow the question")
                found.append(match)
    return found


def _study(archive: QueryRetrieve, match: Dataset) -> FoundStudy:
    return FoundStudy(
        study_instance_uid=_uid(archive, match, "StudyInstanceUID"),
        # Some archives write it as it was before 1993: 2024.01.31.
        date=text(match, "StudyDate").replace(".", ""),
        modalities=tuple(sorted(filter(None, (one.upper() for one in values(match, "ModalitiesInStudy"))))),
        instances=_count(match, "NumberOfStudyRelatedInstances"),
        accession=text(match, "AccessionNumber"),
        patient=text(match, "PatientID"),
    )


def _range(wanted: Wanted) -> str:
    """Range matching. Source: PS3.4 C.2.2.2.5."""
    first, last = (day.strftime("%Y%m%d") if day else "" for day in (wanted.first, wanted.last))
    return first if first == last else f"{first}-{last}"


def _uid(archive: QueryRetrieve, match: Dataset, keyword: str) -> str:
    """The unique key of a match. Raises PeerRefused where there is none."""
    uid = text(match, keyword)
    if not _UID.fullmatch(uid):
        raise PeerRefused(f"{archive.ae_title}: answered C-FIND with a match without {keyword}")
    return uid


def _of(match: Dataset, keyword: str, uid: str) -> bool:
    """Whether a match belongs where it was looked for: some archives ignore a key above the level."""
    return text(match, keyword) in ("", uid)


def _count(match: Dataset, keyword: str) -> int | None:
    count = integer(match, keyword, -1)
    return count if count >= 0 else None
