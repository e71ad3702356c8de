"""Read a Store Instances Response, in JSON or XML, from a server that may answer anything. Knows no connection.

Source: PS3.18 annex I (the module), F.2 (DICOM JSON model), PS3.19 A.1 (native DICOM model).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from dicom_node.status import CommitFailure

SOP_CLASS, SOP_INSTANCE = "00081150", "00081155"
WARNING_REASON, FAILURE_REASON = "00081196", "00081197"
FAILED_SOP_SEQUENCE, REFERENCED_SOP_SEQUENCE = "00081198", "00081199"
OTHER_FAILURES_SEQUENCE = "0008119A"
"""Source: PS3.18 table I.2-1, PS3.6."""
MODEL = (FAILED_SOP_SEQUENCE, REFERENCED_SOP_SEQUENCE, OTHER_FAILURES_SEQUENCE)

Item = Mapping[str, list[Any]]
"""A data set: tag as eight hexadecimal digits to its values; of a sequence these are items again."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An instance that the server says it has stored."""

    sop_class_uid: str
    warning: int | None


@dataclass(frozen=True, slots=True)
class StoreAnswer:
    """What a server says about the instances of one request; what it does not name is not known."""

    stored: Mapping[str, Stored] = field(default_factory=dict)
    """By SOP Instance UID. What is also named as failed is not here."""
    failed: Mapping[str, int] = field(default_factory=dict)
    """Failure Reason (0008,1197) by SOP Instance UID."""
    others: tuple[int, ...] = ()
    """Failure Reasons of parts in which the server found no instance."""


def read_store_answer(body: bytes) -> StoreAnswer | None:
    """What the body says; None where it is no Store Instances Response. Raises nothing."""
    raw = body.strip()
    try:
        module = _from_xml(raw) if raw[:1] == b"<" else _from_json(raw)
        if module is None or not any(tag in module for tag in MODEL):
            return None
        # A failure without a reason is a failure all the same.
        failed = {
            uid: _number(item, FAILURE_REASON) or CommitFailure.PROCESSING_FAILURE
            for uid, item in _named(_items(module, FAILED_SOP_SEQUENCE))
        }
        stored = {
            uid: Stored(_text(item, SOP_CLASS), _number(item, WARNING_REASON))
            for uid, item in _named(_items(module, REFERENCED_SOP_SEQUENCE))
            if uid not in failed
        }
        others = tuple(
            _number(item, FAILURE_REASON) or int(CommitFailure.PROCESSING_FAILURE)
            for item in _items(module, OTHER_FAILURES_SEQUENCE)
        )
    except (
        ValueError,
        ArithmeticError,
        TypeError,
        AttributeError,
        LookupError,
        RecursionError,
        ParseError,
        DefusedXmlException,
    ):
        return None
    return StoreAnswer(stored, failed, others)


def _named(items: Iterable[Item]) -> Iterator[tuple[str, Item]]:
    for item in items:
        if uid := _text(item, SOP_INSTANCE):
            yield uid, item


def _items(item: Item, tag: str) -> list[Item]:
    return [one for one in item.get(tag, []) if isinstance(one, dict)]


def _text(item: Item, tag: str) -> str:
    values = item.get(tag, [])
    return values[0].strip(" \0") if values and isinstance(values[0], str) else ""


def _number(item: Item, tag: str) -> int | None:
    """The first value, which JSON gives as a number and XML as text. Raises ValueError where it is none."""
    values = item.get(tag, [])
    return int(values[0]) if values else None


def _from_json(raw: bytes) -> Item | None:
    found = json.loads(raw)
    # A single object; some servers put it into an array as they do with search results.
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    return _json_item(found) if isinstance(found, dict) else None


def _json_item(found: Mapping[str, Any]) -> Item:
    item: dict[str, list[Any]] = {}
    for tag, element in found.items():
        values = element.get("Value") or []
        item[tag.upper()] = [_json_item(one) if isinstance(one, dict) else one for one in values]
    return item


def _from_xml(raw: bytes) -> Item | None:
    root = fromstring(raw, forbid_dtd=True)
    return _xml_item(root) if _local(root) == "NativeDicomModel" else None


def _xml_item(parent: Element) -> Item:
    """A data set. Servers write the model's name space, or none."""
    item: dict[str, list[Any]] = {}
    for element in parent:
        children = list(element)
        if items := [_xml_item(child) for child in children if _local(child) == "Item"]:
            item[element.get("tag", "").upper()] = list(items)
        else:
            values = [(child.text or "").strip() for child in children if _local(child) == "Value"]
            item[element.get("tag", "").upper()] = values
    return item


def _local(element: Element) -> str:
    return element.tag.rpartition("}")[2]
