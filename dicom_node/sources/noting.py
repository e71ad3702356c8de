"""Note which studies an archive was asked for, for the audit trail. A note names patients; nothing else here does.

Knows no network: it is told when the question was asked, and whether it was answered.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlencode

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.dsutils import encode

from dicom_node.audit_trail import Notes
from dicom_node.errors import EvenrayError
from dicom_node.settings import DicomWeb, QueryRetrieve
from dicom_node.sources.finding import MODEL, study_questions
from dicom_node.sources.query import Wanted


@contextmanager
def noted(notes: Notes, name: str, archive: QueryRetrieve | DicomWeb, wanted: Wanted) -> Iterator[None]:
    """Around the question which studies match: one note for each form that it takes, also where it fails.

    What follows, about series and images, names only studies that the archive has answered with.
    """
    why = ""
    try:
        yield
    except EvenrayError as fault:
        why = str(fault)
        raise
    finally:
        for question in study_questions(wanted) if notes.wanted else ():
            syntax, query = _as_asked(archive, question)
            notes.asked(name, sop_class_uid=MODEL, transfer_syntax_uid=syntax, query=query, why=why)


def _as_asked(archive: QueryRetrieve | DicomWeb, question: Dataset) -> tuple[str, bytes]:
    """A question as an identifier with its transfer syntax, or as the QIDO-RS address that asks the same."""
    if isinstance(archive, QueryRetrieve):
        return str(ExplicitVRLittleEndian), encode(question, False, True) or b""
    asked = {one.keyword: one.value for one in question if one.value and one.keyword != "QueryRetrieveLevel"}
    parameters = {key: value if isinstance(value, str) else ",".join(value) for key, value in asked.items()}
    return "", f"{str(archive.url).rstrip('/')}/studies?{urlencode(parameters)}".encode()
