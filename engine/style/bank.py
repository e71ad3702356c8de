"""Hold a bank: the preferred references of one exam type, as numbers. Knows no file and no pixels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import pairwise

from engine.align import Frame, Geometry, least_agreement, mean_frame
from engine.errors import InvalidBank
from engine.style.descriptor import Descriptor
from engine.style.distance import conforming_threshold

DECIMALS = 6
"""Every number of a bank is rounded here, so that the file and the memory say the same; far under every floor."""


@dataclass(frozen=True, slots=True)
class Exam:
    """The exam type that a bank speaks for, in DICOM's own code strings; which image it fits is the node's business."""

    modalities: tuple[str, ...]
    body_part: str
    views: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reference:
    """One preferred image without its pixels.

    id: digest of its pixels, so the same image is the same reference wherever it came from. source: a label for
    people; uids: where it is known to DICOM.
    """

    id: str
    descriptor: Descriptor
    geometry: Geometry
    view: str = ""
    vendor: str = ""
    source: str = ""
    uids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bank:
    """A named set of references with what follows from them; make it with `build_bank`.

    references: sorted by id. frame: their mean layout. threshold: style distance up to which an image conforms.
    least_agreement: agreement with the frame under which an image is not of this exam type.
    digest: sha256 over everything else; two banks with one digest decide alike.
    """

    name: str
    exam: Exam
    references: tuple[Reference, ...]
    frame: Frame
    threshold: float
    least_agreement: float
    provenance: str = ""
    digest: str = field(init=False, default="")

    def __post_init__(self) -> None:
        content = asdict(self)
        del content["digest"]
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        object.__setattr__(self, "digest", hashlib.sha256(canonical.encode()).hexdigest())


def build_bank(name: str, exam: Exam, references: Iterable[Reference], provenance: str = "") -> Bank:
    """Build a bank; the order of the references makes no difference.

    Raises InvalidBank where there is no reference, or the same pixels come twice.
    """
    ordered = tuple(sorted(references, key=lambda r: r.id))
    if not name:
        raise InvalidBank("a bank needs a name")
    if not ordered:
        raise InvalidBank(f"bank {name}: a bank needs at least one reference")
    for earlier, later in pairwise(ordered):
        if earlier.id == later.id:
            raise InvalidBank(f"bank {name}: reference {later.id[:12]} stands twice; each image counts once")
    geometries = [r.geometry for r in ordered]
    frame = mean_frame(geometries)
    rounded = Frame(
        _rounded2(frame.centre), _rounded2(frame.spread), _rounded(frame.profile_x), _rounded(frame.profile_y)
    )
    threshold = round(conforming_threshold([r.descriptor for r in ordered]), DECIMALS)
    agreement = round(least_agreement(geometries), DECIMALS)
    return Bank(name, exam, ordered, rounded, threshold, agreement, provenance)


def with_reference(bank: Bank, reference: Reference) -> Bank:
    """The bank with one reference more. Raises InvalidBank where it has these pixels already."""
    return build_bank(bank.name, bank.exam, (*bank.references, reference), bank.provenance)


def without_reference(bank: Bank, reference_id: str) -> Bank:
    """The bank with one reference fewer. Raises InvalidBank where it has no such id, or it is the last."""
    kept = [r for r in bank.references if r.id != reference_id]
    if len(kept) == len(bank.references):
        raise InvalidBank(f"bank {bank.name}: no reference has id {reference_id!r}")
    return build_bank(bank.name, bank.exam, kept, bank.provenance)


def rounded_descriptor(descriptor: Descriptor) -> Descriptor:
    """A descriptor as a bank stores it."""
    return Descriptor(_rounded(descriptor.quantiles), _rounded(descriptor.energies))


def rounded_geometry(geometry: Geometry) -> Geometry:
    """A geometry as a bank stores it."""
    return Geometry(
        centre=_rounded2(geometry.centre),
        spread=_rounded2(geometry.spread),
        field_share=round(geometry.field_share, DECIMALS),
        profile_x=_rounded(geometry.profile_x),
        profile_y=_rounded(geometry.profile_y),
    )


def _rounded(values: Iterable[float]) -> tuple[float, ...]:
    # Adding 0 turns -0.0, which would be another byte in the file, into 0.0.
    return tuple(round(v, DECIMALS) + 0.0 for v in values)


def _rounded2(values: tuple[float, float]) -> tuple[float, float]:
    return round(values[0], DECIMALS) + 0.0, round(values[1], DECIMALS) + 0.0
