"""Typed rows of the ledger, as the steps read them. Knows no SQL."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from pydantic import TypeAdapter

from dicom_node.records import Decision, Header, ResultKind
from dicom_node.states import Batch, Delivery, Instance


@cache
def _header() -> TypeAdapter[Header]:
    return TypeAdapter(Header)


@cache
def _decision() -> TypeAdapter[Decision]:
    return TypeAdapter(Decision)


def header_to_json(header: Header) -> str:
    return _header().dump_json(header).decode()


def header_from_json(text: str) -> Header:
    return _header().validate_json(text)


def decision_to_json(decision: Decision) -> str:
    return _decision().dump_json(decision).decode()


def decision_from_json(text: str) -> Decision:
    return _decision().validate_json(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRow:
    """One received instance. `header` and `digest` are there once it is admitted, `decision` once it is decided."""

    id: int
    state: Instance
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae: str
    path: str
    size: int
    received_at: float
    digest: str | None
    header: Header | None
    batch: int | None
    decision: Decision | None
    note: str
    let_in: bool
    """A person decided that it is processed although another object has its UID."""
    attempts: int
    fence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRow:
    """One batch."""

    id: int
    state: Batch
    study_instance_uid: str
    number: int
    first_at: float
    last_at: float
    note: str
    attempts: int
    fence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRow:
    """One object on its way to one destination."""

    id: int
    state: Delivery
    destination: str
    object: int
    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    path: str
    status: int | None
    note: str
    attempts: int
    asked: int
    fence: int
    digest: str | None = None
    """SHA-256 of the data set as it was recorded; None: not known."""


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """One object that is or was on its way: an original that is forwarded, or a result."""

    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    path: str
    digest: str | None
    """SHA-256 of the data set as it was recorded; None: not known."""
