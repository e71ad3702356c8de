"""C-FIND against a scripted archive: what is asked, what is taken from the answers, and how every fault ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.dimse_primitives import C_FIND

from dicom_node.errors import EvenrayError, PeerBusy, PeerRefused, PeerUnreachable
from dicom_node.sources import finding
from dicom_node.sources.dimse import DimseSource
from dicom_node.sources.query import FoundSeries, wanted
from tests import dicom_files
from tests.query_retrieve import Archive, Matches

UIDS = [f"1.2.3.{n}" for n in range(1, 4)]


def calm() -> None:
    """Nothing ends the waiting."""


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Three studies of a day each, the last one a mammogram."""
    made = []
    for n, uid in enumerate(UIDS, 1):
        ds = dicom_files.dataset(
            "MG" if n == 3 else "CR",
            study=uid,
            series=f"{uid}.9",
            instance=f"{uid}.9.1",
            StudyDate=f"2024010{n}",
            AccessionNumber=f"A{n}",
            PatientID=f"P{n}",
        )
        made.append(dicom_files.write(tmp_path / f"{n}.dcm", ds))
    return made


def source(archive: Archive, **more: Any) -> DimseSource:
    return DimseSource("pacs", archive.setting(**more), calling_ae="EVENRAY")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"studies": (UIDS[0], UIDS[2], "1.9")}, [0, 2]),
        ({"accession": "A2"}, [1]),
        ({"patient": "P3"}, [2]),
        ({"dates": "20240102-"}, [1, 2]),
        ({"dates": "20240101"}, [0]),
        ({"dates": "20240101-20240131", "modalities": ("MG", "DX")}, [2]),
        ({"dates": "20240101-20240131", "modalities": ("CR", "MG")}, [0, 1, 2]),
        ({"accession": "A2", "patient": "P3"}, []),
    ],
)
def test_the_studies_that_match_are_found(files: list[Path], options: dict[str, Any], expected: list[int]) -> None:
    with Archive(files) as archive:
        found = source(archive).studies(wanted(**options), beat=calm)
    assert [one.study_instance_uid for one in found] == [UIDS[n] for n in expected]


def test_no_question_asks_for_a_name(files: list[Path]) -> None:
    with Archive(files) as archive:
        where = source(archive)
        where.studies(wanted(patient="P1"), beat=calm)
        (series,) = where.series(UIDS[0], (), beat=calm)
        where.images(series, beat=calm)
    asked = {element.keyword for _, identifier in archive.asked for element in identifier}
    assert not {key for key in asked if "Name" in key or "Birth" in key or "Sex" in key}


def test_many_uids_are_asked_for_in_several_lists(files: list[Path]) -> None:
    many = tuple(f"1.2.9.{n}" for n in range(1, 120))
    with Archive(files) as archive:
        found = source(archive).studies(wanted(studies=(*many, UIDS[1])), beat=calm)
    assert [one.study_instance_uid for one in found] == [UIDS[1]]
    lists = [identifier.StudyInstanceUID for _, identifier in archive.asked]
    assert [len(one) for one in lists] == [50, 50, 20]


def test_an_archive_that_ignores_the_question_does_not_give_more_than_was_asked_for(files: list[Path]) -> None:
    def forgetful(archive: Archive, event: evt.Event) -> Matches:
        identifier = event.identifier
        for key in ("StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber", "PatientID", "StudyDate"):
            if key in identifier:
                identifier[key].value = ""
        return archive.matches(_Asked(identifier))  # type: ignore[arg-type]

    with Archive(files) as archive:
        archive.find = forgetful
        where = source(archive)
        assert [s.study_instance_uid for s in where.studies(wanted(accession="A2"), beat=calm)] == [UIDS[1]]
        (series,) = where.series(UIDS[1], (), beat=calm)
        assert [i.sop_instance_uid for i in where.images(series, beat=calm)] == [f"{UIDS[1]}.9.1"]


class _Asked:
    """An event with another identifier."""

    def __init__(self, identifier: Dataset) -> None:
        self.identifier = identifier


def test_series_of_other_modalities_are_left_out(files: list[Path]) -> None:
    with Archive(files) as archive:
        where = source(archive)
        assert where.series(UIDS[2], ("CR", "DX"), beat=calm) == []
        (series,) = where.series(UIDS[2], ("MG",), beat=calm)
    assert series == FoundSeries(
        study_instance_uid=UIDS[2], series_instance_uid=f"{UIDS[2]}.9", modality="MG", manufacturer="ACME"
    )


def _status(code: int) -> Callable[[Archive, evt.Event], Matches]:
    def find(_archive: Archive, _event: evt.Event) -> Matches:
        yield code, None

    return find


@pytest.mark.parametrize(
    ("code", "kind"),
    [(0xA700, PeerBusy), (0xA900, PeerRefused), (0xC001, PeerBusy), (0x0124, PeerRefused), (0xFE00, PeerBusy)],
)
def test_a_refused_question_says_its_status_and_is_no_empty_answer(code: int, kind: type[EvenrayError]) -> None:
    with Archive() as archive:
        archive.find = _status(code)
        with pytest.raises(kind, match=f"C-FIND with 0x{code:04X}"):
            source(archive).studies(wanted(patient="P1"), beat=calm)


def _hang(archive: Archive, _event: evt.Event) -> Matches:
    archive.ended.wait(30)
    yield 0x0000, None


def _abort(archive: Archive, event: evt.Event) -> Matches:
    for number, match in enumerate(archive.matches(event)):
        if number:
            event.assoc.abort()
            return
        yield match


def _respond(event: evt.Event, raw: bytes | None, message_id: int) -> None:
    response = C_FIND()
    response.MessageIDBeingRespondedTo = message_id
    response.AffectedSOPClassUID = event.request.AffectedSOPClassUID
    response.Status = 0xFF00 if raw is not None else 0
    response.Identifier = BytesIO(raw) if raw is not None else None
    event.assoc.dimse.send_msg(response, event.context.context_id)


def _garbage(_archive: Archive, event: evt.Event) -> Matches:
    _respond(event, b"\x08\x00\x52\x00CS\xff\xff" + bytes(range(40)), event.message_id)
    yield 0x0000, None


def _nameless(_archive: Archive, _event: evt.Event) -> Matches:
    found = Dataset()
    found.QueryRetrieveLevel = "STUDY"
    found.StudyDate = "20240101"
    yield 0xFF00, found
    yield 0x0000, None


def _anothers(_archive: Archive, event: evt.Event) -> Matches:
    _respond(event, None, event.message_id + 7)
    yield 0x0000, None


@pytest.mark.parametrize(
    ("find", "kind", "words"),
    [
        (_hang, PeerUnreachable, "no response to C-FIND"),
        (_abort, PeerUnreachable, "no response to C-FIND"),
        (_garbage, PeerRefused, "StudyInstanceUID|can't be read"),
        (_nameless, PeerRefused, "without StudyInstanceUID"),
        (_anothers, PeerUnreachable, "another request"),
    ],
)
def test_an_archive_that_misbehaves_is_told_from_one_that_has_nothing(
    files: list[Path], find: Callable[[Archive, evt.Event], Matches], kind: type[EvenrayError], words: str
) -> None:
    with Archive(files) as archive:
        archive.find = find
        began = time.monotonic()
        with pytest.raises(kind, match=words):
            source(archive).studies(wanted(dates="20240101-"), beat=calm)
        assert time.monotonic() - began < 15


def test_an_archive_that_is_not_there_is_said_so() -> None:
    with Archive() as archive:
        where = source(archive)
    with pytest.raises(PeerUnreachable):
        where.studies(wanted(patient="P1"), beat=calm)


def _endless(archive: Archive, event: evt.Event) -> Matches:
    number = 0
    while not (event.is_cancelled or archive.ended.is_set()):
        number += 1
        found = Dataset()
        found.QueryRetrieveLevel = "STUDY"
        found.StudyInstanceUID = f"1.2.3.{number}"
        yield 0xFF00, found
    yield 0xFE00, None


def test_matches_without_end_are_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "MOST", 20)
    with Archive() as archive:
        archive.find = _endless
        with pytest.raises(PeerRefused, match="more than 20 matches"):
            source(archive).studies(wanted(dates="20240101-"), beat=calm)
    assert archive.cancelled == 1


class Enough(Exception):
    """A person's wish."""


def test_who_stops_waiting_cancels_the_question_in_order() -> None:
    heard: list[str] = []

    def slow(archive: Archive, event: evt.Event) -> Iterator[Any]:
        # Asked once, the library forgets it.
        while not (cancelled := event.is_cancelled) and not archive.ended.wait(0.05):
            pass
        heard.append("cancel" if cancelled else "end")
        yield 0xFE00, None

    def stop() -> None:
        if archive.asked:
            raise Enough

    with Archive() as archive:
        archive.find = slow
        with pytest.raises(Enough):
            source(archive, dimse_timeout_s=20).studies(wanted(patient="P1"), beat=stop)
    assert heard == ["cancel"]
