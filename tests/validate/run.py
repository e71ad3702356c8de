"""Validate every class of object from every image: which validator looks at what, and what comes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset

from dicom_node.errors import Unreadable
from dicom_node.header import read_header
from tests import dicom_files
from tests.validate import validators
from tests.validate.accepted import reason_for
from tests.validate.objects import KINDS, FromImage, Object
from tests.validate.validators import Level, Remark

STUDY = "all of a study"
"""The row of what looks at the objects of one study together."""
AT_ONCE = 2
LOOKS_AT: Mapping[str, tuple[str, ...]] = {
    "dciodvfy": KINDS,
    "dcmpschk": ("presentation_state",),
    "dsrdump": ("structured_report", "key_object_selection"),
    "DicomSRValidator": ("structured_report", "key_object_selection"),
}
BY_SHAPE = ("DicomSRValidator",)
"""Too slow, at ten seconds each, for every report: it sees those that differ in what a template is about."""


@dataclass(frozen=True)
class Job:
    """One run of a validator: on one object, or on all of a study."""

    validator: str
    kind: str
    image: str
    paths: Sequence[Path]


@dataclass(frozen=True)
class Said:
    """What one validator said of the objects of one kind of one image."""

    validator: str
    kind: str
    image: str
    remarks: tuple[Remark, ...]


@dataclass
class Cell:
    """One class of object before one validator."""

    files: int = 0
    alike: int = 0
    """Files that were not looked at, because others like them were."""
    errors: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    images: dict[str, str] = field(default_factory=dict)
    """An image for each error and warning."""


Table = dict[tuple[str, str], Cell]


def validate(made: Iterable[FromImage], *, every_shape: bool) -> Table:
    """Every object before every validator that looks at its class, and each study as a whole.

    every_shape: the slow ones see a report of each shape; else only as many reports as hold every part of one.
    """
    made = list(made)
    table: Table = {(kind, name): Cell() for name, kinds in LOOKS_AT.items() for kind in kinds}
    table[STUDY, "dcentvfy"] = Cell()
    jobs = [Job("dcentvfy", STUDY, one.image, [thing.path for thing in one.objects]) for one in made if one.objects]
    for name, kinds in LOOKS_AT.items():
        for kind in kinds:
            things = [thing for one in made for thing in one.objects if thing.kind == kind]
            chosen = _different(things, every_shape=every_shape) if name in BY_SHAPE else things
            table[kind, name].alike = len(things) - len(chosen)
            jobs += [Job(name, kind, thing.image, [thing.path]) for thing in chosen]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for said in pool.map(_judge, jobs):
            _enter(table[said.kind, said.validator], said)
    return table


def _different(things: Sequence[Object], *, every_shape: bool) -> list[Object]:
    """One object of each shape, or those that hold every part, each time the one with the most parts not yet held."""
    parts = {thing: frozenset(_parts(dicom_files.reread(thing.path))) for thing in things}
    if every_shape:
        return list({shape: thing for thing, shape in parts.items()}.values())
    seen: set[str] = set()
    out: list[Object] = []
    while parts:
        best = max(parts, key=lambda one: len(parts[one] - seen))
        if parts[best] <= seen:
            break
        out.append(best)
        seen |= parts.pop(best)
    return out


def _parts(item: Dataset, above: str = "") -> Iterator[str]:
    """What a template is about: each content item's place, value type, relationship, name and code, but no value."""
    codes = [
        f"{code.get('CodeValue')}/{code.get('CodingSchemeDesignator')}"
        for keyword in ("ConceptNameCodeSequence", "ConceptCodeSequence")
        for code in item.get(keyword, ())
    ]
    place = f"{above} > {item.get('RelationshipType')} {item.get('ValueType')} {codes}"
    yield place
    for child in item.get("ContentSequence", ()):
        yield from _parts(child, place)


def _judge(job: Job) -> Said:
    one = validators.OF_ONE.get(job.validator)
    remarks = one(job.paths[0]) if one else validators.dcentvfy(*job.paths)
    return Said(job.validator, job.kind, job.image, tuple(remarks))


def _enter(cell: Cell, said: Said) -> None:
    cell.files += 1
    for remark in said.remarks:
        reason = reason_for(said.validator, said.image, remark)
        kept = cell.accepted if reason else cell.errors if remark.level is Level.ERROR else cell.warnings
        kept[reason or remark.text] += 1
        if not reason:
            cell.images.setdefault(remark.text, said.image)


def real_images(folder: Path, *, short: bool) -> dict[str, Path]:
    """The DICOM images below a folder by name; short: one for each vendor, class and transfer syntax."""
    out: dict[str, Path] = {}
    kinds: set[tuple[str, str, str]] = set()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            header = read_header(path)
        except Unreadable:
            continue
        kind = (header.manufacturer, header.sop_class_uid, header.transfer_syntax_uid)
        if not short or kind not in kinds:
            kinds.add(kind)
            out[path.relative_to(folder).with_suffix("").as_posix().replace("/", "-")] = path
    return out


def absent(made: Iterable[FromImage]) -> list[str]:
    """Classes of object that no image gave: nothing was validated of them."""
    found = {thing.kind for one in made for thing in one.objects}
    return [kind for kind in KINDS if kind not in found]
