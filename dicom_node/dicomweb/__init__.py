"""A DICOMweb server as its client sees it: a session with TLS and credentials, multipart bodies, answers, faults.

Knows no ledger, no destination and no source. Nothing that a server says is logged: it may name a patient.
"""

from __future__ import annotations

from dicom_node.dicomweb.answers import StoreAnswer, read_store_answer
from dicom_node.dicomweb.faults import refusal_of, retry_after_s
from dicom_node.dicomweb.multipart import Body, MultipartInvalid, Part, Parts, boundary_of
from dicom_node.dicomweb.retrieving import retrieve
from dicom_node.dicomweb.session import AnswerTooLarge, Web

__all__ = [
    "AnswerTooLarge",
    "Body",
    "MultipartInvalid",
    "Part",
    "Parts",
    "StoreAnswer",
    "Web",
    "boundary_of",
    "read_store_answer",
    "refusal_of",
    "retrieve",
    "retry_after_s",
]
